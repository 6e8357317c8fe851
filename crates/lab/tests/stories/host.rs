//! A whole host is lost.

use crate::story::{SPAN, Story};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primarys_host_dies_another_member_takes_over_and_the_host_rejoins() {
    let mut story = Story::begin("host", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    let old_term = story.lab.view().await.unwrap().leader.unwrap().1;
    story.lab.node(&old).unwrap().kill_host();
    assert!(story.lab.node(&old).unwrap().processes().is_empty());
    story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    let view = story.lab.view().await.unwrap();
    assert!(view.leader.unwrap().1 > old_term, "every later holder has a larger term");
    // Without synchronous replication the last commits may have reached nobody else.
    story.expect("undone and kept");
    story.expect("the lease is gone");
    story.lab.node(&old).unwrap().start_agent().unwrap();
    let view = story.healthy().await;
    assert_eq!(view.leading().unwrap().timeline, Some(2));
    load.end().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_whole_cluster_loses_power_and_comes_back_with_every_row() {
    let mut story = Story::begin("power", |_| {}).await;
    let load = story.load().await;
    let report = load.end().await;
    for node in &mut story.lab.nodes {
        node.kill_host();
    }
    story.expect("the lease is gone");
    story.lab.start_agents().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.healthy().await;
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
