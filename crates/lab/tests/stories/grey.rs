//! What is half broken: a PostgreSQL that hangs, a disk that is full or hangs, a host that was suspended, a clock that jumps.

use crate::hardware::{Freezer, SmallDisk};
use crate::story::{SPAN, Story};
use lab::{Node, WorkReport};
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use types::Moment;

/// The longest pause since then, for the table of figures; no story fails for it, machines differ.
fn tell_pause(what: &str, report: &WorkReport, from: Moment) {
    println!("{what}: clients paused for {:?}", report.longest_pause(from, clock::now()));
}

impl Story {
    async fn lead_with(&self, candidate: &str) {
        let primary = self.primary().await;
        if primary == candidate {
            return;
        }
        lab::wait::until(SPAN, "the candidate to be well", async || {
            self.get(candidate, "/patroni").await.json().ok()?["baton"]["sick"].is_null().then_some(())
        })
        .await
        .unwrap();
        let wish = json!({ "leader": primary, "candidate": candidate });
        self.switch_over(&primary, &wish).await;
        lab::wait::until(SPAN, "the candidate to lead", async || {
            (self.lab.view().await.ok()?.primary()? == candidate).then_some(())
        })
        .await
        .unwrap();
        self.healthy().await;
    }

    /// Moves the WAL of this member to a disk of its own.
    async fn move_wal(&mut self, name: &str, disk: &SmallDisk) {
        let node = self.lab.node(name).unwrap();
        assert!(node.stop_agent(SPAN).await);
        let (from, to) = (node.data_dir().join("pg_wal"), disk.path().join("wal"));
        let moved = std::process::Command::new("mv").arg(&from).arg(&to).status().unwrap();
        assert!(moved.success());
        std::os::unix::fs::symlink(&to, &from).unwrap();
        self.lab.account().own(&from).unwrap();
        self.lab.node(name).unwrap().start_agent().unwrap();
        self.healthy().await;
    }
}

fn log_of(node: &Node) -> String {
    fs::read_to_string(node.log()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgresql_that_hangs_is_killed_and_another_leads() {
    let mut story = Story::begin("hang", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    for text in ["PostgreSQL does not answer", "greets nobody", "undone and kept", "NOT FENCED"] {
        story.expect(text);
    }
    let from = clock::now();
    story.lab.node(&old).unwrap().freeze_postgres();
    story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    story.healthy().await;
    let report = load.end().await;
    tell_pause("PostgreSQL hung", &report, from);
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wal_disk_that_is_full_or_hangs_costs_the_lead_and_what_cannot_be_killed_is_not_called_fenced() {
    let disk = SmallDisk::make(256);
    let mut story = Story::begin("disk", |spec| {
        let parameters = json!({ "max_wal_size": "64MB", "min_wal_size": "32MB", "wal_keep_size": "16MB" });
        spec.dynamic = json!({ "postgresql": { "parameters": parameters } });
    })
    .await;
    let sick = story.a_replica().await;
    story.move_wal(&sick, &disk).await;
    story.lead_with(&sick).await;
    let load = story.load().await;

    for text in ["the disk of the WAL", "no room for the next WAL file", "crash", "undone and kept"] {
        story.expect(text);
    }
    let from = clock::now();
    disk.fill();
    story.another_primary(&sick).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    disk.empty();
    story.healthy().await;
    let first = load.end().await;
    tell_pause("WAL disk full", &first, from);

    story.lead_with(&sick).await;
    let load = story.load().await;
    for text in ["NOT FENCED", "PostgreSQL does not answer", "left behind", "lease", "greets nobody"] {
        story.expect(text);
    }
    let from = clock::now();
    disk.hang();
    let next = story.another_primary(&sick).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    assert_eq!(story.metric(&sick, "baton_fenced").await, Some(0.0));
    assert_eq!(story.metric(&next, "baton_fenced").await, Some(1.0));
    let said = story.get(&sick, "/patroni").await.json().unwrap();
    assert_eq!(said["baton"]["fenced"], json!(false), "{said}");
    let keys = story.lab.keys().read().await.unwrap();
    assert!(keys.contains_key(&format!("baton/unfenced/{sick}")), "{:?}", keys.keys());
    disk.answer_again();
    story.healthy().await;
    lab::wait::until(SPAN, "the member to say that it is fenced", async || {
        let keys = story.lab.keys().read().await.ok()?;
        (!keys.contains_key(&format!("baton/unfenced/{sick}"))).then_some(())
    })
    .await
    .unwrap();
    assert_eq!(story.metric(&sick, "baton_fenced").await, Some(1.0));
    let second = load.end().await;
    tell_pause("WAL disk hung", &second, from);
    story.end().await;
    drop(disk);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_suspended_does_not_wake_up_as_a_second_primary() {
    let freezer = Freezer::make("suspend");
    let mut story = Story::begin("suspend", |_| {}).await;
    let load = story.load().await;
    let old = story.primary().await;
    let node = &story.lab.nodes[story.lab.index(&old).unwrap()];
    // A client that had sent its commit when the host stood still: nothing can answer sooner after it.
    let waiting = story.lab.own_socket(node).connect(SPAN).await.unwrap();
    waiting.batch_execute("CREATE TABLE late (n int)").await.unwrap();
    let mut pids: Vec<i32> = node.processes().iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    freezer.freeze(&pids);
    let commit = tokio::spawn(async move { waiting.batch_execute("INSERT INTO late VALUES (1)").await });
    let next = story.another_primary(&old).await;
    load.work.await_progress(100, SPAN).await.unwrap();
    for text in
        ["lease", "PostgreSQL does not answer", "is gone", "undone and kept", "processor", "NOT FENCED"]
    {
        story.expect(text);
    }
    let thawed = clock::now();
    freezer.thaw();
    let answered = commit.await.unwrap();
    println!(
        "the commit that waited through the suspension: {answered:?} after {:?}",
        clock::now().since(thawed)
    );
    story.healthy().await;
    assert_eq!(story.primary().await, next);
    // Also asserts that two nodes never took writes at the same time.
    load.end().await;
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_hour_forward_and_two_back_change_nothing() {
    let mut story = Story::prepare("clock", |_| {}).await;
    let library = ["x86_64-linux-gnu", "aarch64-linux-gnu"]
        .map(|machine| format!("/usr/lib/{machine}/faketime/libfaketime.so.1"))
        .into_iter()
        .find(|path| fs::exists(path).unwrap_or(false))
        .expect("the package libfaketime, which tools/setup installs");
    let mut clocks = Vec::new();
    for node in &story.lab.nodes {
        let clock = node.dir().join("clock");
        fs::write(&clock, "+0").unwrap();
        let (program, real) = (node.dir().join("bin/baton"), node.dir().join("bin/baton-real"));
        fs::rename(&program, &real).unwrap();
        let script = format!(
            "#!/bin/sh\nexport LD_PRELOAD={library} DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1 FAKETIME_NO_CACHE=1 \
             FAKETIME_TIMESTAMP_FILE={}\nexec {} \"$@\"\n",
            clock.display(),
            real.display()
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        clocks.push((node.name.clone(), clock));
    }
    story.start().await;
    let load = story.load().await;
    let before = story.lab.view().await.unwrap().leader;
    let primary = story.primary().await;
    let ttl = Duration::from_secs(5);
    for step in ["+3600", "-3600"] {
        let from = clock::now();
        // The clock of the primary's host alone, and then all of them together.
        for (name, clock) in &clocks {
            if *name == primary {
                fs::write(clock, step).unwrap();
            }
        }
        load.work.await_progress(100, SPAN).await.unwrap();
        clocks.iter().for_each(|(_, clock)| fs::write(clock, step).unwrap());
        // Longer than a lease lives.
        lab::wait::until(SPAN, "a lease's time to pass", async || {
            (clock::now().since(from) > ttl + Duration::from_secs(1)).then_some(())
        })
        .await
        .unwrap();
        load.work.await_progress(100, SPAN).await.unwrap();
        story.healthy().await;
        assert_eq!(story.lab.view().await.unwrap().leader, before, "the same term after {step}");
    }
    let jumped = log_of(&story.lab.nodes[story.lab.index(&primary).unwrap()]);
    let hours: std::collections::BTreeSet<&str> =
        jumped.lines().filter_map(|line| line.get(11..13)).collect();
    assert!(hours.len() >= 2, "the agent's wall clock did jump: {hours:?}");
    let report = load.end().await;
    assert!(report.failures.is_empty(), "clients notice nothing: {:?}", report.failures);
    story.end().await;
}
