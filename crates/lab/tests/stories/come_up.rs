//! A cluster comes up: one leader, replicas that stream, every question answered as installed tools expect.

use crate::story::{SPAN, Story};
use lab::postgres_bins;
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_comes_up_and_answers_as_installed_tools_expect() {
    let story = Story::begin("come-up", |_| {}).await;
    let primary = story.primary().await;
    let view = story.healthy().await;
    assert_eq!(view.leader.as_ref().unwrap().0, primary);

    for node in &story.lab.nodes {
        let leads = node.name == primary;
        let code = |yes: bool| if yes { 200 } else { 503 };
        for (path, expected) in [
            ("/", code(leads)),
            ("/primary", code(leads)),
            ("/leader", code(leads)),
            ("/replica", code(!leads)),
            ("/read-only", 200),
            ("/health", 200),
            ("/liveness", 200),
            ("/patroni", 200),
            ("/cluster", 200),
            ("/metrics", 200),
        ] {
            assert_eq!(story.get(&node.name, path).await.status, expected, "{} {path}", node.name);
        }
        // A replica is ready when it is known where the leader is, which the leader writes once in a round.
        lab::wait::until(SPAN, &format!("{} to be ready", node.name), async || {
            (story.get(&node.name, "/readiness").await.status == 200).then_some(())
        })
        .await
        .unwrap();
        let own = story.get(&node.name, "/patroni").await.json().unwrap();
        assert_eq!(own["state"], "running");
        assert_eq!(own["role"], if leads { "primary" } else { "replica" });
        assert_eq!(own["timeline"], 1);
        let cluster = story.get(&node.name, "/cluster").await.json().unwrap();
        assert_eq!(cluster["members"].as_array().unwrap().len(), 3);
        assert!(story.get(&node.name, "/metrics").await.body.contains("patroni_postgres_running"));
    }

    story.lab.target().run("CREATE TABLE seen AS SELECT 42 AS answer", SPAN).await.unwrap();
    let replicas = story.lab.service(story.lab.block.ports.replica());
    // The primary stands in until the router has heard of a replica that streams.
    lab::wait::until(SPAN, "the router to know a replica", async || {
        replicas.ask("SELECT pg_is_in_recovery()", SPAN).await.ok().filter(|answer| answer == "t")
    })
    .await
    .unwrap();
    lab::wait::until(SPAN, "the row on a replica", async || {
        replicas.ask("SELECT answer FROM seen", SPAN).await.ok().filter(|answer| answer == "42")
    })
    .await
    .unwrap();
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_major_version_comes_up_switches_over_and_survives_a_crash() {
    let others = postgres_bins().split_off(1);
    assert!(!others.is_empty(), "tools/setup test unpacks more than one major version");
    for bin in others {
        let mut story = Story::begin("version", |spec| spec.binaries.postgres = bin.clone()).await;
        story.expect("crash");
        let old = story.primary().await;
        story.switch_over(&old, &json!({ "leader": old })).await;
        let new = story.another_primary(&old).await;
        story.healthy().await;
        let load = story.load().await;
        story.lab.node(&new).unwrap().kill_postmaster().unwrap();
        load.work.await_progress(50, SPAN).await.unwrap();
        story.healthy().await;
        load.end().await;
        story.end().await;
    }
}
