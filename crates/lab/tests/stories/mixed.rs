//! Patroni and Baton keep one cluster together: each leads and follows the other, whatever happens to whom.

use crate::story::{SPAN, Story};
use lab::AgentKind::{Baton, Patroni};
use lab::{Spec, Target, processes};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::time::Duration;

/// What a Patroni says at WARNING in a healthy life and when another member is away.
pub(crate) const PATRONI_SAYS: [&str; 7] = [
    "Postgresql is not running.",
    "Loop time exceeded, rescheduling immediately.",
    "Request failed to n",
    "Request to server",
    "watchprefix failed",
    "ttl=5 can't be smaller than 20, adjusting",
    "Could not activate Linux watchdog device",
];

pub(crate) fn three(spec: &mut Spec) {
    spec.agents = vec![Patroni, Baton, Patroni];
    spec.router = false;
    spec.dynamic = json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3 });
}

impl Story {
    /// A cluster whose first node is its first leader, all others following.
    pub(crate) async fn begin_led_by_the_first(name: &str, edit: impl FnOnce(&mut Spec)) -> Story {
        let mut story = Story::prepare(name, edit).await;
        story.start_led_by_the_first().await;
        story
    }

    /// The same of what was prepared.
    pub(crate) async fn start_led_by_the_first(&mut self) {
        PATRONI_SAYS.iter().for_each(|text| self.expect(text));
        self.lab.start_etcd().await.unwrap();
        self.lab.nodes[0].start_agent().unwrap();
        if self.spec.router {
            self.lab.start_router().unwrap();
        }
        self.lab.await_writable(SPAN).await.unwrap();
        self.lab.start_agents().unwrap();
        self.healthy().await;
    }

    /// Starts HAProxy; returns the way to the primary through it.
    pub(crate) async fn haproxy(&mut self) -> Target {
        self.lab.start_haproxy().unwrap();
        let service = self.lab.through_haproxy();
        // At its start HAProxy takes every server for a good one; it takes turns among those that it thinks good.
        lab::wait::until(SPAN, "HAProxy to lead to the primary and nowhere else", async || {
            for _ in 0..2 * self.lab.nodes.len() {
                let answer = service.ask("SELECT pg_is_in_recovery()", Duration::from_secs(2)).await.ok()?;
                (answer == "f").then_some(())?;
            }
            Some(())
        })
        .await
        .unwrap();
        service
    }

    /// Waits until `name` is the primary and all others follow it.
    pub(crate) async fn led_by(&self, name: &str) {
        lab::wait::until(SPAN, &format!("{name} to lead and all others to follow"), async || {
            let view = self.lab.view().await.ok()?;
            (view.primary() == Some(name) && view.healthy(self.lab.nodes.len())).then_some(())
        })
        .await
        .unwrap();
    }

    /// The value of a key, as JSON.
    pub(crate) async fn key(&self, name: &str) -> Value {
        let keys = lab::wait::until(SPAN, "etcd to answer", async || self.lab.keys().read().await.ok());
        let keys = keys.await.unwrap();
        keys.get(name).and_then(|entry| serde_json::from_str(&entry.value).ok()).unwrap_or_default()
    }

    /// Runs statements on the primary itself.
    pub(crate) async fn write(&self, sql: &str) {
        let primary = self.primary().await;
        self.lab.own_socket(self.at(&primary)).run(sql, SPAN).await.unwrap();
    }

    /// What a node itself answers.
    pub(crate) async fn ask(&self, node: &str, sql: &str) -> String {
        self.lab.own_socket(self.at(node)).ask(sql, SPAN).await.unwrap()
    }

    /// Waits until all others have everything that this primary has written.
    pub(crate) async fn all_is_sent(&self, primary: &str) {
        let others = self.lab.nodes.len() - 1;
        let sent = "SELECT count(*) FROM pg_stat_replication WHERE flush_lsn = pg_current_wal_flush_lsn()";
        self.await_answer(primary, sent, &others.to_string()).await;
    }

    /// The primary stops sending and commits one more row; then its host dies. So it has what nobody else has.
    async fn lose_with_a_tail(&mut self, primary: &str) {
        self.all_is_sent(primary).await;
        let processes = self.at(primary).processes();
        let senders = processes.iter().filter(|process| process.command.contains("walsender"));
        senders.for_each(|sender| processes::signal(sender.pid, Signal::STOP));
        self.write(&format!("INSERT INTO tail VALUES ('only {primary} had this')")).await;
        self.lab.node(primary).unwrap().kill_host();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_and_baton_lead_each_other_in_turns() {
    let mut story = Story::begin_led_by_the_first("mixed", |spec| {
        three(spec);
        // Below Patroni's floor, which holds for all as long as one of them is a Patroni.
        spec.dynamic["ttl"] = json!(5);
        spec.tags = json!({ "nofailover": true });
    })
    .await;
    story.expect("is used as");
    story.expect("are used as");
    // A Patroni asks a leader whose host is dead until its lease has ended.
    story.expect("Exception when working with leader");
    leases_live(&story, 20).await;
    let rows = story.listed_alike("n1").await;
    assert!(rows.iter().any(|(member, role, ..)| member == "n1" && role == "Leader"), "{rows:?}");

    // Baton takes over from Patroni, by the word of the real patronictl, and two Patronis follow it.
    story.patronictl("n1", &["switchover", "--leader", "n1", "--candidate", "n2", "--force"]).await;
    story.led_by("n2").await;
    story.listed_alike("n2").await;
    slots_move(&story, "n1", "n3").await;
    paused_and_resumed(&mut story).await;

    // Baton's host dies with a commit that nobody else has. A Patroni leads, the old primary is rewound under it.
    story.write("CREATE TABLE tail (word text)").await;
    story.led_by("n2").await;
    story.lose_with_a_tail("n2").await;
    assert_eq!(story.another_primary("n2").await, "n1");
    story.write("INSERT INTO tail VALUES ('after n2')").await;
    story.expect("has not written a checkpoint since");
    story.expect("undone and kept");
    story.expect("the lease is gone");
    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.led_by("n1").await;
    assert_eq!(story.ask("n2", "SELECT string_agg(word, ',') FROM tail").await, "after n2");

    // Back by Baton's own command line; and the same the other way round: Patroni's rewind under Baton.
    story.baton("n2", &["switchover", "--leader", "n1", "--candidate", "n2", "--force"]).await;
    story.led_by("n2").await;
    story.baton("n2", &["switchover", "--leader", "n2", "--candidate", "n1", "--force"]).await;
    story.led_by("n1").await;
    story.lose_with_a_tail("n1").await;
    assert_eq!(story.another_primary("n1").await, "n2");
    story.write("INSERT INTO tail VALUES ('after n1')").await;
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.led_by("n2").await;
    assert_eq!(story.ask("n1", "SELECT string_agg(word, ',') FROM tail").await, "after n2,after n1");
    history_is_one(&story).await;

    // The last Patroni takes its floors along.
    story.send("n2", "PATCH", "/config", &json!({ "ttl": 5 })).await;
    leases_live(&story, 20).await;
    for name in ["n1", "n3"] {
        story.lab.node(name).unwrap().replace_by(Baton, SPAN).await.unwrap();
    }
    story.led_by("n2").await;
    leases_live(&story, 5).await;
    story.end().await;
}

/// Every member's lease was granted for so many seconds, whoever keeps the member.
async fn leases_live(story: &Story, seconds: i64) {
    lab::wait::until(SPAN, &format!("every lease to have been granted for {seconds} s"), async || {
        let keys = story.lab.keys().read().await.ok()?;
        for name in ["n1", "n2", "n3"] {
            let lease = keys.get(&format!("members/{name}"))?.lease;
            if story.lab.keys().granted(lease).await.ok()? != seconds {
                return None;
            }
        }
        Some(())
    })
    .await
    .unwrap();
}

/// The slot for `of` on the standby `on` moves along with what the leader publishes.
async fn slots_move(story: &Story, on: &str, of: &str) {
    let sql = format!(
        "SELECT coalesce(max(restart_lsn), '0/0') FROM pg_replication_slots WHERE slot_name = '{of}'"
    );
    let before = story.ask(on, &sql).await;
    lab::wait::until(SPAN, &format!("the slot {of} on {on} to move on from {before}"), async || {
        story.write("SELECT pg_logical_emit_message(false, 'lab', 'moves')").await;
        let moved = story.ask(on, &format!("SELECT ({sql}) > '{before}'")).await;
        (moved == "t" && story.ask(on, &sql).await != "0/0").then_some(())
    })
    .await
    .unwrap();
}

/// A pause that one command line asks for and the other ends, known to all.
async fn paused_and_resumed(story: &mut Story) {
    story.expect("pause");
    let postmasters: Vec<_> = story.lab.nodes.iter().map(|node| node.postmaster().unwrap().pid).collect();
    let said = story.patronictl("n1", &["pause", "--wait"]).await;
    assert!(said.contains("Success: cluster management is paused"), "{said}");
    for name in ["n1", "n2", "n3"] {
        assert_eq!(story.get(name, "/patroni").await.json().unwrap()["pause"], true, "{name}");
    }
    let said = story.baton("n2", &["resume", "--wait"]).await;
    assert!(said.contains("Success: cluster management is resumed"), "{said}");
    let now: Vec<_> = story.lab.nodes.iter().map(|node| node.postmaster().unwrap().pid).collect();
    assert_eq!(now, postmasters, "a pause restarts nothing");
}

/// `/history` has every change of the lead once, whoever wrote it.
async fn history_is_one(story: &Story) {
    let timeline: u64 =
        story.ask("n2", "SELECT timeline_id FROM pg_control_checkpoint()").await.parse().unwrap();
    lab::wait::until(SPAN, "the history to be complete", async || {
        let history = story.key("history").await;
        let rows = history.as_array()?;
        let numbers: Vec<u64> = rows.iter().filter_map(|row| row[0].as_u64()).collect();
        (numbers == (1..timeline).collect::<Vec<u64>>()).then_some(())
    })
    .await
    .unwrap();
}
