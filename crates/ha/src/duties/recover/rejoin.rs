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

use super::{REWINDS_TRIED, Why};
use crate::action::{Action, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Control, LeaderHistory};
use crate::upstream::{self, Upstream};
use types::{History, Lsn, NodeName, Timeline};

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
    match way(turn, control, &leader) {
        Way::Follow => {
            let upstream = upstream::followed(turn, cluster, &leader);
            super::start(turn, Why::StartsStandby { leader }, upstream)
        }
        Way::WaitForPrimary => Answer::because(Why::WaitsForLeaderToBePrimary { leader }),
        Way::AskHistory => {
            let answer = Answer::because(Why::AsksLeaderHistory { leader: leader.clone() });
            let pause = turn.seen.rules.race_pause();
            turn.ask_history(answer, Upstream::Member(leader), pause)
        }
        Way::Rewind(fork) => {
            let rewindable = turn.seen.rules.may_rewind && control.rewindable;
            if rewindable && turn.memory.rewind.failures < REWINDS_TRIED {
                rewind(turn, leader, fork)
            } else {
                copy(turn, cluster, &leader)
            }
        }
        Way::Copy => copy(turn, cluster, &leader),
    }
}

fn way(turn: &Turn<'_>, control: &Control, leader: &NodeName) -> Way {
    let follows = |with: &Upstream| with.member() == Some(leader);
    if turn.memory.reconciled.as_ref().is_some_and(follows) {
        return Way::Follow;
    }
    let Some(theirs) = super::super::leading_timeline(turn, leader) else {
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
        LeaderHistory::Known { of, history, .. }
            if of.member() == Some(leader) && history.timeline == theirs =>
        {
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
    let from = Upstream::Member(leader);
    match retry.not_before.filter(|_| !retry.due(turn.now)) {
        Some(at) => Answer::because(Why::RejoinRetryLater { failures: retry.failures, at }).wake_at(at),
        None => Answer::because(Why::Rewinds { from: from.clone(), fork })
            .act(Action::Begin(Work::Rewind { from, fork })),
    }
}

fn copy(turn: &Turn<'_>, cluster: &Cluster, leader: &NodeName) -> Answer {
    let retry = turn.memory.clone;
    let from = upstream::copied(turn, cluster, leader);
    match retry.not_before.filter(|_| !retry.due(turn.now)) {
        Some(at) => Answer::because(Why::RejoinRetryLater { failures: retry.failures, at }).wake_at(at),
        None => {
            Answer::because(Why::ClonesDiverged { from: from.clone() }).act(Action::Begin(Work::Clone(from)))
        }
    }
}
