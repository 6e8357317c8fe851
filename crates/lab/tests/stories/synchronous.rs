//! Synchronous replication: whoever takes over has every acknowledged commit, and a standby that goes holds nobody up for long.

use crate::story::{SPAN, Story};
use lab::processes;
use rustix::process::Signal;
use serde_json::json;

impl Story {
    /// What `/cluster` says of a member.
    async fn role(&self, of: &str) -> Option<String> {
        let any = lab::rest::get(self.lab.nodes[self.lab.index(of)?].rest, "/cluster", SPAN).await.ok()?;
        let cluster = any.json().ok()?;
        let members = cluster["members"].as_array()?;
        let row = members.iter().find(|row| row["name"] == of)?;
        row["role"].as_str().map(str::to_owned)
    }

    /// The members with this role, when there are so many.
    async fn await_roles(&self, role: &str, count: usize) -> Vec<String> {
        lab::wait::until(SPAN, &format!("{count} members with the role {role}"), async || {
            let mut found = Vec::new();
            for node in &self.lab.nodes {
                if self.role(&node.name).await.as_deref() == Some(role) {
                    found.push(node.name.clone());
                }
            }
            (found.len() == count).then_some(found)
        })
        .await
        .unwrap()
    }

    /// The names that commits wait for, on the primary's own socket.
    async fn await_names(&self, primary: &str, wanted: &str) {
        let socket = self.lab.own_socket(&self.lab.nodes[self.lab.index(primary).unwrap()]);
        lab::wait::until(SPAN, &format!("synchronous_standby_names {wanted:?}"), async || {
            let names = socket.ask("SHOW synchronous_standby_names", SPAN).await.ok()?;
            (names == wanted).then_some(())
        })
        .await
        .unwrap();
    }

    /// The names that the cluster should wait for in the mode `quorum`.
    fn quorum_names(&self, primary: &str) -> String {
        let mut others: Vec<&str> = self.lab.nodes.iter().map(|node| node.name.as_str()).collect();
        others.retain(|name| *name != primary);
        others.sort_unstable();
        format!("ANY 1 ({})", others.join(","))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_acknowledged_commit_is_lost_in_the_synchronous_modes() {
    let mut story =
        Story::begin("synchronous", |spec| spec.dynamic = json!({ "synchronous_mode": true })).await;
    story.expect("crash");
    // With synchronous_mode_strict and nobody there.
    story.expect("No active replication connections from Patroni members");
    story.expect("the lease is gone");
    story.expect("on without etcd");
    // What nobody had confirmed when the host was lost.
    story.expect("undone and kept");
    // One of two standbys is synchronous, and known as such everywhere.
    let standby = story.await_roles("sync_standby", 1).await.remove(0);
    let primary = story.primary().await;
    let other = story.lab.nodes.iter().map(|node| node.name.clone());
    let other = other.into_iter().find(|name| *name != primary && *name != standby).unwrap();
    story.await_names(&primary, &standby).await;
    for (name, path, status) in [
        (&standby, "/sync", 200),
        (&standby, "/async", 503),
        (&standby, "/quorum", 503),
        (&other, "/async", 200),
        (&other, "/sync", 503),
    ] {
        story.answers(name, path, status).await;
    }
    let own = story.get(&standby, "/patroni").await.json().unwrap();
    assert_eq!(own["sync_standby"], true, "{own}");
    assert!(story.get(&standby, "/metrics").await.body.contains("patroni_sync_standby{scope=\"demo\",name"));

    // The synchronous standby dies: the other one takes its place, and clients go on.
    let load = story.load().await;
    story.lab.node(&standby).unwrap().kill_postmaster().unwrap();
    load.work.await_progress(100, SPAN).await.unwrap();
    story.healthy().await;

    // The next one's agent and queries answer, and the process that receives WAL stands still: commits wait, but not until the
    // connection is found dead after wal_sender_timeout.
    story.expect("has confirmed nothing");
    let stalled = story.await_roles("sync_standby", 1).await.remove(0);
    let receivers: Vec<i32> = story.lab.nodes[story.lab.index(&stalled).unwrap()]
        .processes()
        .iter()
        .filter(|process| process.command.contains("walreceiver"))
        .map(|process| process.pid)
        .collect();
    assert_eq!(receivers.len(), 1, "{receivers:?}");
    let from = clock::now();
    processes::signal(receivers[0], Signal::STOP);
    load.work.await_progress(100, SPAN).await.unwrap();
    let waited = clock::now().since(from);
    assert!(waited < SPAN / 2, "commits waited for {waited:?}");
    processes::signal(receivers[0], Signal::CONT);
    story.healthy().await;

    // A switchover to whoever is not synchronous is refused, one to the synchronous standby loses nothing.
    let listed = story.await_roles("sync_standby", 1).await.remove(0);
    let unlisted = story.lab.nodes.iter().map(|node| node.name.clone());
    let unlisted = unlisted.into_iter().find(|name| *name != primary && *name != listed).unwrap();
    let before = story.lab.view().await.unwrap().leader;
    let wish = json!({ "leader": primary, "candidate": unlisted });
    let answer = story.send(&primary, "POST", "/switchover", &wish).await;
    assert_eq!(answer.status, 412, "{}", answer.body);
    assert_eq!(story.lab.view().await.unwrap().leader, before);
    let wish = json!({ "leader": primary, "candidate": listed });
    story.switch_over(&primary, &wish).await;
    assert_eq!(story.another_primary(&primary).await, listed);
    load.work.await_progress(50, SPAN).await.unwrap();
    story.healthy().await;

    // The host of the primary is lost while clients write: the synchronous standby has everything.
    story.await_roles("sync_standby", 1).await;
    let lost = story.primary().await;
    story.lab.node(&lost).unwrap().kill_host();
    story.another_primary(&lost).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    story.lab.start_agents().unwrap();
    story.healthy().await;

    // Under load from one mode into the other and out of both.
    story.configure(&json!({ "synchronous_mode": "quorum", "synchronous_mode_strict": true })).await;
    let primary = story.primary().await;
    story.await_names(&primary, &story.quorum_names(&primary)).await;
    story.await_roles("quorum_standby", 2).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let lost = story.primary().await;
    story.lab.node(&lost).unwrap().kill_host();
    story.another_primary(&lost).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    story.lab.start_agents().unwrap();
    story.healthy().await;
    story.await_roles("quorum_standby", 2).await;
    story.configure(&json!({ "synchronous_mode": null, "synchronous_mode_strict": null })).await;
    let primary = story.primary().await;
    story.await_names(&primary, "").await;
    story.await_roles("replica", 2).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let report = load.end().await;
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

impl Story {
    /// Waits until this is the only synchronous standby, for commits and for elections.
    async fn await_synchronous(&self, primary: &str, standby: &str) {
        self.await_names(primary, standby).await;
        lab::wait::until(SPAN, &format!("/sync to name {standby}"), async || {
            (self.key("sync").await["sync_standby"] == standby).then_some(())
        })
        .await
        .unwrap();
    }

    /// Replaces a part of a node's file, and has it read again.
    async fn edit_file(&mut self, name: &str, old: &str, new: &str) {
        let node = self.lab.node(name).unwrap();
        let file = std::fs::read_to_string(node.config()).unwrap();
        assert!(file.contains(old), "{file}");
        node.write_config(&file.replace(old, new)).unwrap();
        assert_eq!(self.send(name, "POST", "/reload", &json!({})).await.status, 202);
    }

    /// The agent of a synchronous standby is told to end: it is off the list before its PostgreSQL ends.
    async fn leaves_in_order(&mut self, name: &str) {
        processes::signal(self.at(name).agent_pid().unwrap(), Signal::TERM);
        lab::wait::until(SPAN, &format!("{name} to end"), async || {
            let runs = self.at(name).postmaster().is_some();
            let listed = self.key("sync").await["sync_standby"] == name;
            assert!(runs || !listed, "{name} has ended and is still counted on");
            let gone = !self.lab.keys().read().await.ok()?.contains_key(&format!("members/{name}"));
            (gone && !runs).then_some(())
        })
        .await
        .unwrap();
        assert!(self.lab.node(name).unwrap().stop_agent(SPAN).await, "{name} does not end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_synchronous_standby_is_the_wanted_one_and_leaves_before_it_ends() {
    let mut story = Story::begin_led_by_the_first("sync-leave", |spec| {
        spec.dynamic = json!({ "synchronous_mode": true });
        spec.tags = json!({ "sync_priority": 2 });
    })
    .await;
    story.lab.start_router().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    let load = story.load().await;
    story.await_synchronous("n1", "n3").await;

    // Tags decide, also when they change.
    story.edit_file("n3", "sync_priority: 2", "nosync: true").await;
    story.await_synchronous("n1", "n2").await;
    story.edit_file("n3", "nosync: true", "sync_priority: 2").await;
    story.await_synchronous("n1", "n3").await;

    // One that is stopped asks to be let go first.
    story.leaves_in_order("n3").await;
    story.await_synchronous("n1", "n2").await;
    load.work.await_progress(50, SPAN).await.unwrap();
    story.lab.start_agents().unwrap();
    story.healthy().await;
    story.await_synchronous("n1", "n3").await;

    // One that falls behind is not waited for.
    story.expect("has confirmed nothing");
    story.configure(&json!({ "maximum_lag_on_syncnode": 1_048_576 })).await;
    let all = story.at("n3").processes();
    let receivers: Vec<i32> = all
        .iter()
        .filter(|process| process.command.contains("walreceiver"))
        .map(|process| process.pid)
        .collect();
    assert_eq!(receivers.len(), 1, "{all:?}");
    receivers.iter().for_each(|pid| processes::signal(*pid, Signal::STOP));
    story
        .write("SET synchronous_commit = local; SELECT pg_logical_emit_message(true, 'lab', repeat('x', 4000000))")
        .await;
    story.await_synchronous("n1", "n2").await;
    load.work.await_progress(50, SPAN).await.unwrap();
    receivers.iter().for_each(|pid| processes::signal(*pid, Signal::CONT));
    story.await_synchronous("n1", "n3").await;

    // One that dies holds nobody up for long.
    story.expect("crash");
    let died = clock::now();
    story.lab.node("n3").unwrap().kill_postmaster().unwrap();
    load.work.await_progress(200, SPAN).await.unwrap();
    story.healthy().await;
    let now = clock::now();
    let report = load.end().await;
    let pause = report.longest_pause(died, now);
    println!("no commit for {} ms after the synchronous standby had died", pause.as_millis());
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}
