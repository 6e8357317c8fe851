//! The agent hangs, dies, or is restarted; PostgreSQL is not to pay for it, and never may two primaries come of it.

use crate::story::{SPAN, Story};
use lab::FailureKind;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_agent_loses_the_lead_and_its_primary_is_gone_before_the_next_one_writes() {
    let mut story = Story::begin("freeze", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    story.lab.node(&old).unwrap().freeze_agent();
    story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    assert!(story.lab.node(&old).unwrap().postmaster().is_none(), "the guard has ended the old primary");
    // What the agent finds when it wakes up.
    story.expect("lease");
    story.expect("PostgreSQL does not answer");
    story.expect("is gone");
    story.expect("undone and kept");
    story.lab.node(&old).unwrap().thaw_agent();
    story.healthy().await;
    load.end().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_agent_that_stays_away_loses_the_lead_and_its_primary_is_gone_as_well() {
    let mut story = Story::begin("kill-agent", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    story.lab.node(&old).unwrap().kill_agent();
    story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    assert!(story.lab.node(&old).unwrap().postmaster().is_none(), "the guard has ended the old primary");
    story.expect("the lease is gone");
    story.expect("undone and kept");
    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    load.end().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_told_to_stop_hands_over_first_and_no_connection_fails() {
    let mut story = Story::begin("stop-agent", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    let begun = clock::now();
    assert!(story.lab.node(&old).unwrap().stop_agent(SPAN).await, "SIGTERM ends the agent");
    story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    assert!(story.lab.node(&old).unwrap().processes().is_empty(), "nothing of it is left");
    story.lab.node(&old).unwrap().start_agent().unwrap();
    story.healthy().await;
    let report = load.end().await;
    let failed = report.failed(FailureKind::Connection, begun, clock::now());
    assert_eq!(failed, 0, "{:?}", report.causes(begun, clock::now()));
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_restarted_in_time_keeps_its_postgresql_and_the_lead() {
    let mut story = Story::begin("restart-agent", |spec| spec.ttl = Some(15)).await;
    let load = story.load().await;
    let primary = story.primary().await;
    let postmaster = story.lab.node(&primary).unwrap().postmaster().unwrap().pid;
    let leader = story.lab.view().await.unwrap().leader;
    for hard in [true, false] {
        let node = story.lab.node(&primary).unwrap();
        if hard {
            node.kill_agent();
        } else {
            assert!(node.detach_agent(Duration::from_secs(10)).await, "SIGUSR2 ends the agent");
        }
        node.start_agent().unwrap();
        story.answers(&primary, "/primary", 200).await;
        load.work.await_progress(100, SPAN).await.unwrap();
        assert_eq!(
            story.lab.node(&primary).unwrap().postmaster().unwrap().pid,
            postmaster,
            "the same postmaster"
        );
        assert_eq!(story.lab.view().await.unwrap().leader, leader, "the same term");
    }
    story.healthy().await;
    let report = load.end().await;
    assert!(report.failures.is_empty(), "clients notice nothing: {:?}", report.failures);
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
