//! In pause nothing is started, stopped, promoted or demoted by itself. The lead is kept while PostgreSQL is a primary, and
//! what a person asks for by name (a switchover to a candidate, a restart) is still done.

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::observation::{LeaderKey, Postgres, Running};
use std::fmt;
use types::Term;

/// Why nothing, or almost nothing, is done in pause.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    PausedLeading { term: Term },
    PausedTakesFreeLead,
    PausedReleasesLead,
    PausedStandsStill,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::PausedLeading { term } => write!(f, "the cluster is paused; this member keeps the lead of term {term}"),
            Why::PausedTakesFreeLead => f.write_str("the cluster is paused, PostgreSQL runs as a primary and nobody leads: this member takes the lead"),
            Why::PausedReleasesLead => f.write_str("the cluster is paused and PostgreSQL is not a primary: the leader key is given back"),
            Why::PausedStandsStill => f.write_str("the cluster is paused: nothing is started, stopped, promoted or demoted"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    if !turn.seen.rules.pause || asked_for(turn) {
        return None;
    }
    let cluster = turn.seen.cluster();
    let free = cluster.is_some_and(|cluster| cluster.leader == LeaderKey::Free);
    let primary = match &turn.seen.postgres {
        Postgres::Running(Running::Primary { timeline, lsn }) => Some((*timeline, *lsn)),
        Postgres::Running(Running::Standby { .. }) => None,
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => {
            return Some(Answer::because(Why::PausedStandsStill));
        }
    };
    Some(match (turn.leads(), primary) {
        (Some(term), Some((timeline, lsn))) => {
            // Everybody must know that no guard would end this primary before the guard is disarmed.
            let announced =
                cluster.is_some_and(|cluster| super::announced(turn, cluster, term, timeline, false));
            if announced
                && let Some(cluster) = cluster.cloned()
                && let Some(change) = super::synchronize::answer(turn, &cluster, term, lsn)
            {
                return Some(change);
            }
            let answer = Answer::because(Why::PausedLeading { term });
            if announced { answer } else { super::announce(turn, answer, (term, timeline, lsn), false) }
        }
        (Some(term), None) if turn.seen.rules.standby_cluster => Answer::because(Why::PausedLeading { term }),
        (Some(term), None) => Answer::because(Why::PausedReleasesLead).act(Action::ReleaseLeader(term)),
        (None, Some(_)) if free && super::refuse_foreign_data::verdict(turn) == Some(true) => {
            Answer::because(Why::PausedTakesFreeLead).act(Action::AcquireLeader)
        }
        (None, Some(_) | None) => Answer::because(Why::PausedStandsStill),
    })
}

/// Whether a person asked for something that concerns us, or we are in the middle of it.
fn asked_for(turn: &Turn<'_>) -> bool {
    let memory = &turn.memory;
    if memory.ordered.is_some() || memory.step_aside.is_some() || memory.promoting.is_some() {
        return true;
    }
    let Some(failover) = turn.seen.cluster().and_then(|cluster| cluster.failover.as_ref()) else {
        return false;
    };
    let leading = turn.leads().is_some();
    let ours = failover.candidate.as_ref() == Some(&turn.seen.me);
    !failover.waits && failover.candidate.is_some() && (leading || ours)
}
