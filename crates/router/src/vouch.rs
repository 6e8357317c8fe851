//! The second source while etcd is away: the leader's own agent, asked by `GET /primary`.
//!
//! An agent answers 200 only while it may act as the primary: its lease still runs, or (failsafe) all other members
//! confirmed it. So the router adds nothing to the agent's own rules; it only does not outlive them.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use types::Term;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The most of an answer that is read.
const BODY: usize = 64 * 1024;

/// Why the agent did not confirm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// It answered, and it is not.
    No(String),
    /// It did not answer, this time.
    Silent(String),
}

/// Asks the agent at `api_url` whether it is the primary of `term`.
pub(crate) async fn ask(api_url: &str, term: Term) -> Result<(), Doubt> {
    match timeout(ANSWER, request(api_url)).await {
        Ok(Ok((status, body))) => {
            judge(status, &body, term).map_err(|why| Doubt::No(format!("its agent at {api_url} {why}")))
        }
        Ok(Err(why)) => Err(Doubt::Silent(why)),
        Err(_) => {
            Err(Doubt::Silent(format!("its agent at {api_url} did not answer within {} s", ANSWER.as_secs())))
        }
    }
}

async fn request(api_url: &str) -> Result<(StatusCode, Bytes), String> {
    let Some(authority) = api_url.strip_prefix("http://").and_then(|rest| rest.split('/').next()) else {
        return Err(format!("its agent is at {api_url:?}, which the router cannot ask: http:// is needed"));
    };
    let failed = |error: &dyn std::fmt::Display| format!("its agent at {authority} cannot be asked: {error}");
    let stream = TcpStream::connect(authority).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let request = Request::get("/primary")
        .header(header::HOST, authority)
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| failed(&error))?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY).collect().await.map_err(|error| failed(&error))?;
        Ok((status, body.to_bytes()))
    };
    let (mut exchange, mut connection) = (std::pin::pin!(exchange), std::pin::pin!(connection));
    tokio::select! {
        answer = &mut exchange => answer,
        // It may end in the same step in which it delivers the answer; when it broke, the exchange says how.
        _ = &mut connection => exchange.await,
    }
}

/// 200 is a yes, unless it says that it is for another term.
fn judge(status: StatusCode, body: &[u8], term: Term) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("answered {} to GET /primary", status.as_u16()));
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("term").and_then(serde_json::Value::as_i64) {
        Some(other) if other != term.0 => Err(format!("answered for term {other}")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{StatusCode, Term, judge};

    #[test]
    fn only_a_yes_for_this_term_counts() {
        let ok = StatusCode::OK;
        assert!(judge(ok, b"", Term(5)).is_ok());
        assert!(judge(ok, br#"{"role":"primary"}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":5}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":6}"#, Term(5)).unwrap_err().contains("term 6"));
        assert!(judge(StatusCode::SERVICE_UNAVAILABLE, b"", Term(5)).unwrap_err().contains("503"));
    }
}
