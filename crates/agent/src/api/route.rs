//! Which handler answers. On GET, paths that name no endpoint are health checks.

use super::reply::{self, Reply};
use super::{Shared, access, cluster, config, health, metrics, order, status, switchover};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, StatusCode, header};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

const BODY_LONGEST: usize = 1 << 20;
const BODY_WITHIN: Duration = Duration::from_secs(5);

/// Answers one request.
pub(super) async fn answer(request: Request<Incoming>, peer: SocketAddr, shared: &Arc<Shared>) -> Reply {
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let first = path.split('/').next().unwrap_or_default().to_owned();
    let query = request.uri().query().unwrap_or_default().to_owned();
    match *request.method() {
        Method::GET => get(&first, &path, &query, shared).await,
        Method::HEAD | Method::OPTIONS => reply::bare(health::check(&path, &query, shared)),
        _ => change(request, &first, peer, shared).await,
    }
}

async fn get(first: &str, path: &str, query: &str, shared: &Arc<Shared>) -> Reply {
    match first {
        "patroni" => {
            let seen = shared.local.fresh(Duration::from_millis(300)).await;
            let status = status::body(shared, &seen);
            let running = status.get("state").and_then(Value::as_str) == Some("running");
            let code = if running { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            reply::json(code, &status)
        }
        "cluster" => cluster::cluster(shared).await,
        "history" => cluster::history(shared),
        "config" => config::get(shared),
        "metrics" => metrics::metrics(shared),
        "liveness" => reply::bare(health::liveness(shared)),
        "readiness" => reply::bare(health::readiness(query, shared)),
        "failsafe" => reply::text(StatusCode::BAD_GATEWAY, "failsafe mode is not enabled"),
        "baton" => match path {
            "baton/why" => reply::json(StatusCode::OK, &why(shared)),
            _ => reply::text(StatusCode::NOT_FOUND, "there is /baton/why"),
        },
        _ => reply::json(health::check(path, query, shared), &status::body(shared, &shared.local.seen())),
    }
}

fn why(shared: &Shared) -> Value {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let decisions = shared.journal.with(|journal| journal.to_json());
    json!({ "member": shared.settings().name.as_str(), "now": now.to_string(), "decisions": decisions })
}

async fn change(request: Request<Incoming>, first: &str, peer: SocketAddr, shared: &Arc<Shared>) -> Reply {
    if let Some(refusal) = access::refusal(request.headers(), peer, shared) {
        return refusal;
    }
    let method = request.method().clone();
    let body = match body(request).await {
        Ok(body) => body,
        Err(refusal) => return refusal,
    };
    match (method.as_str(), first) {
        ("PATCH", "config") => config::patch(body, shared).await,
        ("PUT", "config") => config::put(body, shared).await,
        ("POST", "reload") => order::reload(shared),
        ("POST", "restart") => order::restart(body, shared).await,
        ("DELETE", "restart") => reply::text(StatusCode::NOT_FOUND, "no restarts are scheduled"),
        ("POST", "reinitialize") => order::reinitialize(body, shared),
        ("POST", "switchover") => switchover::begin(body, shared, switchover::Kind::Switchover).await,
        ("POST", "failover") => switchover::begin(body, shared, switchover::Kind::Failover).await,
        ("DELETE", "switchover") => switchover::flush(shared).await,
        _ => reply::text(StatusCode::NOT_IMPLEMENTED, format!("{method} /{first} is not supported")),
    }
}

/// The body as a JSON object; `None` when there is none.
async fn body(request: Request<Incoming>) -> Result<Option<Value>, Reply> {
    let bad = |why: &str| reply::text(StatusCode::BAD_REQUEST, why.to_owned());
    if request.headers().get(header::CONTENT_LENGTH).is_none() {
        return Ok(None);
    }
    let read = Limited::new(request.into_body(), BODY_LONGEST).collect();
    let bytes: Bytes = match tokio::time::timeout(BODY_WITHIN, read).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(reply::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
        Err(_) => return Err(reply::text(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    if bytes.is_empty() {
        return Ok(None);
    }
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(body) if body.is_object() => Ok(Some(body)),
        Ok(_) => Err(bad("the body must be a JSON object")),
        Err(error) => Err(bad(&format!("the body is no JSON: {error}"))),
    }
}
