//! In pause nothing is started, stopped, promoted or demoted by itself. What a person asks for by name (a switchover to a candidate,
//! a restart) is still done, and what a person does by hand is followed:
//!
//! ```text
//!   a primary that leads ────────────────► keeps the lead, says that no guard ends it
//!   a primary, and nobody leads ─────────► takes the lead, whoever promoted it, if the cluster has not gone on to a newer timeline
//!   a primary, and another member leads ─► is left alone, and told of
//!   leads, and is no primary any more ───► gives the key back (stopped, crashed, made a standby)
//!   everything else ─────────────────────► stands still
//! ```

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Contact, Etcd, Initialize, LeaderKey, Postgres, Running};
use crate::plans::Due;
use crate::standing;
use std::fmt;
use types::{Lsn, NodeName, SystemId, Term, Timeline};

/// Why nothing, or almost nothing, is done in pause.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    PausedLeading { term: Term },
    PausedKeyNamesUs { term: Term },
    PausedConfirmsInitialize { system_id: SystemId },
    PausedRefusesSwitchover,
    PausedTakesFreeLead,
    PausedOldPrimary { mine: Timeline, newest: Timeline },
    PausedSecondPrimary { leader: NodeName },
    PausedForeignData,
    PausedReleasesLead,
    PausedStoppedReleasesLead,
    PausedStandsStill,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::PausedLeading { term } => write!(f, "the cluster is paused; this member keeps the lead of term {term}"),
            Why::PausedKeyNamesUs { term } => write!(f, "the cluster is paused, and the leader key of term {term} names this member under an older lease: it is attached to this agent's lease"),
            Why::PausedConfirmsInitialize { system_id } => write!(f, "the cluster is paused; the key /initialize is gone and is written again with {system_id}"),
            Why::PausedRefusesSwitchover => f.write_str("the switchover in /failover is refused: in pause one must name its candidate"),
            Why::PausedTakesFreeLead => f.write_str("the cluster is paused, PostgreSQL runs as a primary and nobody leads: this member takes the lead"),
            Why::PausedOldPrimary { mine, newest } => write!(f, "the cluster is paused and nobody leads, but PostgreSQL runs here as a primary on timeline {mine}, which the cluster has left for {newest}: it does not take the lead, because it lacks what was written there; start PostgreSQL on a member that was on timeline {newest}, or resume the cluster"),
            Why::PausedSecondPrimary { leader } => write!(f, "the cluster is paused, {leader} leads, and PostgreSQL runs as a primary here, too: one of the two must be stopped by hand; at the end of the pause it is this one"),
            Why::PausedForeignData => f.write_str("the cluster is paused, and the data here are not those of which the key /initialize tells: stop PostgreSQL or correct the key before the pause ends"),
            Why::PausedReleasesLead => f.write_str("the cluster is paused and PostgreSQL is not a primary: the leader key is given back"),
            Why::PausedStoppedReleasesLead => f.write_str("the cluster is paused and PostgreSQL does not run: the leader key is given back"),
            Why::PausedStandsStill => f.write_str("the cluster is paused: nothing is started, stopped, promoted or demoted"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    if !turn.seen.rules.pause || asked_for(turn) {
        return None;
    }
    let still = Answer::because(Why::PausedStandsStill);
    let Some(cluster) = turn.seen.cluster().cloned() else { return Some(still) };
    Some(match (turn.seen.postgres.clone(), turn.leads()) {
        (Postgres::Running(Running::Primary { timeline, lsn }), Some(term)) => {
            lead(turn, &cluster, (term, timeline, lsn))
        }
        (Postgres::Running(Running::Primary { timeline, .. }), None) => primary(turn, &cluster, timeline),
        (Postgres::Running(Running::Standby { .. }), Some(term)) if turn.seen.rules.standby_cluster => {
            Answer::because(Why::PausedLeading { term })
        }
        (Postgres::Running(Running::Standby { .. }), Some(term)) => {
            Answer::because(Why::PausedReleasesLead).act(Action::ReleaseLeader(term))
        }
        (Postgres::Stopped, Some(term)) => {
            Answer::because(Why::PausedStoppedReleasesLead).act(Action::ReleaseLeader(term))
        }
        (Postgres::Running(Running::Standby { .. }) | Postgres::Stopped, None)
        | (Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. }, _) => still,
    })
}

/// A primary that leads.
fn lead(turn: &mut Turn<'_>, cluster: &Cluster, (term, timeline, lsn): (Term, Timeline, Lsn)) -> Answer {
    if super::refuse_foreign_data::verdict(turn) == Some(false) && !turn.memory.matched {
        return Answer::because(Why::PausedForeignData);
    }
    if let (Initialize::Absent, Some(system_id)) = (cluster.initialize, turn.seen.system_id()) {
        let answer = Answer::because(Why::PausedConfirmsInitialize { system_id });
        return answer.act(Action::ConfirmInitialize(system_id));
    }
    if let Some(wish) = cluster.failover.as_ref().filter(|wish| wish.due == Due::Now) {
        let answer = Answer::because(Why::PausedRefusesSwitchover);
        return answer.act(Action::ClearFailover(wish.revision));
    }
    // Everybody must know that no guard would end this primary before the guard is disarmed.
    let announced = super::announced(turn, cluster, term, timeline, false);
    if announced && let Some(change) = super::synchronize::answer(turn, cluster, term, lsn) {
        return change;
    }
    let answer = Answer::because(Why::PausedLeading { term });
    if announced { answer } else { super::announce(turn, answer, (term, timeline, lsn), false) }
}

/// A primary that does not lead: it was promoted by hand, or its key has ended.
fn primary(turn: &mut Turn<'_>, cluster: &Cluster, mine: Timeline) -> Answer {
    let live = matches!(turn.seen.etcd, Etcd::Seen { contact: Contact::Live, .. });
    match &cluster.leader {
        LeaderKey::Free if live && super::refuse_foreign_data::verdict(turn) == Some(true) => {
            // One that nobody has promoted since the cluster went on without it, as a kill that takes its time leaves it.
            match standing::newest_timeline(cluster).filter(|newest| mine < *newest) {
                Some(newest) => Answer::because(Why::PausedOldPrimary { mine, newest }),
                None => Answer::because(Why::PausedTakesFreeLead).act(Action::AcquireLeader),
            }
        }
        LeaderKey::Held { name, term, .. } if live && *name == turn.seen.me => {
            super::adopt(turn, Answer::because(Why::PausedKeyNamesUs { term: *term }), *term)
        }
        LeaderKey::Held { name, .. } if *name != turn.seen.me => {
            Answer::because(Why::PausedSecondPrimary { leader: name.clone() })
        }
        LeaderKey::Free | LeaderKey::Held { .. } | LeaderKey::Spoiled { .. } => {
            Answer::because(Why::PausedStandsStill)
        }
    }
}

/// Whether a person asked for something that concerns us, or we are in the middle of it. What is planned for later waits.
fn asked_for(turn: &Turn<'_>) -> bool {
    let memory = &turn.memory;
    if memory.ordered.is_some()
        || memory.step_aside.is_some()
        || memory.promoting.is_some()
        || memory.returning
    {
        return true;
    }
    let Some(failover) = turn.seen.cluster().and_then(|cluster| cluster.failover.as_ref()) else {
        return false;
    };
    let leading = turn.leads().is_some();
    let ours = failover.candidate.as_ref() == Some(&turn.seen.me);
    failover.due == Due::Now && failover.candidate.is_some() && (leading || ours)
}
