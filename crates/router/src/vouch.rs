//! The second source while etcd is away: the leader's own agent, asked by `GET /primary`.
//!
//! An agent answers 200 only while it may act as the primary: its lease still runs, or (failsafe) all other members
//! confirmed it. So the router adds nothing to the agent's own rules; it only does not outlive them.

use http::{Client, Method};
use std::time::Duration;
use types::Term;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// Why the agent did not confirm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// It answered, and it is not.
    No(String),
    /// It did not answer, this time.
    Silent(String),
}

/// Asks the agent at `api_url` whether it is the primary of `term`.
pub(crate) async fn ask(client: &Client, api_url: &str, term: Term) -> Result<(), Doubt> {
    match client.call(Method::GET, api_url, "/primary", None, ANSWER).await {
        Ok(reply) => judge(reply.status, reply.body.as_bytes(), term)
            .map_err(|why| Doubt::No(format!("its agent at {api_url} {why}"))),
        Err(trouble) => Err(Doubt::Silent(format!("its agent at {api_url} cannot be asked: {trouble}"))),
    }
}

/// 200 is a yes, unless it says that it is for another term.
fn judge(status: u16, body: &[u8], term: Term) -> Result<(), String> {
    if status != 200 {
        return Err(format!("answered {status} to GET /primary"));
    }
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    match body.get("term").and_then(serde_json::Value::as_i64) {
        Some(other) if other != term.0 => Err(format!("answered for term {other}")),
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Term, judge};

    #[test]
    fn only_a_yes_for_this_term_counts() {
        let ok = 200;
        assert!(judge(ok, b"", Term(5)).is_ok());
        assert!(judge(ok, br#"{"role":"primary"}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":5}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":6}"#, Term(5)).unwrap_err().contains("term 6"));
        assert!(judge(503, b"", Term(5)).unwrap_err().contains("503"));
    }
}
