//! A stopped member comes back under another leader: may it follow, must it be rewound, or copied anew?
//!
//! ```text
//!                              leader's timeline
//!                 lower           same                 higher, fork from ours at F
//!   standby       rewind          follow               reached F or less: follow, else rewind
//!   ex-primary    rewind          copy (two primaries  stopped cleanly before F: follow, else rewind
//!                                 on one timeline)
//! ```
//! A rewind that is not possible (settings, no checksums, failed three times) becomes a copy; the old directory is kept aside.

use super::Why;
use crate::action::{Action, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Control, LeaderHistory};
use types::{History, Lsn, NodeName, Timeline};

/// After so many failed rewinds the directory is kept aside and copied anew.
const REWINDS_TRIED: u32 = 3;

type Fork = Option<(Timeline, Lsn)>;

enum Way {
    Follow,
    Rewind(Fork),
    Copy,
    AskHistory,
    WaitForPrimary,
}

pub(super) fn answer(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control, leader: &NodeName) -> Answer {
    let leader = leader.clone();
    match way(turn, cluster, control, &leader) {
        Way::Follow => super::start(turn, Why::StartsStandby { leader: leader.clone() }, Some(leader)),
        Way::WaitForPrimary => Answer::because(Why::WaitsForLeaderToBePrimary { leader }),
        Way::AskHistory => {
            let answer = Answer::because(Why::AsksLeaderHistory { leader: leader.clone() });
            turn.ask_history(answer, leader)
        }
        Way::Rewind(fork) => {
            let rewindable = turn.seen.rules.may_rewind && control.rewindable;
            if rewindable && turn.memory.rewind.failures < REWINDS_TRIED {
                rewind(turn, leader, fork)
            } else {
                copy(turn, leader)
            }
        }
        Way::Copy => copy(turn, leader),
    }
}

fn way(turn: &Turn<'_>, cluster: &Cluster, control: &Control, leader: &NodeName) -> Way {
    if turn.memory.reconciled.as_ref() == Some(leader) {
        return Way::Follow;
    }
    let Some(theirs) = super::super::primary_timeline(cluster, leader) else {
        return if control.standby { Way::Follow } else { Way::WaitForPrimary };
    };
    if turn.memory.must_rewind {
        return Way::Rewind(None);
    }
    let ours = control.timeline;
    if theirs < ours {
        return Way::Rewind(None);
    }
    if theirs == ours {
        return if control.standby { Way::Follow } else { Way::Copy };
    }
    match &turn.seen.leader_history {
        LeaderHistory::Known { leader: asked, history } if asked == leader && history.timeline == theirs => {
            compare(control, history)
        }
        LeaderHistory::Known { .. } | LeaderHistory::Unknown => Way::AskHistory,
    }
}

/// Compares where we got to with where the leader's history left our timeline.
fn compare(control: &Control, history: &History) -> Way {
    let Some(fork) = history.end_of(control.timeline) else {
        return Way::Rewind(None);
    };
    let within = match (control.standby, control.clean) {
        (true, _) => control.reached <= fork,
        // The checkpoint of a clean stop is the last record: it lies before the fork or it is not part of the leader's history.
        (false, true) => control.checkpoint < fork,
        (false, false) => false,
    };
    if within { Way::Follow } else { Way::Rewind(Some((control.timeline, fork))) }
}

fn rewind(turn: &Turn<'_>, leader: NodeName, fork: Fork) -> Answer {
    let retry = turn.memory.rewind;
    match retry.not_before.filter(|_| !retry.due(turn.now)) {
        Some(at) => Answer::because(Why::RejoinRetryLater { failures: retry.failures, at }).wake_at(at),
        None => Answer::because(Why::Rewinds { leader: leader.clone(), fork })
            .act(Action::Begin(Work::Rewind { from: leader, fork })),
    }
}

fn copy(turn: &Turn<'_>, leader: NodeName) -> Answer {
    let retry = turn.memory.clone;
    match retry.not_before.filter(|_| !retry.due(turn.now)) {
        Some(at) => Answer::because(Why::RejoinRetryLater { failures: retry.failures, at }).wake_at(at),
        None => Answer::because(Why::ClonesDiverged { leader: leader.clone() })
            .act(Action::Begin(Work::Clone(leader))),
    }
}
