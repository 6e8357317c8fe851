//! What a member sees at the beginning of a turn. Unknown is a value here, never a default.

mod questions;

use crate::action::Work;
use crate::failsafe::Failsafe;
use crate::pace::Pace;
use crate::peers::Peers;
use crate::plans::{Due, PlannedRestart};
use crate::rules::Rules;
use crate::signs::Signs;
use crate::sync_quorum::Promise;
use crate::upstream::Upstream;
use crate::watchdog::Watchdog;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{History, Lsn, Moment, NodeName, StandbyNames, SystemId, Tags, Term, Timeline};

/// Everything a turn starts from.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Observation {
    /// Our name.
    pub me: NodeName,
    /// Our tags.
    pub tags: Tags,
    /// The settings.
    pub rules: Rules,
    /// What etcd says.
    pub etcd: Etcd,
    /// What our lease allows.
    pub authority: Authority,
    /// Our data directory.
    pub data: Data,
    /// Our PostgreSQL.
    pub postgres: Postgres,
    /// Who streams from our running PostgreSQL.
    pub replication: Option<Replication>,
    /// What a restart after a crash would take, and a failover.
    pub pace: Pace,
    /// The running job.
    pub job: Job,
    /// A job that ended since the last turn.
    pub finished: Option<Finished>,
    /// The guard.
    pub guard: Guard,
    /// The watchdog device.
    pub watchdog: Watchdog,
    /// Signs of what is half broken here.
    pub signs: Signs,
    /// The answers to the last `AskPeers`.
    pub peers: Peers,
    /// The answer to the last `ReadLeaderHistory`.
    pub leader_history: LeaderHistory,
    /// The order at the head of the queue.
    pub order: Option<Order>,
    /// A restart for which a time was set.
    pub planned: Option<PlannedRestart>,
    /// What the members said to each other about leading on without etcd.
    pub failsafe: Failsafe,
    /// When this agent last said to somebody who asked that it leads (`GET /primary`): routers without etcd believe that for a while.
    pub vouched: Option<Moment>,
}

/// What is known of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one in an observation, and it is nearly always the large one"
)]
pub enum Etcd {
    /// Nothing was read since the agent started.
    Never { since: Moment },
    /// What was read last, and whether it is current.
    Seen { cluster: Cluster, contact: Contact },
}

/// Whether etcd answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Contact {
    Live,
    Lost { since: Moment },
}

/// The keys of the cluster.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Cluster {
    /// The revision at which this was true.
    pub revision: i64,
    pub initialize: Initialize,
    pub leader: LeaderKey,
    /// All members with a living key, us included.
    pub members: BTreeMap<NodeName, Member>,
    /// The position the last leader reported.
    pub optime: Option<Lsn>,
    pub failover: Option<Failover>,
    pub sync: Option<SyncKey>,
    /// Who announced that it accepts writes, in which term.
    pub writable: Option<Writable>,
    /// The member that announced this last; it outlives that member's lease.
    pub last: Option<Last>,
    /// Where each earlier timeline of the cluster ended.
    pub history: BTreeMap<Timeline, Lsn>,
    /// `/failsafe`: who must agree when a leader wants to lead on without etcd. Only they may race.
    pub failsafe: Option<BTreeSet<NodeName>>,
    /// The routers that are there.
    pub routers: Vec<Router>,
    /// The term whose holder announced to them that it hands the lead over; only while that member's lease lives.
    pub handed_over: Option<Term>,
}

/// What a router says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Router {
    pub id: String,
    /// The term in which it has no transaction left.
    pub quiet: Option<Term>,
    /// The newest term it knows of, since no session of an older one is left with it.
    pub term: Option<Term>,
    /// All terms up to it are over for it: nobody led, and no session of one of them was left.
    pub over: Option<Term>,
    /// It leads sessions that are to write to poolers.
    pub pooled: bool,
}

/// `/initialize`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Initialize {
    Absent,
    /// Somebody creates the cluster. `ours`: the claim hangs on the lease of this agent.
    InProgress {
        ours: bool,
    },
    Done(SystemId),
    /// The value cannot be understood; we neither lead nor create on it.
    Spoiled,
}

/// `/leader`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LeaderKey {
    Free,
    /// `ours` tells whether it hangs on the lease of this agent.
    Held {
        name: NodeName,
        term: Term,
        ours: bool,
    },
    /// The value cannot be understood, or names nobody and has no lease; nobody races on it.
    Spoiled {
        term: Term,
    },
}

/// What a member publishes about itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Member {
    /// Its PostgreSQL runs as a primary.
    pub primary: bool,
    /// Its PostgreSQL runs.
    pub running: bool,
    /// It can be asked by REST.
    pub reachable: bool,
    pub nofailover: bool,
    /// Its disk is full, hangs or fails: it shall not lead while another can.
    pub sick: bool,
    /// Others may copy from it.
    pub clonefrom: bool,
    /// The member it follows instead of the leader.
    pub replicatefrom: Option<NodeName>,
    /// Among those that could be synchronous standbys the largest are; 0: never.
    pub sync_priority: i64,
    pub timeline: Option<Timeline>,
    pub lsn: Option<Lsn>,
}

/// `/sync`: who may be promoted without a loss. It counts only while it names a leader.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncKey {
    pub leader: Option<NodeName>,
    pub promise: Promise,
    pub revision: i64,
}

/// `/failover`: a wish for a switchover (`leader` named) or a failover.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Failover {
    pub leader: Option<NodeName>,
    pub candidate: Option<NodeName>,
    pub due: Due,
    pub revision: i64,
}

/// `/baton/writable`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Writable {
    pub name: NodeName,
    pub term: Term,
    pub timeline: Timeline,
}

/// `/baton/last`: written with every `/baton/writable`, in the same transaction, but without a lease.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Last {
    pub name: NodeName,
    pub term: Term,
    pub timeline: Timeline,
    /// Its guard ends it at its deadline. In pause nothing does, and others must not rely on it.
    pub guarded: bool,
}

/// What our lease allows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Authority {
    /// We do not hold the leader key.
    None,
    /// We hold it in this term. `deadline` is the end of the authority: the moment the last successful renewal was sent, plus the
    /// granted time, minus the margin.
    Held { term: Term, deadline: Moment },
}

/// The data directory.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Data {
    /// It does not exist or is empty.
    Empty,
    /// A clone, rewind or bootstrap in it was begun and not finished.
    Incomplete,
    /// It cannot be read, or is not a data directory of this PostgreSQL.
    Unusable,
    Present(Control),
}

/// What the control file says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Control {
    pub system_id: SystemId,
    pub timeline: Timeline,
    /// The last checkpoint; of a clean stop, the last record there is.
    pub checkpoint: Lsn,
    /// The furthest position known to be in it: recovery's end for a standby, the checkpoint for a primary.
    pub reached: Lsn,
    /// It was stopped cleanly.
    pub clean: bool,
    /// The next start makes it a standby.
    pub standby: bool,
    /// It has checksums or WAL hints, which a rewind needs.
    pub rewindable: bool,
}

/// The PostgreSQL process.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Postgres {
    Stopped,
    Starting {
        since: Moment,
    },
    Running(Running),
    /// It was told to stop and has not ended.
    Stopping {
        since: Moment,
    },
    /// The postmaster lives and does not answer. `primary` is what it was before.
    Unresponsive {
        since: Moment,
        primary: bool,
    },
}

/// What a running PostgreSQL says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Running {
    Primary {
        timeline: Timeline,
        lsn: Lsn,
    },
    Standby {
        timeline: Timeline,
        /// The furthest position it has, received or replayed.
        lsn: Lsn,
        streaming: bool,
        /// Whom it is configured to follow; `None` while that is not known.
        upstream: Option<Upstream>,
    },
}

/// Who streams from a running PostgreSQL, and whose confirmation its commits wait for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Replication {
    /// When PostgreSQL was asked.
    pub asked: Moment,
    /// As PostgreSQL shows it.
    pub names: StandbyNames,
    /// Whether its checkpointer, which puts a change of the names into effect, had nothing else to do.
    pub settled: bool,
    pub standbys: Vec<Standby>,
}

/// One that streams from here, by the name it gave.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Standby {
    pub name: NodeName,
    /// It has caught up and streams.
    pub streaming: bool,
    /// What it has on its disk.
    pub flushed: Lsn,
    /// Since when it has confirmed nothing although there is something to confirm.
    pub stalled: Option<Moment>,
}

/// The running job.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Job {
    Idle,
    Running { work: Work, since: Moment },
}

/// A job that ended.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Finished {
    pub work: Work,
    pub ok: bool,
}

/// The guard: the process that kills a primary whose deadline has passed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Guard {
    /// There is none: nothing may be promoted.
    Absent,
    Disarmed,
    Armed,
}

/// The history of the timeline of the one we follow, as it told it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum LeaderHistory {
    Unknown,
    Known { of: Upstream, history: History, asked: Moment },
}

impl SyncKey {
    /// Whether it names this member as a standby that may be promoted.
    #[must_use]
    pub fn lists(&self, name: &NodeName) -> bool {
        self.promise.voters.iter().any(|voter| same(voter, name))
    }

    /// Whether it names this member as the leader.
    #[must_use]
    pub fn is_led_by(&self, name: &NodeName) -> bool {
        self.leader.as_ref().is_some_and(|leader| same(leader, name))
    }
}

/// Names compare without regard to case in `/sync` and `synchronous_standby_names`.
pub(crate) fn same(one: &NodeName, other: &NodeName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// What a person asked this agent to do.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Order {
    /// Restart PostgreSQL, keeping the lead; a primary that takes longer than `within` to come up gives it away.
    Restart { within: Option<Duration> },
    /// Clone the data directory anew, whatever the tags say from the leader if so asked.
    Reinitialize { from_leader: bool },
    /// Restart a standby that got copies of its primary's logical slots: PostgreSQL reads them when it starts.
    LoadSlots,
    /// Stop PostgreSQL (handing the lead over first) and end the agent.
    Shutdown,
}
