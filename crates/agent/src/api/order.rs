//! `/reload`, `/restart`, `/reinitialize`: what is asked of this member alone.

use super::Shared;
use super::reply::{self, Reply};
use super::status;
use crate::signals::Signal;
use ha::Order;
use hyper::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

const RESTART_WITHIN: Duration = Duration::from_secs(600);

/// Has the settings read again, and PostgreSQL its configuration.
pub(super) fn reload(shared: &Shared) -> Reply {
    shared.signals.raise(Signal::Reload);
    reply::text(StatusCode::ACCEPTED, "reload scheduled")
}

/// Restarts PostgreSQL if the conditions in the body hold, and answers when it is done.
pub(super) async fn restart(body: Option<Value>, shared: &Arc<Shared>) -> Reply {
    let mut within = RESTART_WITHIN;
    if let Some(Value::Object(conditions)) = &body {
        for (name, wanted) in conditions {
            match condition(name, wanted, shared) {
                Ok(Condition::Holds) => {}
                Ok(Condition::Within(time)) => within = time,
                Ok(Condition::Fails) => {
                    let text = "restart conditions are not satisfied";
                    return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
                }
                Err(why) => return reply::text(StatusCode::BAD_REQUEST, why),
            }
        }
    }
    let ended = match shared.orders.give(Order::Restart) {
        Ok(ended) => ended,
        Err(order) => return in_progress(&order),
    };
    match tokio::time::timeout(within, ended).await {
        Ok(Ok(ended)) if ended.done => reply::text(StatusCode::OK, "restarted successfully"),
        Ok(Ok(_) | Err(_)) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "restart failed"),
        Err(_) => reply::text(StatusCode::SERVICE_UNAVAILABLE, "postgres is still starting"),
    }
}

enum Condition {
    Holds,
    Fails,
    Within(Duration),
}

fn condition(name: &str, wanted: &Value, shared: &Shared) -> Result<Condition, String> {
    let seen = shared.local.seen();
    let holds = |holds: bool| Ok(if holds { Condition::Holds } else { Condition::Fails });
    match name {
        "role" => match wanted.as_str() {
            Some("primary" | "master") => holds(status::state_and_role(shared, &seen).1 == "primary"),
            Some("replica") => holds(status::state_and_role(shared, &seen).1 == "replica"),
            Some("standby_leader") => holds(status::state_and_role(shared, &seen).1 == "standby_leader"),
            _ => Err("PostgreSQL role should be either primary, standby_leader, or replica".to_owned()),
        },
        "restart_pending" => holds(!shared.local.pending().is_empty()),
        "postgres_version" => {
            let text =
                wanted.as_str().ok_or("PostgreSQL version should be in the first.major.minor format")?;
            let wanted =
                version(text).ok_or("PostgreSQL version should be in the first.major.minor format")?;
            holds(seen.facts.is_some_and(|(facts, _)| facts.server_version < wanted))
        }
        "timeout" => {
            let seconds = wanted.as_u64().or_else(|| wanted.as_str().and_then(|text| text.parse().ok()));
            let seconds = seconds.filter(|seconds| *seconds > 0);
            let seconds = seconds.ok_or("Timeout should be a positive number of seconds")?;
            Ok(Condition::Within(Duration::from_secs(seconds)))
        }
        "schedule" => Err("scheduled restarts are not supported yet; leave schedule out".to_owned()),
        other => Err(format!("Unknown filter for the scheduled restart: {other}")),
    }
}

/// `15.2` as 150002.
fn version(text: &str) -> Option<u32> {
    let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
    major.parse::<u32>().ok()?.checked_mul(10_000)?.checked_add(minor.parse().ok()?)
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
    }
}

fn in_progress(order: &Order) -> Reply {
    let name = match order {
        Order::Restart | Order::LoadSlots => "restart",
        Order::Reinitialize { .. } => "reinitialize",
        Order::Shutdown => "shutdown",
    };
    reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("{name} already in progress"))
}
