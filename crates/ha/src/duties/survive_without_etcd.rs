//! Without etcd nothing new is decided: a primary leads on while its lease lasts (the deadline is the first duty's), a standby
//! follows on, and what is stopped comes up as a standby, which harms nobody and keeps its WAL in the race that follows.

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::duties::routers::{self, LedHere};
use crate::duties::synchronize;
use crate::observation::{Contact, Control, Data, Etcd, Order, Postgres, Running};
use crate::rules::SyncMode;
use crate::sync_quorum::fits;
use crate::upstream::{self, Upstream};
use std::fmt;
use types::{Moment, StandbyNames, Term};

/// What goes on without etcd.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    WaitingForEtcd { since: Moment },
    LeadsOnItsLease { term: Term, until: Moment },
    LeadsByFailsafe { until: Moment },
    RestartsPrimaryByFailsafe { term: Term },
    FollowsWithoutEtcd { since: Moment },
    StartsStandbyWithoutEtcd,
    AwaitsRoutersWithoutEtcd { routers: Vec<String>, until: Moment },
    StoppedWithoutEtcd { since: Moment },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::WaitingForEtcd { .. } => f.write_str("etcd has not answered since this agent started: it waits and leaves PostgreSQL as it is"),
            Why::LeadsOnItsLease { term, .. } => write!(f, "etcd does not show the cluster at the moment; the lease of term {term} is still good and the lead is kept until it ends"),
            Why::LeadsByFailsafe { .. } => f.write_str("etcd does not show the cluster at the moment; all other members agreed that this one leads on (failsafe mode)"),
            Why::RestartsPrimaryByFailsafe { term } => write!(f, "PostgreSQL ended while this member leads in term {term} without etcd, by the word of all others (failsafe mode): it is started again"),
            Why::FollowsWithoutEtcd { .. } => f.write_str("etcd does not answer; PostgreSQL goes on as it is"),
            Why::StartsStandbyWithoutEtcd => f.write_str("etcd does not answer and PostgreSQL is stopped: it is started as a standby, which can be read and harms nobody"),
            Why::AwaitsRoutersWithoutEtcd { .. } => f.write_str("etcd does not answer and PostgreSQL, which was the primary, is stopped: it comes up for reading when no router can lead sessions any more to the pooler beside it, where they would find a standby"),
            Why::StoppedWithoutEtcd { .. } => f.write_str("etcd does not answer and PostgreSQL is stopped; it waits"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    match &turn.seen.etcd {
        Etcd::Never { since } => Some(never(turn, *since)),
        Etcd::Seen { contact: Contact::Live, .. } => None,
        Etcd::Seen { contact: Contact::Lost { since }, .. } => Some(without(turn, *since)),
    }
}

/// Only a lead that an earlier life of this agent held goes on, and only with what runs.
fn never(turn: &Turn<'_>, since: Moment) -> Answer {
    let serves = turn.seen.may_be_primary() || turn.seen.rules.standby_cluster;
    match (turn.leads().filter(|_| serves), turn.lives_by_failsafe(), turn.stop_at()) {
        (Some(_), Some(until), _) => Answer::because(Why::LeadsByFailsafe { until }),
        (Some(term), None, Some(until)) => Answer::because(Why::LeadsOnItsLease { term, until }),
        (Some(_) | None, _, _) => Answer::because(Why::WaitingForEtcd { since }),
    }
}

fn without(turn: &mut Turn<'_>, since: Moment) -> Answer {
    let stop_at = turn.stop_at();
    let concerned = turn.leads().is_some() || turn.seen.may_be_primary();
    if let Some(until) = turn.lives_by_failsafe().filter(|_| concerned) {
        return by_failsafe(turn, until);
    }
    if let (Some(term), Some(until)) = (turn.leads(), stop_at) {
        return Answer::because(Why::LeadsOnItsLease { term, until });
    }
    match &turn.seen.postgres {
        Postgres::Running(Running::Primary { .. } | Running::Standby { .. })
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => Answer::because(Why::FollowsWithoutEtcd { since }),
        Postgres::Stopped => match &turn.seen.data {
            Data::Present(control) if may_start(turn) => {
                if let Some(answer) = await_routers(turn, *control) {
                    return answer;
                }
                turn.memory.start = turn.memory.start.failed(turn.now);
                let followed = turn.seen.cluster().zip(turn.seen.other_leader());
                let upstream = followed
                    .map_or(Upstream::Archive, |(cluster, leader)| upstream::followed(turn, cluster, leader));
                let answer = Answer::because(Why::StartsStandbyWithoutEtcd);
                answer.act(Action::StartStandby(upstream))
            }
            Data::Present(_) | Data::Empty | Data::Incomplete | Data::Unusable => {
                Answer::because(Why::StoppedWithoutEtcd { since })
            }
        },
    }
}

/// As with etcd, but nobody can say anything: the time alone counts.
fn await_routers(turn: &mut Turn<'_>, control: Control) -> Option<Answer> {
    let cluster = turn.seen.cluster()?.clone();
    let LedHere { routers, until } = routers::led_here(turn, &cluster, &control)?;
    Some(Answer::because(Why::AwaitsRoutersWithoutEtcd { routers, until }).wake_at(until))
}

/// All others agreed: what the leader would do on its lease it does now, too.
fn by_failsafe(turn: &mut Turn<'_>, until: Moment) -> Answer {
    match turn.leads() {
        Some(term) if turn.is_stopped_primary() && may_restart(turn) => {
            turn.memory.start = turn.memory.start.failed(turn.now);
            let managed = turn.seen.rules.synchronous.mode != SyncMode::Off;
            let names = names(turn).filter(|_| managed).map(|names| Action::SetSynchronous(Some(names)));
            let answer = Answer::because(Why::RestartsPrimaryByFailsafe { term });
            let answer = answer.act_all(names.into_iter().collect());
            answer.act(Action::ArmGuard(term)).act(Action::StartPrimary)
        }
        Some(_) | None => Answer::because(Why::LeadsByFailsafe { until }),
    }
}

/// A crash or an ordered restart is not made longer by the absence of etcd.
fn may_restart(turn: &Turn<'_>) -> bool {
    let memory = &turn.memory;
    let rules = &turn.seen.rules;
    let ordered =
        memory.ordered.as_ref().is_none_or(|ordered| matches!(ordered.order, Order::Restart { .. }));
    let names_known = rules.synchronous.mode == SyncMode::Off || names(turn).is_some();
    memory.start.due(turn.now)
        && ordered
        && memory.step_aside.is_none()
        && !rules.standby_cluster
        && names_known
}

/// Which standbys commits must wait for: known only to who chose them. What was asked for last may not have been carried out,
/// because the write to `/sync` before it was not answered: the names must fit what stood there and what may stand there since.
fn names(turn: &Turn<'_>) -> Option<StandbyNames> {
    let change = &turn.memory.sync;
    let (asked, _) = change.asked.as_ref()?;
    let ours = turn.seen.cluster()?.sync.as_ref().filter(|key| key.is_led_by(&turn.seen.me));
    let said = ours.map(|key| key.promise.clone()).unwrap_or_default();
    let may_say = || change.sent.iter().flat_map(|sent| sent.others.iter().chain([&sent.promise]));
    let sure = |names: &StandbyNames| fits(&said, names) && may_say().all(|sent| fits(sent, names));
    let kept = synchronize::names_for(said.clone(), &turn.seen.rules.synchronous);
    [asked.clone(), kept].into_iter().find(sure)
}

/// A cluster that was just created here is not started before it is known to have become the cluster.
fn may_start(turn: &Turn<'_>) -> bool {
    turn.memory.start.due(turn.now) && turn.memory.ordered.is_none() && !turn.memory.created
}
