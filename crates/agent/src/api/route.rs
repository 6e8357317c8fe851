//! Which handler answers. On GET, paths that name no endpoint are health checks.

use super::reply::{self, Reply};
use super::{
    Caller, Shared, access, body, cluster, config, failsafe, health, lead, metrics, order, status,
    switchover, wal, what_if,
};
use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, caller: Caller, shared: &Arc<Shared>) -> Reply {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let first = path.split('/').next().unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match *request.method() {
        Method::GET => get(&first, &path, &query, shared).await,
        Method::HEAD | Method::OPTIONS => reply::bare(health::check(&path, &query, shared)),
        // Below /baton/ the whole path says what is meant.
        _ if first == "baton" => change(request, &path, caller, shared).await,
        _ => change(request, &first, caller, shared).await,
    }
}

async fn get(first: &str, path: &str, query: &str, shared: &Arc<Shared>) -> Reply {
    match first {
        "patroni" => {
            let seen = shared.local.fresh(Duration::from_millis(300)).await;
            reply::json(StatusCode::OK, &status::body(shared, &seen))
        }
        "cluster" => cluster::cluster(shared).await,
        "history" => cluster::history(shared),
        "config" => config::get(shared),
        "metrics" => metrics::metrics(shared),
        "liveness" => reply::bare(health::liveness(shared)),
        "readiness" => reply::bare(health::readiness(query, shared)),
        "failsafe" => failsafe::topology(shared),
        "baton" => match path {
            "baton/why" => reply::json(StatusCode::OK, &why(shared)),
            "baton/archive" => cluster::archive(shared),
            "baton/losses" => cluster::losses(shared),
            "baton/what-if" => what_if::what_if(query, shared).await,
            "baton/lead" => lead::lead(query, shared).await,
            _ => reply::text(
                StatusCode::NOT_FOUND,
                "there are /baton/why, /baton/losses, /baton/archive, /baton/what-if and /baton/lead",
            ),
        },
        _ => {
            let code = health::check(path, query, shared);
            if code == StatusCode::OK && path == "primary" {
                shared.vouched.with(|at| *at = Some(clock::now()));
            }
            reply::json(code, &status::body(shared, &shared.local.seen()))
        }
    }
}

fn why(shared: &Shared) -> Value {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let decisions = shared.journal.with(|journal| journal.to_json());
    let obstacles = shared.readiness.obstacles().unwrap_or_default();
    let remarks: Vec<String> = obstacles
        .iter()
        .map(|obstacle| format!("if this member had to be rewound, that could fail: {obstacle}"))
        .collect();
    let lost = shared.lost_wal.found().map(|lost| format!("this member {lost}"));
    let unarchived = shared.archiving.trouble().map(|trouble| format!("this member {trouble}"));
    let remarks: Vec<String> = remarks.into_iter().chain(lost).chain(unarchived).collect();
    json!({
        "member": shared.settings().name.as_str(), "now": now.to_string(), "decisions": decisions,
        "remarks": remarks,
    })
}

/// What the verbs that change something mean.
enum Change {
    PatchConfig,
    PutConfig,
    Failsafe,
    Reload,
    Restart,
    FlushRestart,
    Reinitialize,
    Switchover(switchover::Kind),
    FlushSwitchover,
    Sigterm,
    Citus,
    TakeWal,
}

impl Change {
    fn of(method: &str, first: &str) -> Option<Change> {
        Some(match (method, first) {
            ("PATCH", "config") => Change::PatchConfig,
            ("PUT", "config") => Change::PutConfig,
            ("POST", "failsafe") => Change::Failsafe,
            ("POST", "reload") => Change::Reload,
            ("POST", "restart") => Change::Restart,
            ("DELETE", "restart") => Change::FlushRestart,
            ("POST", "reinitialize") => Change::Reinitialize,
            ("POST", "switchover") => Change::Switchover(switchover::Kind::Switchover),
            ("POST", "failover") => Change::Switchover(switchover::Kind::Failover),
            ("DELETE", "switchover") => Change::FlushSwitchover,
            ("POST", "sigterm") => Change::Sigterm,
            ("POST", "citus" | "mpp") => Change::Citus,
            ("POST", "baton/wal") => Change::TakeWal,
            _ => return None,
        })
    }
}

async fn change(request: Request<Incoming>, first: &str, caller: Caller, shared: &Arc<Shared>) -> Reply {
    let Some(change) = Change::of(request.method().as_str(), first) else {
        // What does not exist is told to everybody.
        let why = format!("Unsupported method ('{}')", request.method());
        return reply::error(StatusCode::NOT_IMPLEMENTED, &why);
    };
    let etcd_may_be_away = first == "failsafe";
    if let Some(refusal) = access::refusal(request.headers(), caller, shared, etcd_may_be_away).await {
        return refusal;
    }
    match change {
        Change::PatchConfig => with_body(request, async |body| config::patch(body, shared).await).await,
        Change::PutConfig => with_body(request, async |body| config::put(body, shared).await).await,
        Change::TakeWal => wal::taken(request, shared).await,
        Change::Failsafe => with_body(request, async |body| failsafe::asked(&body, shared).await).await,
        Change::Reload => order::reload(shared),
        Change::Restart => match body::optional(request).await {
            Ok(body) => order::restart(body, shared).await,
            Err(refusal) => refusal,
        },
        Change::FlushRestart => order::flush_restart(shared),
        Change::Reinitialize => match body::optional(request).await {
            Ok(body) => order::reinitialize(body, shared),
            Err(refusal) => refusal,
        },
        Change::Switchover(kind) => {
            with_body(request, async |body| switchover::begin(Some(body), shared, kind).await).await
        }
        Change::FlushSwitchover => switchover::flush(shared).await,
        // As in Patroni it does nothing on this system: signals end an agent.
        Change::Sigterm => reply::text(StatusCode::ACCEPTED, "shutdown scheduled"),
        Change::Citus => reply::text(StatusCode::NOT_IMPLEMENTED, "Citus is not supported by Baton"),
    }
}

async fn with_body(request: Request<Incoming>, handle: impl AsyncFnOnce(Value) -> Reply) -> Reply {
    match body::wanted(request).await {
        Ok(body) => handle(body).await,
        Err(refusal) => refusal,
    }
}
