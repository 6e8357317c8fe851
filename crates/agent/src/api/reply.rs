//! Answers.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Response, StatusCode, header};
use serde_json::Value;

pub(super) type Reply = Response<Full<Bytes>>;

pub(super) fn json(status: StatusCode, body: &Value) -> Reply {
    with(status, "application/json", body.to_string())
}

/// A text, of the type that Patroni gives its texts.
pub(super) fn text(status: StatusCode, body: impl Into<String>) -> Reply {
    with(status, "text/html", body.into())
}

pub(super) fn plain(body: String) -> Reply {
    with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

/// The status alone.
pub(super) fn bare(status: StatusCode) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = status;
    reply
}

fn with(status: StatusCode, kind: &'static str, body: String) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    reply
}
