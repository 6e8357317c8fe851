//! A restart that was planned for a time: begun then as an order, or dropped when it makes no sense any more.
//!
//! ```text
//!   started since, by whomever ─► dropped          its time has not come, or pause ─► waits
//!   too late ─► dropped            conditions do not hold ─► dropped            else ─► becomes an order
//! ```

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::observation::{Postgres, Running};
use crate::plans::{Due, Unmet};
use std::fmt;
use std::time::Duration;

/// What becomes of the planned restart.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    RestartIsDue,
    RestartOvertaken,
    RestartTooLate { late: Duration },
    RestartUnmet { unmet: Unmet },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::RestartIsDue => f.write_str("the time of the scheduled restart has come"),
            Why::RestartOvertaken => f.write_str(
                "the scheduled restart is dropped: PostgreSQL was started again since it was scheduled",
            ),
            Why::RestartTooLate { late } => write!(
                f,
                "the scheduled restart is dropped: its time passed {late:?} ago and it could not be done then"
            ),
            Why::RestartUnmet { unmet } => {
                write!(f, "the scheduled restart is dropped, its conditions do not hold: {unmet}")
            }
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let plan = turn.seen.planned.clone().filter(|_| !turn.seen.rules.pause)?;
    let drop = |why| Some(Answer::because(why).act(Action::DropPlannedRestart));
    if plan.overtaken {
        return drop(Why::RestartOvertaken);
    }
    let due = Due::At(plan.at);
    if let Some(late) = due.late(turn.now, turn.seen.rules.plan_tolerance()) {
        return drop(Why::RestartTooLate { late });
    }
    let running = match &turn.seen.postgres {
        Postgres::Running(Running::Primary { .. } | Running::Standby { .. }) => true,
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => false,
    };
    if !running || !due.has_come(turn.now) {
        return None;
    }
    match plan.unmet {
        Some(unmet) => drop(Why::RestartUnmet { unmet }),
        None => {
            let answer = Answer::because(Why::RestartIsDue).act(Action::BeginPlannedRestart);
            Some(answer.wake_at(turn.now))
        }
    }
}
