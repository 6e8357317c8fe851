//! A primary ends before its authority does. Asked first: nothing else may come before it, not even a running job.
//!
//! ```text
//!   authority ahead ────────────────► nothing to do here
//!   authority about to end ─────────► stop at once (the guard kills what is left at the deadline)
//!   no authority, key is another's ─► stop at once
//!   no authority, key names us ─────► attach it to our lease
//!   no authority, key is free ──────► the race decides
//! ```

use crate::action::{Action, StopMode};
use crate::decision::{Answer, Turn};
use crate::observation::{Authority, Contact, Etcd, LeaderKey};
use std::fmt;
use std::time::Duration;
use types::{NodeName, Term};

/// Why a primary is stopped, or its authority renewed.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    DeadlineNear { term: Term, left: Duration },
    LeadLostTo { leader: NodeName },
    LeadGoneWithoutEtcd,
    LeaderKeyNamesUsUnderAnotherLease { term: Term },
    LeaderKeySpoiledUnderUs { term: Term },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::DeadlineNear { term, left } => write!(f, "the lease of term {term} could not be renewed and its authority ends in {left:?}: PostgreSQL is stopped now, so that it has ended before another member may lead"),
            Why::LeadLostTo { leader } => write!(f, "{leader} holds the leader key and this PostgreSQL still runs as a primary, or was told to become one: it is stopped at once"),
            Why::LeadGoneWithoutEtcd => f.write_str("this PostgreSQL runs as a primary, or was told to become one, the authority to do so has ended and etcd does not answer: it is stopped at once"),
            Why::LeaderKeyNamesUsUnderAnotherLease { term } => write!(f, "the leader key of term {term} names this member, but under a lease that is not this agent's: it is attached to this agent's lease"),
            Why::LeaderKeySpoiledUnderUs { term } => write!(f, "somebody overwrote the leader key of our term {term} with something that names nobody: it is written again"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    // A standby that was told to promote becomes a primary at any moment, also when it hung meanwhile.
    let primary = turn.seen.may_be_primary() || turn.memory.promoting.is_some();
    if turn.seen.rules.pause || !primary {
        return None;
    }
    if let (Authority::Held { term, deadline }, Some(stop_at)) = (turn.seen.authority, turn.stop_at())
        && turn.now >= stop_at
    {
        return Some(stop(turn, Why::DeadlineNear { term, left: turn.now.until(deadline) }));
    }
    if turn.leads().is_some() {
        return None;
    }
    let (leader, contact) = match &turn.seen.etcd {
        Etcd::Never { .. } => return None,
        Etcd::Seen { cluster, contact } => (cluster.leader.clone(), *contact),
    };
    match (leader, contact) {
        (LeaderKey::Held { name, .. }, _) if name != turn.seen.me => {
            Some(stop(turn, Why::LeadLostTo { leader: name }))
        }
        // The lease ended before etcd came back; the view of it is a moment behind, and all others wait for us.
        (_, Contact::Lost { .. }) if turn.lives_by_failsafe().is_some() => None,
        (_, Contact::Lost { .. }) => Some(stop(turn, Why::LeadGoneWithoutEtcd)),
        (LeaderKey::Held { term, .. }, Contact::Live) => {
            let reason = Why::LeaderKeyNamesUsUnderAnotherLease { term };
            Some(super::adopt(turn, Answer::because(reason), term))
        }
        (LeaderKey::Spoiled { term }, Contact::Live) if turn.memory.term == Some(term) => {
            Some(Answer::because(Why::LeaderKeySpoiledUnderUs { term }).act(Action::AdoptLeader(term)))
        }
        (LeaderKey::Spoiled { .. } | LeaderKey::Free, Contact::Live) => None,
    }
}

fn stop(turn: &mut Turn<'_>, reason: Why) -> Answer {
    let patience = turn.seen.rules.stop_budget();
    let actions = turn.stop(StopMode::Immediate, patience);
    Answer::because(reason).act_all(actions).wake_at(turn.now.after(patience))
}
