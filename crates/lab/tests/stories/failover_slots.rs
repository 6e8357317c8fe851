//! Logical slots that PostgreSQL 17 and later keeps on standbys by itself, set up from the dynamic configuration alone.

use crate::story::{SPAN, Story};
use serde_json::json;
use std::path::Path;

const CHANGES: &str = "SELECT coalesce(string_agg(encode(data, 'escape'), ' '), '') FROM \
    pg_logical_slot_get_binary_changes('cdc', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')";

/// Whether these are the programs of such a version.
fn keeps_failover_slots(bin: &Path) -> bool {
    let output = std::process::Command::new(bin.join("postgres")).arg("--version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let version =
        text.split_whitespace().nth(2).and_then(|version| version.split('.').next()?.parse::<u32>().ok());
    version.is_some_and(|version| version >= 17)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_slot_goes_on_without_a_gap_after_the_loss_of_the_primary() {
    let found = lab::postgres_bins().into_iter().find(|bin| keeps_failover_slots(bin));
    assert!(found.is_some(), "tools/setup test unpacks a PostgreSQL of version 17 or later");
    let bin = found.unwrap();
    let slots = json!({ "cdc": { "database": "postgres", "plugin": "pgoutput", "failover": true } });
    let parameters = json!({ "wal_level": "logical", "wal_receiver_status_interval": "1s" });
    let mut story = Story::begin("failover-slots", |spec| {
        spec.binaries.postgres = bin;
        spec.dynamic = json!({ "slots": slots, "postgresql": { "parameters": parameters } });
    })
    .await;
    let old = story.primary().await;
    let target = story.lab.target();
    target.run("CREATE TABLE t (word text); CREATE PUBLICATION p FOR TABLE t", SPAN).await.unwrap();
    let made = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc' AND failover";
    story.await_answer(&old, made, "1").await;
    let standbys: Vec<String> = story.names().into_iter().filter(|name| *name != old).collect();
    story.await_answer(&old, "SHOW synchronized_standby_slots", &standbys.join(",")).await;
    for name in &standbys {
        story.await_answer(name, "SHOW sync_replication_slots", "on").await;
    }

    // A copy can be used once its consumer has gone on past what the standby had when it was begun.
    lab::wait::until(SPAN, "a usable copy on every standby", async || {
        target.run("INSERT INTO t VALUES ('before')", SPAN).await.ok()?;
        target.ask(CHANGES, SPAN).await.ok()?;
        for node in story.lab.nodes.iter().filter(|node| node.name != old) {
            let usable = "SELECT synced AND NOT temporary AND invalidation_reason IS NULL FROM pg_replication_slots \
                          WHERE slot_name = 'cdc'";
            let usable = story.lab.own_socket(node).ask(usable, SPAN).await.ok()?;
            (usable == "t").then_some(())?;
        }
        Some(())
    })
    .await
    .unwrap();
    target.run("SELECT pg_create_logical_replication_slot('adhoc', 'pgoutput')", SPAN).await.unwrap();
    // A busy agent answers with what it last saw of its slots.
    let told = lab::wait::until(SPAN, "cdc to be said to survive", async || {
        Some(story.forecast(&[])).filter(|told| told["slots"]["cdc"] == "survives")
    })
    .await
    .unwrap();
    assert!(told["slots"]["adhoc"].as_str().is_none_or(|text| text.contains("neither permanent")), "{told}");

    target.run("INSERT INTO t VALUES ('first')", SPAN).await.unwrap();
    let seen = target.ask(CHANGES, SPAN).await.unwrap();
    assert!(seen.contains("first"), "{seen}");
    let position = "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'cdc'";
    let consumed = target.ask(position, SPAN).await.unwrap();
    for name in &standbys {
        story.await_answer(name, position, &consumed).await;
    }
    target.run("INSERT INTO t VALUES ('second')", SPAN).await.unwrap();
    // Replication is asynchronous: what no standby has is lost with the host.
    for name in &standbys {
        story.await_answer(name, "SELECT count(*) FROM t WHERE word = 'second'", "1").await;
    }
    story.healthy().await;
    story.expect("undone and kept");
    story.expect("the lease is gone");
    story.lab.node(&old).unwrap().kill_host();
    let new = story.another_primary(&old).await;
    story.lab.await_writable(SPAN).await.unwrap();
    target.run("INSERT INTO t VALUES ('third')", SPAN).await.unwrap();
    let other = standbys.iter().find(|name| **name != new).unwrap();
    story.await_answer(&new, "SHOW synchronized_standby_slots", other).await;
    let seen = target.ask(CHANGES, SPAN).await.unwrap();
    assert!(seen.contains("second") && seen.contains("third"), "no gap: {seen}");
    assert!(!seen.contains("first"), "and no repetition: {seen}");

    // The slot of the old primary is in the way of its copy, and goes.
    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    let copied = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc' AND synced";
    story.await_answer(&old, copied, "1").await;
    story.end().await;
}
