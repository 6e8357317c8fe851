//! What remains: another member leads, or nothing can be done but wait.

use crate::action::{Action, StopMode};
use crate::decision::{Answer, Turn};
use crate::observation::{LeaderHistory, LeaderKey, Postgres, Running};
use crate::upstream::{self, Upstream};
use std::fmt;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, Term, Timeline};

/// A standby that gets nothing for so long compares its history with the leader's.
const DRY_TOLERATED: Duration = Duration::from_millis(1500);

/// How this member follows, or what it waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    Follows { leader: NodeName },
    ChangesUpstream { leader: NodeName, upstream: Upstream },
    AsksLeaderHistory { leader: NodeName },
    StopsToRewind { leader: NodeName, timeline: Timeline, lsn: Lsn, fork: Option<Lsn> },
    KeyNamesUs { term: Term },
    LeaderKeySpoiled,
    WaitsForStart,
    WaitsForStop,
    WaitsForAnswer { since: Moment },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Follows { leader } => write!(f, "{leader} leads and this member follows"),
            Why::ChangesUpstream { leader, upstream } => write!(f, "{leader} leads: this standby is pointed at {upstream}"),
            Why::AsksLeaderHistory { leader } => write!(f, "this standby gets nothing from {leader}: its timeline history is compared with ours"),
            Why::StopsToRewind { leader, timeline, lsn, fork: Some(fork) } => write!(f, "this standby went on to {lsn} on timeline {timeline}, which {leader} left at {fork}: it is stopped and rewound"),
            Why::StopsToRewind { leader, timeline, fork: None, .. } => write!(f, "this standby is on timeline {timeline}, which is not in the history of {leader}: it is stopped and rewound"),
            Why::KeyNamesUs { term } => write!(f, "the leader key of term {term} names this member under an older lease: it is attached to this agent's lease"),
            Why::LeaderKeySpoiled => f.write_str("the key /leader holds something that names nobody: delete it, and a fit member will take the lead"),
            Why::WaitsForStart => f.write_str("PostgreSQL is starting"),
            Why::WaitsForStop => f.write_str("PostgreSQL is stopping"),
            Why::WaitsForAnswer { .. } => f.write_str("PostgreSQL does not answer at the moment"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Answer {
    match turn.seen.postgres.clone() {
        Postgres::Stopped | Postgres::Starting { .. } => Answer::because(Why::WaitsForStart),
        Postgres::Stopping { .. } => wait_for_stop(turn),
        Postgres::Unresponsive { since, .. } => Answer::because(Why::WaitsForAnswer { since }),
        Postgres::Running(running) => follow(turn, &running),
    }
}

/// If it was ours, it is also repeated.
fn wait_for_stop(turn: &mut Turn<'_>) -> Answer {
    let patience = turn.stop_patience();
    let ours = turn.memory.stopping.map(|(mode, _)| mode);
    let actions = ours.map_or_else(Vec::new, |mode| turn.stop(mode, patience));
    Answer::because(Why::WaitsForStop).act_all(actions)
}

fn follow(turn: &mut Turn<'_>, running: &Running) -> Answer {
    let Some(cluster) = turn.seen.cluster().cloned() else {
        return wait_for_stop(turn);
    };
    let leader = match &cluster.leader {
        // A primary that was to be stopped, and of which nothing got there: it does not take the lead back.
        LeaderKey::Free => return wait_for_stop(turn),
        LeaderKey::Spoiled { .. } => return Answer::because(Why::LeaderKeySpoiled),
        LeaderKey::Held { name, term, .. } if *name == turn.seen.me => {
            return super::adopt(turn, Answer::because(Why::KeyNamesUs { term: *term }), *term);
        }
        LeaderKey::Held { name, .. } => name.clone(),
    };
    match running {
        Running::Primary { .. } => Answer::because(Why::WaitsForStop),
        Running::Standby { timeline, lsn, streaming, upstream } => {
            let wanted = upstream::followed(turn, &cluster, &leader);
            if upstream.as_ref() != Some(&wanted) {
                turn.memory.dry_since = None;
                let why = Why::ChangesUpstream { leader, upstream: wanted.clone() };
                return Answer::because(why).act(Action::Follow(wanted));
            }
            if *streaming {
                return Answer::because(Why::Follows { leader });
            }
            dry(turn, leader, *timeline, *lsn)
        }
    }
}

/// The standby gets nothing: is it only early, or has it gone another way than its leader?
fn dry(turn: &mut Turn<'_>, leader: NodeName, timeline: Timeline, lsn: Lsn) -> Answer {
    let since = *turn.memory.dry_since.get_or_insert(turn.now);
    let follows = Answer::because(Why::Follows { leader: leader.clone() });
    let theirs = match super::leading_timeline(turn, &leader) {
        Some(theirs) if theirs != timeline => theirs,
        Some(_) | None => return follows,
    };
    if turn.now.since(since) < DRY_TOLERATED {
        return follows.wake_at(since.after(DRY_TOLERATED));
    }
    let fork = match &turn.seen.leader_history {
        LeaderHistory::Known { of, history, .. }
            if of.member() == Some(&leader) && history.timeline == theirs =>
        {
            history.end_of(timeline)
        }
        LeaderHistory::Known { .. } | LeaderHistory::Unknown if theirs > timeline => {
            let answer = Answer::because(Why::AsksLeaderHistory { leader: leader.clone() });
            let pause = turn.seen.rules.race_pause();
            return turn.ask_history(answer, Upstream::Member(leader), pause);
        }
        LeaderHistory::Known { .. } | LeaderHistory::Unknown => None,
    };
    if fork.is_some_and(|fork| lsn <= fork) {
        return follows;
    }
    turn.memory.must_rewind = true;
    turn.memory.reconciled = None;
    turn.memory.dry_since = None;
    let patience = turn.stop_patience();
    let actions = turn.stop(StopMode::Fast, patience);
    Answer::because(Why::StopsToRewind { leader, timeline, lsn, fork }).act_all(actions)
}
