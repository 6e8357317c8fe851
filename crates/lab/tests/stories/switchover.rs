//! Planned switchovers: nothing is lost, no connection fails, and what makes no sense is refused.

use crate::story::{SPAN, Story};
use lab::{FailureKind, Target};
use serde_json::json;
use tokio::sync::watch;
use types::Moment;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switchovers_lose_nothing_and_refuse_no_connection() {
    let story = Story::begin("switchover", |_| {}).await;
    let load = story.load().await;
    // Like `pgbench -C`: each transaction has a connection of its own, and none may fail.
    let target = story.lab.target();
    target.run("CREATE TABLE brief (at timestamptz DEFAULT now())", SPAN).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let brief: Vec<_> = (0..4).map(|_| tokio::spawn(transactions(target.clone(), stopped.clone()))).collect();
    for _round in 0..3 {
        let (old, candidate) = (story.primary().await, story.a_replica().await);
        story.switch_over(&old, &json!({ "leader": old, "candidate": candidate })).await;
        assert_eq!(story.another_primary(&old).await, candidate);
        load.work.await_progress(50, SPAN).await.unwrap();
        story.healthy().await;
    }
    let report = load.end().await;
    let all = (Moment(0), clock::now());
    assert_eq!(report.failed(FailureKind::Connection, all.0, all.1), 0, "{:?}", report.causes(all.0, all.1));
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    let causes = report.causes(all.0, all.1);
    assert!(causes.keys().all(|cause| !cause.contains("25006")), "{causes:?}");
    stop.send(true).unwrap();
    for one in brief {
        let (done, failed) = one.await.unwrap();
        assert!(done > 0 && failed.is_empty(), "{done} done; {failed:?}");
    }
    let said = std::fs::read_to_string(story.lab.router_log().unwrap()).unwrap();
    assert_eq!(said.matches("no transaction is left before the switchover").count(), 3, "{said}");
    story.end().await;
}

/// Transactions until told to stop: how many were done, and what went wrong.
async fn transactions(target: Target, stopped: watch::Receiver<bool>) -> (usize, Vec<String>) {
    let (mut done, mut failed) = (0, Vec::new());
    while !*stopped.borrow() {
        match target.run("BEGIN; INSERT INTO brief DEFAULT VALUES; COMMIT", SPAN).await {
            Ok(()) => done += 1,
            Err(error) => failed.push(format!("{error:#}")),
        }
    }
    (done, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_that_makes_no_sense_is_refused_and_changes_nothing() {
    let story = Story::begin("refused", |_| {}).await;
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    let before = story.lab.view().await.unwrap().leader;
    for (body, status) in [
        (json!({}), 400),
        (json!({ "candidate": replica }), 400),
        (json!({ "leader": primary, "candidate": primary }), 400),
        (json!({ "leader": replica }), 412),
        (json!({ "leader": primary, "candidate": "nobody" }), 412),
    ] {
        let answer = story.send(&primary, "POST", "/switchover", &body).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.body);
    }
    assert_eq!(story.lab.view().await.unwrap().leader, before);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_among_agents_that_were_just_started_waits_until_nobody_is_in_doubt() {
    let mut story = Story::begin("newcomers", |spec| spec.ttl = Some(10)).await;
    let load = story.load().await;
    let old = story.primary().await;
    // As an upgrade of all agents does; the others last, whose doubt it is.
    let mut names: Vec<String> = story.lab.nodes.iter().map(|node| node.name.clone()).collect();
    names.sort_by_key(|name| *name != old);
    for name in &names {
        let node = story.lab.node(name).unwrap();
        assert!(node.detach_agent(SPAN).await, "SIGUSR2 ends the agent");
        node.start_agent().unwrap();
    }
    story.answers(&old, "/primary", 200).await;

    let ordered = clock::now();
    let answer = story.send(&old, "POST", "/switchover", &json!({ "leader": old })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    story.another_primary(&old).await;
    let why = story.get(&old, "/baton/why").await.body;
    assert!(why.contains("it waits for that, and writes go on"), "{why}");
    load.work.await_progress(10, SPAN).await.unwrap();
    story.healthy().await;
    let report = load.end().await;
    let longest = report.longest_pause(ordered, clock::now());
    assert!(
        longest < std::time::Duration::from_secs(5),
        "somebody led all the time, but for a moment: {longest:?}"
    );
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
