//! What the router tells about itself over HTTP: `/health` for machines, `/metrics` for Prometheus, `/services` for
//! `baton route`.

use crate::events::Event;
use crate::shared::Shared;
use crate::truth::Target;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Requests served at once; the next ones are closed.
const CONNECTIONS: usize = 64;

/// How long one connection may take for everything.
const CONNECTION: Duration = Duration::from_secs(30);

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);

/// Sessions listed by `/services`.
const SESSIONS: usize = 1000;

/// Serves until `stop`.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                Event::ApiFailed { why: error.to_string() }.log();
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let shared = shared.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| {
                let response = answer(&shared, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), answer);
            if let Ok(Err(error)) = timeout(CONNECTION, connection).await {
                Event::ApiFailed { why: error.to_string() }.log();
            }
            drop(place);
        });
    }
}

fn answer<B>(shared: &Shared, request: &Request<B>) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "use GET\n".to_owned());
    }
    match request.uri().path() {
        "/health" | "/" => {
            let status = if shared.sessions.truth().is_known() {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            text(status, "application/json", format!("{}\n", health(shared)))
        }
        "/services" => text(StatusCode::OK, "application/json", format!("{}\n", services(shared))),
        "/metrics" => text(StatusCode::OK, "text/plain; version=0.0.4", metrics(shared)),
        _ => text(StatusCode::NOT_FOUND, "text/plain", "see /health, /metrics and /services\n".to_owned()),
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// 200 as soon as the state of the cluster is known: a router that holds connections is healthy, too.
fn health(shared: &Shared) -> Value {
    let truth = shared.sessions.truth();
    json!({
        "cluster": shared.config.cluster,
        "known": truth.is_known(),
        "etcd": if shared.etcd_lost.load(Ordering::Relaxed) { "lost" } else { "live" },
        "term": truth.term.map(|term| term.0),
        "leader": truth.leader.as_ref().map(|name| name.as_str()),
        "primary": truth.primary.as_ref().ok().map(|target| target.name.as_str()),
        "why_no_primary": truth.primary.as_ref().err().map(ToString::to_string),
    })
}

fn services(shared: &Shared) -> Value {
    let truth = shared.sessions.truth();
    let (by_service, by_member) = (shared.sessions.by_service(), shared.sessions.by_member());
    let place = |target: &Target| json!({ "member": target.name.as_str(), "host": target.host, "port": target.port, "lag": target.lag });
    let services: Vec<Value> = shared
        .config
        .services
        .iter()
        .enumerate()
        .map(|(index, service)| {
            let counts = shared.counts.get(index);
            json!({
                "name": service.name,
                "role": service.role.as_str(),
                "listen": service.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "sessions": by_service.get(index),
                "waiting": counts.map(|counts| counts.waiting.get()),
                "max_sessions": service.max_sessions,
            })
        })
        .collect();
    let members: Vec<Value> = truth
        .members
        .iter()
        .map(|(name, verdict)| {
            json!({
                "name": name.as_str(),
                "use": verdict.to_string(),
                "sessions": by_member.get(name).copied().unwrap_or(0),
            })
        })
        .collect();
    let now = clock::now();
    let sessions: Vec<Value> = shared
        .sessions
        .lines(SESSIONS)
        .into_iter()
        .map(|line| {
            json!({
                "client": line.client.to_string(),
                "local": line.local.map(|local| local.to_string()),
                "service": shared.config.services.get(line.service).map(|service| service.name.as_str()),
                "member": line.member.as_str(),
                "term": line.term.map(|term| term.0),
                "seconds": now.since(line.since).as_secs_f64(),
            })
        })
        .collect();
    let mut all = health(shared);
    if let Value::Object(fields) = &mut all {
        fields.insert("target".to_owned(), truth.primary.as_ref().ok().map_or(Value::Null, place));
        fields.insert("replicas".to_owned(), truth.replicas.iter().map(place).collect());
        fields.insert("offline".to_owned(), truth.offline.iter().map(place).collect());
        fields.insert("services".to_owned(), Value::Array(services));
        fields.insert("members".to_owned(), Value::Array(members));
        fields.insert("sessions".to_owned(), Value::Array(sessions));
    }
    all
}

fn metrics(shared: &Shared) -> String {
    let truth = shared.sessions.truth();
    let by_service = shared.sessions.by_service();
    let mut out = String::new();
    let cluster = label(&shared.config.cluster);
    let mut single = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String does not fail.
        let _ = write!(
            out,
            "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{{scope=\"{cluster}\"}} {value}\n"
        );
    };
    let term = truth.term.and_then(|term| u64::try_from(term.0).ok()).unwrap_or(0);
    let lost = shared.etcd_lost.load(Ordering::Relaxed);
    single("baton_router_term", "gauge", "The newest term seen.", term);
    single(
        "baton_router_primary_up",
        "gauge",
        "Whether new sessions have a primary.",
        truth.primary.is_ok().into(),
    );
    single("baton_router_replicas", "gauge", "Replicas in use.", truth.replicas.len() as u64);
    single("baton_router_etcd_lost", "gauge", "Whether etcd is out of reach.", lost.into());
    single(
        "baton_router_changes_total",
        "counter",
        "Changes of the primary or its term.",
        shared.changes.get(),
    );
    type Reading = (&'static str, &'static str, &'static str, fn(&crate::metrics::ServiceCounts) -> u64);
    let readings: [Reading; 10] = [
        ("accepted_total", "counter", "Connections accepted.", |c| c.accepted.get()),
        ("sessions_total", "counter", "Sessions opened.", |c| c.opened.get()),
        ("cut_total", "counter", "Sessions ended by the router.", |c| c.cut.get()),
        ("held_total", "counter", "Connections that had to wait.", |c| c.held.get()),
        ("waiting", "gauge", "Connections that wait now.", |c| c.waiting.get()),
        ("held_in_vain_total", "counter", "Connections that waited in vain.", |c| c.held_in_vain.get()),
        ("refused_total", "counter", "Connections refused.", |c| c.refused.get()),
        ("connect_failed_total", "counter", "Failed attempts to open a session.", |c| c.connect_failed.get()),
        ("cancels_total", "counter", "Requests to cancel a query.", |c| c.cancels.get()),
        ("bytes_to_client_total", "counter", "Bytes from servers.", |c| c.traffic.to_client.get()),
    ];
    for (name, kind, help, read) in readings {
        per_service(&mut out, shared, name, kind, help, |index| shared.counts.get(index).map_or(0, read));
    }
    per_service(&mut out, shared, "bytes_to_server_total", "counter", "Bytes from clients.", |index| {
        shared.counts.get(index).map_or(0, |counts| counts.traffic.to_server.get())
    });
    per_service(&mut out, shared, "sessions", "gauge", "Open sessions.", |index| {
        by_service.get(index).copied().unwrap_or(0) as u64
    });
    out
}

fn per_service(
    out: &mut String,
    shared: &Shared,
    name: &str,
    kind: &str,
    help: &str,
    value: impl Fn(usize) -> u64,
) {
    let cluster = label(&shared.config.cluster);
    let _ = write!(out, "# HELP baton_router_{name} {help}\n# TYPE baton_router_{name} {kind}\n");
    for (index, service) in shared.config.services.iter().enumerate() {
        let (service, value) = (label(&service.name), value(index));
        let _ = writeln!(out, "baton_router_{name}{{scope=\"{cluster}\",service=\"{service}\"}} {value}");
    }
}

/// A label's value, quoted as Prometheus wants it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
