//! Where the members are, asked from their agents: only while a service has a limit for the lag of replicas. etcd holds
//! positions as well, but only as often as agents write them.

use crate::shared::{Cluster, Shared};
use http::{Client, Method};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::sleep;
use types::{Lsn, NodeName};

/// How often.
const PAUSE: Duration = Duration::from_millis(500);

/// How long an answer may take.
const ANSWER: Duration = Duration::from_millis(500);

/// What a member says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    Leader(Lsn),
    Replica(Lsn),
}

/// Asks for ever; ends when dropped.
pub(crate) async fn survey(shared: Arc<Shared>, cluster: Arc<Cluster>) {
    loop {
        let services = shared.services();
        let limited = services.iter().any(|service| {
            let limit = service.settings().max_lag;
            limit.bytes.is_some() || limit.time.is_some()
        });
        if limited {
            let truth = cluster.sessions.truth();
            let asked = clock::now();
            let (mut leader, mut replicas) = (None, Vec::new());
            for (name, position) in ask(&shared.config().agents, &truth.apis).await {
                match position {
                    Position::Leader(lsn) if truth.leader.as_ref() == Some(&name) => {
                        leader = Some((asked, lsn))
                    }
                    Position::Leader(_) => {}
                    Position::Replica(lsn) => replicas.push((name, lsn)),
                }
            }
            cluster.sessions.measure(&services, leader, &replicas, clock::now());
        }
        sleep(PAUSE).await;
    }
}

async fn ask(
    client: &Client,
    apis: &std::collections::BTreeMap<NodeName, String>,
) -> Vec<(NodeName, Position)> {
    let mut questions = JoinSet::new();
    for (name, url) in apis {
        let (client, name, url) = (client.clone(), name.clone(), url.clone());
        questions.spawn(async move {
            // Who does not answer is where it was.
            let reply = client.call(Method::GET, &url, "/patroni", None, ANSWER).await.ok()?;
            Some((name, read(&reply.json()?)?))
        });
    }
    let mut found = Vec::new();
    while let Some(answer) = questions.join_next().await {
        found.extend(answer.ok().flatten());
    }
    found
}

/// The position in a status as agents (and Patroni's) give it.
fn read(status: &serde_json::Value) -> Option<Position> {
    let xlog = status.get("xlog")?;
    let lsn = |name: &str| xlog.get(name).and_then(serde_json::Value::as_u64).map(Lsn);
    lsn("location").map(Position::Leader).or_else(|| lsn("replayed_location").map(Position::Replica))
}

#[cfg(test)]
mod tests {
    use super::{Position, read};
    use types::Lsn;

    #[test]
    fn positions_are_found_in_a_status() {
        let status = |text: &str| read(&serde_json::from_str(text).unwrap());
        assert_eq!(status(r#"{"xlog":{"location":77}}"#), Some(Position::Leader(Lsn(77))));
        let replica = r#"{"xlog":{"received_location":9,"replayed_location":8,"replayed_timestamp":null}}"#;
        assert_eq!(status(replica), Some(Position::Replica(Lsn(8))));
        assert_eq!(status(r#"{"state":"stopped"}"#), None);
        assert_eq!(status(r#"{"xlog":{"replayed_location":null}}"#), None);
    }
}
