//! Patroni and Baton hand the synchronous modes to each other: `/sync` and `synchronous_standby_names` of the one are read, kept and
//! changed by the other, and no acknowledged row is lost on the way.

use crate::mixed::three;
use crate::story::{SPAN, Story};
use lab::{Plan, Primaries, Workload};
use serde_json::{Value, json};
use types::StandbyNames;

impl Story {
    /// Waits until `/sync` and the names that commits wait for say the same: `count` of `standbys`, under this leader.
    async fn await_sync(&self, leader: &str, any: bool, count: usize, standbys: &[&str]) {
        let list = standbys.join(",");
        let names = format!("{}{count} ({list})", if any { "ANY " } else { "" });
        let key = json!({ "leader": leader, "sync_standby": list, "quorum": standbys.len() - count });
        lab::wait::until(
            SPAN,
            &format!("{leader} to let {names} confirm, and /sync to be {key}"),
            async || {
                let socket = self.lab.own_socket(self.at(leader));
                let shown = socket.ask("SHOW synchronous_standby_names", SPAN).await.ok()?;
                let alike = StandbyNames::parse(&shown) == StandbyNames::parse(&names);
                (alike && self.sync_key().await == key).then_some(())
            },
        )
        .await
        .unwrap();
    }

    /// `/sync`, its standbys sorted.
    async fn sync_key(&self) -> Value {
        let mut key = self.key("sync").await;
        let listed = key["sync_standby"].as_str().unwrap_or_default().to_owned();
        let mut listed: Vec<&str> = listed.split(',').collect();
        listed.sort_unstable();
        let (leader, quorum) = (key["leader"].take(), key["quorum"].take());
        json!({ "leader": leader, "sync_standby": listed.join(","), "quorum": quorum })
    }

    /// The single synchronous standby of the mode `on`, when both places agree on it.
    async fn await_one_of(&self, leader: &str) -> String {
        let one = lab::wait::until(SPAN, &format!("one synchronous standby of {leader}"), async || {
            let key = self.sync_key().await;
            let listed = key["sync_standby"].as_str()?;
            let one = key["leader"] == leader && !listed.is_empty() && !listed.contains(',');
            one.then(|| listed.to_owned())
        })
        .await
        .unwrap();
        self.await_sync(leader, false, 1, &[&one]).await;
        one
    }

    /// The other two, sorted.
    fn others(&self, than: &str) -> [&'static str; 2] {
        match than {
            "n1" => ["n2", "n3"],
            "n2" => ["n1", "n3"],
            _ => ["n1", "n2"],
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patroni_and_baton_hand_the_synchronous_modes_to_each_other() {
    let mut story = Story::begin_led_by_the_first("mixed-sync", |spec| {
        three(spec);
        spec.dynamic["synchronous_mode"] = json!(true);
    })
    .await;
    for text in
        ["Exception when working with leader", "the lease is gone", "undone and kept", "watchprefix failed"]
    {
        story.expect(text);
    }
    let service = story.haproxy().await;
    Primaries::prepare(&service).await.unwrap();
    let work = Workload::start(&service, Plan::default()).await.unwrap();
    let own = story.lab.nodes.iter().map(|node| (node.name.clone(), story.lab.own_socket(node)));
    let primaries = Primaries::watch(own.collect());

    // Patroni keeps one, then both; Baton takes the list over and shortens it.
    story.await_one_of("n1").await;
    story.configure(&json!({ "synchronous_node_count": 2 })).await;
    story.await_sync("n1", false, 2, &["n2", "n3"]).await;
    story.patronictl("n1", &["switchover", "--leader", "n1", "--candidate", "n2", "--force"]).await;
    story.led_by("n2").await;
    story.await_sync("n2", false, 2, &["n1", "n3"]).await;
    story.listed_alike("n2").await;
    story.configure(&json!({ "synchronous_node_count": 1 })).await;
    let listed = story.await_one_of("n2").await;
    work.await_progress(50, SPAN).await.unwrap();

    // Baton's host is lost while clients write: the Patroni that it listed takes over.
    story.lab.node("n2").unwrap().kill_host();
    let patroni = story.another_primary("n2").await;
    assert_eq!(patroni, listed, "only the listed one has every acknowledged commit");
    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.led_by(&patroni).await;

    // The mode changes under Patroni; Baton takes it over, changes the count and hands it back.
    story.configure(&json!({ "synchronous_mode": "quorum" })).await;
    story.await_sync(&patroni, true, 1, &story.others(&patroni)).await;
    story.baton("n2", &["switchover", "--leader", &patroni, "--candidate", "n2", "--force"]).await;
    story.led_by("n2").await;
    story.await_sync("n2", true, 1, &["n1", "n3"]).await;
    story.listed_alike("n2").await;
    story.configure(&json!({ "synchronous_node_count": 2 })).await;
    story.await_sync("n2", true, 2, &["n1", "n3"]).await;
    story.patronictl("n1", &["switchover", "--leader", "n2", "--candidate", &patroni, "--force"]).await;
    story.led_by(&patroni).await;
    story.await_sync(&patroni, true, 2, &story.others(&patroni)).await;
    story.configure(&json!({ "synchronous_node_count": 1 })).await;
    story.await_sync(&patroni, true, 1, &story.others(&patroni)).await;
    work.await_progress(50, SPAN).await.unwrap();

    // Patroni's host is lost while clients write; whoever takes over keeps the mode.
    story.lab.node(&patroni).unwrap().kill_host();
    let next = story.another_primary(&patroni).await;
    story.lab.node(&patroni).unwrap().start_agent().unwrap();
    story.led_by(&next).await;
    story.await_sync(&next, true, 1, &story.others(&next)).await;
    if next != "n2" {
        story.baton("n2", &["switchover", "--leader", &next, "--candidate", "n2", "--force"]).await;
        story.led_by("n2").await;
    }

    // Baton ends what a Patroni began.
    story.configure(&json!({ "synchronous_mode": null })).await;
    lab::wait::until(SPAN, "no commit to wait for anybody", async || {
        let names = story.ask("n2", "SHOW synchronous_standby_names").await;
        (names.is_empty() && story.key("sync").await["leader"].is_null()).then_some(())
    })
    .await
    .unwrap();

    work.await_progress(50, SPAN).await.unwrap();
    let report = work.stop().await;
    let primaries = primaries.stop().await;
    assert!(primaries.two_primaries().is_zero(), "two primaries: {}", primaries.describe());
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
