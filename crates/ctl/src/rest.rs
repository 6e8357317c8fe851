//! What the commands ask of members, and how the answers are told.

use crate::view::{Cluster, Heard, Member};
use http::{Client, Method, Reply, Trouble};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a member may take to say how it is.
const PROBE: Duration = Duration::from_secs(1);
/// How long a question may take whose answer is at hand.
const QUESTION: Duration = Duration::from_secs(5);
/// How long an order may take: a switchover waits for the new leader, a restart for PostgreSQL.
const ORDER: Duration = Duration::from_secs(600);

/// The members' REST APIs.
pub(crate) struct Rest {
    client: Client,
}

impl Rest {
    pub(crate) fn new(client: Client) -> Rest {
        Rest { client }
    }

    /// Asks every member at once whether it is there.
    pub(crate) async fn probe(&self, cluster: &Cluster) -> BTreeMap<String, Heard> {
        let mut asked = tokio::task::JoinSet::new();
        for member in cluster.members.iter().filter(|member| !member.api_url.is_empty()) {
            let (client, name, url) = (self.client.clone(), member.name.clone(), member.api_url.clone());
            asked.spawn(async move {
                let heard = match client.call(Method::GET, &url, "/liveness", None, PROBE).await {
                    Ok(_) => Heard::Answer,
                    Err(Trouble::Refused(why)) => Heard::Refused(why),
                    Err(Trouble::Silence(why)) => Heard::Silence(why),
                    // Something listens there: TLS or the answer is at fault, not the member.
                    Err(Trouble::Broken(_) | Trouble::Untrusted(_)) => Heard::Answer,
                };
                (name, heard)
            });
        }
        let mut heard = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            heard.extend(answer);
        }
        heard
    }

    /// Asks a member something.
    pub(crate) async fn get(&self, member: &Member, path: &str) -> Result<Reply, Trouble> {
        self.client.call(Method::GET, &member.api_url, path, None, QUESTION).await
    }

    /// Orders a member to do something; it answers when it is done or refused.
    pub(crate) async fn order(
        &self,
        member: &Member,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Reply, Trouble> {
        self.client.call(Method::POST, &member.api_url, path, body, ORDER).await
    }

    /// Takes an order back.
    pub(crate) async fn withdraw(&self, member: &Member, path: &str) -> Result<Reply, Trouble> {
        self.client.call(Method::DELETE, &member.api_url, path, None, QUESTION).await
    }

    /// Changes the dynamic configuration through a member.
    pub(crate) async fn patch_config(&self, member: &Member, patch: &Value) -> Result<Reply, Trouble> {
        self.client.call(Method::PATCH, &member.api_url, "/config", Some(patch), QUESTION).await
    }
}

/// The line that tells how an order went, in patronictl's words, and whether it went well. `action` stands before the
/// member's name: `restart on member pg-1`, but `restart for member pg-1` when it failed.
pub(crate) fn told(action: &str, member: &str, reply: &Result<Reply, Trouble>) -> (String, bool) {
    match reply {
        Ok(Reply { status: 200 | 202, .. }) => (format!("Success: {action}{member}"), true),
        Ok(Reply { status, body, .. }) => (
            format!(
                "Failed: {}{member}, status code={status}, ({})",
                action.replace(" on ", " for "),
                body.trim()
            ),
            false,
        ),
        Err(trouble) => (format!("Failed: {}{member}, {trouble}", action.replace(" on ", " for ")), false),
    }
}

#[cfg(test)]
mod tests {
    use super::told;
    use http::{Reply, Trouble};

    #[test]
    fn outcomes_are_told_in_patronictl_s_words() {
        let reply = |status, body: &str| Ok(Reply::new(status, body));
        let (line, well) = told("restart on member ", "pg-1", &reply(200, "restarted successfully"));
        assert_eq!((line.as_str(), well), ("Success: restart on member pg-1", true));
        let (line, well) = told("restart on member ", "pg-1", &reply(503, "restart failed"));
        assert_eq!(
            (line.as_str(), well),
            ("Failed: restart for member pg-1, status code=503, (restart failed)", false)
        );
        let (line, _) =
            told("reinitialize for member ", "pg-1", &Err(Trouble::Refused("connection refused".into())));
        assert_eq!(line, "Failed: reinitialize for member pg-1, connection refused");
    }
}
