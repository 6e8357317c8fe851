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
use hyper::{Method, Request, Response, StatusCode, header};
use tokio::net::TcpListener;

/// Requests served at once; the next ones are closed.
const CONNECTIONS: usize = 16;

/// What is told.
pub(super) struct Page {
    pub known: bool,
    pub metrics: String,
}

/// Serves what `page` says, if there is an address to do so, until the runtime ends.
pub(super) async fn serve(
    address: Option<&str>,
    page: impl Fn() -> Page + Clone + Send + Sync + 'static,
) -> Result<(), Failure> {
    let Some(address) = address else { return Ok(()) };
    let failed =
        |error| Failure::new(Code::AddressInUse, format!("failed to listen for HTTP on {address}: {error}"));
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    tracing::info!(address, "tells metrics and health");
    let answer = move |_, request: Request<Incoming>| std::future::ready(answer(&request, &page));
    // That the other side goes away is no news.
    let failed = |why| tracing::debug!(why, "failed to serve a connection");
    tokio::spawn(http::serve(listener, CONNECTIONS, answer, failed));
    Ok(())
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
