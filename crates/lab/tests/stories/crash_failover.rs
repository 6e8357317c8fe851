//! PostgreSQL crashes with WAL that no standby has: another member takes over, and nothing is lost even in asynchronous mode.

use crate::story::{SPAN, Story};
use lab::processes;
use rustix::process::Signal;
use serde_json::json;

impl Story {
    /// Holds back what the primary would send to its standbys.
    async fn hold_back(&self, primary: &str) {
        let node = &self.lab.nodes[self.lab.index(primary).unwrap()];
        let socket = self.lab.own_socket(node);
        let senders = "SELECT string_agg(pid::text, ' ') FROM pg_stat_replication";
        for pid in socket.ask(senders, SPAN).await.unwrap().split_whitespace() {
            processes::signal(pid.parse().unwrap(), Signal::STOP);
        }
    }

    /// So many rows in a table of its own, as this member has it.
    async fn await_rows(&self, name: &str, wanted: &str) {
        let socket = self.lab.own_socket(&self.lab.nodes[self.lab.index(name).unwrap()]);
        lab::wait::until(SPAN, &format!("{wanted} rows on {name}"), async || {
            let rows = socket.ask("SELECT count(*)::text FROM much", SPAN).await.ok()?;
            (rows == wanted).then_some(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_the_crashed_primary_has_is_handed_to_the_next_one_in_asynchronous_mode() {
    handed_over("crash-failover", async |story, primary| {
        story.lab.node(primary).unwrap().kill_postmaster().unwrap();
    })
    .await;
}

/// The postmaster lives and recovers by itself, and first waits for the senders that are held back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_when_only_one_process_of_the_primary_dies() {
    handed_over("crash-of-one", async |story, primary| {
        let socket = story.lab.own_socket(&story.lab.nodes[story.lab.index(primary).unwrap()]);
        let pid = "SELECT pid::text FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let pid = socket.ask(pid, SPAN).await.unwrap();
        processes::signal(pid.parse().unwrap(), Signal::KILL);
    })
    .await;
}

async fn handed_over(name: &str, crash: impl AsyncFnOnce(&mut Story, &str)) {
    let dynamic = json!({ "baton": { "crash": "failover" }, "maximum_lag_on_failover": 1000 });
    let mut story = Story::begin(name, |spec| spec.dynamic = dynamic).await;
    story.expect("crash");
    story.expect("PostgreSQL does not answer");
    let primary = story.primary().await;
    let before = story.lab.own_socket(&story.lab.nodes[story.lab.index(&primary).unwrap()]);
    before.run("CREATE TABLE much (n int)", SPAN).await.unwrap();
    story.healthy().await;
    // Far more than maximum_lag_on_failover: without the last WAL nobody could take over.
    story.hold_back(&primary).await;
    before.run("INSERT INTO much SELECT generate_series(1, 200000)", SPAN).await.unwrap();
    before.run("INSERT INTO much VALUES (0)", SPAN).await.unwrap();
    let killed = clock::now();
    crash(&mut story, &primary).await;
    let next = story.another_primary(&primary).await;
    println!("{next} leads after {:?}", clock::now().since(killed));
    story.await_rows(&next, "200001").await;

    let why = story.get(&primary, "/baton/why").await.body;
    assert!(why.contains("HandsTail") && why.contains("GivesLeadAway"), "{why}");
    let handed = story.get(&primary, "/metrics").await.body;
    let handed = handed.lines().find(|line| line.starts_with("baton_wal_handed_bytes_total")).unwrap();
    let bytes: u64 = handed.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(bytes > 10_000_000, "{handed}");
    // The old primary has nothing that the new one lacks: it follows, and nothing of it was undone.
    story.healthy().await;
    story.await_rows(&primary, "200001").await;
    assert!(!story.get(&primary, "/metrics").await.body.contains("baton_undone"), "nothing is lost");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_crashes_again_and_again_gives_the_lead_away_and_nothing_is_lost() {
    let mut story = Story::begin("crash-loop", |_| {}).await;
    story.expect("crash");
    let load = story.load().await;
    let primary = story.primary().await;
    for _crash in 0..8 {
        let Ok(now) = story.lab.primary().await else { break };
        if now != primary {
            break;
        }
        story.lab.node(&primary).unwrap().kill_postmaster().unwrap();
        load.work.await_progress(30, SPAN).await.unwrap();
    }
    let next = story.another_primary(&primary).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let why = story.get(&primary, "/baton/why").await.body;
    assert!(why.contains("GivesLeadAway") && why.contains("which loses nothing"), "{next}: {why}");
    let crashes = story.get(&primary, "/metrics").await.body;
    assert!(
        crashes.lines().any(|line| line.starts_with("baton_crashes_total") && line.ends_with(" 4")),
        "{crashes}"
    );
    let report = load.end().await;
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.healthy().await;
    story.end().await;
}
