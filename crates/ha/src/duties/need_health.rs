//! This member leads, and its PostgreSQL hangs or its disk is full or hangs: the lead goes to a healthy member, if there is one.
//!
//! ```text
//!   ill for long enough, another member is well ─► tell the routers, stop (harder and harder) ─► stopped: release the key
//!   ill, and nobody else could lead ─────────────► passes: the other duties keep trying
//!   does not lead, its disk hangs ───────────────► nothing is started on it
//! ```
//! How long is enough depends on the signs (see `signs`). How PostgreSQL is stopped depends on what it can still do: a clean stop
//! loses nothing, but a stopped process hears nothing but SIGKILL.

use super::recover::Cause;
use crate::action::{Action, StopMode, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Contact, Etcd, Job, Postgres, Running};
use crate::signs::{Ailment, Pulse, Volume};
use std::fmt;
use std::time::Duration;
use types::{Moment, Term};

/// What is done about it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    StopsSick { ailment: Ailment },
    GivesLeadAwaySick { ailment: Ailment },
    WaitsForDisk { ailment: Ailment },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::StopsSick { ailment } => write!(
                f,
                "this member leads and {ailment}: PostgreSQL is ended here, so that a healthy member can lead"
            ),
            Why::GivesLeadAwaySick { ailment } => {
                write!(f, "{ailment}, and PostgreSQL has ended here: the lead is given to a healthy member")
            }
            Why::WaitsForDisk { ailment } => {
                write!(f, "PostgreSQL is stopped and {ailment}: it is not started before that is over")
            }
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    if turn.seen.rules.pause || turn.seen.rules.standby_cluster {
        return None;
    }
    let Some(term) = turn.leads() else {
        turn.memory.leaves_for = None;
        return starts_nothing(turn);
    };
    match turn.seen.etcd {
        Etcd::Seen { contact: Contact::Live, .. } => {}
        Etcd::Seen { contact: Contact::Lost { .. }, .. } | Etcd::Never { .. } => return None,
    }
    let cluster = turn.seen.cluster()?;
    let another = super::another_could_lead(turn.seen, cluster);
    let counts = turn.seen.ailment().filter(|(_, from)| turn.now >= *from).map(|(ailment, _)| ailment);
    // What was begun is brought to its end, also when the signs end with the process that gave them.
    let Some(ailment) = turn.memory.leaves_for.or(counts.filter(|_| another)) else {
        return starts_nothing(turn);
    };
    match &turn.seen.postgres {
        Postgres::Running(Running::Standby { .. }) => None,
        Postgres::Stopped if turn.memory.step_aside.is_some() => None,
        Postgres::Stopped if hands_tail(turn) => None,
        // It was ended for that: who takes over is decided by the race, and not by what was last heard of them.
        Postgres::Stopped => match ailment {
            // Its disks are well: what it wrote last can still be had.
            Ailment::Silent | Ailment::Closed => super::recover::leave(turn, Cause::Sick(ailment)),
            Ailment::DiskLow
            | Ailment::DiskFull { .. }
            | Ailment::DiskFailed { .. }
            | Ailment::DiskHung { .. } => None,
        }
        .or_else(|| Some(give_away(turn, ailment, term))),
        Postgres::Running(Running::Primary { .. })
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => Some(stop(turn, ailment, term)),
    }
}

fn hands_tail(turn: &Turn<'_>) -> bool {
    matches!(turn.seen.job, Job::Running { work: Work::HandTail { .. }, .. })
}

/// When what is wrong here begins to count.
pub(crate) fn counts_at(turn: &Turn<'_>) -> Option<Moment> {
    let killed = turn.seen.signs.killed.map(|killed| killed.after(turn.seen.rules.fence_patience()));
    let ailment = turn.seen.ailment().map(|(_, from)| from);
    ailment.into_iter().chain(killed).filter(|from| turn.now < *from).min()
}

fn stop(turn: &mut Turn<'_>, ailment: Ailment, term: Term) -> Answer {
    turn.memory.leaves_for = Some(ailment);
    let answer = Answer::because(Why::StopsSick { ailment });
    let withdraw = turn.memory.stopping.is_none().then_some(Action::WithdrawWritable(term));
    let (mode, patience) = how(turn, ailment);
    let actions = turn.stop(mode, patience);
    answer.act_all(withdraw.into_iter().collect()).act_all(actions).wake_at(turn.now.after(patience))
}

/// How PostgreSQL is stopped, and how long that may take before it is stopped harder.
fn how(turn: &Turn<'_>, ailment: Ailment) -> (StopMode, Duration) {
    let budget = turn.seen.rules.stop_budget();
    if matches!(turn.seen.signs.pulse, Pulse::Halted { .. }) {
        return (StopMode::Kill, budget);
    }
    let runs = matches!(turn.seen.postgres, Postgres::Running(_) | Postgres::Stopping { .. });
    match ailment {
        // It works as long as nothing new is needed: it may send its standbys all it has.
        Ailment::DiskLow | Ailment::DiskFull { of: Volume::Data } if runs => {
            (StopMode::Fast, turn.seen.rules.disk_limit())
        }
        Ailment::DiskFull { of: Volume::Wal } if runs => (StopMode::Fast, budget * 2),
        Ailment::DiskLow
        | Ailment::DiskFull { .. }
        | Ailment::DiskFailed { .. }
        | Ailment::DiskHung { .. }
        | Ailment::Silent
        | Ailment::Closed => (StopMode::Immediate, budget),
    }
}

fn give_away(turn: &mut Turn<'_>, ailment: Ailment, term: Term) -> Answer {
    let until = turn.now.after(turn.seen.rules.ttl);
    turn.memory.no_race_before = Some(until);
    turn.memory.leaves_for = None;
    turn.memory.down_since = None;
    turn.memory.start = Default::default();
    let answer = Answer::because(Why::GivesLeadAwaySick { ailment });
    answer.act(Action::ReleaseLeader(term)).wake_at(until)
}

/// A start on a disk that hangs would hang as well.
fn starts_nothing(turn: &Turn<'_>) -> Option<Answer> {
    let ailment = turn.seen.sick_disk(turn.now).filter(|_| turn.seen.postgres == Postgres::Stopped)?;
    match ailment {
        Ailment::DiskHung { .. } => {
            let soon = turn.now.after(turn.seen.rules.loop_wait);
            Some(Answer::because(Why::WaitsForDisk { ailment }).wake_at(soon))
        }
        Ailment::DiskFailed { .. }
        | Ailment::DiskFull { .. }
        | Ailment::DiskLow
        | Ailment::Silent
        | Ailment::Closed => None,
    }
}
