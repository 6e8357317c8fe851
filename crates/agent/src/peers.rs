//! Asking the other members: by REST for their state, by PostgreSQL's replication protocol for the leader's history.

use crate::wake::{Cell, Wake};
use etcd::Snapshot;
use ha::{LeaderHistory, PeerAnswer, PeerFacts, Upstream};
use http::{Client, Method, Trouble};
use postgres::connection::ConnectTo;
use postgres::replication;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{History, Lsn, NodeName, PostgresState, Tags, Timeline};

/// A peer that does not answer within this time counts as silent.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// Asks the peers; a cheap clone.
#[derive(Clone)]
pub(crate) struct Peers {
    inner: Arc<Inner>,
}

struct Inner {
    wake: Wake,
    client: Cell<Client>,
    answers: Cell<ha::Peers>,
    history: Cell<LeaderHistory>,
    asking_history: Cell<bool>,
}

impl Peers {
    pub(crate) fn new(client: Client, wake: Wake) -> Peers {
        Peers {
            inner: Arc::new(Inner {
                wake,
                client: Cell::new(client),
                answers: Cell::new(ha::Peers::default()),
                history: Cell::new(LeaderHistory::Unknown),
                asking_history: Cell::new(false),
            }),
        }
    }

    /// For calls to other members.
    pub(crate) fn client(&self) -> Client {
        self.inner.client.get()
    }

    /// Certificates or credentials have changed.
    pub(crate) fn use_client(&self, client: Client) {
        self.inner.client.with(|kept| *kept = client);
    }

    pub(crate) fn answers(&self) -> ha::Peers {
        self.inner.answers.get()
    }

    pub(crate) fn history(&self) -> LeaderHistory {
        self.inner.history.get()
    }

    /// Asks these members all at once; their answers replace the old ones when all are in.
    pub(crate) fn ask(&self, names: &[NodeName], snapshot: Option<Arc<Snapshot>>) {
        let asked = clock::now();
        let names = names.to_vec();
        let (peers, client) = (self.clone(), self.client());
        tokio::spawn(async move {
            let answers = ask_all(&client, &names, snapshot.as_deref()).await;
            peers.inner.answers.with(|kept| {
                if kept.asked <= Some(asked) {
                    *kept = ha::Peers { asked: Some(asked), answers };
                }
            });
            peers.inner.wake.wake();
        });
    }

    /// Reads the history of the timeline of the one we follow, unless that is under way. Of several addresses the one on the newest
    /// timeline counts.
    pub(crate) fn read_history(&self, of: Upstream, connections: Vec<ConnectTo>) {
        if connections.is_empty() || self.inner.asking_history.with(|asking| std::mem::replace(asking, true))
        {
            return;
        }
        let peers = self.clone();
        tokio::spawn(async move {
            let (asked, within) = (clock::now(), Duration::from_secs(2));
            let mut newest: Option<History> = None;
            for connect in connections {
                match replication::identify_with_history(&connect, within).await {
                    Ok((_, history)) => {
                        newest = newest.filter(|known| known.timeline > history.timeline).or(Some(history));
                    }
                    Err(error) => tracing::warn!(%of, %error, "failed to read the timeline history"),
                }
            }
            if let Some(history) = newest {
                peers.inner.history.with(|kept| *kept = LeaderHistory::Known { of, history, asked });
            }
            peers.inner.asking_history.with(|asking| *asking = false);
            peers.inner.wake.wake();
        });
    }
}

/// Asks these members all at once.
pub(crate) async fn ask_all(
    client: &Client,
    names: &[NodeName],
    snapshot: Option<&Snapshot>,
) -> BTreeMap<NodeName, PeerAnswer> {
    let questions = names.iter().map(|name| {
        let member = snapshot.and_then(|snapshot| snapshot.members.get(name));
        let listed = || snapshot?.failsafe.as_ref()?.get(name).cloned();
        let url = member.and_then(|member| member.api_url.clone()).or_else(listed);
        async move {
            let answer = match url {
                Some(url) => ask_one(client, &url).await,
                None => PeerAnswer::Silent,
            };
            (name.clone(), answer)
        }
    });
    futures_util::future::join_all(questions).await.into_iter().collect()
}

/// The status does not matter, the body says it all.
async fn ask_one(client: &Client, api_url: &str) -> PeerAnswer {
    match client.call(Method::GET, api_url, "", None, ANSWER_WITHIN).await {
        Ok(reply) => reply.json().as_ref().map_or(PeerAnswer::Silent, answer),
        Err(Trouble::Untrusted(why)) => {
            tracing::warn!(api_url, why, "failed to ask a member how it is");
            PeerAnswer::Silent
        }
        Err(Trouble::Refused(_) | Trouble::Silence(_) | Trouble::Broken(_)) => PeerAnswer::Silent,
    }
}

/// A member without a position counts as silent, unless it says that nothing runs there.
fn answer(body: &Value) -> PeerAnswer {
    let state = body.get("state").and_then(Value::as_str).and_then(PostgresState::parse);
    match (facts(body), state) {
        (Some(facts), _) => PeerAnswer::Said(facts),
        (
            None,
            Some(
                PostgresState::Stopped
                | PostgresState::Crashed
                | PostgresState::CreatingReplica
                | PostgresState::StartFailed,
            ),
        ) => PeerAnswer::Down,
        (None, _) => PeerAnswer::Silent,
    }
}

/// What matters of the body of `GET /patroni`.
fn facts(body: &Value) -> Option<PeerFacts> {
    let xlog = body.get("xlog").or_else(|| body.get("wal"))?;
    let position = |name: &str| xlog.get(name).and_then(Value::as_u64);
    let role = body.get("role").and_then(Value::as_str).unwrap_or_default();
    let primary = position("location").is_some() || matches!(role, "primary" | "master");
    let lsn = position("location")
        .or_else(|| position("received_location").max(position("replayed_location")))
        .map_or(Lsn::INVALID, Lsn);
    let tags = tags(body.get("tags"));
    Some(PeerFacts {
        primary,
        timeline: body
            .get("timeline")
            .and_then(Value::as_u64)
            .and_then(|tl| u32::try_from(tl).ok())
            .map(Timeline),
        lsn,
        nofailover: tags.nofailover(),
        failover_priority: tags.failover_priority(),
        failsafe_active: failsafe_active(body),
        replayed: position("replayed_location").map(Lsn),
        takes_wal: takes_wal(body),
        sick: body.get("baton").is_some_and(|baton| baton.get("sick").is_some_and(Value::is_string)),
        unprotected: body.get("watchdog_failed").and_then(Value::as_bool).unwrap_or(false),
    })
}

/// Whether its agent can be handed the last WAL of a crashed primary: a Patroni cannot, nor a Baton of an earlier version.
fn takes_wal(body: &Value) -> bool {
    body.get("baton").and_then(|baton| baton.get("takes_wal")).and_then(Value::as_bool).unwrap_or(false)
}

/// By the contract's own word, or by Baton's that this agent cannot know yet.
fn failsafe_active(body: &Value) -> bool {
    let flag = |value: Option<&Value>| value.and_then(Value::as_bool).unwrap_or(false);
    let unsure = body.get("baton").and_then(|baton| baton.get("failsafe_unsure"));
    flag(body.get("failsafe_mode_is_active")) || flag(unsure)
}

fn tags(value: Option<&Value>) -> Tags {
    use types::TagValue;
    let Some(Value::Object(map)) = value else { return Tags::default() };
    let tag = |value: &Value| match value {
        Value::Bool(value) => Some(TagValue::Bool(*value)),
        Value::Number(number) => number.as_i64().map(TagValue::Int),
        Value::String(text) => Some(TagValue::Text(text.clone())),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    Tags(map.iter().filter_map(|(name, value)| Some((name.clone(), tag(value)?))).collect())
}

/// Whether a living member answers under this URL: the guard against two members of one name.
pub(crate) async fn answers(client: &Client, api_url: &str) -> bool {
    let answer = client.call(Method::GET, api_url, "/liveness", None, Duration::from_secs(3)).await;
    match answer {
        Ok(_) => true,
        // Something listens there with another idea of TLS: that, too, is a member.
        Err(Trouble::Broken(_) | Trouble::Untrusted(_)) => true,
        Err(Trouble::Refused(_) | Trouble::Silence(_)) => false,
    }
}
