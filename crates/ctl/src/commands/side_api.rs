//! What `baton vip` and `baton dns` tell about themselves over HTTP.
//!
//! ```text
//!   GET /health     200 once etcd was read, else 503
//!   GET /metrics    for Prometheus
//! ```
//! It takes no orders and tells no secret, so it asks for no login.

use crate::exit_codes::Code;
use crate::failure::Failure;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Requests served at once; the next ones are closed.
const CONNECTIONS: usize = 16;
/// How long one connection may take for everything.
const CONNECTION: Duration = Duration::from_secs(30);
/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);
/// After an error that concerns the listener.
const PAUSE: Duration = Duration::from_millis(100);

/// What is told.
pub(super) struct Page {
    pub known: bool,
    pub metrics: String,
}

/// Serves what `page` says, if there is an address to do so, until the runtime ends.
pub(super) async fn serve(
    address: Option<&str>,
    page: impl Fn() -> Page + Send + Sync + 'static,
) -> Result<(), Failure> {
    let Some(address) = address else { return Ok(()) };
    let failed =
        |error| Failure::new(Code::AddressInUse, format!("failed to listen for HTTP on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address, "tells metrics and health");
    tokio::spawn(accept(listener, Arc::new(page)));
    Ok(())
}

async fn accept(listener: TcpListener, page: Arc<impl Fn() -> Page + Send + Sync + 'static>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "failed to accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let page = page.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request: Request<Incoming>| {
                let page = page.clone();
                async move { Ok::<_, Infallible>(answer(&request, &*page)) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), answer);
            // That the other side goes away is no news.
            let _ = tokio::time::timeout(CONNECTION, connection).await;
            drop(place);
        });
    }
}

fn answer(request: &Request<Incoming>, page: &impl Fn() -> Page) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return text(StatusCode::METHOD_NOT_ALLOWED, "use GET\n".to_owned());
    }
    match request.uri().path() {
        "/" | "/health" => match page().known {
            true => text(StatusCode::OK, "etcd was read\n".to_owned()),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "etcd was not read yet\n".to_owned()),
        },
        "/metrics" => text(StatusCode::OK, page().metrics),
        _ => text(StatusCode::NOT_FOUND, "see /health and /metrics\n".to_owned()),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let kind = header::HeaderValue::from_static("text/plain; version=0.0.4");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// The labels of all values.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let escape = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let pairs: Vec<String> =
        pairs.iter().map(|(name, text)| format!("{name}=\"{}\"", escape(text))).collect();
    pairs.join(",")
}
