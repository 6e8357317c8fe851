//! What a person asked this agent to do: restart PostgreSQL, clone anew, or end.
//!
//! ```text
//!   restart       stop (fast) ─► stopped ─► the other duties start it again ─► running: done
//!   load slots    the same, of a standby whose leader is there: what was copied is placed while it is stopped
//!   reinitialize  stop (immediate) ─► stopped ─► clone from the leader ─► running: done
//!   shutdown      leading: hand the lead over (step aside) ─► stopped ─► exit
//! ```

use crate::action::Work;
use crate::action::{Action, ExitWhy, StopMode};
use crate::decision::{Answer, Turn};
use crate::memory::{Ordered, StepAside, StepAsideWhy};
use crate::observation::{Order, Postgres, Running};
use crate::standing;
use crate::upstream::{self, Upstream};
use std::fmt;
use types::NodeName;

/// How far an order has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    RestartOrdered,
    RestartDone,
    LoadsSlots,
    LoadsSlotsLater,
    SlotsLoaded,
    ReinitializeOrdered { from: Upstream },
    ReinitializeRefusedAsLeader,
    ReinitializeRefusedWithoutLeader,
    AwaitsRelease { leader: NodeName },
    ReinitializeRefusedAsPromised { leader: NodeName },
    ReinitializeDone,
    ShutdownOrdered,
    ShutdownDone,
    ShutdownInPause,
    LeavesSynchronous { leader: NodeName },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::RestartOrdered => {
                f.write_str("a restart was ordered: PostgreSQL is being stopped and will be started again")
            }
            Why::RestartDone => f.write_str("the ordered restart is done"),
            Why::LoadsSlots => f.write_str("logical replication slots were copied from the primary: PostgreSQL is restarted to load them"),
            Why::LoadsSlotsLater => f.write_str("copied logical replication slots are not loaded now: this needs another member that leads, and no pause"),
            Why::SlotsLoaded => f.write_str("PostgreSQL was restarted to load copied logical replication slots"),
            Why::ReinitializeOrdered { from } => write!(
                f,
                "a new copy was ordered: the present data directory is moved aside and the one of {from} is copied"
            ),
            Why::ReinitializeRefusedAsLeader => f.write_str(
                "a new copy was ordered, but this member leads: I am the leader, can not reinitialize",
            ),
            Why::ReinitializeRefusedWithoutLeader => f.write_str(
                "a new copy was ordered, but nobody leads: Cluster has no leader, can not reinitialize",
            ),
            Why::AwaitsRelease { leader } => write!(
                f,
                "a new copy was ordered: nothing is moved aside before {leader} has taken this member off /sync, which promises that its data have every acknowledged commit"
            ),
            Why::ReinitializeRefusedAsPromised { leader } => write!(
                f,
                "a new copy was ordered, but {leader} does not take this member off /sync, which promises that its data have every acknowledged commit: nothing was moved aside; see why {leader} does not change /sync, then order it again"
            ),
            Why::ReinitializeDone => f.write_str("the ordered new copy is done and PostgreSQL runs on it"),
            Why::ShutdownOrdered => {
                f.write_str("the agent was told to stop: PostgreSQL is being stopped first")
            }
            Why::ShutdownDone => f.write_str("the agent was told to stop, and PostgreSQL is stopped"),
            Why::LeavesSynchronous { leader } => write!(
                f,
                "commits wait for this standby: {leader} is asked to take it off /sync before PostgreSQL stops"
            ),
            Why::ShutdownInPause => f.write_str(
                "the agent was told to stop while the cluster is paused: PostgreSQL is left as it is",
            ),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let order = match &turn.seen.order {
        None => {
            turn.memory.ordered = None;
            turn.memory.leaving_sync = None;
            return None;
        }
        Some(order) => order.clone(),
    };
    if let Some(answer) = leave_synchronous(turn, &order) {
        return Some(answer);
    }
    match order {
        order @ Order::Restart { .. } => restart(turn, &order, Why::RestartOrdered, Why::RestartDone),
        Order::LoadSlots => load_slots(turn),
        Order::Reinitialize { from_leader } => reinitialize(turn, from_leader),
        Order::Shutdown => shutdown(turn),
    }
}

/// A restart that nobody would notice: never of a primary, nor of a standby that may have to become one in this moment.
fn load_slots(turn: &mut Turn<'_>) -> Option<Answer> {
    let begun = turn.memory.ordered.as_ref().is_some_and(|ordered| ordered.order == Order::LoadSlots);
    let led = turn.leads().is_none() && turn.seen.other_leader().is_some();
    if !begun && (turn.seen.rules.pause || !led) {
        return Some(Answer::because(Why::LoadsSlotsLater).act(Action::FinishOrder { done: false }));
    }
    restart(turn, &Order::LoadSlots, Why::LoadsSlots, Why::SlotsLoaded)
}

/// A synchronous standby goes: first nobody must wait for it any more. The leader takes it off when it publishes that it goes; one
/// that does not is not waited for long.
fn leave_synchronous(turn: &mut Turn<'_>, order: &Order) -> Option<Answer> {
    let left_alone = turn.seen.rules.pause && *order == Order::Shutdown;
    let running = match &turn.seen.postgres {
        Postgres::Running(Running::Standby { .. }) => turn.memory.stopping.is_none(),
        Postgres::Running(Running::Primary { .. })
        | Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => false,
    };
    let cluster = turn.seen.cluster()?;
    let key = standing::synchronous(turn.seen, cluster)?;
    let leader = turn.seen.other_leader().cloned()?;
    let stopped = turn.memory.ordered.as_ref().is_some_and(|ordered| ordered.stopped);
    if left_alone || !running || stopped {
        return None;
    }
    let since = *turn.memory.leaving_sync.get_or_insert(turn.now);
    let until = since.after(turn.seen.rules.loop_wait * 2);
    let waits = key.lists(&turn.seen.me) && turn.now < until;
    waits.then(|| Answer::because(Why::LeavesSynchronous { leader }).wake_at(until))
}

fn restart(turn: &mut Turn<'_>, order: &Order, why: Why, done: Why) -> Option<Answer> {
    match begun(turn, order) {
        Stage::New | Stage::Stopping => {
            turn.memory.ordered = Some(Ordered { order: order.clone(), stopped: false });
            turn.memory.expected_stop = true;
            let mut answer = Answer::because(why);
            if let Some(term) = turn.leads().filter(|_| turn.memory.stopping.is_none()) {
                answer = answer.act(Action::WithdrawWritable(term));
            }
            let patience = turn.stop_patience();
            Some(answer.act_all(turn.stop(StopMode::Fast, patience)))
        }
        Stage::Stopped => None,
        Stage::Running => {
            turn.memory.ordered = None;
            Some(Answer::because(done).act(Action::FinishOrder { done: true }))
        }
    }
}

fn reinitialize(turn: &mut Turn<'_>, from_leader: bool) -> Option<Answer> {
    let order = Order::Reinitialize { from_leader };
    if turn.leads().is_some() {
        let refusal = Answer::because(Why::ReinitializeRefusedAsLeader);
        return Some(refusal.act(Action::FinishOrder { done: false }));
    }
    let leader = turn.seen.other_leader().cloned();
    let ready = |name: &NodeName| super::leading_timeline(turn, name).is_some();
    let Some((leader, cluster)) = leader.filter(ready).zip(turn.seen.cluster()) else {
        let refusal = Answer::because(Why::ReinitializeRefusedWithoutLeader);
        return Some(refusal.act(Action::FinishOrder { done: false }));
    };
    let from = match from_leader {
        true => Upstream::Member(leader.clone()),
        false => upstream::copied(turn, cluster, &leader),
    };
    let reason = Why::ReinitializeOrdered { from: from.clone() };
    match begun(turn, &order) {
        Stage::New | Stage::Stopping => {
            turn.memory.ordered = Some(Ordered { order: order.clone(), stopped: false });
            let patience = turn.seen.rules.retry_timeout;
            if turn.seen.postgres != Postgres::Stopped {
                return Some(Answer::because(reason).act_all(turn.stop(StopMode::Immediate, patience)));
            }
            if let Some(waits) = promised(turn, &leader) {
                return Some(waits);
            }
            turn.memory.ordered = Some(Ordered { order, stopped: true });
            Some(Answer::because(reason).act(Action::Begin(Work::Clone(from))))
        }
        Stage::Stopped if turn.memory.reconciled == Some(Upstream::Member(leader)) => None,
        Stage::Stopped if turn.seen.postgres != Postgres::Stopped => {
            let patience = turn.seen.rules.retry_timeout;
            Some(Answer::because(reason).act_all(turn.stop(StopMode::Immediate, patience)))
        }
        Stage::Stopped => Some(match turn.memory.clone.not_before.filter(|at| turn.now < *at) {
            Some(at) => Answer::because(reason).wake_at(at),
            None => Answer::because(reason).act(Action::Begin(Work::Clone(from))),
        }),
        Stage::Running => {
            turn.memory.ordered = None;
            Some(Answer::because(Why::ReinitializeDone).act(Action::FinishOrder { done: true }))
        }
    }
}

/// The data of a synchronous standby may be the only ones with every commit should the leader be lost now: they stay where they are
/// as long as `/sync` counts on them. A leader that does not react is no reason to give them up.
fn promised(turn: &mut Turn<'_>, leader: &NodeName) -> Option<Answer> {
    let key = standing::synchronous(turn.seen, turn.seen.cluster()?)?;
    if !key.lists(&turn.seen.me) {
        return None;
    }
    let since = *turn.memory.leaving_sync.get_or_insert(turn.now);
    let until = since.after(turn.seen.rules.ttl + turn.seen.rules.loop_wait * 4);
    if turn.now < until {
        return Some(Answer::because(Why::AwaitsRelease { leader: leader.clone() }).wake_at(until));
    }
    let refusal = Answer::because(Why::ReinitializeRefusedAsPromised { leader: leader.clone() });
    Some(refusal.act(Action::FinishOrder { done: false }))
}

fn shutdown(turn: &mut Turn<'_>) -> Option<Answer> {
    if turn.seen.rules.pause {
        return Some(Answer::because(Why::ShutdownInPause).act(Action::Exit(ExitWhy::Stopped)));
    }
    if turn.leads().is_some() {
        let aside = StepAside {
            since: turn.now,
            why: StepAsideWhy::Shutdown,
            candidate: None,
            checkpointed: turn.seen.postgres == Postgres::Stopped,
            announced: None,
        };
        turn.memory.step_aside = Some(turn.memory.step_aside.clone().unwrap_or(aside));
        return None;
    }
    if turn.seen.postgres == Postgres::Stopped {
        return Some(Answer::because(Why::ShutdownDone).act(Action::Exit(ExitWhy::Stopped)));
    }
    let patience = turn.stop_patience();
    let actions = turn.stop(StopMode::Fast, patience);
    Some(Answer::because(Why::ShutdownOrdered).act_all(actions))
}

enum Stage {
    New,
    Stopping,
    Stopped,
    Running,
}

/// How far this order has come.
fn begun(turn: &mut Turn<'_>, order: &Order) -> Stage {
    let running = match &turn.seen.postgres {
        Postgres::Running(Running::Primary { .. } | Running::Standby { .. }) => true,
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => false,
    };
    match &mut turn.memory.ordered {
        Some(ordered) if ordered.order == *order => {
            let restarts = matches!(order, Order::Restart { .. } | Order::LoadSlots);
            let cloned = restarts || turn.memory.clone.failures == 0;
            ordered.stopped |= turn.seen.postgres == Postgres::Stopped && restarts;
            match (ordered.stopped, running) {
                (false, _) => Stage::Stopping,
                (true, true) if cloned => Stage::Running,
                (true, _) => Stage::Stopped,
            }
        }
        Some(_) | None => Stage::New,
    }
}
