//! etcd: one linear history of revisions, leases that run out on its own clock, and transactions that compare.
//!
//! ```text
//!   request ──► [down: nothing] ──► apply ──► revision + 1 ──► reply, and the new state to every watch
//!   lease: granted or kept alive ──ttl──► revoked, its keys are gone
//!   new etcd leader: every lease gets its whole ttl again, as the real one does
//! ```

use crate::clock::{SECOND, Time};
use crate::world::NodeNo;
use ha::sync_quorum::Promise;
use ha::{Failover, Initialize, Last, SyncKey, Synchronous, Writable};
use std::collections::{BTreeMap, BTreeSet};
use types::{Lsn, NodeName, SystemId, Term, Timeline};

/// What is stored.
#[derive(Clone, Debug)]
pub struct Keys {
    pub revision: i64,
    pub initialize: Initialize,
    /// The lease on which an unfinished `/initialize` hangs.
    pub initialize_lease: u64,
    pub leader: Option<Leader>,
    pub members: BTreeMap<NodeNo, (ha::Member, u64)>,
    pub optime: Option<Lsn>,
    /// Where the slots of the leader are.
    pub slots: BTreeMap<String, Lsn>,
    /// When that was written.
    pub slots_modified: i64,
    pub failover: Option<Failover>,
    /// The wall clock's time, in milliseconds, that the wish is for; `None`: now.
    pub planned: Option<i64>,
    pub sync: Option<SyncKey>,
    pub synchronous: Synchronous,
    pub writable: Option<Writable>,
    pub last: Option<Last>,
    /// The highest timeline number that a leader has claimed: claimed before each promotion, so no number is used twice.
    pub claimed: Timeline,
    pub history: BTreeMap<Timeline, Lsn>,
    pub paused: bool,
    /// The configuration has a standby_cluster.
    pub follows_remote: bool,
    /// Who must agree when a leader wants to lead on without etcd, and at which revision that was written.
    pub failsafe: Option<BTreeSet<NodeName>>,
    pub failsafe_modified: i64,
}

impl Keys {
    /// The revision of `/sync`; 0 while it is absent.
    #[must_use]
    pub fn sync_revision(&self) -> i64 {
        self.sync.as_ref().map_or(0, |key| key.revision)
    }

    /// The same of `/failover`.
    #[must_use]
    pub fn failover_revision(&self) -> i64 {
        self.failover.as_ref().map_or(0, |wish| wish.revision)
    }
}

/// The leader key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leader {
    pub node: NodeNo,
    pub term: Term,
    pub lease: u64,
    /// The revision of its last change: an adoption makes a release void that was sent before.
    pub modified: i64,
}

/// What is asked of it.
#[derive(Clone, Debug)]
pub enum Request {
    Grant,
    /// Keep the lease alive, then read the leader key.
    Renew {
        lease: u64,
    },
    Read,
    Write(Write),
}

/// A transaction: applied as a whole when its comparison holds.
#[derive(Clone, Debug)]
pub enum Write {
    CreateInitialize {
        lease: u64,
    },
    ConfirmInitialize(SystemId),
    RemoveInitialize,
    /// With the revisions of `/sync`, `/failover` and `/failsafe` that the decision was made on.
    Acquire {
        lease: u64,
        sync: i64,
        failover: i64,
        failsafe: i64,
    },
    Claim {
        term: Term,
        timeline: Timeline,
    },
    Adopt {
        term: Term,
        lease: u64,
    },
    /// `wish`: in the same step, from whom to whom the lead goes.
    Release {
        term: Term,
        modified: i64,
        wish: Option<(NodeName, NodeName)>,
    },
    Announce {
        writable: Writable,
        guarded: bool,
        history: BTreeMap<Timeline, Lsn>,
    },
    Withdraw(Term),
    /// `base`: the revision of that key in the view of the one who writes.
    Failsafe {
        term: Term,
        names: BTreeSet<NodeName>,
        base: i64,
    },
    ClearFailover(i64),
    PutSync {
        leader: NodeName,
        promise: Promise,
        over: i64,
        term: Term,
    },
    DeleteSync {
        over: i64,
        term: Term,
    },
    Member {
        member: ha::Member,
        lease: u64,
        /// Of a leader: where it is, and its slots.
        optime: Option<(Term, Lsn, BTreeMap<String, Lsn>)>,
    },
    Leave {
        lease: u64,
    },
}

/// What it answers.
#[derive(Clone, Debug)]
pub enum Reply {
    Granted(u64),
    /// Whether the lease still lives, and the leader key.
    Renewed {
        alive: bool,
        leader: Option<Leader>,
        revision: i64,
    },
    Read(std::rc::Rc<Keys>),
    /// Whether the comparison held, and the revision.
    Written {
        ok: bool,
        revision: i64,
    },
}

/// The store.
#[derive(Debug)]
pub struct Etcd {
    pub keys: Keys,
    pub up: bool,
    /// By lease: its time to live and when it runs out.
    pub leases: BTreeMap<u64, (Time, Time)>,
    next_lease: u64,
    /// Counts every change of `keys`; the world tells the watches.
    pub changed: bool,
    /// Transactions do not compare the term (a mutation).
    pub blind: bool,
}

impl Etcd {
    /// An empty store.
    #[must_use]
    pub fn new() -> Etcd {
        let keys = Keys {
            revision: 1,
            initialize: Initialize::Absent,
            initialize_lease: 0,
            leader: None,
            members: BTreeMap::new(),
            optime: None,
            slots: BTreeMap::new(),
            slots_modified: 0,
            failover: None,
            planned: None,
            sync: None,
            synchronous: Synchronous::default(),
            writable: None,
            last: None,
            claimed: Timeline(1),
            history: BTreeMap::new(),
            paused: false,
            follows_remote: false,
            failsafe: None,
            failsafe_modified: 0,
        };
        Etcd { keys, up: true, leases: BTreeMap::new(), next_lease: 1, changed: false, blind: false }
    }

    fn bump(&mut self) -> i64 {
        self.keys.revision += 1;
        self.changed = true;
        self.keys.revision
    }

    /// A new lease.
    pub fn grant(&mut self, now: Time, ttl: Time) -> u64 {
        self.next_lease += 1;
        self.leases.insert(self.next_lease, (ttl, now + ttl));
        self.next_lease
    }

    /// Keeps a lease alive; false when it is gone.
    pub fn keep_alive(&mut self, now: Time, lease: u64) -> bool {
        match self.leases.get_mut(&lease) {
            Some((ttl, ends)) => {
                *ends = now + *ttl;
                true
            }
            None => false,
        }
    }

    /// Revokes the lease if it has run out; the time to look again otherwise.
    pub fn expire(&mut self, now: Time, lease: u64) -> Option<Time> {
        let (_, ends) = *self.leases.get(&lease)?;
        if !self.up {
            // Nothing runs out meanwhile, and afterwards every lease has its whole time again.
            return Some(ends.max(now + SECOND / 5));
        }
        if ends > now {
            return Some(ends);
        }
        self.revoke(lease);
        None
    }

    /// Ends a lease and removes what hangs on it.
    pub fn revoke(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let members = self.keys.members.len();
        self.keys.members.retain(|_, (_, held)| *held != lease);
        let mut gone = members != self.keys.members.len();
        if self.keys.leader.is_some_and(|leader| leader.lease == lease) {
            self.keys.leader = None;
            gone = true;
        }
        if matches!(self.keys.initialize, Initialize::InProgress { .. })
            && self.keys.initialize_lease == lease
        {
            self.keys.initialize = Initialize::Absent;
            gone = true;
        }
        if gone {
            self.bump();
        }
    }

    /// A new leader of etcd: all leases start again.
    pub fn restart_leases(&mut self, now: Time) {
        for (ttl, ends) in self.leases.values_mut() {
            *ends = now + *ttl;
        }
    }

    /// Whether the leader key is of this term.
    fn is_term(&self, term: Term) -> bool {
        self.blind || self.keys.leader.is_some_and(|leader| leader.term == term)
    }

    /// Whether `lease` lives.
    #[must_use]
    pub fn lives(&self, lease: u64) -> bool {
        self.leases.contains_key(&lease)
    }

    /// Applies a transaction.
    pub fn write(&mut self, from: NodeNo, write: &Write) -> Reply {
        let ok = self.compare_and_apply(from, write);
        let revision = if ok { self.bump() } else { self.keys.revision };
        Reply::Written { ok, revision }
    }

    fn compare_and_apply(&mut self, from: NodeNo, write: &Write) -> bool {
        let next = self.keys.revision + 1;
        let keys = &self.keys;
        let unfinished = matches!(keys.initialize, Initialize::Absent | Initialize::InProgress { .. });
        match write {
            Write::CreateInitialize { lease }
                if keys.initialize == Initialize::Absent && self.lives(*lease) =>
            {
                self.keys.initialize = Initialize::InProgress { ours: false };
                self.keys.initialize_lease = *lease;
            }
            Write::ConfirmInitialize(id) if unfinished || keys.initialize == Initialize::Done(*id) => {
                self.keys.initialize = Initialize::Done(*id);
            }
            Write::RemoveInitialize if matches!(keys.initialize, Initialize::InProgress { .. }) => {
                self.keys.initialize = Initialize::Absent;
            }
            Write::Claim { term, timeline } if self.is_term(*term) => {
                self.keys.claimed = Timeline(self.keys.claimed.max(*timeline).0 + 1);
            }
            Write::Acquire { lease, sync, failover, failsafe }
                if keys.leader.is_none()
                    && keys.failsafe_modified == *failsafe
                    && keys.failover_revision() == *failover
                    && self.lives(*lease)
                    && *sync == keys.sync_revision() =>
            {
                self.keys.leader =
                    Some(Leader { node: from, term: Term(next), lease: *lease, modified: next });
            }
            Write::Adopt { term, lease } if self.is_term(*term) && self.lives(*lease) => {
                self.keys.leader = Some(Leader { node: from, term: *term, lease: *lease, modified: next });
            }
            Write::Release { term, modified, wish }
                if self.is_term(*term)
                    && (self.blind || keys.leader.is_some_and(|l| l.modified == *modified)) =>
            {
                self.keys.leader = None;
                if let Some((from, to)) = wish.clone() {
                    self.keys.planned = None;
                    let (leader, candidate, due) = (Some(from), Some(to), ha::Due::Now);
                    self.keys.failover = Some(Failover { leader, candidate, due, revision: next });
                }
            }
            Write::Announce { writable, guarded, history } if self.is_term(writable.term) => {
                let Writable { name, term, timeline } = writable.clone();
                self.keys.last = Some(Last { name, term, timeline, guarded: *guarded });
                self.keys.writable = Some(writable.clone());
                self.keys.history.clone_from(history);
            }
            Write::Withdraw(term) if self.is_term(*term) => {
                self.keys.writable = None;
            }
            Write::Failsafe { term, names, base }
                if self.is_term(*term) && keys.failsafe_modified == *base =>
            {
                self.keys.failsafe = Some(names.clone());
                self.keys.failsafe_modified = next;
            }
            Write::ClearFailover(revision)
                if keys.failover.as_ref().is_some_and(|failover| failover.revision == *revision) =>
            {
                self.keys.failover = None;
            }
            Write::PutSync { leader, promise, over, term }
                if self.is_term(*term) && *over == keys.sync_revision() =>
            {
                let (leader, promise) = (Some(leader.clone()), promise.clone());
                self.keys.sync = Some(SyncKey { leader, promise, revision: next });
            }
            Write::DeleteSync { over, term } if self.is_term(*term) && *over == keys.sync_revision() => {
                self.keys.sync = None;
            }
            Write::Member { member, lease, optime } if self.lives(*lease) => {
                if let Some((_, lsn, slots)) = optime.as_ref().filter(|(term, _, _)| self.is_term(*term)) {
                    self.keys.optime = Some(*lsn);
                    self.keys.slots.clone_from(slots);
                    self.keys.slots_modified = next;
                }
                self.keys.members.insert(from, (member.clone(), *lease));
            }
            Write::Leave { lease } => self.revoke(*lease),
            Write::CreateInitialize { .. }
            | Write::ConfirmInitialize(_)
            | Write::RemoveInitialize
            | Write::Acquire { .. }
            | Write::Claim { .. }
            | Write::Adopt { .. }
            | Write::Release { .. }
            | Write::Announce { .. }
            | Write::Withdraw(_)
            | Write::Failsafe { .. }
            | Write::ClearFailover(_)
            | Write::PutSync { .. }
            | Write::DeleteSync { .. }
            | Write::Member { .. } => return false,
        }
        true
    }

    /// What a person writes: a wish for a switchover or failover.
    pub fn wish(&mut self, leader: Option<NodeName>, candidate: Option<NodeName>) {
        let revision = self.bump();
        self.keys.planned = None;
        self.keys.failover = Some(Failover { leader, candidate, due: ha::Due::Now, revision });
    }

    /// What a person writes: another synchronous mode.
    pub fn set_synchronous(&mut self, synchronous: Synchronous) {
        self.keys.synchronous = synchronous;
        self.bump();
    }

    /// What a person writes: pause or resume.
    pub fn set_paused(&mut self, paused: bool) {
        if self.keys.paused != paused {
            self.keys.paused = paused;
            self.bump();
        }
    }

    /// What a person writes: the cluster follows a remote one from now on, or no longer.
    pub fn set_follows_remote(&mut self, follows: bool) {
        if self.keys.follows_remote != follows {
            self.keys.follows_remote = follows;
            self.bump();
        }
    }
}

impl Default for Etcd {
    fn default() -> Etcd {
        Etcd::new()
    }
}
