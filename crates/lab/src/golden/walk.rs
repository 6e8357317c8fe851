//! The walk: one cluster of three, led through the states that installed tools meet. Whoever keeps the nodes, the steps are
//! the same, each waits until the cluster has arrived, and then every answer and every key is taken.

use super::{Capture, normal};
use crate::agent_kind::AgentKind;
use crate::binaries::Binaries;
use crate::lab::{Lab, Spec};
use crate::rest;
use crate::wait::try_until;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

const SPAN: Duration = Duration::from_secs(40);

/// The health checks, and what else answers with a code alone.
const CHECKS: [&str; 25] = [
    "/",
    "/primary",
    "/master",
    "/read-write",
    "/leader",
    "/standby-leader",
    "/standby_leader",
    "/replica",
    "/replica?lag=10MB",
    "/replica?lag=0",
    "/replica?tag_zone=west",
    "/read-only",
    "/sync",
    "/synchronous",
    "/async",
    "/asynchronous",
    "/quorum",
    "/read-only-sync",
    "/read-only-quorum",
    "/health",
    "/liveness",
    "/readiness",
    "/readiness?lag=10MB",
    "/readiness?mode=write",
    "/no-such-path",
];

/// What the walk begins with: timings that Patroni takes as they are and a last node with tags.
fn spec(base: PathBuf, binaries: Binaries, kind: AgentKind) -> Spec {
    let mut spec = Spec::usual(base, binaries);
    spec.etcd = 1;
    spec.router = false;
    spec.agents = vec![kind; spec.members];
    spec.dynamic = json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3 });
    if kind == AgentKind::Baton {
        // On in clusters that are born under Baton. The walk takes the setting out again when it begins.
        spec.dynamic["failsafe_mode"] = json!(false);
    }
    spec.tags = json!({ "clonefrom": true, "nosync": true, "zone": "west" });
    spec
}

/// Takes a capture of three nodes of one kind; `base` must not exist yet.
pub async fn capture(base: PathBuf, binaries: Binaries, kind: AgentKind) -> Result<Capture> {
    let lab = Lab::create(&spec(base, binaries, kind))?;
    let mut walk = Walk { lab, capture: Capture::new() };
    walk.begin().await.context("begin the walk")?;
    let done = walk.running().await;
    walk.arrived("running", done);
    let done = walk.refused().await;
    walk.arrived("refused", done);
    let done = walk.pending_restart().await;
    walk.arrived("pending-restart", done);
    let done = walk.scheduled().await;
    walk.arrived("scheduled", done);
    let done = walk.paused().await;
    walk.arrived("paused", done);
    let done = walk.synchronous().await;
    walk.arrived("synchronous", done);
    let done = walk.quorum().await;
    walk.arrived("quorum", done);
    let done = walk.failsafe().await;
    walk.arrived("failsafe", done);
    let done = walk.switched_over().await;
    walk.arrived("switched-over", done);
    walk.lab.stop_and_keep().await?;
    Ok(walk.capture)
}

struct Walk {
    lab: Lab,
    capture: Capture,
}

impl Walk {
    /// The first node leads, and the others follow it.
    async fn begin(&mut self) -> Result<()> {
        self.lab.start_etcd().await?;
        self.lab.nodes[0].start_agent()?;
        self.lab.await_writable(SPAN).await?;
        self.lab.start_agents()?;
        self.lab.await_healthy(3).await?;
        let body = Some(json!({ "failsafe_mode": null }).to_string());
        rest::raw(self.lab.nodes[0].rest, "PATCH", "/config", body, SPAN).await?;
        self.key("status", "the slots of all members", |status| {
            status["slots"].as_object().is_some_and(|s| s.len() == 3)
        })
        .await
    }

    /// A state that the cluster did not reach is a difference like any other: the walk goes on.
    fn arrived(&mut self, state: &str, done: Result<()>) {
        let said = done.map_or_else(|error| format!("{error:#}"), |()| "yes".to_owned());
        self.note(state, "all steps taken".to_owned(), Value::from(said));
    }

    async fn running(&mut self) -> Result<()> {
        self.look("running", &["/patroni", "/cluster", "/config", "/history", "/failsafe", "/metrics"])
            .await?;
        for node in 0..3 {
            for path in CHECKS {
                self.code("running", node, "GET", path).await?;
            }
        }
        for verb in ["HEAD", "OPTIONS"] {
            for path in ["/primary", "/replica", "/no-such-path"] {
                self.code("running", 0, verb, path).await?;
            }
        }
        Ok(())
    }

    /// Everything that is asked for in a way that cannot be granted.
    async fn refused(&mut self) -> Result<()> {
        let empty = || Some(String::new());
        let some = |body: Value| Some(body.to_string());
        let asked: Vec<(usize, &str, &str, Option<String>)> = vec![
            (0, "PATCH", "/config", None),
            (0, "PATCH", "/config", empty()),
            (0, "PATCH", "/config", Some("no JSON".to_owned())),
            (0, "PATCH", "/config", some(json!({}))),
            (0, "PATCH", "/config", some(json!([1]))),
            (0, "PUT", "/config", some(json!({}))),
            (0, "POST", "/switchover", empty()),
            (0, "POST", "/switchover", some(json!({ "candidate": "n2" }))),
            (0, "POST", "/switchover", some(json!({ "leader": "n1", "candidate": "n1" }))),
            (0, "POST", "/switchover", some(json!({ "leader": "n2" }))),
            (0, "POST", "/switchover", some(json!({ "leader": "n1", "candidate": "nobody" }))),
            (0, "POST", "/switchover", some(json!({ "leader": "n1", "scheduled_at": "tomorrow" }))),
            (
                0,
                "POST",
                "/switchover",
                some(json!({ "leader": "n1", "scheduled_at": "2020-01-01T00:00:00+00:00" })),
            ),
            (
                0,
                "POST",
                "/switchover",
                some(json!({ "leader": "n1", "scheduled_at": "2030-01-01T00:00:00" })),
            ),
            (0, "POST", "/failover", some(json!({ "leader": "n1" }))),
            (0, "POST", "/failover", some(json!({ "candidate": "nobody" }))),
            (
                0,
                "POST",
                "/failover",
                some(json!({ "candidate": "n2", "scheduled_at": "2030-01-01T00:00:00+00:00" })),
            ),
            (0, "DELETE", "/switchover", None),
            (0, "DELETE", "/restart", None),
            (1, "POST", "/restart", some(json!({ "role": "primary" }))),
            (1, "POST", "/restart", some(json!({ "role": "nobody" }))),
            (1, "POST", "/restart", some(json!({ "postgres_version": "9" }))),
            (1, "POST", "/restart", some(json!({ "postgres_version": "x" }))),
            (1, "POST", "/restart", some(json!({ "timeout": -1 }))),
            (1, "POST", "/restart", some(json!({ "restart_pending": true }))),
            (1, "POST", "/restart", some(json!({ "unknown": 1 }))),
            (1, "POST", "/restart", some(json!({ "schedule": "2020-01-01T00:00:00+00:00" }))),
            (1, "POST", "/restart", some(json!({ "schedule": "tomorrow" }))),
            (0, "POST", "/reinitialize", empty()),
            (0, "POST", "/failsafe", some(json!({ "name": "n2", "conn_url": "x", "api_url": "y" }))),
            (1, "POST", "/failsafe", some(json!({ "name": "n1", "conn_url": "x", "api_url": "y" }))),
            (0, "POST", "/no-such-path", some(json!({ "a": 1 }))),
            (0, "DELETE", "/no-such-path", None),
            (0, "POST", "/reload", empty()),
        ];
        for (node, verb, path, body) in asked {
            self.ask("refused", node, verb, path, body).await?;
        }
        Ok(())
    }

    async fn pending_restart(&mut self) -> Result<()> {
        let state = "pending-restart";
        let body = json!({ "postgresql": { "parameters": { "max_connections": 101 } } });
        self.ask(state, 0, "PATCH", "/config", Some(body.to_string())).await?;
        for name in ["n1", "n2", "n3"] {
            self.key(&format!("members/{name}"), "pending_restart", |member| {
                member["pending_restart"] == true
            })
            .await?;
        }
        self.look(state, &["/patroni", "/cluster"]).await?;
        // A standby refuses fewer connections than its primary has: the primary goes first.
        for (node, name) in [(0, "n1"), (1, "n2"), (2, "n3")] {
            let body = Some(json!({ "restart_pending": true }).to_string());
            self.ask(state, node, "POST", "/restart", body).await?;
            let no_more =
                |member: &Value| member.get("pending_restart").is_none() && member["state"] == "running";
            self.key(&format!("members/{name}"), "no pending_restart", no_more).await?;
        }
        self.lab.await_healthy(3).await.map(drop)
    }

    async fn scheduled(&mut self) -> Result<()> {
        let state = "scheduled";
        let at = "2030-01-02T03:04:05.678+00:00";
        let restart = json!({ "schedule": at, "role": "replica", "timeout": 30 });
        self.ask(state, 1, "POST", "/restart", Some(restart.to_string())).await?;
        self.ask(state, 1, "POST", "/restart", Some(restart.to_string())).await?;
        let switchover = json!({ "leader": "n1", "candidate": "n2", "scheduled_at": at });
        self.ask(state, 0, "POST", "/switchover", Some(switchover.to_string())).await?;
        self.key("members/n2", "scheduled_restart", |member| member["scheduled_restart"].is_object()).await?;
        self.key("failover", "scheduled_at", |failover| failover["scheduled_at"].is_string()).await?;
        self.look(state, &["/patroni", "/cluster"]).await?;
        self.ask(state, 0, "DELETE", "/switchover", None).await?;
        self.ask(state, 1, "DELETE", "/restart", None).await?;
        self.key("members/n2", "no scheduled_restart", |member| member.get("scheduled_restart").is_none())
            .await
    }

    async fn paused(&mut self) -> Result<()> {
        let state = "paused";
        self.ask(state, 0, "PATCH", "/config", Some(json!({ "pause": true }).to_string())).await?;
        for name in ["n1", "n2", "n3"] {
            self.key(&format!("members/{name}"), "pause", |member| member["pause"] == true).await?;
        }
        self.look(state, &["/patroni", "/cluster", "/metrics"]).await?;
        let at = "2030-01-02T03:04:05+00:00";
        let switchover = |body: Value| Some(body.to_string());
        self.ask(state, 0, "POST", "/switchover", switchover(json!({ "leader": "n1" }))).await?;
        let scheduled = json!({ "leader": "n1", "candidate": "n2", "scheduled_at": at });
        self.ask(state, 0, "POST", "/switchover", switchover(scheduled)).await?;
        self.ask(state, 1, "POST", "/restart", switchover(json!({ "schedule": at }))).await?;
        self.ask(state, 0, "PATCH", "/config", Some(json!({ "pause": null }).to_string())).await?;
        for name in ["n1", "n2", "n3"] {
            self.key(&format!("members/{name}"), "no pause", |member| member.get("pause").is_none()).await?;
        }
        Ok(())
    }

    async fn synchronous(&mut self) -> Result<()> {
        self.ask("synchronous", 0, "PATCH", "/config", Some(json!({ "synchronous_mode": true }).to_string()))
            .await?;
        self.key("sync", "a standby", |sync| sync["sync_standby"] == "n2").await?;
        self.standbys("synchronous", "sync_standby").await
    }

    async fn quorum(&mut self) -> Result<()> {
        self.ask("quorum", 0, "PATCH", "/config", Some(json!({ "synchronous_mode": "quorum" }).to_string()))
            .await?;
        self.standbys("quorum", "quorum_standby").await?;
        self.ask("quorum", 0, "PATCH", "/config", Some(json!({ "synchronous_mode": null }).to_string()))
            .await?;
        try_until(SPAN, "the key sync to be gone or empty", async || {
            let keys = self.lab.keys().read().await?;
            let sync = keys.get("sync").and_then(|entry| serde_json::from_str::<Value>(&entry.value).ok());
            Ok(sync.is_none_or(|sync| sync["sync_standby"].is_null()).then_some(()))
        })
        .await
    }

    async fn standbys(&mut self, state: &str, field: &str) -> Result<()> {
        self.answer(1, field).await?;
        // Each member takes the mode up at a moment of its own.
        let rest = self.lab.nodes[0].rest;
        try_until(SPAN, &format!("{field} in /cluster of n1"), async || {
            let answer = rest::get(rest, "/cluster", SPAN).await?.json()?;
            Ok((answer["members"][1]["role"] == field).then_some(()))
        })
        .await?;
        self.look(state, &["/patroni", "/cluster", "/metrics"]).await?;
        for node in 0..3 {
            for path in CHECKS.into_iter().filter(|path| path.contains("sync") || path.contains("quorum")) {
                self.code(state, node, "GET", path).await?;
            }
        }
        let body = json!({ "leader": "n1", "candidate": "n3" });
        self.ask(state, 0, "POST", "/switchover", Some(body.to_string())).await
    }

    async fn failsafe(&mut self) -> Result<()> {
        let state = "failsafe";
        self.ask(state, 0, "PATCH", "/config", Some(json!({ "failsafe_mode": true }).to_string())).await?;
        self.key("failsafe", "all members", |all| all.as_object().is_some_and(|all| all.len() == 3)).await?;
        self.look(state, &["/failsafe", "/metrics"]).await?;
        let view = self.lab.view().await?;
        if view.primary() != Some("n1") {
            bail!("n1 does not lead any more: {view:?}");
        }
        let keys = self.lab.keys().read().await?;
        let leader: Value =
            keys.get("members/n1").map_or(Ok(Value::Null), |entry| serde_json::from_str(&entry.value))?;
        let body = json!({ "name": "n1", "conn_url": leader["conn_url"], "api_url": leader["api_url"] });
        self.ask(state, 1, "POST", "/failsafe", Some(body.to_string())).await?;
        self.ask(state, 0, "POST", "/failsafe", Some(body.to_string())).await?;
        self.ask(state, 0, "PATCH", "/config", Some(json!({ "failsafe_mode": null }).to_string())).await
    }

    async fn switched_over(&mut self) -> Result<()> {
        let state = "switched-over";
        // A member that gave its word to a leader without etcd, as one did a moment ago, does not lead before that is over.
        try_until(SPAN, "every word to be over", async || {
            for node in &self.lab.nodes {
                let answer = rest::get(node.rest, "/patroni", SPAN).await?.json()?;
                if answer.get("failsafe_mode_is_active").is_some() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await?;
        let body = json!({ "leader": "n1", "candidate": "n2" });
        self.ask(state, 0, "POST", "/switchover", Some(body.to_string())).await?;
        try_until(SPAN, "n2 to lead", async || {
            let view = self.lab.view().await?;
            Ok((view.primary() == Some("n2") && view.healthy(3)).then_some(()))
        })
        .await?;
        self.key("history", "the first timeline", |rows| rows.as_array().is_some_and(|rows| rows.len() == 1))
            .await?;
        let ready = |member: &Value| member.get("checkpoint_after_promote").is_none();
        self.key("members/n2", "no checkpoint_after_promote", ready).await?;
        self.key("status", "the slots of all members", |status| {
            status["slots"].as_object().is_some_and(|s| s.len() == 3)
        })
        .await?;
        self.look(state, &["/patroni", "/cluster", "/history"]).await
    }

    /// Waits until no standby catches up: how far one has come is a matter of the moment.
    async fn all_stream(&self) -> Result<()> {
        try_until(SPAN, "all standbys to stream", async || {
            for node in &self.lab.nodes {
                let own = rest::get(node.rest, "/patroni", SPAN).await?.json()?;
                let rows = own["replication"].as_array().cloned().unwrap_or_default();
                if rows.iter().any(|row| row["state"] != "streaming") {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .await
    }

    /// Takes the answers of all nodes to these paths, and all keys.
    async fn look(&mut self, state: &str, paths: &[&str]) -> Result<()> {
        self.all_stream().await?;
        for path in paths {
            // These are the cluster's, whoever answers.
            let nodes =
                if matches!(*path, "/cluster" | "/config" | "/history" | "/failsafe") { 1 } else { 3 };
            for node in 0..nodes {
                self.ask(state, node, "GET", path, None).await?;
            }
        }
        let addresses = self.addresses();
        for (key, entry) in self.lab.keys().read().await? {
            if !key.starts_with("baton/") {
                let value = normal::body(&entry.value, &addresses);
                let answer = json!({ "value": value, "has a lease": entry.lease != 0 });
                self.note(state, format!("key {key}"), answer);
            }
        }
        Ok(())
    }

    async fn ask(
        &mut self,
        state: &str,
        node: usize,
        verb: &str,
        path: &str,
        body: Option<String>,
    ) -> Result<()> {
        let question = match body.as_deref() {
            None => format!("{verb} n{} {path}", node + 1),
            Some(body) => format!("{verb} n{} {path} {body}", node + 1).trim_end().to_owned(),
        };
        let addresses = self.addresses();
        let question = addresses.iter().fold(question, |text, (address, name)| text.replace(address, name));
        let answer = rest::raw(self.lab.nodes[node].rest, verb, path, body, SPAN).await?;
        let body = normal::body(&answer.body, &addresses);
        let answer = json!({ "status": answer.status, "type": answer.content_type, "body": body });
        self.note(state, question, answer);
        Ok(())
    }

    async fn code(&mut self, state: &str, node: usize, verb: &str, path: &str) -> Result<()> {
        let answer = rest::raw(self.lab.nodes[node].rest, verb, path, None, SPAN).await?;
        self.note(state, format!("{verb} n{} {path}, the code", node + 1), json!(answer.status));
        Ok(())
    }

    fn note(&mut self, state: &str, question: String, answer: Value) {
        let answers: &mut BTreeMap<String, Value> = self.capture.entry(state.to_owned()).or_default();
        answers.insert(question, answer);
    }

    /// Waits until the value of a key is as wanted.
    async fn key(&self, key: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Result<()> {
        try_until(SPAN, &format!("{what} in the key {key}"), async || {
            let keys = self.lab.keys().read().await?;
            let value = keys.get(key).and_then(|entry| serde_json::from_str::<Value>(&entry.value).ok());
            Ok(value.filter(|value| wanted(value)).map(drop))
        })
        .await
    }

    /// Waits until `/patroni` of a node has a field that is true.
    async fn answer(&self, node: usize, field: &str) -> Result<()> {
        let rest = self.lab.nodes[node].rest;
        try_until(SPAN, &format!("{field} in /patroni"), async || {
            let answer = rest::get(rest, "/patroni", SPAN).await?.json()?;
            Ok((answer[field] == true).then_some(()))
        })
        .await
    }

    /// What is different in every lab, and its name.
    fn addresses(&self) -> Vec<(String, String)> {
        let mut addresses = Vec::new();
        for node in &self.lab.nodes {
            addresses.push((node.rest.to_string(), format!("{}:rest", node.name)));
            addresses.push((
                format!("{}:{}", node.address, node.postgres_port),
                format!("{}:postgres", node.name),
            ));
        }
        addresses
            .extend(self.lab.nodes.iter().map(|node| (node.address.to_string(), format!("{}:", node.name))));
        addresses
    }
}
