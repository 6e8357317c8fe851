//! The watchdog is required and does not work: nothing may be a primary here.
//!
//! ```text
//!   a primary, or what may be one ─► tell the routers, stop (fast) ─► stopped: release the key
//!   leads as a standby ────────────► release the key
//!   does not lead ─────────────────► passes; the race refuses with the same reason
//! ```
//! In pause the watchdog is off and nothing depends on it; who leads a standby cluster is no primary.

use crate::action::{Action, StopMode};
use crate::decision::{Answer, Turn};
use crate::observation::Postgres;
use std::fmt;
use types::Term;

/// What is done about it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    StopsUnprotected,
    ReleasesLeadUnprotected { term: Term },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::StopsUnprotected => f.write_str("the watchdog is required (watchdog.mode) and does not work, see the agent's log: this primary is stopped, so that a protected member can lead"),
            Why::ReleasesLeadUnprotected { term } => write!(f, "the watchdog is required (watchdog.mode) and does not work, see the agent's log: the leader key of term {term} is released for a protected member"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let rules = &turn.seen.rules;
    if !turn.seen.unprotected() {
        return None;
    }
    if turn.seen.may_be_primary() {
        let patience = rules.retry_timeout;
        let mut answer = Answer::because(Why::StopsUnprotected);
        if let Some(term) = turn.leads().filter(|_| turn.memory.stopping.is_none()) {
            answer = answer.act(Action::WithdrawWritable(term));
        }
        let actions = turn.stop(StopMode::Fast, patience);
        return Some(answer.act_all(actions).wake_at(turn.now.after(patience)));
    }
    let term = turn.leads()?;
    match &turn.seen.postgres {
        Postgres::Stopped | Postgres::Running(_) => {
            let until = turn.now.after(rules.ttl);
            turn.memory.no_race_before = Some(until);
            let answer = Answer::because(Why::ReleasesLeadUnprotected { term });
            Some(answer.act(Action::ReleaseLeader(term)).wake_at(until))
        }
        Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => None,
    }
}
