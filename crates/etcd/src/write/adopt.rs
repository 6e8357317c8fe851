//! Keeping the lead under another lease: after a change of the time to live, or after a restart without the old lease.

use crate::Etcd;
use crate::commit::{Read, Seen, Verdict, Write};
use crate::error::Error;
use etcd_client::{Compare, CompareOp, PutOptions, TxnOp};
use types::{LeaseId, Moment, NodeName, Term};

impl Etcd {
    /// Attaches the leader key of this term to this lease, with our name as its value. The term stays. Whether the key of
    /// this term was there.
    ///
    /// Only for a term that is ours: nobody else holds it as long as the key was never deleted.
    pub async fn adopt_leader(
        &self,
        me: &NodeName,
        term: Term,
        lease: LeaseId,
        by: Moment,
    ) -> Result<bool, Error> {
        self.commit(&Adopt { leader: self.keys().leader(), me: me.as_str(), term, lease }, by).await
    }
}

struct Adopt<'a> {
    leader: String,
    me: &'a str,
    term: Term,
    lease: LeaseId,
}

impl Write for Adopt<'_> {
    type Outcome = bool;

    fn what(&self) -> &'static str {
        "attach the lead to this lease"
    }

    fn reads(&self) -> Vec<Read> {
        vec![Read::Key(self.leader.clone())]
    }

    fn transaction(&self, base: i64) -> (Vec<Compare>, Vec<TxnOp>) {
        let same_term = Compare::create_revision(self.leader.as_str(), CompareOp::Equal, self.term.0);
        // One that arrives late must not put the key back on an old lease.
        let unchanged = Compare::mod_revision(self.leader.as_str(), CompareOp::Less, base.saturating_add(1));
        let options = PutOptions::new().with_lease(self.lease.0);
        (vec![same_term, unchanged], vec![TxnOp::put(self.leader.as_str(), self.me, Some(options))])
    }

    fn executed(&self, _revision: i64) -> bool {
        true
    }

    fn judge(&self, seen: &Seen, base: i64, _lost: bool) -> Verdict<bool> {
        match seen.get(&self.leader) {
            Some(kv) if kv.create_revision() != self.term.0 => Verdict::Done(false),
            Some(kv) if kv.value() == self.me.as_bytes() && kv.lease() == self.lease.0 => Verdict::Done(true),
            Some(kv) if kv.mod_revision() <= base => Verdict::Resend,
            Some(_) => Verdict::Rebase,
            None => Verdict::Done(false),
        }
    }
}
