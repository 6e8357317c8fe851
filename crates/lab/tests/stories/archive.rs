//! What an archive and a base backup are good for: a new cluster as the old one was at some moment, a replica that nobody streams to,
//! and a replica when nobody is left to copy from.

use crate::bad_input::as_account;
use crate::story::{SPAN, Story};
use crate::ways_to_make_data::{argument, command, of_another_cluster};
use lab::Target;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

fn own(story: &Story, name: &str) -> Target {
    story.lab.own_socket(story.at(name))
}

async fn shows(story: &Story, name: &str, sql: &str, wanted: &str) {
    lab::wait::until(SPAN, &format!("{wanted:?} on {name} for {sql}"), async || {
        own(story, name).ask(sql, SPAN).await.ok().filter(|found| found == wanted)
    })
    .await
    .unwrap();
}

async fn words(story: &Story, name: &str, wanted: &str) {
    shows(story, name, "SELECT string_agg(word, ',' ORDER BY word) FROM words", wanted).await;
}

/// Waits until the member says this about itself.
async fn says(story: &Story, name: &str, field: &str, wanted: &str) {
    lab::wait::until(SPAN, &format!("{name} to say {field} {wanted:?}"), async || {
        let answer = lab::rest::get(story.at(name).rest, "/patroni", SPAN).await.ok()?.json().ok()?;
        (answer[field] == wanted).then_some(())
    })
    .await
    .unwrap();
}

/// What a test allows a script by making a file of this name.
fn waits_for(dir: &Path, name: &str) -> String {
    format!("while [ ! -e {} ]; do sleep 0.1; done", dir.join(name).display())
}

/// The second node is a cluster of its own: made from the backup, up to the restore point.
fn make_the_second_a_restored_cluster(story: &Story, dir: &Path) {
    let node = story.at("n2");
    let file = fs::read_to_string(node.config()).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    let method = format!(
        "bootstrap:\n  method: \"pitr\"\n  pitr:\n    command: \"{}\"\n    no_params: true\n    to: \"{}\"\n    recovery_conf:\n      \
         restore_command: \"{} %f %p\"\n      recovery_target_name: \"before\"\n",
        path("unpack"),
        node.data_dir().display(),
        path("fetch"),
    );
    node.write_config(&of_another_cluster(&file, &method)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_restores_a_cluster_feeds_a_replica_and_makes_one() {
    let dir = crate::story::directory("archive");
    let archive = dir.join("archive");
    let mut story = Story::prepare("archive", |spec| {
        spec.etcd = 1;
        spec.router = false;
        spec.tags = json!({ "nostream": true });
        spec.dynamic = json!({
            "slots": { "cdc": { "type": "logical", "database": "postgres", "plugin": "pgoutput" } },
            "baton": { "archive_check": format!("test -f {}/%f", archive.display()) },
            "postgresql": {
                "parameters": {
                    "wal_level": "logical", "archive_mode": "on",
                    "archive_command": format!("cp %p {}/%f", archive.display()),
                },
                "recovery_conf": { "restore_command": format!("cp {}/%f %p", archive.display()) },
                "create_replica_methods": ["rescue", "basebackup"],
                "rescue": { "command": dir.join("rescue").display().to_string(), "no_leader": true },
            },
        });
        spec.agent = json!({ "postgresql": {
            "use_unix_socket": true,
            "pg_hba": [
                "local all all scram-sha-256",
                "local replication postgres scram-sha-256",
                "host all all 127.0.0.0/8 scram-sha-256",
                "host replication replicator 127.0.0.0/8 scram-sha-256",
            ],
        } });
    })
    .await;
    story.expect("failed to make a replica, the next method is tried");
    let account = story.lab.account().clone();
    fs::create_dir(&archive).unwrap();
    account.own(&dir).unwrap();
    account.own(&archive).unwrap();
    let backup = dir.join("backup");
    let copy = |to: &str| {
        format!(
            "cp -a {} \"{to}.part\"\nrmdir \"{to}\" 2>/dev/null || true\nmv \"{to}.part\" \"{to}\"",
            backup.display()
        )
    };
    let unpack = format!("{}\n{}\n{}", waits_for(&dir, "unpack.go"), argument("to"), copy("$to"));
    command(&dir, "unpack", &unpack, &account);
    let fetch = format!("{}\ncp {}/\"$1\" \"$2\"", waits_for(&dir, "fetch.go"), archive.display());
    command(&dir, "fetch", &fetch, &account);
    // It serves only who has nobody to copy from.
    let rescue = format!(
        "{}\n{}\n[ -z \"$connstring\" ]\n{}",
        argument("datadir"),
        argument("connstring"),
        copy("$datadir")
    );
    command(&dir, "rescue", &rescue, &account);
    make_the_second_a_restored_cluster(&story, &dir);

    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    let n1 = own(&story, "n1");
    n1.run("CREATE TABLE words (word text); INSERT INTO words VALUES ('backup')", SPAN).await.unwrap();
    back_up(&story, &backup);
    n1.run("INSERT INTO words VALUES ('before')", SPAN).await.unwrap();
    n1.run("SELECT pg_create_restore_point('before')", SPAN).await.unwrap();
    n1.run("INSERT INTO words VALUES ('later')", SPAN).await.unwrap();
    n1.run("SELECT pg_switch_wal()", SPAN).await.unwrap();

    restored(&mut story, &dir).await;
    fed_by_the_archive(&mut story).await;
    rescued(&mut story).await;
    story.end().await;
    fs::remove_dir_all(&dir).unwrap();
}

fn back_up(story: &Story, to: &Path) {
    let from = own(story, "n1");
    let mut program = Command::new(story.spec.binaries.postgres.join("pg_basebackup"));
    program.args(["-X", "none", "-c", "fast", "-U", &from.user, "-h", &from.host]);
    program.args(["-p", &from.port.to_string(), "-D"]).arg(to).env("PGPASSWORD", &from.password);
    let done = as_account(story, &mut program);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// A new cluster is made by a command and recovers to a point before it serves anybody.
async fn restored(story: &mut Story, dir: &Path) {
    story.lab.node("n2").unwrap().start_agent().unwrap();
    says(story, "n2", "state", "running custom bootstrap script").await;
    says(story, "n2", "role", "uninitialized").await;
    fs::write(dir.join("unpack.go"), "").unwrap();
    says(story, "n2", "state", "starting after custom bootstrap").await;
    fs::write(dir.join("fetch.go"), "").unwrap();
    says(story, "n2", "role", "primary").await;
    words(story, "n2", "backup,before").await;
    shows(story, "n2", "SELECT timeline_id > 1 FROM pg_control_checkpoint()", "t").await;
    let targets = "SELECT current_setting('recovery_target_name') || current_setting('cluster_name')";
    shows(story, "n2", targets, "restored").await;
    own(story, "n2").run("INSERT INTO words VALUES ('anew')", SPAN).await.unwrap();
    // An end in the middle of its making would be a warning.
    let made = "SELECT count(*) FROM pg_replication_slots WHERE slot_name = 'cdc'";
    shows(story, "n2", made, "1").await;
    assert!(story.lab.node("n2").unwrap().stop_agent(SPAN).await);
}

/// A replica that does not stream lives from the archive, without a slot; it leads when it must.
async fn fed_by_the_archive(story: &mut Story) {
    story.lab.node("n3").unwrap().start_agent().unwrap();
    says(story, "n3", "replication_state", "in archive recovery").await;
    own(story, "n1").run("INSERT INTO words VALUES ('shipped')", SPAN).await.unwrap();
    own(story, "n1").run("SELECT pg_switch_wal()", SPAN).await.unwrap();
    words(story, "n3", "backup,before,later,shipped").await;
    shows(story, "n1", "SELECT string_agg(slot_name, ',') FROM pg_replication_slots", "cdc").await;
    shows(story, "n1", "SELECT count(*) FROM pg_stat_replication", "0").await;
    shows(story, "n3", "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'logical'", "0").await;
    shows(
        story,
        "n3",
        "SELECT current_setting('primary_conninfo') || current_setting('primary_slot_name')",
        "",
    )
    .await;
    let metrics = story.get("n3", "/metrics").await.body;
    let archive = metrics.lines().find(|line| line.starts_with("patroni_postgres_in_archive_recovery{"));
    assert!(archive.is_some_and(|line| line.ends_with(" 1")), "{archive:?}");
    let rows = story.listed_by_baton("n1").await;
    assert!(rows.iter().any(|(member, state)| member == "n3" && state == "in archive recovery"), "{rows:?}");
}

/// Nobody is left to copy from: the method that needs no leader makes a member, which then leads with all that was archived.
async fn rescued(story: &mut Story) {
    for name in ["n3", "n1"] {
        assert!(story.lab.node(name).unwrap().stop_agent(SPAN).await);
        fs::remove_dir_all(story.at(name).data_dir()).unwrap();
    }
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    words(story, "n1", "backup,before,later,shipped").await;
    shows(story, "n1", "SELECT timeline_id > 1 FROM pg_control_checkpoint()", "t").await;
    let log = fs::read_to_string(story.at("n1").log()).unwrap();
    assert!(log.contains("a method that needs no leader (no_leader) makes a data directory"), "{log}");
    own(story, "n1").run("INSERT INTO words VALUES ('saved')", SPAN).await.unwrap();
    // And a later restore can go on across this.
    own(story, "n1").run("SELECT pg_switch_wal()", SPAN).await.unwrap();
    lab::wait::until(SPAN, "the archive to hold everything across the fork", async || {
        let rows: Value = story.get("n1", "/baton/archive").await.json().ok()?;
        rows.get(0).filter(|row| row["found"] == "complete").map(drop)
    })
    .await
    .unwrap();
}
