//! The health checks: status codes for load balancers. What they look at is gathered here, what it means is in `check`.

pub(crate) mod check;
#[cfg(test)]
mod table;

use super::query::Query;
use super::{Shared, status};
use crate::publish;
use check::{Facts, Is};
use etcd::{Contact, Sync, View};
use hyper::StatusCode;
use settings::SynchronousMode;
use std::time::Duration;

/// The code for a path that names no other endpoint.
pub(super) fn check(path: &str, query: &str, shared: &Shared) -> StatusCode {
    let strict = shared.settings().restapi.strict_primary;
    code(check::passes(path, &Query::parse(query), &look(shared), strict))
}

/// Whether this member leads, as `/primary` says it where PostgreSQL need not accept writes yet.
pub(super) fn leads(shared: &Shared) -> bool {
    check::passes("primary", &Query::parse(""), &look(shared), false)
}

/// Alive: paused, or the loop has turned lately.
pub(super) fn liveness(shared: &Shared) -> StatusCode {
    let dynamic = shared.dynamic();
    let ttl = Duration::from_secs(dynamic.ttl.into());
    let primary = shared.local.seen().facts.is_some_and(|(facts, _)| !facts.in_recovery);
    let allowed = if primary { ttl } else { ttl * 2 };
    code(dynamic.pause || clock::now().since(shared.turned.get()) < allowed)
}

/// Ready: leading, or streaming with little lag.
pub(super) fn readiness(query: &str, shared: &Shared) -> StatusCode {
    let usual = shared.dynamic().maximum_lag_on_failover;
    code(check::is_ready(&Query::parse(query), &look(shared), usual))
}

fn code(passed: bool) -> StatusCode {
    if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn look(shared: &Shared) -> Facts {
    let seen = shared.local.seen();
    let (state, _) = status::state_and_role(shared, &seen);
    let running = state == "running";
    let postgres = seen.facts.as_ref().map(|(facts, _)| facts.clone());
    let postgres = postgres.as_deref();
    let view = shared.view.borrow().clone();
    let dynamic = shared.dynamic();
    let listed = sync_mode(shared, &view);
    let optime = view.snapshot.as_ref().and_then(|snapshot| snapshot.optime());
    let receiver = postgres.and_then(|facts| facts.receiver.as_ref()?.latest_end_lsn);
    Facts {
        leads: status::is_leader(shared),
        led: status::leader(shared).as_ref() == Some(&shared.settings().name),
        standby_cluster: dynamic.standby_cluster.is_some(),
        postgres: match postgres.map(|facts| facts.in_recovery) {
            Some(true) => Is::Standby,
            Some(false) => Is::Primary,
            None => Is::Unknown,
        },
        running,
        writable: status::is_writable(shared),
        paused: dynamic.pause,
        readable: is_readable(&view, Duration::from_secs(dynamic.ttl.into())),
        sync: listed == SynchronousMode::On,
        quorum: listed == SynchronousMode::Quorum,
        tags: shared.settings().tags.published(),
        leader_lsn: optime.max(receiver),
        received: postgres.and_then(|facts| facts.received_lsn),
        replayed: postgres.and_then(|facts| facts.replayed_lsn),
        replication_state: postgres.filter(|_| running).and_then(publish::replication_state),
        failsafe: status::failsafe_is_active(shared),
    }
}

/// Whether the cluster was read within the last `ttl`.
fn is_readable(view: &View, ttl: Duration) -> bool {
    match &view.contact {
        Contact::Live { .. } => true,
        Contact::Lost { since, .. } => clock::now().since(*since) < ttl,
        Contact::Never { .. } => false,
    }
}

/// The mode in which this member is a synchronous standby; `Off` when it is none.
pub(super) fn sync_mode(shared: &Shared, view: &View) -> SynchronousMode {
    let settings = shared.settings();
    let me = settings.name.as_str();
    let lists = |sync: &Sync| sync.sync_standby.iter().any(|name| name.0.eq_ignore_ascii_case(me));
    let listed = view.snapshot.as_ref().and_then(|snapshot| snapshot.sync.as_ref()).is_some_and(lists);
    if listed { shared.dynamic().synchronous_mode } else { SynchronousMode::Off }
}
