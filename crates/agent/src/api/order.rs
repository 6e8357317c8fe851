//! `/reload`, `/restart`, `/reinitialize`: what is asked of this member alone.

use super::Shared;
use super::reply::{self, Reply};
use super::status;
use crate::conditions::Conditions;
use crate::planned::Plan;
use crate::signals::Signal;
use ha::Order;
use hyper::StatusCode;
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

const RESTART_WITHIN: Duration = Duration::from_secs(600);

/// Has the settings read again, and PostgreSQL its configuration.
pub(super) fn reload(shared: &Shared) -> Reply {
    shared.signals.raise(Signal::Reload);
    reply::text(StatusCode::ACCEPTED, "reload scheduled")
}

/// Restarts PostgreSQL if the conditions in the body hold, and answers when it is done; or plans that for a time.
pub(super) async fn restart(body: Option<Value>, shared: &Arc<Shared>) -> Reply {
    let body = match body {
        Some(Value::Object(body)) => body,
        Some(_) | None => Map::new(),
    };
    let conditions = match Conditions::read(&body) {
        Ok(conditions) => conditions,
        Err(why) => return reply::text(StatusCode::BAD_REQUEST, why),
    };
    if let Some(when) = body.get("schedule") {
        return plan(when, conditions, &body, shared);
    }
    if conditions.unmet(&status::present(shared)).is_some() {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "restart conditions are not satisfied");
    }
    let ended = match shared.orders.give(Order::Restart { within: conditions.within }) {
        Ok(ended) => ended,
        Err(order) => return in_progress(&order),
    };
    match tokio::time::timeout(conditions.within.unwrap_or(RESTART_WITHIN), ended).await {
        Ok(Ok(ended)) if ended.done => reply::text(StatusCode::OK, "restarted successfully"),
        Ok(Ok(_) | Err(_)) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "restart failed"),
        Err(_) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "postgres is still starting"),
    }
}

fn plan(when: &Value, conditions: Conditions, body: &Map<String, Value>, shared: &Shared) -> Reply {
    let schedule = match super::schedule::read(when, "restart", shared.dynamic().pause) {
        Ok(schedule) => schedule,
        Err(refusal) => return *refusal,
    };
    let facts = shared.local.seen().facts;
    let started = facts.map(|(facts, _)| facts.postmaster_start_time.clone());
    if shared.planned.put(Plan::new(schedule, conditions, body, started)) {
        reply::text(StatusCode::ACCEPTED, "Restart scheduled")
    } else {
        reply::text(StatusCode::CONFLICT, "Another restart is already scheduled")
    }
}

/// Takes a planned restart back.
pub(super) fn flush_restart(shared: &Shared) -> Reply {
    match shared.planned.take() {
        Some(_) => reply::text(StatusCode::OK, "scheduled restart deleted"),
        None => reply::text(StatusCode::NOT_FOUND, "no restarts are scheduled"),
    }
}

/// Clones the data directory anew; answers at once.
pub(super) fn reinitialize(body: Option<Value>, shared: &Arc<Shared>) -> Reply {
    if status::is_leader(shared) {
        let text = "I am the leader, can not reinitialize";
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if status::leader(shared).is_none() {
        let text = "Cluster has no leader, can not reinitialize";
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    let force = body.as_ref().and_then(|body| body.get("force")).and_then(Value::as_bool).unwrap_or(false);
    let from_leader = body.as_ref().and_then(|body| body.get("from_leader")).and_then(Value::as_bool);
    let from_leader = from_leader.unwrap_or(false);
    let given = match shared.jobs.running() {
        ha::Job::Running { .. } | ha::Job::Idle if force => {
            shared.jobs.cancel();
            shared.orders.reinitialize(from_leader)
        }
        ha::Job::Running { work, .. } => {
            let ordered = matches!(shared.orders.head(), Some(Order::Reinitialize { .. }));
            let busy = if ordered { "reinitialize" } else { name(&work) };
            let text = format!("{busy} already in progress");
            return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
        }
        ha::Job::Idle => shared.orders.give(Order::Reinitialize { from_leader }),
    };
    match given {
        Ok(_) => reply::text(StatusCode::OK, "reinitialize started"),
        Err(order) => in_progress(&order),
    }
}

/// What a member without an order is busy with.
fn name(work: &ha::Work) -> &'static str {
    match work {
        ha::Work::Bootstrap => "bootstrap",
        ha::Work::Clone(_) => "making a replica",
        ha::Work::Rewind { .. } => "running pg_rewind",
        ha::Work::Checkpoint => "checkpoint",
        ha::Work::ArchiveTail => "archiving WAL",
        ha::Work::PrePromote(_) => "pre_promote",
        ha::Work::HandTail { .. } => "handing WAL over",
    }
}

fn in_progress(order: &Order) -> Reply {
    let name = match order {
        Order::Restart { .. } | Order::LoadSlots => "restart",
        Order::Reinitialize { .. } => "reinitialize",
        Order::Shutdown => "shutdown",
    };
    reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{name} already in progress"))
}
