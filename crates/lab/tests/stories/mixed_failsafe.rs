//! Failsafe mode with members of both kinds: each leads on without etcd by the word of the other, and not without it.

use crate::mixed::three;
use crate::story::{SPAN, Story};
use lab::{EtcdMember, Plan, Primaries, Workload};
use serde_json::json;
use std::time::Duration;

/// A lease and more at 100 commits a second: without the word of the others it would have ended.
const LONGER_THAN_A_LEASE: usize = 2600;

impl Story {
    /// Waits until `leader` has listed all in `/failsafe`, and everybody has read that.
    async fn all_in_failsafe(&self) {
        for name in ["n1", "n2", "n3"] {
            lab::wait::until(SPAN, &format!("{name} to know of three members in /failsafe"), async || {
                let listed = self.get(name, "/failsafe").await;
                let count = listed.json().ok()?.as_object()?.len();
                (listed.status == 200 && count == 3).then_some(())
            })
            .await
            .unwrap();
        }
    }

    /// All of etcd goes away; `leader` keeps its lead by the word of the others, who know.
    async fn lives_without_etcd(&mut self, leader: &str, work: &Workload) {
        self.lab.etcd.iter_mut().for_each(EtcdMember::kill);
        work.await_progress(LONGER_THAN_A_LEASE, SPAN * 2).await.unwrap();
        for name in ["n1", "n2", "n3"] {
            let says = self.get(name, "/patroni").await.json().unwrap();
            assert_eq!(says["failsafe_mode_is_active"], json!(true), "{name}: {says}");
            let status = self.get(name, "/primary").await.status;
            assert_eq!(status, if name == leader { 200 } else { 503 }, "/primary of {name}");
        }
    }

    async fn etcd_comes_back(&mut self) {
        self.lab.start_etcd().await.unwrap();
        self.healthy().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_and_baton_keep_each_other_leading_without_etcd() {
    let mut story = Story::begin_led_by_the_first("mixed-failsafe", |spec| {
        three(spec);
        spec.dynamic["failsafe_mode"] = json!(true);
    })
    .await;
    for text in ["lease", "DCS", "failsafe", "without etcd"] {
        story.expect(text);
    }
    // What a Patroni says without etcd, one line for each thing that it tried.
    for text in [
        "Request to server",
        " request failed",
        "Failed to get list of machines",
        "Exceeded retry deadline",
        "get_cluster",
        "Etcd",
        "etcd",
        "watchprefix",
        "Loop time exceeded",
        "Retry got exception",
    ] {
        story.expect(text);
    }
    story.all_in_failsafe().await;
    let service = story.haproxy().await;
    Primaries::prepare(&service).await.unwrap();
    let work = Workload::start(&service, Plan::default()).await.unwrap();
    let own = story.lab.nodes.iter().map(|node| (node.name.clone(), story.lab.own_socket(node)));
    let primaries = Primaries::watch(own.collect());

    // Patroni leads by the word of a Baton and a Patroni.
    story.lives_without_etcd("n1", &work).await;
    story.etcd_comes_back().await;
    story.led_by("n1").await;

    // Baton leads by the word of two Patronis.
    story.baton("n2", &["switchover", "--leader", "n1", "--candidate", "n2", "--force"]).await;
    story.led_by("n2").await;
    story.all_in_failsafe().await;
    story.lives_without_etcd("n2", &work).await;

    // One of them falls silent: that is the end of it, before anybody else could lead.
    story.lab.node("n3").unwrap().freeze_agent();
    lab::wait::until(SPAN, "the primary to stop taking writes", async || {
        let socket = story.lab.own_socket(story.at("n2"));
        let standby = socket.ask("SELECT pg_is_in_recovery()", Duration::from_secs(1)).await;
        standby.map_or(Some(()), |answer| (answer == "t").then_some(()))
    })
    .await
    .unwrap();
    lab::wait::until(SPAN, "n2 to say that it is no primary", async || {
        (story.get("n2", "/primary").await.status == 503).then_some(())
    })
    .await
    .unwrap();
    story.lab.node("n3").unwrap().thaw_agent();
    story.etcd_comes_back().await;

    work.await_progress(50, SPAN).await.unwrap();
    let report = work.stop().await;
    let primaries = primaries.stop().await;
    assert!(primaries.two_primaries().is_zero(), "two primaries: {}", primaries.describe());
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
