//! What the router tells about itself over HTTP, and the few orders it takes.
//!
//! ```text
//!   GET  /health                                   for machines: 200 when every cluster is known
//!   GET  /metrics                                  for Prometheus
//!   GET  /services                                 for `baton route`
//!   POST /reload                                   reads the configuration again
//!   POST /clusters/NAME/members/NAME/drain         no new sessions for a member
//!   POST /clusters/NAME/members/NAME/undrain       again
//!   POST /clusters/NAME/members/NAME/pin/SERVICE   a service's new sessions for this member while it can serve them
//!   POST /clusters/NAME/members/NAME/unpin/SERVICE no longer
//! ```
//! Orders need the login of `router.authentication`; where none is configured they are taken from this host alone.

mod metrics;
pub(crate) mod older;
mod status;

use crate::config::Role;
use crate::events::Event;
use crate::shared::Shared;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode, header};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use types::NodeName;

/// The order to read the configuration again; answered with what was wrong with it.
pub(crate) struct Reload(pub(crate) oneshot::Sender<Result<(), String>>);

/// Requests served at once; the next ones are closed.
const CONNECTIONS: usize = 64;

/// Serves until `stop`.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    orders: mpsc::Sender<Reload>,
    listener: TcpListener,
    stop: CancellationToken,
) {
    let answer = move |peer, request: Request<Incoming>| {
        let (shared, orders) = (shared.clone(), orders.clone());
        async move { answer(&shared, &orders, peer, &request).await }
    };
    let failed = |why| Event::ApiFailed { why }.log();
    tokio::select! {
        () = stop.cancelled() => {}
        () = http::serve(listener, CONNECTIONS, answer, failed) => {}
    }
}

async fn answer(
    shared: &Shared,
    orders: &mpsc::Sender<Reload>,
    peer: SocketAddr,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if request.method() == Method::POST {
        return match permitted(shared, peer, request) {
            Ok(()) => order(shared, orders, path).await,
            Err(refusal) => *refusal,
        };
    }
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "use GET, or POST for orders");
    }
    match path {
        "/health" | "/" => {
            let known = shared.clusters().iter().all(|cluster| cluster.sessions.truth().is_known());
            let status = if known { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            json(status, &status::health(shared))
        }
        "/services" => json(StatusCode::OK, &status::services(shared)),
        "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", metrics::metrics(shared)),
        _ => plain(StatusCode::NOT_FOUND, "see /health, /metrics and /services"),
    }
}

/// Whether the peer may give orders; the answer for one that may not.
fn permitted<B>(
    shared: &Shared,
    peer: SocketAddr,
    request: &Request<B>,
) -> Result<(), Box<Response<Full<Bytes>>>> {
    let config = shared.config();
    let Some(login) = &config.login else {
        let here = peer.ip().to_canonical().is_loopback();
        let why = "orders are taken from this host alone: configure router.authentication, or ask from here";
        return if here { Ok(()) } else { Err(Box::new(plain(StatusCode::FORBIDDEN, why))) };
    };
    let given = request.headers().get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes);
    if given.is_some_and(|given| same(given, login.header().as_bytes())) {
        return Ok(());
    }
    let mut refusal = plain(StatusCode::UNAUTHORIZED, "the login of router.authentication is needed");
    let realm = header::HeaderValue::from_static("Basic realm=\"baton router\"");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, realm);
    Err(Box::new(refusal))
}

/// Compares in a time that does not tell where the difference is.
fn same(given: &[u8], wanted: &[u8]) -> bool {
    let differing = given.iter().zip(wanted).fold(0u8, |differing, (a, b)| differing | (a ^ b));
    given.len() == wanted.len() && differing == 0
}

async fn order(shared: &Shared, orders: &mpsc::Sender<Reload>, path: &str) -> Response<Full<Bytes>> {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match parts.as_slice() {
        ["reload"] => reload(orders).await,
        ["clusters", cluster, "members", member, verb @ ("drain" | "undrain")] => {
            drain(shared, cluster, member, *verb == "drain")
        }
        ["clusters", cluster, "members", member, verb @ ("pin" | "unpin"), service] => {
            pin(shared, cluster, member, service, *verb == "pin")
        }
        _ => plain(
            StatusCode::NOT_FOUND,
            "orders are /reload, /clusters/NAME/members/NAME/drain or undrain, and …/pin/SERVICE or unpin/SERVICE",
        ),
    }
}

async fn reload(orders: &mpsc::Sender<Reload>) -> Response<Full<Bytes>> {
    let (answer, answered) = oneshot::channel();
    let stopping = || plain(StatusCode::SERVICE_UNAVAILABLE, "the router is stopping");
    if orders.send(Reload(answer)).await.is_err() {
        return stopping();
    }
    match answered.await {
        Ok(Ok(())) => plain(StatusCode::OK, "reloaded"),
        Ok(Err(why)) => plain(StatusCode::UNPROCESSABLE_ENTITY, &why),
        Err(_) => stopping(),
    }
}

fn drain(shared: &Shared, cluster: &str, member: &str, out: bool) -> Response<Full<Bytes>> {
    let Some(found) = shared.cluster(Some(cluster)) else {
        return plain(StatusCode::NOT_FOUND, &format!("no cluster {cluster:?} here"));
    };
    let member = NodeName::from(member);
    // One that is gone can still be let in again.
    if out && !found.sessions.truth().members.contains_key(&member) {
        return plain(StatusCode::NOT_FOUND, &format!("cluster {cluster:?} has no member {member:?}"));
    }
    if found.sessions.drain(&member, out) {
        shared.elders.ordered();
        Event::Drained { cluster, member: &member, out }.log();
    }
    let done = if out { "gets no new sessions; those it has go on" } else { "gets sessions again" };
    plain(StatusCode::OK, &format!("{member} {done}"))
}

fn pin(shared: &Shared, cluster: &str, member: &str, service: &str, on: bool) -> Response<Full<Bytes>> {
    let Some(found) = shared.cluster(Some(cluster)) else {
        return plain(StatusCode::NOT_FOUND, &format!("no cluster {cluster:?} here"));
    };
    let member = NodeName::from(member);
    if on {
        let Some(known) = shared.service(service) else {
            return plain(StatusCode::NOT_FOUND, &format!("no service {service:?} here"));
        };
        let settings = known.settings();
        if settings.role == Role::Primary {
            let why = format!("service {service:?} is the primary's: a switchover leads it elsewhere");
            return plain(StatusCode::CONFLICT, &why);
        }
        let own = shared.cluster(settings.cluster.as_deref()).is_some_and(|own| own.name == cluster);
        if !own && !settings.names.values().any(|name| name == cluster) {
            let why = format!("service {service:?} does not lead to cluster {cluster:?}");
            return plain(StatusCode::CONFLICT, &why);
        }
        if !found.sessions.truth().members.contains_key(&member) {
            return plain(StatusCode::NOT_FOUND, &format!("cluster {cluster:?} has no member {member:?}"));
        }
    }
    if found.sessions.pin(service, &member, on) {
        shared.elders.ordered();
        Event::Pinned { cluster, member: &member, service, on }.log();
    }
    let done = if on {
        format!("gets all new sessions of {service} while it can serve them; those elsewhere go on")
    } else {
        format!("no longer gets all new sessions of {service}")
    };
    plain(StatusCode::OK, &format!("{member} {done}"))
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    text(status, "text/plain", format!("{line}\n"))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    text(status, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
