//! Paused: nothing is started, stopped, promoted or demoted by itself.

use crate::story::{SPAN, Story};
use serde_json::json;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_cluster_is_left_alone_and_recovers_when_resumed() {
    let mut story = Story::begin("pause", |_| {}).await;
    story.expect("crash");
    story.expect("pause");
    let primary = story.primary().await;
    let answer = story.send(&primary, "PATCH", "/config", &json!({ "pause": true })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    for node in &story.lab.nodes {
        lab::wait::until(SPAN, "every member to know of the pause", async || {
            let own = lab::rest::get(node.rest, "/patroni", SPAN).await.ok()?.json().ok()?;
            (own["pause"] == true).then_some(())
        })
        .await
        .unwrap();
    }
    let postmasters: Vec<(String, i32)> =
        story.lab.nodes.iter().map(|node| (node.name.clone(), node.postmaster().unwrap().pid)).collect();
    story.lab.node(&primary).unwrap().kill_postmaster().unwrap();
    lab::wait::until(SPAN, "the agent to notice the crash", async || {
        let answer = story.get(&primary, "/health").await;
        (answer.status == 503).then_some(())
    })
    .await
    .unwrap();
    // Longer than the lease of the leader, so that whatever would happen by itself has happened.
    let quiet = clock::now().after(Duration::from_secs(12));
    lab::wait::until(SPAN, "the quiet time", async || {
        for node in &story.lab.nodes {
            let known = postmasters.iter().find(|(name, _)| *name == node.name).unwrap().1;
            match node.postmaster() {
                Some(postmaster) => {
                    assert_eq!(postmaster.pid, known, "{} was restarted in a pause", node.name)
                }
                None => assert_eq!(node.name, primary, "{} was stopped in a pause", node.name),
            }
        }
        assert_ne!(story.lab.view().await.ok()?.primary().filter(|name| *name != primary), Some("anybody"));
        (clock::now() >= quiet).then_some(())
    })
    .await
    .unwrap();
    let replica = story.a_replica_by_socket(&primary).await;
    assert!(replica, "nobody was promoted in a pause");
    let any = story.lab.nodes[0].name.clone();
    let answer = story.send(&any, "PATCH", "/config", &json!({ "pause": null })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    story.lab.await_writable(SPAN).await.unwrap();
    story.healthy().await;
    story.end().await;
}

impl Story {
    /// Whether every node but `primary` says on its own socket that it is a standby.
    async fn a_replica_by_socket(&self, primary: &str) -> bool {
        for node in self.lab.nodes.iter().filter(|node| node.name != primary) {
            let answer = self.lab.own_socket(node).ask("SELECT pg_is_in_recovery()", SPAN).await.unwrap();
            if answer != "t" {
                return false;
            }
        }
        true
    }
}
