//! A replica is made anew on request; a leader refuses.

use crate::story::{SPAN, Story};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_made_anew_and_a_leader_refuses() {
    let mut story = Story::begin("reinit", |_| {}).await;
    story.expect("the old data directory is moved aside");
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    let refused = story.send(&primary, "POST", "/reinitialize", &json!({ "force": true })).await;
    assert_eq!(refused.status, 503, "{}", refused.body);

    let data = story.lab.nodes[story.lab.index(&replica).unwrap()].data_dir();
    fs::write(data.join("left_behind"), "").unwrap();
    let answer = story.send(&replica, "POST", "/reinitialize", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    lab::wait::until(SPAN, "a fresh data directory", async || {
        (!data.join("left_behind").exists()).then_some(())
    })
    .await
    .unwrap();
    story.healthy().await;
    assert_eq!(story.primary().await, primary);
    story.end().await;
}
