//! The body of a request: a JSON object.

use super::reply::{self, Reply};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

const LONGEST: usize = 1 << 20;
const WITHIN: Duration = Duration::from_secs(5);

/// An object with something in it, without which the request means nothing.
pub(super) async fn wanted(request: Request<Incoming>) -> Result<Value, Reply> {
    if request.headers().get(header::CONTENT_LENGTH).is_none() {
        let why = "the request needs a body and a Content-Length";
        return Err(reply::error(StatusCode::LENGTH_REQUIRED, why));
    }
    let bytes = read(request).await?;
    let body = parse(&bytes).map_err(|why| bad(&why))?;
    if body.as_object().is_some_and(serde_json::Map::is_empty) {
        return Err(bad("the body is an empty object"));
    }
    Ok(body)
}

/// An object, or nothing at all.
pub(super) async fn optional(request: Request<Incoming>) -> Result<Option<Value>, Reply> {
    if request.headers().get(header::CONTENT_LENGTH).is_none() {
        return Ok(None);
    }
    let bytes = read(request).await?;
    if bytes.is_empty() { Ok(None) } else { parse(&bytes).map(Some).map_err(|why| bad(&why)) }
}

async fn read(request: Request<Incoming>) -> Result<Bytes, Reply> {
    bytes(request, LONGEST).await
}

/// At most so many bytes of anything.
pub(super) async fn bytes(request: Request<Incoming>, longest: usize) -> Result<Bytes, Reply> {
    let read = Limited::new(request.into_body(), longest).collect();
    match tokio::time::timeout(WITHIN, read).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(_)) => Err(reply::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large")),
        Err(_) => Err(reply::error(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    }
}

/// The object, or what is wrong with it.
fn parse(bytes: &[u8]) -> Result<Value, String> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(body) if body.is_object() => Ok(body),
        Ok(_) => Err("the body must be a JSON object".to_owned()),
        Err(error) => Err(format!("the body is no JSON: {error}")),
    }
}

fn bad(why: &str) -> Reply {
    reply::error(StatusCode::BAD_REQUEST, why)
}
