//! pgBackRest with a local repository: it makes replicas, has everything across a switchover, and gives the cluster back as it was.

use crate::bad_input::as_account;
use crate::story::{SPAN, Story};
use crate::ways_to_make_data::{argument, command, of_another_cluster};
use lab::{PgBackRest, Target};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn own(story: &Story, name: &str) -> Target {
    story.lab.own_socket(story.at(name))
}

async fn words(story: &Story, name: &str, wanted: &str) {
    lab::wait::until(SPAN, &format!("{wanted:?} on {name}"), async || {
        let sql = "SELECT string_agg(word, ',' ORDER BY word) FROM words";
        own(story, name).ask(sql, SPAN).await.ok().filter(|found| found == wanted)
    })
    .await
    .unwrap();
}

/// What makes replicas, and notes whose it made.
fn install(story: &Story, dir: &Path, backups: &PgBackRest) {
    backups.install(&story.lab, "").unwrap();
    let replica = format!(
        "{}\necho \"$datadir\" >> {}\nexec {}",
        argument("datadir"),
        dir.join("replicas").display(),
        backups.call("--pg1-path=\"$datadir\" --delta --type=none restore")
    );
    command(dir, "replica", &replica, story.lab.account());
}

/// The third node is a cluster of its own, made from the backup of the first one, up to the restore point. It archives nothing: two
/// clusters must never write into one stanza.
fn make_the_third_a_restored_cluster(story: &Story, dir: &Path, backups: &PgBackRest) {
    let node = story.at("n3");
    let file = fs::read_to_string(node.config()).unwrap();
    let populate = format!(
        "{}\nexec {}",
        argument("datadir"),
        backups.call("--pg1-path=\"$datadir\" --type=none restore")
    );
    let populate = command(dir, "populate", &populate, story.lab.account());
    let method = format!(
        "bootstrap:\n  method: \"pgbackrest\"\n  pgbackrest:\n    command: \"{populate}\"\n    recovery_conf:\n      \
         restore_command: \"{}\"\n      recovery_target_name: \"before\"\n",
        backups.call("archive-get %f %p"),
    );
    node.write_config(&of_another_cluster(&file, &method)).unwrap();
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn restore(story: &Story, dir: &Path, words: &[&str]) -> Output {
    let mut program = Command::new(story.at("n1").dir().join("bin/baton"));
    program.arg("restore").arg(story.at("n1").config()).args(words);
    // A stanza that is named is asked for with the program of that name.
    program.env("PATH", format!("{}:/usr/bin:/bin", dir.display()));
    // The account need not be able to write where the tests do.
    program.env("TMPDIR", dir);
    as_account(story, &mut program)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbackrest_makes_replicas_has_every_timeline_and_gives_the_cluster_back() {
    let dir = crate::story::directory("pgbackrest");
    let backups = PgBackRest::at(&dir);
    let mut story = Story::prepare("pgbackrest", |spec| {
        spec.etcd = 1;
        spec.router = false;
        spec.dynamic = backups.dynamic();
        spec.dynamic["postgresql"]["create_replica_methods"] = json!(["pgbackrest", "basebackup"]);
        spec.dynamic["postgresql"]["pgbackrest"] =
            json!({ "command": dir.join("replica").display().to_string(), "keep_data": true });
    })
    .await;
    // Copies and compression leave a small machine no time for a while.
    story.expect("has not answered whether this member may lead on without etcd");
    // The member that was not restored had more.
    story.expect("what only this member had is undone and kept");
    install(&story, &dir, &backups);
    make_the_third_a_restored_cluster(&story, &dir, &backups);
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    backups.run(&story.lab, story.at("n1"), &["stanza-create"]).unwrap();
    backups.run(&story.lab, story.at("n1"), &["check"]).unwrap();
    let n1 = own(&story, "n1");
    n1.run("CREATE TABLE words (word text); INSERT INTO words VALUES ('backup')", SPAN).await.unwrap();
    backups.run(&story.lab, story.at("n1"), &["--type=full", "backup"]).unwrap();
    assert!(backups.run(&story.lab, story.at("n1"), &["info"]).unwrap().contains("full backup: "));

    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.lab.await_healthy(2).await.unwrap();
    let made = fs::read_to_string(dir.join("replicas")).unwrap();
    assert_eq!(made.trim(), story.at("n2").data_dir().display().to_string());

    let before = across_a_switchover(&story, &backups).await;
    a_cluster_from_the_backup(&mut story).await;
    back_in_time(&mut story, &dir, &before).await;
    story.end().await;
    fs::remove_dir_all(&dir).unwrap();
}

/// The line of docs/backup-and-restore.md that is the same on every host; whether it made a backup.
fn timer(story: &Story, backups: &PgBackRest, name: &str) -> bool {
    let (node, own) = (story.at(name), own(story, name));
    let of_this_node = format!(
        "--pg1-path={} --pg1-socket-path={} --pg1-port={}",
        node.data_dir().display(),
        own.host,
        own.port
    );
    let backup = backups.call(&format!("--type=incr {of_this_node} backup"));
    let line = format!("curl -fsS -o /dev/null http://{}/primary && {backup}", node.rest);
    as_account(story, Command::new("/bin/sh").args(["-c", &line]).env("PGPASSWORD", &own.password))
        .status
        .success()
}

/// The new leader finds that the archive has everything across the fork, and says so everywhere. The time of the restore point.
async fn across_a_switchover(story: &Story, backups: &PgBackRest) -> String {
    let body = json!({ "leader": "n1", "candidate": "n2" });
    story.switch_over("n1", &body).await;
    lab::wait::until(SPAN, "n2 to lead n1", async || {
        story.lab.view().await.ok().filter(|view| view.healthy(2) && view.primary() == Some("n2"))
    })
    .await
    .unwrap();
    assert!(!timer(story, backups, "n1"), "a replica does not make the backup");
    assert!(timer(story, backups, "n2"), "the new leader makes it");
    let n2 = own(story, "n2");
    n2.run("INSERT INTO words VALUES ('before')", SPAN).await.unwrap();
    n2.run("SELECT pg_create_restore_point('before')", SPAN).await.unwrap();
    let time = n2.ask("SELECT clock_timestamp()::text", SPAN).await.unwrap();
    n2.run("INSERT INTO words VALUES ('later')", SPAN).await.unwrap();
    n2.run("SELECT pg_switch_wal()", SPAN).await.unwrap();
    let row = lab::wait::until(SPAN, "the archive to be looked at", async || {
        let rows: Value = story.get("n2", "/baton/archive").await.json().ok()?;
        rows.get(0).filter(|row| row["found"] != "waits").cloned()
    })
    .await
    .unwrap();
    assert_eq!((&row["found"], &row["member"]), (&json!("complete"), &json!("n2")), "{row}");
    let metrics = story.get("n2", "/metrics").await.body;
    let whole = metrics.lines().find(|line| line.starts_with("baton_archive_continuity{"));
    assert!(whole.is_some_and(|line| line.ends_with(" 1")), "{whole:?}");
    let told = story.baton("n1", &["history", "demo", "--archive", "-f", "tsv"]).await;
    assert!(told.contains("complete"), "{told}");
    let drawn = story.baton("n1", &["timelines", "demo"]).await;
    for part in ["full backup ", "archive: holds everything across this fork", "n2 Leader", "●  2"] {
        assert!(drawn.contains(part), "{part}:\n{drawn}");
    }
    time
}

/// By `bootstrap.method`: a cluster of its own begins where the other one was at the restore point.
async fn a_cluster_from_the_backup(story: &mut Story) {
    story.lab.node("n3").unwrap().start_agent().unwrap();
    words(story, "n3", "backup,before").await;
    let third = own(story, "n3");
    lab::wait::until(SPAN, "the new cluster to accept writes", async || {
        third.run("INSERT INTO words VALUES ('anew')", SPAN).await.ok()
    })
    .await
    .unwrap();
    assert_eq!(third.ask("SHOW archive_command", SPAN).await.unwrap(), "true");
    words(story, "n2", "backup,before,later").await;
    assert!(story.lab.node("n3").unwrap().stop_agent(SPAN).await);
}

/// Into another directory while the cluster runs; in place only when it does not.
async fn back_in_time(story: &mut Story, dir: &Path, before: &str) {
    let new = dir.join("new").display().to_string();
    for (words, why) in [
        (&["--name", "before", "--in-place", "--force"][..], "stop the agents of the whole cluster first"),
        (&["--name", "before", "--force"], "--in-place moves it aside"),
        (&["--to", &new, "--stanza", "other", "--force"], "stanza other of pgBackRest: missing stanza path"),
        (&["--to", &new, "--lsn", "0/1000000", "--force"], "no backup was complete before the target"),
        (&["--to", &new, "--set", "none", "--force"], "there is no backup none; the backups are "),
    ] {
        let refused = restore(story, dir, words);
        let said = text(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{words:?}: {said}");
        assert!(!Path::new(&new).exists(), "{words:?}");
    }
    let done = restore(story, dir, &["--to", &new, "--force"]);
    assert!(done.status.success(), "{}{}", text(&done.stdout), text(&done.stderr));
    assert!(Path::new(&new).join("PG_VERSION").exists());

    for name in ["n1", "n2"] {
        assert!(story.lab.node(name).unwrap().stop_agent(SPAN).await);
    }
    let done = restore(story, dir, &["--time", before, "--exclusive", "--in-place", "--force"]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{said}{}", text(&done.stderr));
    let kept = said.lines().find_map(|line| line.strip_prefix("What was there is kept as "));
    let kept = kept.and_then(|path| path.strip_suffix('.')).unwrap();
    assert!(Path::new(kept).join("PG_VERSION").exists(), "{kept}");
    assert!(said.contains("etcd has forgotten what demo was"), "{said}");
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    words(story, "n1", "backup,before").await;
    own(story, "n1").run("INSERT INTO words VALUES ('anew')", SPAN).await.unwrap();
    // The cluster goes on, with its configuration; what the other one has is of a past that no longer counts.
    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.lab.await_healthy(2).await.unwrap();
    words(story, "n2", "anew,backup,before").await;
    let answer: Value = story.get("n1", "/config").await.json().unwrap();
    assert_eq!(answer["postgresql"]["parameters"]["archive_mode"], "on", "{answer}");
}

/// The benchmark of restores, as short as it can be: one failover, and each way to name a point.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_to_before_and_after_a_failover_equals_what_was_written() {
    let _turn = crate::story::turn().await;
    let options =
        lab::restores::Options { failovers: 1, every_way: true, ..lab::restores::Options::default() };
    assert!(lab::restores::run(&options).await.unwrap());
}
