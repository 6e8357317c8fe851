//! The operator's own ways: a command creates the cluster, commands make its replicas, and a replica follows another one.

use crate::story::{SPAN, Story};
use lab::Account;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a command that the account of the lab can run.
pub(crate) fn command(dir: &Path, name: &str, body: &str, account: &Account) -> String {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\nset -e\n{body}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    account.own(&path).unwrap();
    path.display().to_string()
}

/// A part of a script that finds the value of an argument.
pub(crate) fn argument(name: &str) -> String {
    format!(
        "for word in \"$@\"; do case \"$word\" in --{name}=*) {name}=\"${{word#--{name}=}}\";; esac; done"
    )
}

/// A member's file, changed for a cluster of its own that this `bootstrap` section makes, and that archives nothing.
pub(crate) fn of_another_cluster(file: &str, method: &str) -> String {
    file.replacen("scope: \"demo\"", "scope: \"restored\"", 1).replacen("bootstrap:\n", method, 1).replacen(
        "    unix_socket_directories:",
        "    archive_command: \"true\"\n    unix_socket_directories:",
        1,
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_make_a_cluster_and_its_replicas_and_a_replica_follows_another() {
    let scripts = crate::story::directory("commands");
    let mut story = Story::prepare("ways", |spec| {
        spec.etcd = 1;
        spec.router = false;
        spec.dynamic = json!({ "postgresql": { "use_slots": false } });
        spec.tags = json!({ "replicatefrom": "n2" });
        let path = |name: &str| scripts.join(name).display().to_string();
        spec.agent = json!({
            "bootstrap": {
                "method": "mine",
                "mine": { "command": format!("{} 'a word'", path("create")), "flavour": "vanilla" },
                "post_bootstrap": path("fill"),
            },
            "postgresql": {
                "create_replica_methods": ["delta", "broken", "copy", "basebackup"],
                "delta": { "command": path("delta"), "keep_data": true },
                "broken": { "command": path("broken") },
                "copy": { "command": path("copy"), "speed": 3 },
            },
        });
    })
    .await;
    story.expect("failed to make a replica, the next method is tried");
    let bin = story.spec.binaries.postgres.display().to_string();
    let account = story.lab.account().clone();
    account.own(&scripts).unwrap();
    let told = |name: &str| scripts.join(name);
    let tell = |name: &str| format!("printf '%s\\n' \"$@\" > {}", told(name).display());
    let create = format!(
        "{}\n{}\n{bin}/initdb -D \"$datadir\" -U postgres -A trust -k",
        tell("create.told"),
        argument("datadir")
    );
    command(&scripts, "create", &create, &account);
    let fill = format!(
        "{}\nfor last in \"$@\"; do :; done\n{bin}/psql -v ON_ERROR_STOP=1 -d \"$last\" -c 'CREATE TABLE filled AS SELECT 42 AS answer'",
        tell("fill.told")
    );
    command(&scripts, "fill", &fill, &account);
    command(&scripts, "broken", "echo 'this never works' >&2\nexit 3", &account);
    let copy = format!(
        "{}\n{}\n{}\n{bin}/pg_basebackup -D \"$datadir\" -X stream -c fast -d \"$connstring\"",
        tell("copy.told"),
        argument("datadir"),
        argument("connstring")
    );
    command(&scripts, "copy", &copy, &account);

    // It needs what is there, and leaves what it cannot work with.
    let delta = format!(
        "{}\n{}\n[ -e \"$datadir/PG_VERSION\" ]\n{}\nfind \"$datadir\" -mindepth 1 -delete\n{bin}/pg_basebackup -D \"$datadir\" -X stream -c fast -d \"$connstring\"",
        argument("datadir"),
        argument("connstring"),
        tell("delta.told"),
    );
    command(&scripts, "delta", &delta, &account);

    let second = story.at("n2");
    let file = fs::read_to_string(second.config()).unwrap();
    second.write_config(&format!("{file}tags:\n  clonefrom: true\n")).unwrap();

    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    let read = |name: &str| fs::read_to_string(told(name)).unwrap();
    let lines = read("create.told");
    assert!(lines.starts_with("a word\n--scope=demo\n--datadir="), "{lines}");
    assert!(lines.ends_with("--flavour=vanilla\n"), "{lines}");
    assert!(!read("fill.told").contains("password"), "{}", read("fill.told"));

    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.lab.await_healthy(2).await.unwrap();
    let lines = read("copy.told");
    for part in ["--scope=demo\n", "--role=replica\n", "--datadir=", "--connstring=", "--speed=3\n"] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    story.lab.node("n3").unwrap().start_agent().unwrap();
    story.healthy().await;
    let source = format!("host={}", story.at("n2").address);
    assert!(read("copy.told").contains(&source), "the copy is taken from the member that offers itself");
    let own = |name: &str| story.lab.own_socket(&story.lab.nodes[story.lab.index(name).unwrap()]);
    let fed = "SELECT coalesce(string_agg(application_name, ',' ORDER BY application_name), '') FROM pg_stat_replication";
    let feeds = async |name: &str, wanted: &str| {
        lab::wait::until(SPAN, &format!("{name} to feed {wanted:?}"), async || {
            own(name).ask(fed, SPAN).await.ok().filter(|names| names == wanted)
        })
        .await
        .unwrap();
    };
    feeds("n2", "n3").await;
    feeds("n1", "n2").await;
    assert_eq!(own("n3").ask("SELECT answer FROM filled", SPAN).await.unwrap(), "42");

    // Its parent is gone: it follows the leader, and its parent again when that is back.
    story.lab.node("n2").unwrap().kill_host();
    let own = |name: &str| story.lab.own_socket(&story.lab.nodes[story.lab.index(name).unwrap()]);
    let fed_by = async |name: &str, wanted: &str| {
        lab::wait::until(SPAN, &format!("{name} to feed {wanted:?}"), async || {
            own(name).ask(fed, SPAN).await.ok().filter(|names| names == wanted)
        })
        .await
        .unwrap();
    };
    fed_by("n1", "n3").await;
    story.lab.node("n2").unwrap().start_agent().unwrap();
    let own = |name: &str| story.lab.own_socket(&story.lab.nodes[story.lab.index(name).unwrap()]);
    lab::wait::until(SPAN, "n2 to feed n3 again", async || {
        own("n2").ask(fed, SPAN).await.ok().filter(|names| names == "n3")
    })
    .await
    .unwrap();
    own("n1").run("INSERT INTO filled VALUES (43)", SPAN).await.unwrap();
    lab::wait::until(SPAN, "the row at the end of the chain", async || {
        own("n3").ask("SELECT max(answer) FROM filled", SPAN).await.ok().filter(|answer| answer == "43")
    })
    .await
    .unwrap();
    kept_data(&story).await;
    assert!(told("delta.told").exists());
    story.end().await;
    fs::remove_dir_all(&scripts).unwrap();
}

/// A method that keeps the data works on them where they are: nothing is moved aside, and it is a replica again.
async fn kept_data(story: &Story) {
    let answer = story.send("n3", "POST", "/reinitialize", &json!({ "from_leader": true })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    lab::wait::until(SPAN, "n3 to be made anew", async || {
        let log = fs::read_to_string(story.at("n3").log()).ok()?;
        log.contains("the ordered new copy is done").then_some(())
    })
    .await
    .unwrap();
    story.healthy().await;
    let beside: Vec<String> = fs::read_dir(story.at("n3").dir())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("kept"))
        .collect();
    assert_eq!(beside, Vec::<String>::new(), "nothing was moved aside");
}
