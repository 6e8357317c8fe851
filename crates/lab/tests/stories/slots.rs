//! Replication slots survive a failover, and parameters that need a restart say so until they had one.

use crate::story::{SPAN, Story};
use serde_json::{Value, json};
use std::fs;

const CHANGES: &str = "SELECT coalesce(string_agg(encode(data, 'escape'), ' '), '') FROM \
    pg_logical_slot_get_binary_changes('cdc', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_survive_the_loss_of_the_primary_and_pending_restarts_are_told() {
    let slots = json!({
        "archive": { "type": "physical" },
        "cdc": { "type": "logical", "database": "postgres", "plugin": "pgoutput" },
    });
    // The feedback of a standby is what makes the copy of a logical slot safe; PostgreSQL sends it every 10 s.
    let parameters = json!({ "wal_level": "logical", "wal_receiver_status_interval": "1s" });
    let mut story = Story::begin("slots", |spec| {
        spec.dynamic = json!({
            "slots": slots,
            "ignore_slots": [{ "name": "by_hand", "type": "physical" }],
            "postgresql": { "parameters": parameters },
        });
    })
    .await;
    let old = story.primary().await;
    let target = story.lab.target();
    target.run("CREATE TABLE t (word text); CREATE PUBLICATION p FOR TABLE t", SPAN).await.unwrap();
    for name in ["stray", "by_hand"] {
        let create = format!("SELECT pg_create_physical_replication_slot('{name}', true)");
        target.run(&create, SPAN).await.unwrap();
    }
    // A standby that was copied after the slot had been made lacks the oldest WAL of it, until its consumer has gone on.
    story.await_answer(&old, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc'", "1").await;
    lab::wait::until(
        SPAN,
        "every member to hold the logical slot, and to say that its copy is ready",
        async || {
            target.run("INSERT INTO t VALUES ('before')", SPAN).await.ok()?;
            target.run("CHECKPOINT", SPAN).await.ok()?;
            target.ask(CHANGES, SPAN).await.ok()?;
            for node in &story.lab.nodes {
                let socket = story.lab.own_socket(node);
                let held = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc'";
                socket.ask(held, SPAN).await.ok().filter(|held| held == "1")?;
                let log = fs::read_to_string(node.log()).unwrap_or_default();
                (node.name == old || log.contains("the copy of a logical replication slot is ready"))
                    .then_some(())?;
            }
            Some(())
        },
    )
    .await
    .unwrap();
    for name in story.names() {
        let others: Vec<String> = story.names().into_iter().filter(|other| *other != name).collect();
        let all = format!("archive,cdc,{}", others.join(","));
        story
            .await_answer(
                &name,
                "SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots WHERE slot_name <> 'by_hand'",
                &all,
            )
            .await;
        if name != old {
            story.await_answer(&name, "SHOW hot_standby_feedback", "on").await;
        }
    }
    // The one that nobody knows is gone by now, the one that is to be ignored is not.
    story
        .await_answer(&old, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'by_hand'", "1")
        .await;
    target.run("INSERT INTO t VALUES ('first')", SPAN).await.unwrap();
    let seen = target.ask(CHANGES, SPAN).await.unwrap();
    assert!(seen.contains("first"), "{seen}");
    let confirmed = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdc'";
    let position = target.ask(confirmed, SPAN).await.unwrap();
    for name in story.names() {
        story.await_answer(&name, confirmed, &position).await;
    }
    story.restarts_are_told_until_they_are_done(&old).await;

    target.run("INSERT INTO t VALUES ('second')", SPAN).await.unwrap();
    story.healthy().await;
    // Replication is asynchronous: what no standby has is lost with the host.
    story.all_is_sent(&old).await;
    story.expect("on without etcd");
    story.expect("undone and kept");
    story.expect("the lease is gone");
    story.lab.node(&old).unwrap().kill_host();
    let new = story.another_primary(&old).await;
    story.lab.await_writable(SPAN).await.unwrap();
    target.run("INSERT INTO t VALUES ('third')", SPAN).await.unwrap();
    let seen = target.ask(CHANGES, SPAN).await.unwrap();
    assert!(seen.contains("second") && seen.contains("third"), "no gap: {seen}");
    assert!(!seen.contains("first"), "and no repetition: {seen}");
    let held = format!(
        "SELECT string_agg(slot_name, ',' ORDER BY slot_name) FROM pg_replication_slots \
         WHERE restart_lsn IS NOT NULL AND slot_name IN ('archive', '{old}')"
    );
    assert_eq!(
        target.ask(&held, SPAN).await.unwrap(),
        format!("archive,{old}"),
        "WAL is kept for the absent member"
    );
    lab::wait::until(SPAN, "/status of the new leader to retain the slot of the absent member", async || {
        let status: Value =
            serde_json::from_str(&story.lab.keys().read().await.ok()?.get("status")?.value).ok()?;
        let here = status["slots"].get(&new).is_some() && status["slots"].get("cdc").is_some();
        (here && status["retain_slots"].as_array()?.contains(&json!(old))).then_some(())
    })
    .await
    .unwrap();
    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    story.await_answer(&old, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc'", "1").await;
    story.end().await;
}

impl Story {
    pub(crate) fn names(&self) -> Vec<String> {
        self.lab.nodes.iter().map(|node| node.name.clone()).collect()
    }

    /// More connections need a restart; fewer need one of the primary first. What PostgreSQL does not know is left out.
    async fn restarts_are_told_until_they_are_done(&mut self, primary: &str) {
        self.expect("PostgreSQL would not start with a parameter");
        self.parameters(&json!({ "max_connections": 120, "wrk_mem": "4MB" })).await;
        for name in self.names() {
            self.await_pending(
                &name,
                &json!({ "max_connections": { "old_value": "100", "new_value": "120" } }),
            )
            .await;
            self.await_log(&name, "unrecognized configuration parameter \"wrk_mem\"").await;
        }
        let answer = self.get(primary, "/metrics").await;
        assert!(
            answer
                .body
                .lines()
                .any(|line| line.starts_with("patroni_pending_restart{") && line.ends_with(" 1"))
        );
        for name in self.names() {
            self.restart(&name).await;
            self.await_pending(&name, &Value::Null).await;
            self.await_answer(&name, "SHOW max_connections", "120").await;
        }
        self.healthy().await;

        self.parameters(&json!({ "max_connections": 60 })).await;
        let lowered = json!({ "max_connections": { "old_value": "120", "new_value": "60" } });
        let replica = self.names().into_iter().find(|name| name != primary).unwrap();
        self.await_pending(&replica, &lowered).await;
        self.restart(&replica).await;
        self.healthy().await;
        self.await_answer(&replica, "SHOW max_connections", "120").await;
        self.await_pending(&replica, &lowered).await;
        self.restart(primary).await;
        self.healthy().await;
        self.await_answer(primary, "SHOW max_connections", "60").await;
        self.restart(&replica).await;
        self.await_answer(&replica, "SHOW max_connections", "60").await;
        self.await_pending(&replica, &Value::Null).await;
        self.healthy().await;
    }

    async fn parameters(&self, parameters: &Value) {
        self.configure(&json!({ "postgresql": { "parameters": parameters } })).await;
    }

    async fn restart(&self, name: &str) {
        let answer = self.send(name, "POST", "/restart", &json!({ "restart_pending": true })).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.body);
    }

    /// Waits until a member says by REST and in its key why it needs a restart.
    async fn await_pending(&self, name: &str, reason: &Value) {
        let what = format!("{name} to wait for a restart because of {reason}");
        lab::wait::until(SPAN, &what, async || {
            let own = self.get(name, "/patroni").await.json().ok()?;
            let keys = self.lab.keys().read().await.ok()?;
            let key: Value = serde_json::from_str(&keys.get(&format!("members/{name}"))?.value).ok()?;
            let flag = if reason.is_null() { Value::Null } else { json!(true) };
            let told = [own, key]
                .iter()
                .all(|told| told["pending_restart_reason"] == *reason && told["pending_restart"] == flag);
            told.then_some(())
        })
        .await
        .unwrap();
    }
}
