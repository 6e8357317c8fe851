//! PostgreSQL crashes under its agent.

use crate::story::{SPAN, Story};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_postmaster_is_replaced_or_restarted_and_nothing_is_lost() {
    let mut story = Story::begin("crash", |_| {}).await;
    story.expect("crash");
    let load = story.load().await;
    for _round in 0..2 {
        let primary = story.primary().await;
        story.lab.node(&primary).unwrap().kill_postmaster().unwrap();
        load.work.await_progress(100, SPAN).await.unwrap();
        story.healthy().await;
    }
    load.work.await_progress(50, SPAN).await.unwrap();
    let report = load.end().await;
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_is_started_again_and_clients_of_the_primary_notice_nothing() {
    let mut story = Story::begin("replica-crash", |_| {}).await;
    story.expect("crash");
    let load = story.load().await;
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    let before = story.lab.view().await.unwrap().leader;
    let old = story.lab.node(&replica).unwrap().kill_postmaster().unwrap();
    lab::wait::until(SPAN, "another postmaster on the replica", async || {
        let node = &story.lab.nodes[story.lab.index(&replica).unwrap()];
        node.postmaster().filter(|postmaster| postmaster.pid != old)
    })
    .await
    .unwrap();
    story.healthy().await;
    assert_eq!(story.primary().await, primary);
    assert_eq!(story.lab.view().await.unwrap().leader, before, "the term did not change");
    // Somebody else is faster than the agent, which takes up what runs then and starts nothing beside it.
    story.expect("does not answer");
    // Its start may take longer than the agent's lease lives.
    story.expect("lease");
    let postgres = story.spec.binaries.postgres.clone();
    let node = story.lab.node(&replica).unwrap();
    node.freeze_agent();
    let old = node.kill_postmaster().unwrap();
    lab::wait::until(SPAN, "all of PostgreSQL to end", async || {
        let left = node.processes().iter().filter(|process| process.is_postgres()).count();
        (left == 0).then_some(())
    })
    .await
    .unwrap();
    // A dead process that nobody has reaped yet counts as alive for PostgreSQL.
    let socket_lock = node.socket_dir().join(format!(".s.PGSQL.{}.lock", node.postgres_port));
    for lock in [node.data_dir().join("postmaster.pid"), socket_lock] {
        std::fs::remove_file(lock).unwrap();
    }
    node.start_postgres_by_hand(&postgres).unwrap();
    let by_hand = node.postmaster().unwrap().pid;
    assert_ne!(by_hand, old);
    node.thaw_agent();
    let log = node.log().to_owned();
    lab::wait::until(SPAN, "the agent to take it up", async || {
        std::fs::read_to_string(&log).unwrap().contains("started by somebody else").then_some(())
    })
    .await
    .unwrap();
    story.healthy().await;
    assert_eq!(story.at(&replica).postmaster().unwrap().pid, by_hand);
    let report = load.end().await;
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
