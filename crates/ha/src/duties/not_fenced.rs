//! Every process of the primary was killed, and some do not end: the kernel holds them in a call that cannot be interrupted.
//!
//! ```text
//!   killed ─► gone in a moment: nothing to do here
//!         └─► still there ─► said to everybody; the lease is left to end, the key is not released
//!                               └► gone: the other duties go on     └► the lease has ended: others may lead
//! ```
//! Asked before the deadline is kept: a key that was left to its end must not be taken up again while they are there.

use crate::action::{Action, StopMode};
use crate::decision::{Answer, Turn};
use crate::observation::Postgres;
use std::fmt;
use types::Moment;

/// What remains to be done.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    NotFenced { since: Moment },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NotFenced { .. } => f.write_str("NOT FENCED: every process of this primary was killed and some do not end, because the kernel holds them (uninterruptible sleep: a disk that does not answer?). None of them can answer a client any more, but this member does not say that its primary is gone: its lease is left to end, and others lead after that. Bring the disk back, or switch this host off"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let since = turn.seen.signs.killed.filter(|_| turn.seen.postgres != Postgres::Stopped)?;
    let late = since.after(turn.seen.rules.fence_patience());
    if turn.now < late || !turn.seen.may_be_primary() {
        return None;
    }
    // The guard may have done it while the agent could not.
    let budget = turn.seen.rules.stop_budget();
    let runs = match &turn.seen.postgres {
        Postgres::Stopped | Postgres::Stopping { .. } => false,
        Postgres::Starting { .. } | Postgres::Running(_) | Postgres::Unresponsive { .. } => true,
    };
    let ends = runs && !turn.seen.rules.pause;
    let kill = if ends { turn.stop(StopMode::Kill, budget) } else { Vec::new() };
    let forsake = turn.leads().map(Action::ForsakeLead);
    Some(Answer::because(Why::NotFenced { since }).act_all(kill).act_all(forsake.into_iter().collect()))
}
