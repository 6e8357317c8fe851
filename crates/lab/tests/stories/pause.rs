//! Paused: nothing is started, stopped, promoted or demoted by itself.

use crate::mixed::three;
use crate::story::{SPAN, Story};
use lab::AgentKind::{Baton, Patroni};
use lab::processes;
use rustix::process::Signal;
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

/// Patroni led, was replaced in the pause, and then people worked by hand on what they had paused the cluster for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_do_by_hand_in_a_pause_is_followed() {
    let mut story = Story::begin_led_by_the_first("by-hand", |spec| {
        three(spec);
        spec.etcd = 1;
        spec.agents = vec![Patroni, Baton, Baton];
    })
    .await;
    for text in [
        "pause",
        "undone and kept",
        "not written a checkpoint",
        "is stopped",
        "not owner of the lease",
        "no longer ours",
        "moved aside",
    ] {
        story.expect(text);
    }
    story.baton("n2", &["pause", "--wait"]).await;

    // The agents are exchanged, both ways: PostgreSQL stays, and the lead stays with the primary.
    let postmaster = story.at("n1").postmaster().unwrap().pid;
    for kind in [Baton, Patroni, Baton] {
        story.lab.node("n1").unwrap().replace_by(kind, SPAN).await.unwrap();
        lab::wait::until(SPAN, &format!("{kind} to lead on n1"), async || {
            let view = story.lab.view().await.ok()?;
            let n1 = view.leading().filter(|member| member.name == "n1" && member.role == "primary")?;
            let leads = story.status("n1", "/primary").await == Some(200);
            (n1.baton == (kind == Baton) && leads).then_some(())
        })
        .await
        .unwrap();
    }
    assert_eq!(story.at("n1").postmaster().unwrap().pid, postmaster);

    // The primary is stopped by hand, a standby is promoted by hand: it leads, and the history says so.
    processes::signal(postmaster, Signal::INT);
    lab::wait::until(SPAN, "the leader key to be free", async || {
        story.lab.view().await.ok()?.leader.is_none().then_some(())
    })
    .await
    .unwrap();
    assert_eq!(story.ask("n2", "SELECT pg_promote()").await, "t");
    lab::wait::until(SPAN, "n2 to lead", async || {
        (story.lab.view().await.ok()?.primary() == Some("n2")).then_some(())
    })
    .await
    .unwrap();
    let history = story.key("history").await;
    assert_eq!((&history[0][0], &history[0][4]), (&json!(1), &json!("n2")), "{history}");
    lab::wait::until(SPAN, "n3 to know the history", async || {
        (story.get("n3", "/history").await.json().ok()? == history).then_some(())
    })
    .await
    .unwrap();

    // A standby is stopped and started by hand; the agent takes it up.
    let standby = story.at("n3").postmaster().unwrap().pid;
    processes::signal(standby, Signal::INT);
    is_in_state(&story, "n3", "stopped").await;
    story.at("n3").start_postgres_by_hand(&story.spec.binaries.postgres).unwrap();
    is_in_state(&story, "n3", "running").await;

    // What is ordered by name is done: a restart of the primary, a new copy, a switchover.
    let before = story.at("n2").postmaster().unwrap().pid;
    let answer = story.send("n2", "POST", "/restart", &json!({})).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "restarted successfully"));
    assert_ne!(story.at("n2").postmaster().unwrap().pid, before);
    lab::wait::until(SPAN, "n2 to accept writes again", async || {
        (story.lab.view().await.ok()?.primary() == Some("n2")).then_some(())
    })
    .await
    .unwrap();
    let answer = story.send("n3", "POST", "/reinitialize", &json!({ "from_leader": true })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    lab::wait::until(SPAN, "n3 to stream from n2", async || {
        let view = story.lab.view().await.ok()?;
        let n3 = view.member("n3")?;
        (n3.replication.as_deref() == Some("streaming") && n3.timeline == Some(2)).then_some(())
    })
    .await
    .unwrap();
    story.switch_over("n2", &json!({ "leader": "n2", "candidate": "n3" })).await;
    is_in_state(&story, "n2", "running").await;
    assert_eq!(story.ask("n2", "SELECT pg_is_in_recovery()").await, "t");
    assert!(story.at("n1").postmaster().is_none(), "nothing was started by itself");

    story.baton("n2", &["resume", "--wait"]).await;
    // What n1 needs next was written before n3 was copied: nobody has it any more, only a new copy helps.
    lab::wait::until(SPAN, "n1 to follow n3", async || {
        let view = story.lab.view().await.ok()?;
        (view.member("n1")?.state == "running" && view.primary() == Some("n3")).then_some(())
    })
    .await
    .unwrap();
    let answer = story.send("n1", "POST", "/reinitialize", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    story.led_by("n3").await;
    story.end().await;
}

async fn is_in_state(story: &Story, name: &str, state: &str) {
    lab::wait::until(SPAN, &format!("{name} to be {state}"), async || {
        let view = story.lab.view().await.ok()?;
        (view.member(name)?.state == state).then_some(())
    })
    .await
    .unwrap();
}
