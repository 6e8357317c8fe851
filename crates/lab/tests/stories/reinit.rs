//! A replica is made anew on request; a leader refuses. A copy that is cut off half-way is no data: its member never leads with it.

use crate::bad_input::as_account;
use crate::story::{SPAN, Story};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Slow enough to be met half-way.
const RATE: &str = "9M";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_is_made_anew_and_half_a_copy_never_leads() {
    let mut story = Story::begin("reinit", |spec| {
        spec.dynamic = json!({ "postgresql": { "basebackup": { "max-rate": RATE } } });
    })
    .await;
    for text in [
        "the old data directory is moved aside",
        "job failed",
        "pg_basebackup failed",
        "the lease is gone",
        "on without etcd",
    ] {
        story.expect(text);
    }
    let (primary, replica) = (story.primary().await, story.a_replica().await);
    let refused = story.send(&primary, "POST", "/reinitialize", &json!({ "force": true })).await;
    assert_eq!((refused.status, refused.body.as_str()), (503, "I am the leader, can not reinitialize"));

    // Progress is told; a second order is refused while the first is under way, unless it says force.
    let data = story.at(&replica).data_dir();
    fs::write(data.join("left_behind"), "").unwrap();
    let words = ["reinit", "demo", &replica, "--wait", "--force"];
    let (said, ()) = tokio::join!(story.baton(&primary, &words), async {
        copies(&story, &replica).await;
        let again = story.send(&replica, "POST", "/reinitialize", &json!({})).await;
        assert_eq!((again.status, again.body.as_str()), (503, "reinitialize already in progress"));
        let cancels = json!({ "force": true, "from_leader": true });
        let again = story.send(&replica, "POST", "/reinitialize", &cancels).await;
        assert_eq!((again.status, again.body.as_str()), (200, "reinitialize started"));
    });
    assert!(said.contains(&format!("Success: reinitialize for member {replica}")), "{said}");
    assert!(said.contains(&format!("{replica}: creating replica, ")), "{said}");
    assert!(said.contains(&format!("Reinitialize is completed on: {replica}")), "{said}");
    assert!(!data.join("left_behind").exists());
    let log = fs::read_to_string(story.at(&replica).log()).unwrap();
    assert!(log.contains("clone: cancelled"), "the first copy was given up");
    story.healthy().await;
    assert_eq!(story.primary().await, primary);
    what_was_kept_is_started_beside_the_cluster(&story, &replica).await;

    // The host dies in the middle of a copy, and then all others do.
    let answer = story.send(&replica, "POST", "/reinitialize", &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    copies(&story, &replica).await;
    story.lab.nodes.iter_mut().for_each(lab::Node::kill_host);
    story.lab.node(&replica).unwrap().start_agent().unwrap();
    lab::wait::until(SPAN, "the half copy to wait for somebody to copy from", async || {
        let view = story.lab.view().await.ok()?;
        let why = lab::rest::get(story.at(&replica).rest, "/baton/why", SPAN).await.ok()?.body;
        (view.leader.is_none() && why.contains("no running leader to copy from yet")).then_some(())
    })
    .await
    .unwrap();
    story.lab.start_agents().unwrap();
    let view = story.healthy().await;
    assert_ne!(view.primary(), Some(replica.as_str()));
    story.end().await;
}

/// Waits until the member is in the middle of a copy.
async fn copies(story: &Story, name: &str) {
    lab::wait::until(SPAN, &format!("{name} to be in the middle of a copy"), async || {
        let answer = story.get(name, "/patroni").await.json().ok()?;
        let begun = answer["baton_job"]["done_bytes"].as_u64().is_some_and(|done| done > 0);
        (begun && answer["state"] == "creating replica").then_some(())
    })
    .await
    .unwrap();
}

/// By the commands of docs/operations.md: a primary of its own, of the directory that was moved aside.
async fn what_was_kept_is_started_beside_the_cluster(story: &Story, name: &str) {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operations.md")).unwrap();
    let line =
        |begin: &str| page.lines().find_map(|line| line.strip_prefix("    ")?.strip_prefix(begin)).unwrap();
    let node = story.at(name);
    let (scratch, port) = (node.dir().join("scratch"), testbed::free_port());
    let kept = fs::read_dir(node.dir()).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<PathBuf> = kept.filter(|path| path.to_string_lossy().ends_with("-before_clone")).collect();
    let told = |line: &str| {
        let line =
            line.replace("data.kept-20261127T100000.000Z-before_clone", &kept[0].display().to_string());
        line.replace("/scratch/old", &scratch.display().to_string()).replace("15432", &port.to_string())
    };
    let copied = as_account(story, Command::new("sh").args(["-c", &told(&format!("cp {}", line("cp ")))]));
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let start =
        told(&format!("exec {}/postgres {}", story.spec.binaries.postgres.display(), line("postgres ")));
    let mut server = Command::new("sh");
    server
        .args(["-c", &start])
        .current_dir("/")
        .stderr(fs::File::create(node.dir().join("scratch.log")).unwrap());
    story.lab.account().apply(&mut server);
    let mut server = server.spawn().unwrap();
    let own = lab::Target { port, ..story.lab.own_socket(node) };
    let serves = lab::wait::until(SPAN, "what was kept to be a primary of its own", async || {
        let sql = "SELECT pg_is_in_recovery() OR current_setting('archive_mode') <> 'off'";
        own.ask(sql, SPAN).await.ok().filter(|answer| answer == "f")
    })
    .await;
    kill_process(Pid::from_child(&server), Signal::INT).unwrap();
    assert!(server.wait().unwrap().success());
    serves.unwrap();
    fs::remove_dir_all(&scratch).unwrap();
}
