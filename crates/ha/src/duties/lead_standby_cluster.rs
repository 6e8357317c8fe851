//! This member leads a standby cluster: a whole cluster that follows a remote one. Its leader is a standby, which the others
//! follow; nothing here ever accepts writes.
//!
//! ```text
//!   section added     primary ──[withdraw, stop fast]──► stopped ──[archive the last WAL]──► standby of the remote cluster
//!   section removed   standby ──(the duty to lead)──► promoted
//! ```

use crate::action::{Action, StopMode};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Initialize, LeaderHistory, Postgres, Running};
use crate::upstream::Upstream;
use std::fmt;
use std::time::Duration;
use types::{Lsn, SystemId, Term, Timeline};

/// A standby leader that gets nothing for so long compares its history with the remote cluster's.
const DRY_TOLERATED: Duration = Duration::from_secs(3);
/// The rest between two questions to a remote cluster that may be away for long.
const ASK_AGAIN: Duration = Duration::from_secs(10);

/// What the leader of a standby cluster does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    Demotes { term: Term },
    WaitsForStop,
    ConfirmsInitialize { system_id: SystemId },
    FollowsRemote,
    Leads { term: Term },
    WaitsForRemote { term: Term },
    AsksRemoteHistory,
    StopsToRewind { timeline: Timeline, lsn: Lsn, fork: Option<Lsn> },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Demotes { term } => write!(
                f,
                "the configuration has a standby_cluster now: the primary of term {term} is stopped cleanly, to follow the remote cluster"
            ),
            Why::WaitsForStop => {
                f.write_str("this member leads a standby cluster and PostgreSQL is stopping")
            }
            Why::ConfirmsInitialize { system_id } => write!(
                f,
                "the key /initialize is missing: the system identifier {system_id} is written again"
            ),
            Why::FollowsRemote => f.write_str(
                "this member leads a standby cluster: its PostgreSQL is pointed at the remote cluster",
            ),
            Why::Leads { term } => {
                write!(f, "this member leads a standby cluster in term {term} and follows the remote cluster")
            }
            Why::WaitsForRemote { term } => write!(
                f,
                "this member leads a standby cluster in term {term}; nothing streams from the remote cluster at the moment: check that it runs, lets replication in and has the slot of standby_cluster.primary_slot_name"
            ),
            Why::AsksRemoteHistory => f.write_str(
                "nothing streams from the remote cluster: its timeline history is compared with ours",
            ),
            Why::StopsToRewind { timeline, lsn, fork: Some(fork) } => write!(
                f,
                "this standby leader went on to {lsn} on timeline {timeline}, which the remote cluster left at {fork}: it is stopped and rewound"
            ),
            Why::StopsToRewind { timeline, fork: None, .. } => write!(
                f,
                "this standby leader is on timeline {timeline}, which is not in the history of the remote cluster: it is stopped and rewound"
            ),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let term = turn.leads()?;
    if !turn.seen.rules.standby_cluster {
        return None;
    }
    let patience = turn.stop_patience();
    match turn.seen.postgres.clone() {
        Postgres::Running(Running::Primary { .. }) => {
            let withdraw = turn.memory.stopping.is_none().then_some(Action::WithdrawWritable(term));
            turn.memory.expected_stop = true;
            let answer = Answer::because(Why::Demotes { term }).act_all(withdraw.into_iter().collect());
            Some(answer.act_all(turn.stop(StopMode::Fast, patience)))
        }
        Postgres::Stopping { .. } => {
            let asked = turn.memory.stopping.map(|(mode, _)| mode);
            let actions = asked.map(|mode| turn.stop(mode, patience)).unwrap_or_default();
            Some(Answer::because(Why::WaitsForStop).act_all(actions))
        }
        Postgres::Running(Running::Standby { timeline, lsn, streaming, upstream }) => {
            let cluster = turn.seen.cluster()?.clone();
            let points = upstream == Some(Upstream::Remote);
            Some(follow(turn, &cluster, term, (timeline, lsn), (points, streaming)))
        }
        Postgres::Stopped | Postgres::Starting { .. } | Postgres::Unresponsive { .. } => None,
    }
}

fn follow(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    term: Term,
    (timeline, lsn): (Timeline, Lsn),
    (points, streaming): (bool, bool),
) -> Answer {
    if let (Initialize::Absent, Some(system_id)) = (cluster.initialize, turn.seen.system_id()) {
        let answer = Answer::because(Why::ConfirmsInitialize { system_id });
        return answer.act(Action::ConfirmInitialize(system_id));
    }
    if let Some(answer) = super::synchronize::switch_off(turn, cluster, term) {
        return answer;
    }
    if !points {
        turn.memory.dry_since = None;
        return Answer::because(Why::FollowsRemote).act(Action::Follow(Upstream::Remote));
    }
    if streaming {
        return Answer::because(Why::Leads { term });
    }
    dry(turn, term, timeline, lsn)
}

/// Nothing streams: is the remote cluster only away, or has this standby gone another way?
fn dry(turn: &mut Turn<'_>, term: Term, timeline: Timeline, lsn: Lsn) -> Answer {
    let since = *turn.memory.dry_since.get_or_insert(turn.now);
    let waits = Answer::because(Why::WaitsForRemote { term });
    if turn.now.since(since) < DRY_TOLERATED {
        return waits.wake_at(since.after(DRY_TOLERATED));
    }
    // What it said before it fell silent may be outdated: it may have gone on to a newer timeline, and we with it.
    let told = match &turn.seen.leader_history {
        LeaderHistory::Known { of: Upstream::Remote, history, asked } if *asked >= since => {
            Some(history.clone())
        }
        LeaderHistory::Known { .. } | LeaderHistory::Unknown => None,
    };
    let Some(history) = told else {
        return match turn.memory.history_asked.filter(|asked| turn.now.since(*asked) < ASK_AGAIN) {
            Some(asked) => waits.wake_at(asked.after(ASK_AGAIN)),
            None => turn.ask_history(Answer::because(Why::AsksRemoteHistory), Upstream::Remote, ASK_AGAIN),
        };
    };
    let fork = history.end_of(timeline);
    if history.timeline == timeline || fork.is_some_and(|fork| lsn <= fork) {
        return waits;
    }
    turn.memory.must_rewind = true;
    turn.memory.reconciled = None;
    turn.memory.dry_since = None;
    let patience = turn.stop_patience();
    let actions = turn.stop(StopMode::Fast, patience);
    Answer::because(Why::StopsToRewind { timeline, lsn, fork }).act_all(actions)
}
