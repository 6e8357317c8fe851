//! Taking the lead and giving it back.

use crate::Etcd;
use crate::commit::{Read, Seen, Verdict, Write};
use crate::error::Error;
use crate::records::Failover;
use crate::snapshot::Snapshot;
use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};
use types::{LeaseId, Moment, NodeName, Term};

/// The revisions of the keys by which it was decided who may lead, 0 where one is absent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Grounds {
    /// Who has what was acknowledged.
    pub sync: i64,
    /// What a person allowed, or took back.
    pub failover: i64,
    /// Whom a leader without etcd asks, where one may lead so.
    pub failsafe: Option<i64>,
}

impl Grounds {
    /// As they are in `snapshot`.
    #[must_use]
    pub fn of(snapshot: &Snapshot, failsafe_mode: bool) -> Grounds {
        Grounds {
            sync: snapshot.sync.as_ref().map_or(0, |sync| sync.mod_revision),
            failover: snapshot.failover_mod.unwrap_or(0),
            failsafe: failsafe_mode.then_some(snapshot.failsafe_mod),
        }
    }
}

impl Etcd {
    /// Takes the lead if nobody has it. `None`: somebody holds it. The term, also when this member holds it already
    /// with this lease.
    ///
    /// The lease's remaining life is that of its last renewal, so the deadline of the new lead is too: renew it with
    /// the term before relying on more.
    pub async fn acquire_leader(
        &self,
        me: &NodeName,
        lease: LeaseId,
        by: Moment,
    ) -> Result<Option<Term>, Error> {
        self.acquire(me, lease, Vec::new(), by).await
    }

    /// The same, but only while nothing has changed of what that was decided by.
    pub async fn acquire_leader_over(
        &self,
        me: &NodeName,
        lease: LeaseId,
        grounds: Grounds,
        by: Moment,
    ) -> Result<Option<Term>, Error> {
        let keys = self.keys();
        let failsafe = grounds.failsafe.map(|revision| (keys.failsafe(), revision));
        let always = [(keys.sync(), grounds.sync), (keys.failover(), grounds.failover)];
        self.acquire(me, lease, always.into_iter().chain(failsafe).collect(), by).await
    }

    async fn acquire(
        &self,
        me: &NodeName,
        lease: LeaseId,
        unchanged: Vec<(String, i64)>,
        by: Moment,
    ) -> Result<Option<Term>, Error> {
        let keys = self.keys();
        let (leader, mark) = (keys.leader(), keys.baton_lead());
        self.commit(&Acquire { leader, mark, unchanged, me: me.as_str(), lease }, by).await
    }

    /// Gives the lead back, if it is ours with this term, and with it the word that this primary is writable. Whether
    /// the lead of this term was there to be given back.
    pub async fn release_leader(&self, me: &NodeName, term: Term, by: Moment) -> Result<bool, Error> {
        self.release(me, term, None, by).await
    }

    /// The same, and in the same step `/failover` names who shall take it, as for a switchover.
    pub async fn release_leader_to(
        &self,
        me: &NodeName,
        term: Term,
        to: &NodeName,
        by: Moment,
    ) -> Result<bool, Error> {
        let wish = Failover { leader: Some(me.clone()), member: Some(to.clone()), ..Failover::default() };
        self.release(me, term, Some((self.keys().failover(), wish.to_json())), by).await
    }

    async fn release(
        &self,
        me: &NodeName,
        term: Term,
        successor: Option<(String, String)>,
        by: Moment,
    ) -> Result<bool, Error> {
        let keys = self.keys();
        let (leader, writable) = (keys.leader(), keys.baton_writable());
        self.commit(&Release { leader, writable, me: me.as_str(), term, successor }, by).await
    }
}

struct Acquire<'a> {
    leader: String,
    /// Every taking changes it. The leader key itself, once deleted, does not tell that it ever was.
    mark: String,
    /// Keys by which it was decided who may lead, and the revision that each must still have.
    unchanged: Vec<(String, i64)>,
    me: &'a str,
    lease: LeaseId,
}

impl Write for Acquire<'_> {
    type Outcome = Option<Term>;

    fn what(&self) -> &'static str {
        "take the lead"
    }

    fn reads(&self) -> Vec<Read> {
        let own = [Read::Key(self.leader.clone()), Read::Key(self.mark.clone())];
        own.into_iter().chain(self.unchanged.iter().map(|(key, _)| Read::Key(key.clone()))).collect()
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let absent = Compare::create_revision(self.leader.as_str(), CompareOp::Equal, 0);
        let unchanged = Compare::mod_revision(self.mark.as_str(), CompareOp::Less, base.saturating_add(1));
        let options = PutOptions::new().with_lease(self.lease.0);
        let puts = vec![
            TxnOp::put(self.leader.as_str(), self.me, Some(options)),
            TxnOp::put(self.mark.as_str(), self.me, None),
        ];
        let others = self.unchanged.iter();
        let others =
            others.map(|(key, revision)| Compare::mod_revision(key.as_str(), CompareOp::Equal, *revision));
        ([absent, unchanged].into_iter().chain(others).collect(), puts)
    }

    fn executed(&self, revision: i64) -> Option<Term> {
        Some(Term(revision))
    }

    fn judge(&self, seen: &Seen, base: i64, _lost: bool) -> Verdict<Option<Term>> {
        let moved = self
            .unchanged
            .iter()
            .any(|(key, expected)| seen.get(key).map_or(0, etcd_client::KeyValue::mod_revision) != *expected);
        match seen.get(&self.leader) {
            None if moved => Verdict::Done(None),
            None if seen.get(&self.mark).is_none_or(|mark| mark.mod_revision() <= base) => Verdict::Resend,
            None => Verdict::Rebase,
            Some(kv) if kv.value() == self.me.as_bytes() && kv.lease() == self.lease.0 => {
                Verdict::Done(Some(Term(kv.create_revision())))
            }
            Some(_) => Verdict::Done(None),
        }
    }
}

struct Release<'a> {
    leader: String,
    writable: String,
    me: &'a str,
    term: Term,
    /// Key and value of the wish that names who shall lead.
    successor: Option<(String, String)>,
}

impl Write for Release<'_> {
    type Outcome = bool;

    fn what(&self) -> &'static str {
        "give the lead back"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::Key(self.leader.clone())]
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let leader = self.leader.as_str();
        let compares = vec![
            Compare::create_revision(leader, CompareOp::Equal, self.term.0),
            // A release that arrives late must not end a lead that was attached to a new lease since.
            Compare::mod_revision(leader, CompareOp::Less, base.saturating_add(1)),
            Compare::value(leader, CompareOp::Equal, self.me),
        ];
        let wish = self.successor.iter();
        let wish = wish.map(|(key, value)| TxnOp::put(key.as_str(), value.as_str(), None));
        let ends = [TxnOp::delete(leader, None), TxnOp::delete(self.writable.as_str(), None)];
        (compares, wish.chain(ends).collect())
    }

    fn executed(&self, _revision: i64) -> bool {
        true
    }

    fn judge(&self, seen: &Seen, base: i64, lost: bool) -> Verdict<bool> {
        match seen.get(&self.leader) {
            Some(kv) if kv.create_revision() == self.term.0 && kv.value() == self.me.as_bytes() => {
                if kv.mod_revision() <= base { Verdict::Resend } else { Verdict::Rebase }
            }
            // After a lost answer the lead of this term has ended, by this call or with the lease.
            Some(_) | None => Verdict::Done(lost),
        }
    }
}
