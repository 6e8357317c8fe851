//! What a person can get wrong: each ends with its own exit code and a message that says what to do, and hurts nobody.

use crate::story::{SPAN, Story, directory};
use lab::{Binaries, baton_of_this_build};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::process::{Command, Output};
use std::time::Duration;

/// Waits until the agent of `name` has ended; its exit code and the end of its log.
async fn ending(story: &mut Story, name: &str) -> (i32, String) {
    let end = clock::now().after(SPAN);
    loop {
        let node = story.lab.node(name).unwrap();
        if let Some(status) = node.agent_exit() {
            return (status.code().unwrap(), lab::tail(node.log(), 20));
        }
        assert!(clock::now() < end, "the agent of {name} still runs:\n{}", lab::tail(node.log(), 20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn config(story: &Story, name: &str) -> String {
    fs::read_to_string(story.lab.nodes[story.lab.index(name).unwrap()].config()).unwrap()
}

/// A cluster of one member, and a second member that was not started yet.
async fn one_of_two(name: &str) -> Story {
    let mut story = Story::prepare(name, |spec| spec.members = 2).await;
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.start_router().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    let mut story = Story::prepare("unknown-key", |spec| spec.members = 1).await;
    let broken = config(&story, "n1").replace("  data_dir:", "  data_dirr:");
    let node = story.lab.node("n1").unwrap();
    node.write_config(&broken).unwrap();
    node.start_agent().unwrap();
    let (code, log) = ending(&mut story, "n1").await;
    assert_eq!(code, 3, "{log}");
    assert!(log.contains("data_dirr") && log.contains("\"data_dir\""), "{log}");
    let line = 1 + broken.lines().position(|line| line.contains("data_dirr")).unwrap();
    assert!(log.contains(&format!("agent.yml:{line}:")), "{log}");
    story.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_programs_are_named_with_what_to_install() {
    let mut story = Story::prepare("no-programs", |spec| spec.members = 1).await;
    let bin = story.spec.binaries.postgres.display().to_string();
    let broken = config(&story, "n1").replace(&bin, "/nowhere/bin");
    let node = story.lab.node("n1").unwrap();
    node.write_config(&broken).unwrap();
    node.start_agent().unwrap();
    let (code, log) = ending(&mut story, "n1").await;
    assert_eq!(code, 5, "{log}");
    assert!(log.contains("/nowhere/bin") && log.contains("install"), "{log}");
    story.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_busy_port_is_named() {
    let mut story = Story::prepare("busy-port", |spec| spec.members = 1).await;
    let rest = story.lab.node("n1").unwrap().rest;
    let _busy = TcpListener::bind(rest).unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    let (code, log) = ending(&mut story, "n1").await;
    assert_eq!(code, 6, "{log}");
    assert!(log.contains(&rest.to_string()), "{log}");
    story.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_cluster_is_refused_and_not_touched() {
    let mut story = one_of_two("foreign").await;
    let data = story.lab.node("n2").unwrap().data_dir();
    let initdb = story.spec.binaries.postgres.join("initdb");
    let made = as_account(&story, Command::new(initdb).arg("-D").arg(&data).args(["-U", "postgres"]));
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let control = fs::read(data.join("global/pg_control")).unwrap();
    story.lab.node("n2").unwrap().start_agent().unwrap();
    let (code, log) = ending(&mut story, "n2").await;
    assert_eq!(code, 7, "{log}");
    assert!(log.contains("system identifier"), "{log}");
    assert_eq!(fs::read(data.join("global/pg_control")).unwrap(), control, "nothing in it was touched");
    story.expect("belongs to another cluster");
    story.expect("system identifier");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_of_another_user_is_refused() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user cannot give a directory away; the one of somebody else serves as well.
        let mut story = Story::prepare("owner", |spec| spec.members = 1).await;
        let own = story.lab.node("n1").unwrap().data_dir().display().to_string();
        let broken = config(&story, "n1").replace(&own, "/usr/lib");
        story.lab.node("n1").unwrap().write_config(&broken).unwrap();
        return refused_owner(story).await;
    }
    let mut story = Story::prepare("owner", |spec| spec.members = 1).await;
    let data = story.lab.node("n1").unwrap().data_dir();
    fs::create_dir(&data).unwrap();
    chown(&data, Some(0), Some(0)).unwrap();
    refused_owner(story).await;
}

async fn refused_owner(mut story: Story) {
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    let (code, log) = ending(&mut story, "n1").await;
    assert_eq!(code, 7, "{log}");
    assert!(log.contains("own"), "{log}");
    story.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_member_with_the_same_name_is_refused() {
    let mut story = one_of_two("same-name").await;
    let twin = config(&story, "n2").replace("name: \"n2\"", "name: \"n1\"");
    let node = story.lab.node("n2").unwrap();
    node.write_config(&twin).unwrap();
    node.start_agent().unwrap();
    let (code, log) = ending(&mut story, "n2").await;
    assert_eq!(code, 8, "{log}");
    assert!(log.contains("n1"), "{log}");
    assert_eq!(story.primary().await, "n1");
    story.expect("n1");
    story.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_away_at_the_start_is_waited_for() {
    let mut story = Story::prepare("etcd-late", |spec| spec.members = 1).await;
    story.expect("etcd");
    story.lab.start_agents().unwrap();
    story.lab.start_router().unwrap();
    let log = story.lab.node("n1").unwrap().log().to_owned();
    lab::wait::until(SPAN, "the agent to say that it waits for etcd", async || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        text.lines().any(|line| line.contains("etcd") && line.contains("127.0.")).then_some(())
    })
    .await
    .unwrap();
    story.lab.all_must_run().unwrap();
    story.lab.start_etcd().await.unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.end().await;
}

#[test]
fn a_command_line_that_is_not_understood_is_exit_code_2() {
    let dir = directory("usage");
    let binaries = Binaries::find(baton_of_this_build().unwrap()).unwrap();
    let output =
        Command::new(&binaries.baton).args(["agent", "--no-such-option"]).current_dir(&dir).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let missing = Command::new(&binaries.baton).args(["agent", "/nowhere/agent.yml"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(3), "{}", String::from_utf8_lossy(&missing.stderr));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere/agent.yml"));
    fs::remove_dir(dir).unwrap();
}

/// Runs a command as the account of the lab.
pub(crate) fn as_account(story: &Story, command: &mut Command) -> Output {
    story.lab.account().apply(command);
    command.current_dir("/").output().unwrap()
}
