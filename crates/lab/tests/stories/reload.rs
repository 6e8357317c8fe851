//! The file of a running agent is changed, and read again: by the REST API and by a signal.

use crate::story::{SPAN, Story};
use lab::wait::until;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use std::fs;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_taken_up_without_a_restart_and_a_broken_one_is_refused_whole() {
    let mut story = Story::begin("reload", |spec| spec.members = 1).await;
    story.expect("namespace has changed, which takes effect at the next start");
    story.expect("the settings stay as they were");
    story.expect("data_dirr");
    let node = story.lab.node("n1").unwrap();
    let (good, log, data) =
        (fs::read_to_string(node.config()).unwrap(), node.log().to_owned(), node.data_dir());
    let postmaster = node.postmaster().unwrap().pid;
    let logged = async |text: &str| {
        until(SPAN, text, async || fs::read_to_string(&log).unwrap_or_default().contains(text).then_some(()))
            .await
            .unwrap();
    };
    // Tags, a parameter, the log's form, and something that only a new agent can use.
    let changed = good
        .replace("namespace: \"service\"", "namespace: \"other\"")
        .replace("log:\n", "log:\n  format: \"%(asctime)s %(levelname)s: <%(name)s> %(message)s\"\n")
        .replace("\n  parameters:\n", "\n  parameters:\n    work_mem: 7MB\n");
    let changed = format!("{changed}tags:\n  nosync: true\n  mine: \"1\"\n");
    story.lab.node("n1").unwrap().write_config(&changed).unwrap();
    let answer = story.send("n1", "POST", "/reload", &json!({})).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, "reload scheduled"));
    until(SPAN, "the tags of the new file", async || {
        let body = story.get("n1", "/patroni").await.json().ok()?;
        (body["tags"] == json!({ "mine": "1", "nosync": true })).then_some(())
    })
    .await
    .unwrap();
    logged("> the settings were read again").await;
    until(SPAN, "the parameter of the new file", async || {
        let conf = fs::read_to_string(data.join("postgresql.conf")).ok()?;
        conf.contains("work_mem = '7MB'").then_some(())
    })
    .await
    .unwrap();
    logged("no action. I am (n1), the leader with the lock").await;

    let broken = changed.replace("  data_dir:", "  data_dirr:").replace("nosync: true", "nosync: false");
    story.lab.node("n1").unwrap().write_config(&broken).unwrap();
    let pid = Pid::from_raw(story.lab.node("n1").unwrap().agent_pid().unwrap()).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    logged("did you mean \"data_dir\"?").await;
    let body = story.get("n1", "/patroni").await.json().unwrap();
    assert_eq!(body["tags"]["nosync"], json!(true), "{body}");

    let as_json = changed.replace("log:\n", "log:\n  type: json\n");
    story.lab.node("n1").unwrap().write_config(&as_json).unwrap();
    kill_process(pid, Signal::HUP).unwrap();
    logged("\"levelname\":\"INFO\"").await;

    assert_eq!(story.lab.node("n1").unwrap().postmaster().unwrap().pid, postmaster, "PostgreSQL ran on");
    // What is missing in etcd is written back from the copy.
    let before = story.get("n1", "/config").await.json().unwrap();
    story.lab.keys().delete("config").await.unwrap();
    until(SPAN, "the configuration to be back", async || {
        let body = story.get("n1", "/config").await.json().ok()?;
        (story.lab.keys().read().await.ok()?.contains_key("config") && body == before).then_some(())
    })
    .await
    .unwrap();
    let copy = fs::read_to_string(data.join("patroni.dynamic.json")).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&copy).unwrap();
    assert_eq!(kept, before);
    story.end().await;
}
