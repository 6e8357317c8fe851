//! PostgreSQL is stopped and there are data: start it, as what it may be.
//!
//! ```text
//!   we lead, it was the primary ─────► start as primary; after a crash see `crash`: here, or another member leads
//!   we lead, it was a standby ───────► start as standby, the lead duty promotes it
//!   we lead a standby cluster ───────► see `standby_leader`: a standby of the remote cluster, whatever it was
//!   another leads ───────────────────► see `rejoin`: follow, rewind first, or copy anew
//!   nobody leads ────────────────────► start as standby, to take part in the race with all the WAL it has
//! ```

mod cause;
mod crash;
mod rejoin;
mod standby_leader;

pub use cause::{Cause, Cost, Stays};
pub(super) use crash::{leave, while_recovering};

use super::routers::{self, LedHere};
use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Control, Data, Initialize, LeaderKey, Postgres};
use crate::pace::Estimate;
use crate::upstream::Upstream;
use std::fmt;
use types::{Lsn, Moment, NodeName, SystemId, Term, Timeline};

/// After so many failed rewinds the directory is kept aside and copied anew.
const REWINDS_TRIED: u32 = 3;

/// How a stopped PostgreSQL is brought back.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    AdoptsDirectory { system_id: SystemId },
    StandbyDirectoryWithoutCluster,
    WaitsForBootstrap,
    InitializeSpoiled,
    CreatorTakesLead,
    KeyNamesUs { term: Term },
    RestartsCrashedPrimary { crashes: usize, estimate: Option<Estimate>, stays: Stays },
    StartsPrimary,
    EndsRecovery { cause: Cause },
    AsksWhoCouldTakeOver { cause: Cause },
    HandsTail { to: NodeName, cause: Cause },
    GivesLeadAway { cause: Cause, to: Option<NodeName>, cost: Cost },
    StartRetryLater { failures: u32, at: Moment },
    AuthorityEnds { term: Term },
    AwaitsRouters { routers: Vec<String>, until: Moment },
    StartsToBePromoted,
    StartsStandbyToRace,
    WaitsForLeaderToBePrimary { leader: NodeName },
    AsksLeaderHistory { leader: NodeName },
    StartsStandby { leader: NodeName },
    Rewinds { from: Upstream, fork: Option<(Timeline, Lsn)> },
    ClonesDiverged { from: Upstream },
    RejoinRetryLater { failures: u32, at: Moment },
    ArchivesTail,
    StartsStandbyLeader,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::AdoptsDirectory { system_id } => write!(f, "there is no cluster yet, and a data directory with the system identifier {system_id} is here: it becomes the cluster"),
            Why::StandbyDirectoryWithoutCluster => f.write_str("the data directory here is a standby's and there is no cluster yet: start the agent beside its primary first"),
            Why::WaitsForBootstrap => f.write_str("another member is creating the cluster"),
            Why::InitializeSpoiled => f.write_str("the key /initialize holds something that is no system identifier: put the right one there"),
            Why::CreatorTakesLead => f.write_str("the new cluster is created: this member takes the lead"),
            Why::KeyNamesUs { term } => write!(f, "the leader key of term {term} names this member under an older lease: it is attached to this agent's lease"),
            Why::RestartsCrashedPrimary { crashes, estimate, stays } => {
                write!(f, "PostgreSQL crashed while it led ({crashes} times lately): it is restarted here, which loses nothing")?;
                estimate.map_or(Ok(()), |estimate| write!(f, " and takes {estimate}"))?;
                stays.fmt(f)
            }
            Why::StartsPrimary => f.write_str("this member leads: PostgreSQL is started as the primary"),
            Why::EndsRecovery { cause } => write!(f, "{cause}; PostgreSQL had begun to recover by itself, and is ended, so that another member can lead"),
            Why::AsksWhoCouldTakeOver { cause } => write!(f, "{cause}; the others are asked whether one of them could lead and lose nothing"),
            Why::HandsTail { to, cause } => write!(f, "{cause}; {to} takes over and loses nothing: the last WAL, which nobody else may have, is handed to it first"),
            Why::GivesLeadAway { cause, to: Some(to), cost } => write!(f, "{cause}: the lead is given to {to}{cost}"),
            Why::GivesLeadAway { cause, to: None, cost } => write!(f, "{cause}: the lead is given to another member{cost}"),
            Why::StartRetryLater { failures, .. } => write!(f, "PostgreSQL did not come up in {failures} tries; it is tried again in a moment, its log says why"),
            Why::AuthorityEnds { term } => write!(f, "the lease of term {term} could not be renewed and its authority ends in a moment: PostgreSQL stays stopped until that is decided"),
            Why::AwaitsRouters { routers, .. } if routers.is_empty() => f.write_str("PostgreSQL was the primary, and routers may still believe that, from etcd or from what this agent said within the last seconds: it comes up for reading when they cannot any more, as sessions in the pooler beside it would find a standby"),
            Why::AwaitsRouters { routers, .. } => write!(f, "PostgreSQL was the primary, and these routers may still lead sessions to the pooler beside it, where they would find a standby: it comes up for reading when they have said that they do not, or their time is up: {}", routers.join(", ")),
            Why::StartsToBePromoted => f.write_str("this member leads and its PostgreSQL was a standby: it is started to be promoted"),
            Why::StartsStandbyToRace => f.write_str("PostgreSQL is stopped and nobody leads: it is started as a standby, to take part in the race with all it has"),
            Why::WaitsForLeaderToBePrimary { leader } => write!(f, "{leader} holds the lead but is not a primary yet; this former primary waits to compare histories"),
            Why::AsksLeaderHistory { leader } => write!(f, "{leader} is asked where its timeline left ours"),
            Why::StartsStandby { leader } => write!(f, "PostgreSQL is started as a standby of {leader}; nothing here contradicts its history"),
            Why::Rewinds { from, fork: Some((timeline, lsn)) } => write!(f, "this data directory went on after {from} left timeline {timeline} at {lsn}: the tail is kept, then it is rewound"),
            Why::Rewinds { from, fork: None } => write!(f, "this data directory may have gone another way than {from}: the tail is kept, then it is rewound"),
            Why::ClonesDiverged { from } => write!(f, "this data directory has gone another way and cannot be rewound: it is kept aside and the one of {from} is copied"),
            Why::RejoinRetryLater { failures, .. } => write!(f, "bringing this data directory back into the cluster failed {failures} times; it is tried again in a moment, the log says why"),
            Why::ArchivesTail => f.write_str("the primary was stopped to follow a remote cluster: the WAL with its last checkpoint is given to the archive first"),
            Why::StartsStandbyLeader => f.write_str("this member leads a standby cluster: PostgreSQL is started as a standby of the remote cluster"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let control = match (&turn.seen.postgres, &turn.seen.data) {
        (Postgres::Stopped, Data::Present(control)) => *control,
        (Postgres::Stopped, Data::Empty | Data::Incomplete | Data::Unusable) => return None,
        (
            Postgres::Starting { .. }
            | Postgres::Running(_)
            | Postgres::Stopping { .. }
            | Postgres::Unresponsive { .. },
            _,
        ) => return None,
    };
    let cluster = turn.seen.cluster()?.clone();
    if let Some(answer) = claim(turn, &cluster, &control) {
        return Some(answer);
    }
    if let Some(at) = turn.memory.start.not_before.filter(|_| !turn.memory.start.due(turn.now)) {
        let failures = turn.memory.start.failures;
        return Some(Answer::because(Why::StartRetryLater { failures, at }).wake_at(at));
    }
    if let Some(term) = turn.leads() {
        // What would be started now would have to be stopped at once.
        if let Some(deadline) = turn.authority_ends() {
            return Some(Answer::because(Why::AuthorityEnds { term }).wake_at(deadline));
        }
        return Some(lead(turn, &cluster, &control, term));
    }
    let leader = match &cluster.leader {
        LeaderKey::Held { name, .. } if *name != turn.seen.me => Some(name),
        LeaderKey::Held { term, .. } => {
            return Some(super::adopt(turn, Answer::because(Why::KeyNamesUs { term: *term }), *term));
        }
        LeaderKey::Free | LeaderKey::Spoiled { .. } => None,
    };
    if let Some(answer) = await_routers(turn, &cluster, &control) {
        return Some(answer);
    }
    Some(match leader {
        Some(leader) => rejoin::answer(turn, &cluster, &control, leader),
        None => start(turn, Why::StartsStandbyToRace, Upstream::Archive),
    })
}

/// What was a primary does not come up for reading while sessions that are to write may be led to it.
fn await_routers(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control) -> Option<Answer> {
    let LedHere { routers, until } = routers::led_here(turn, cluster, control)?;
    Some(Answer::because(Why::AwaitsRouters { routers, until }).wake_at(until))
}

/// Makes sure the cluster is known to be ours before anything is started.
fn claim(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control) -> Option<Answer> {
    let system_id = control.system_id;
    match cluster.initialize {
        Initialize::Done(_)
            if turn.memory.created
                && cluster.leader == LeaderKey::Free
                && turn.leads().is_none()
                && !turn.seen.unprotected() =>
        {
            Some(Answer::because(Why::CreatorTakesLead).act(Action::AcquireLeader))
        }
        Initialize::Done(_) => None,
        Initialize::InProgress { .. } if turn.memory.created => {
            let free = cluster.leader == LeaderKey::Free && !turn.seen.unprotected();
            let take = free.then_some(Action::AcquireLeader);
            let answer = Answer::because(Why::CreatorTakesLead).act(Action::ConfirmInitialize(system_id));
            Some(answer.act_all(take.into_iter().collect()))
        }
        Initialize::InProgress { .. } => Some(Answer::because(Why::WaitsForBootstrap)),
        Initialize::Spoiled => Some(Answer::because(Why::InitializeSpoiled)),
        Initialize::Absent if turn.leads().is_some() => Some(
            Answer::because(Why::AdoptsDirectory { system_id }).act(Action::ConfirmInitialize(system_id)),
        ),
        Initialize::Absent if control.standby && !turn.seen.rules.standby_cluster => {
            Some(Answer::because(Why::StandbyDirectoryWithoutCluster))
        }
        Initialize::Absent => Some(
            Answer::because(Why::AdoptsDirectory { system_id }).act(Action::ConfirmInitialize(system_id)),
        ),
    }
}

/// A primary runs and the cluster has no system identifier yet: it becomes the cluster.
pub(crate) fn claim_running(turn: &mut Turn<'_>, cluster: &Cluster) -> Option<Answer> {
    match &turn.seen.data {
        Data::Present(control) => {
            let control = *control;
            claim(turn, cluster, &control)
        }
        Data::Empty | Data::Incomplete | Data::Unusable => None,
    }
}

/// Starts what this member leads with, or lets another member lead where that is better.
fn lead(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control, term: Term) -> Answer {
    turn.memory.down_since.get_or_insert(turn.now);
    let crashed = !(turn.memory.expected_stop || turn.memory.created || control.standby);
    let crashes =
        if crashed { Some(crash::count(turn)) } else { crash::too_many(turn).filter(|_| control.standby) };
    let stays = match crash::answer(turn, cluster, control, term, crashes) {
        Ok(leaves) => return leaves,
        Err(stays) => stays,
    };
    turn.memory.crash = None;
    turn.memory.kept_since = stays.for_want_of_another().then_some(turn.now);
    if turn.seen.rules.standby_cluster {
        return standby_leader::answer(turn, cluster, control);
    }
    if control.standby {
        return start(turn, Why::StartsToBePromoted, Upstream::Archive);
    }
    let estimate = turn.seen.pace.estimate();
    let why = crashes.map_or(Why::StartsPrimary, |crashes| Why::RestartsCrashedPrimary {
        crashes,
        estimate,
        stays,
    });
    turn.memory.start = turn.memory.start.failed(turn.now);
    let synchronous = super::synchronize::before_primary(turn, cluster, term, true);
    Answer::because(why).act_all(synchronous).act(Action::ArmGuard(term)).act(Action::StartPrimary)
}

/// Starts a standby; the next try, should this one come to nothing, waits a little longer.
fn start(turn: &mut Turn<'_>, why: Why, upstream: Upstream) -> Answer {
    turn.memory.start = turn.memory.start.failed(turn.now);
    Answer::because(why).act(Action::StartStandby(upstream))
}
