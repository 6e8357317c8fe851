//! What a decision asks the agent to do. Actions are quick: they write a key, send a signal or begin a job, and what came of
//! them is seen in the next observation.

use types::{Lsn, NodeName, SystemId, Term, Timeline};

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
    /// Tell the routers that PostgreSQL accepts writes in this term, and everybody whether the guard would end it.
    AnnounceWritable { term: Term, timeline: Timeline, lsn: Lsn, guarded: bool },
    /// Tell the routers that it soon will not.
    WithdrawWritable(Term),
    /// Empty `/failover` if it still has this revision.
    ClearFailover(i64),
    /// Ask these members for their role and position, all at once.
    AskPeers(Vec<NodeName>),
    /// Read the history of the leader's timeline from the leader.
    ReadLeaderHistory(NodeName),
    /// Hand the deadline of this term to the guard.
    ArmGuard(Term),
    /// Take the deadline away from the guard.
    DisarmGuard,
    /// Start PostgreSQL as a primary.
    StartPrimary,
    /// Start PostgreSQL as a standby of this member, or of nobody.
    StartStandby(Option<NodeName>),
    /// Let the running standby follow this member.
    Follow(NodeName),
    /// Stop PostgreSQL.
    Stop(StopMode),
    /// Promote the running standby.
    Promote(Term),
    /// Begin a job that takes its time.
    Begin(Work),
    /// End the running job.
    CancelJob,
    /// The order at the head of the queue is done or refused.
    FinishOrder { done: bool },
    /// End the agent.
    Exit(ExitWhy),
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
    /// Copy the data directory of this member; what is there is moved aside first.
    Clone(NodeName),
    /// Rewind the data directory to this member's history; the tail after `fork` is kept first.
    Rewind { from: NodeName, fork: Option<(Timeline, Lsn)> },
    /// Write a checkpoint, so that the stop that follows is short.
    Checkpoint,
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
