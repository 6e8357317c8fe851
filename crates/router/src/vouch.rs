//! The second source while etcd is away: the leader's own agent, asked by `GET /primary`.
//!
//! An agent answers 200 only while it may act as the primary: its lease still runs, or (failsafe) all other members
//! confirmed it. So the router adds nothing to the agent's own rules; it only does not outlive them.
//!
//! And a standing question to the same agent, while etcd is there as well: `GET /baton/lead` is answered when the lead ends. What etcd
//! does not tell, or tells later, the router knows from there before PostgreSQL can have come up for reading.

use http::{Client, Method};
use std::time::Duration;
use tokio::time::sleep;
use types::Term;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(1);

/// Longer than an agent lets a standing question wait.
const STANDING: Duration = Duration::from_secs(30);

/// The pause after a standing question that came to nothing: short at first, for whoever has just taken the lead does not know it yet.
const AGAIN: Duration = Duration::from_millis(25);
const AGAIN_MOST: Duration = Duration::from_secs(1);

/// The same where nobody knows the question: an agent of another kind.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The status of a lead that has ended.
const ENDED: u16 = 410;

/// Why the agent did not confirm.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Doubt {
    /// It answered, and it is not.
    No(String),
    /// It did not answer, this time.
    Silent(String),
}

/// What an agent confirms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Yes {
    /// Not only that it leads, but that its PostgreSQL accepts writes.
    pub(crate) writes: bool,
}

/// Asks the agent at `api_url` whether it is the primary of `term`.
pub(crate) async fn ask(client: &Client, api_url: &str, term: Term) -> Result<Yes, Doubt> {
    of_primary(client, api_url, |status, body| {
        judge(status, body, term)?;
        Ok(Yes { writes: judge_writes(status, body, term).is_ok() })
    })
    .await
}

/// Asks the agent at `api_url` whether its PostgreSQL accepts writes in `term`, or why that is not known.
pub(crate) async fn takes_writes(client: &Client, api_url: &str, term: Term) -> Result<(), String> {
    let said = of_primary(client, api_url, |status, body| judge_writes(status, body, term)).await;
    said.map_err(|(Doubt::No(why) | Doubt::Silent(why))| why)
}

/// What the agent at `api_url` answers to `GET /primary`, as `judge` takes it.
async fn of_primary<T>(
    client: &Client,
    api_url: &str,
    judge: impl FnOnce(u16, &[u8]) -> Result<T, String>,
) -> Result<T, Doubt> {
    match client.call(Method::GET, api_url, "/primary", None, ANSWER).await {
        Ok(reply) => judge(reply.status, reply.body.as_bytes())
            .map_err(|why| Doubt::No(format!("its agent at {api_url} {why}"))),
        Err(trouble) => Err(Doubt::Silent(format!("its agent at {api_url} cannot be asked: {trouble}"))),
    }
}

/// The version of the PostgreSQL that the agent at `api_url` keeps, as a number; `None` when it does not say.
pub(crate) async fn server_version(client: &Client, api_url: &str) -> Option<u64> {
    let reply = client.call(Method::GET, api_url, "/patroni", None, ANSWER).await.ok()?;
    reply.json()?.get("server_version")?.as_u64()
}

/// Ends when the agent at `api_url` says that its lead of `term` is over, with its words.
pub(crate) async fn end_of_lead(client: Client, api_url: String, term: Term) -> String {
    let path = format!("/baton/lead?term={term}");
    let mut again = AGAIN;
    loop {
        let pause = match client.call(Method::GET, &api_url, &path, None, STANDING).await {
            Ok(reply) => match reply.status {
                ENDED => return format!("its agent at {api_url} says that it leads no more"),
                // It has waited, or had no place for one who waits.
                200 => {
                    again = AGAIN;
                    Duration::ZERO
                }
                404 => UNKNOWN,
                _ => again,
            },
            Err(_) => again,
        };
        sleep(pause).await;
        again = (again * 2).min(AGAIN_MOST);
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

/// Beyond the lead: that the PostgreSQL which runs there has left recovery. A leader has the lead before that.
fn judge_writes(status: u16, body: &[u8], term: Term) -> Result<(), String> {
    judge(status, body, term)?;
    let body: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let word = |key: &str| body.get(key).and_then(serde_json::Value::as_str).unwrap_or("nothing");
    match (word("role"), word("state")) {
        ("primary" | "master", "running") => Ok(()),
        // One of our own agents: it says the role of the very PostgreSQL that runs, also while that is too busy to answer.
        ("primary", "unknown") if body.get("baton").is_some() => Ok(()),
        (role, state) => Err(format!("says that its PostgreSQL is {state} as {role}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Term, judge, judge_writes};

    #[test]
    fn only_a_yes_for_this_term_counts() {
        let ok = 200;
        assert!(judge(ok, b"", Term(5)).is_ok());
        assert!(judge(ok, br#"{"role":"primary"}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":5}"#, Term(5)).is_ok());
        assert!(judge(ok, br#"{"term":6}"#, Term(5)).unwrap_err().contains("term 6"));
        assert!(judge(503, b"", Term(5)).unwrap_err().contains("503"));
    }

    #[test]
    fn writes_need_a_server_that_has_left_recovery() {
        for (body, takes) in [
            (r#"{"role":"primary","state":"running"}"#, true),
            (r#"{"role":"master","state":"running"}"#, true),
            (r#"{"role":"primary","state":"running","term":5,"baton":{}}"#, true),
            (r#"{"role":"primary","state":"unknown","term":5,"baton":{}}"#, true),
            // A Patroni that gets no answer says the role that it remembers.
            (r#"{"role":"primary","state":"unknown"}"#, false),
            (r#"{"role":"primary","state":"stopping","baton":{}}"#, false),
            (r#"{"role":"primary","state":"running","term":6,"baton":{}}"#, false),
            (r#"{"role":"replica","state":"running"}"#, false),
            (r#"{"role":"standby_leader","state":"running"}"#, false),
            ("{}", false),
            ("", false),
        ] {
            assert_eq!(judge_writes(200, body.as_bytes(), Term(5)).is_ok(), takes, "{body}");
            assert!(judge_writes(503, body.as_bytes(), Term(5)).is_err(), "{body}");
        }
    }
}
