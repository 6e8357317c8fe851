//! A stopped member that leads a standby cluster comes back as a standby of the remote cluster, never as a primary.
//!
//! ```text
//!   it was the primary, stopped cleanly ─► its last WAL is given to the archive first: the other site finds it there
//!   it has gone another way ────────────► rewound, or copied anew when that is not possible
//!   else ───────────────────────────────► started
//! ```

use super::super::routers::announces;
use super::super::{SEEN_LATE, not_seen_yet};
use super::{REWINDS_TRIED, Why};
use crate::action::{Action, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Control};
use crate::upstream::Upstream;

pub(super) fn answer(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control) -> Answer {
    if turn.memory.must_rewind {
        return rejoin(turn, control);
    }
    if !control.standby && control.clean && !turn.memory.tail_archived && !turn.memory.created {
        return Answer::because(Why::ArchivesTail).act(Action::Begin(Work::ArchiveTail));
    }
    match super::await_routers(turn, cluster, control) {
        Some(answer) => withdraw(turn, cluster, answer),
        None => super::start(turn, Why::StartsStandbyLeader, Upstream::Remote),
    }
}

/// The announcement of writes was withdrawn before the stop, if etcd answered then: by that the routers know.
fn withdraw(turn: &mut Turn<'_>, cluster: &Cluster, answer: Answer) -> Answer {
    let Some(term) = turn.leads().filter(|term| announces(turn, cluster, *term)) else { return answer };
    if let Some(late) = not_seen_yet(turn, turn.memory.withdrawn, term) {
        return answer.wake_at(late);
    }
    turn.memory.withdrawn = Some((term, turn.now));
    answer.act(Action::WithdrawWritable(term)).wake_at(turn.now.after(SEEN_LATE))
}

fn rejoin(turn: &Turn<'_>, control: &Control) -> Answer {
    let rewindable = turn.seen.rules.may_rewind && control.rewindable;
    let rewinds = rewindable && turn.memory.rewind.failures < REWINDS_TRIED;
    let (retry, from) = if rewinds {
        (turn.memory.rewind, Why::Rewinds { from: Upstream::Remote, fork: None })
    } else {
        (turn.memory.clone, Why::ClonesDiverged { from: Upstream::Remote })
    };
    if let Some(at) = retry.not_before.filter(|_| !retry.due(turn.now)) {
        return Answer::because(Why::RejoinRetryLater { failures: retry.failures, at }).wake_at(at);
    }
    let work = match rewinds {
        true => Work::Rewind { from: Upstream::Remote, fork: None },
        false => Work::Clone(Upstream::Remote),
    };
    Answer::because(from).act(Action::Begin(work))
}
