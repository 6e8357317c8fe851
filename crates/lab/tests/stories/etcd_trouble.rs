//! etcd hangs, loses members, goes away and comes back.

use crate::story::{SPAN, Story, cut_off};
use serde_json::json;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_frozen_etcd_member_is_noticed_by_nobody() {
    let mut story = Story::begin("etcd-frozen", |_| {}).await;
    story.expect("etcd");
    story.expect("lease");
    story.expect("leader key");
    for frozen in 0..3 {
        let leader = story.lab.view().await.unwrap().leader;
        let load = story.load().await;
        story.lab.etcd[frozen].freeze();
        // Longer than a lease at 100 commits a second.
        load.work.await_progress(700, SPAN).await.unwrap();
        let report = load.end().await;
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert_eq!(story.lab.view().await.unwrap().leader, leader, "the lead did not change");
        // An etcd leader that wakes may revoke every lease, in the versions under test (docs/etcd.md).
        story.lab.etcd[frozen].thaw();
        story.lab.wait_for_etcd().await.unwrap();
        story.lab.await_writable(SPAN).await.unwrap();
        // It does that a moment later: what this load sees belongs to no round.
        story.load().await.end().await;
        story.healthy().await;
    }
    story.end().await;
}

/// `docs/etcd.md`, "When a majority of etcd is lost for good", step by step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_of_etcd_is_lost_for_good_and_the_cluster_goes_on() {
    let mut story = Story::begin("etcd-lost", |_| {}).await;
    for expected in ["etcd", "lease", "failsafe", "does not answer"] {
        story.expect(expected);
    }
    let load = story.load().await;
    let before = story.lab.keys().read().await.unwrap();
    for lost in [1, 2] {
        story.lab.etcd[lost].kill();
        std::fs::remove_dir_all(story.lab.etcd[lost].dir().join("data")).unwrap();
    }
    story.lab.etcd[0].stop().await;
    story.lab.etcd[0].start_alone().unwrap();
    story.lab.wait_for_etcd().await.unwrap();
    load.work.await_progress(100, SPAN).await.unwrap();
    story.healthy().await;
    load.end().await;
    let after = story.lab.keys().read().await.unwrap();
    for kept in ["initialize", "config"] {
        assert_eq!(after[kept].value, before[kept].value, "{kept}");
    }
    let baton = lab::baton_of_this_build().unwrap();
    let config = story.lab.nodes[0].config();
    let shown = std::process::Command::new(baton).arg("-c").arg(config).arg("etcd").output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("etcd has 1 member: it does not survive the loss of one"), "{text}");
    assert!(text.contains("does not answer"), "{text}");
    assert_eq!(shown.status.code(), Some(1));
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_and_without_the_word_of_all_others_nobody_writes_and_afterwards_somebody_does() {
    let mut story = Story::begin("etcd-away", |_| {}).await;
    story.expect("without etcd");
    story.expect("etcd");
    story.expect("lease");
    // Stopped at once and without synchronous standbys, it may have rows that they had not got yet.
    story.expect("undone and kept");
    let load = story.load().await;
    let primary = story.primary().await;
    // An agent that was frozen finds that its last question to PostgreSQL took too long.
    story.expect("PostgreSQL does not answer");
    // Failsafe mode is on, but one of the others cannot agree.
    let silent = story.a_replica().await;
    let silent = story.lab.index(&silent).unwrap();
    story.lab.nodes[silent].freeze_agent();
    story.lab.etcd.iter_mut().for_each(lab::EtcdMember::freeze);
    lab::wait::until(SPAN, "the primary to stop taking writes", async || {
        let node = &story.lab.nodes[story.lab.index(&primary).unwrap()];
        let span = std::time::Duration::from_secs(1);
        let standby = story.lab.own_socket(node).ask("SELECT pg_is_in_recovery()", span).await;
        standby.map_or(Some(()), |answer| (answer == "t").then_some(()))
    })
    .await
    .unwrap();
    story.lab.nodes[silent].thaw_agent();
    story.lab.etcd.iter_mut().for_each(lab::EtcdMember::thaw);
    load.work.await_progress(50, SPAN).await.unwrap();
    story.healthy().await;
    load.end().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_loss_of_all_etcd_changes_nothing_while_all_others_agree() {
    let mut story = Story::begin("failsafe", |_| {}).await;
    story.expect("etcd");
    story.expect("lease");
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    lab::wait::until(SPAN, "all members in /failsafe", async || {
        let listed = story.get(&primary, "/failsafe").await;
        let all = listed.json().ok()?.as_object()?.len() == 3;
        (listed.status == 200 && all).then_some(())
    })
    .await
    .unwrap();
    let before = story.lab.view().await.unwrap();
    let load = story.load().await;
    story.lab.etcd.iter_mut().for_each(lab::EtcdMember::kill);
    // Two leases long at 100 commits a second.
    let end = clock::now().after(cut_off());
    load.work.await_progress(1000, SPAN).await.unwrap();
    while clock::now() < end {
        load.work.await_progress(100, SPAN).await.unwrap();
    }
    assert_eq!(story.get(&primary, "/primary").await.status, 200);
    for member in [&primary, &replica] {
        let says = story.get(member, "/patroni").await.json().unwrap();
        assert_eq!(says["failsafe_mode_is_active"], json!(true), "{member}: {says}");
    }
    let question = json!({ "name": primary, "conn_url": "postgres://x", "api_url": "http://x/patroni" });
    let agreed = story.send(&replica, "POST", "/failsafe", &question).await;
    assert_eq!((agreed.status, agreed.body.as_str()), (200, "Accepted"));
    let question = json!({ "name": replica, "conn_url": "postgres://x", "api_url": "http://x/patroni" });
    let refused = story.send(&primary, "POST", "/failsafe", &question).await;
    assert_eq!((refused.status, refused.body.as_str()), (500, "Running as a leader"));
    // What the leader says of its slots moves those of its standbys.
    let others = story.lab.nodes.iter().map(|node| node.name.clone());
    let third = others.into_iter().find(|name| *name != primary && *name != replica).unwrap();
    let position = format!("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{third}'");
    let stood = story.ask(&replica, &position).await;
    lab::wait::until(SPAN, "the slot of a standby to move without etcd", async || {
        let moved = story.ask(&replica, &format!("SELECT ({position}) > '{stood}'")).await;
        (moved == "t").then_some(())
    })
    .await
    .unwrap();
    // Agents that are started again meanwhile know whom to ask, and what they are asked.
    story.expect("goes on while all others agree");
    let postmaster = story.at(&primary).postmaster().unwrap().pid;
    for member in [&primary, &replica] {
        let node = story.lab.node(member).unwrap();
        node.kill_agent();
        node.start_agent().unwrap();
        load.work.await_progress(700, SPAN).await.unwrap();
        assert_eq!(story.get(&primary, "/primary").await.status, 200, "after the restart of {member}");
    }
    assert_eq!(story.at(&primary).postmaster().unwrap().pid, postmaster, "PostgreSQL ran on");
    story.lab.etcd.iter_mut().for_each(|member| member.start().unwrap());
    story.healthy().await;
    load.work.await_progress(200, SPAN).await.unwrap();
    let report = load.end().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    let after = story.lab.view().await.unwrap();
    assert_eq!(after.leader, before.leader, "the lead, and its term, did not change");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spoiled_values_are_named_and_nothing_rash_is_done() {
    let mut story = Story::begin("spoiled", |_| {}).await;
    let load = story.load().await;
    let before = story.lab.view().await.unwrap().leader;
    let postmasters: Vec<i32> = story.lab.nodes.iter().map(|node| node.postmaster().unwrap().pid).collect();
    for key in ["config", "status", "sync", "history", "failover"] {
        story.expect(key);
        story.lab.keys().put(key, "{ not json").await.unwrap();
    }
    load.work.await_progress(400, SPAN).await.unwrap();
    let report = load.end().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(story.lab.view().await.unwrap().leader, before);
    let now: Vec<i32> = story.lab.nodes.iter().map(|node| node.postmaster().unwrap().pid).collect();
    assert_eq!(now, postmasters, "nobody was restarted");
    let named = story.lab.nodes.iter().all(|node| {
        let log = std::fs::read_to_string(node.log()).unwrap();
        log.lines().any(|line| line.contains("WARNING") && line.contains("/config"))
    });
    assert!(named, "every agent says which key is spoiled");
    story
        .lab
        .keys()
        .put("config", &json!({ "ttl": 5, "loop_wait": 1, "retry_timeout": 2 }).to_string())
        .await
        .unwrap();
    story.end().await;
}
