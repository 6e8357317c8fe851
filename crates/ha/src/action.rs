//! What a decision asks the agent to do. Actions are quick: they write a key, send a signal or begin a job, and what came of
//! them is seen in the next observation.

use crate::sync_quorum::Promise;
use crate::upstream::Upstream;
use std::fmt;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, StandbyNames, SystemId, Term, Timeline};

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// Create `/initialize`, empty, if nobody has.
    CreateInitialize,
    /// Write the system identifier into `/initialize`.
    ConfirmInitialize(SystemId),
    /// Remove `/initialize` while it is empty: a bootstrap failed.
    RemoveInitialize,
    /// Create the leader key, attached to our lease, if it does not exist.
    AcquireLeader,
    /// Attach the leader key, which names us under an older lease, to our lease.
    AdoptLeader(Term),
    /// Delete the leader key of this term.
    ReleaseLeader(Term),
    /// Delete the leader key of this term and, in the same step, name in `/failover` who takes it.
    HandLeadTo { term: Term, to: NodeName },
    /// Renew the lease of this term no more: it ends by itself, and the guard keeps its deadline.
    ForsakeLead(Term),
    /// Tell the routers that PostgreSQL accepts writes in this term, and everybody whether the guard would end it.
    AnnounceWritable { term: Term, timeline: Timeline, lsn: Lsn, guarded: bool },
    /// Tell the routers that the lead is about to be handed over: no transaction may begin.
    AnnounceHandover(Term),
    /// Tell the routers that it soon will not.
    WithdrawWritable(Term),
    /// Empty `/failover` if it still has this revision.
    ClearFailover(i64),
    /// Write `/sync` with this member as the leader, over this revision of it (0: it does not exist).
    PutSync { promise: Promise, over: i64, term: Term },
    /// Remove `/sync` if it still has this revision.
    DeleteSync { over: i64, term: Term },
    /// Let commits wait for these; `None` leaves `synchronous_standby_names` to the user's configuration.
    SetSynchronous(Option<StandbyNames>),
    /// Ask these members for their role and position, all at once.
    AskPeers(Vec<NodeName>),
    /// Ask these members, all at once, whether we may lead on in this term without etcd.
    AskFailsafe { term: Term, names: Vec<NodeName> },
    /// All others agreed: our authority in this term, and the guard's deadline, last until then.
    ExtendLead { term: Term, until: Moment },
    /// Read the history of its timeline from whom we follow.
    ReadLeaderHistory(Upstream),
    /// Hand the deadline of this term to the guard.
    ArmGuard(Term),
    /// Take the deadline away from the guard.
    DisarmGuard,
    /// Start PostgreSQL as a primary.
    StartPrimary,
    /// Start PostgreSQL as a standby.
    StartStandby(Upstream),
    /// Point the running standby there.
    Follow(Upstream),
    /// Stop PostgreSQL.
    Stop(StopMode),
    /// Promote the running standby.
    Promote(Term),
    /// Begin a job that takes its time.
    Begin(Work),
    /// End the running job.
    CancelJob,
    /// Make an order of the planned restart.
    BeginPlannedRestart,
    /// Forget the planned restart.
    DropPlannedRestart,
    /// The order at the head of the queue is done or refused.
    FinishOrder { done: bool },
    /// End the agent.
    Exit(ExitWhy),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Action::CreateInitialize => f.write_str("claim the new cluster"),
            Action::ConfirmInitialize(id) => write!(f, "write the system identifier {id}"),
            Action::RemoveInitialize => f.write_str("give the claim of the new cluster back"),
            Action::AcquireLeader => f.write_str("take the leader key"),
            Action::AdoptLeader(term) => write!(f, "attach the leader key of term {term} to our lease"),
            Action::ReleaseLeader(term) => write!(f, "release the leader key of term {term}"),
            Action::HandLeadTo { term, to } => write!(f, "release the leader key of term {term} for {to}"),
            Action::ForsakeLead(term) => write!(f, "let the lease of term {term} end"),
            Action::AnnounceWritable { term, timeline, lsn, guarded } => {
                let guarded = if *guarded { "" } else { ", without a guard" };
                write!(f, "announce writes in term {term} on timeline {timeline} from {lsn}{guarded}")
            }
            Action::AnnounceHandover(term) => write!(f, "announce the end of term {term} to the routers"),
            Action::WithdrawWritable(term) => write!(f, "withdraw the announcement of writes of term {term}"),
            Action::ClearFailover(_) => f.write_str("clear the switchover in etcd"),
            Action::PutSync { promise, .. } if promise.voters.is_empty() => {
                f.write_str("write into /sync that nobody else may be promoted")
            }
            Action::PutSync { promise, .. } => {
                let voters: Vec<NodeName> = promise.voters.iter().cloned().collect();
                write!(f, "write into /sync that {} may be promoted", listed(&voters))
            }
            Action::DeleteSync { .. } => f.write_str("remove /sync"),
            Action::SetSynchronous(None) => {
                f.write_str("leave synchronous_standby_names to the configuration")
            }
            Action::SetSynchronous(Some(names)) => write!(f, "set synchronous_standby_names to '{names}'"),
            Action::AskPeers(names) => write!(f, "ask {}", listed(names)),
            Action::AskFailsafe { term, names } => {
                write!(f, "ask {} whether term {term} may go on without etcd", listed(names))
            }
            Action::ExtendLead { term, .. } => write!(f, "lead on in term {term} without etcd"),
            Action::ReadLeaderHistory(name) => write!(f, "read the timeline history of {name}"),
            Action::ArmGuard(term) => write!(f, "arm the guard for term {term}"),
            Action::DisarmGuard => f.write_str("disarm the guard"),
            Action::StartPrimary => f.write_str("start PostgreSQL as the primary"),
            Action::StartStandby(upstream) => write!(f, "start PostgreSQL as a standby of {upstream}"),
            Action::Follow(upstream) => write!(f, "follow {upstream}"),
            Action::Stop(mode) => write!(f, "stop PostgreSQL ({mode:?})"),
            Action::Promote(term) => write!(f, "promote PostgreSQL in term {term}"),
            Action::Begin(work) => write!(f, "begin to {work}"),
            Action::CancelJob => f.write_str("cancel the running job"),
            Action::BeginPlannedRestart => f.write_str("begin the scheduled restart"),
            Action::DropPlannedRestart => f.write_str("forget the scheduled restart"),
            Action::FinishOrder { done: true } => f.write_str("report the order as done"),
            Action::FinishOrder { done: false } => f.write_str("report the order as refused"),
            Action::Exit(_) => f.write_str("end the agent"),
        }
    }
}

impl Action {
    /// The term whose leader key is given back by it.
    pub(crate) fn released(&self) -> Option<Term> {
        if let Action::ReleaseLeader(term) | Action::HandLeadTo { term, .. } = self {
            Some(*term)
        } else {
            None
        }
    }
}

pub(crate) fn listed(names: &[NodeName]) -> String {
    let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
    names.join(", ")
}

/// How PostgreSQL is stopped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum StopMode {
    /// End the sessions, write a checkpoint, send everything to the standbys.
    Fast,
    /// End at once, without a checkpoint; the next start recovers.
    Immediate,
    /// Kill the postmaster and all its children.
    Kill,
}

/// A job: it runs beside the turns, one at a time.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    /// Create a new cluster with initdb and its users.
    Bootstrap,
    /// Copy the data directory from there; what is here is moved aside first. From the archive: by a method that needs no leader.
    Clone(Upstream),
    /// Rewind the data directory to the history of that one; the tail after `fork` is kept first.
    Rewind { from: Upstream, fork: Option<(Timeline, Lsn)> },
    /// Write a checkpoint, so that the stop that follows is short.
    Checkpoint,
    /// Run the operator's command before the promotion in this term.
    PrePromote(Term),
    /// Give the WAL with the checkpoint of the stop to the archive, where the cluster that takes over finds it.
    ArchiveTail,
    /// Hand the WAL of the crashed primary that only it has to that standby, while the lead of this term lasts.
    HandTail { to: NodeName, term: Term, within: Duration },
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Work::Bootstrap => f.write_str("create a new cluster"),
            Work::Clone(from) => write!(f, "copy the data directory of {from}"),
            Work::Rewind { from, .. } => write!(f, "rewind to the history of {from}"),
            Work::Checkpoint => f.write_str("write a checkpoint"),
            Work::PrePromote(term) => write!(f, "run pre_promote in term {term}"),
            Work::ArchiveTail => f.write_str("archive the last WAL"),
            Work::HandTail { to, .. } => write!(f, "hand the last WAL to {to}"),
        }
    }
}

/// Why the agent ends itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ExitWhy {
    /// It was asked to, and PostgreSQL is stopped.
    Stopped,
    /// The data directory belongs to another cluster.
    ForeignData,
    /// The new cluster could not be created.
    BootstrapFailed,
}
