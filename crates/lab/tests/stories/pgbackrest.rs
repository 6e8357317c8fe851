//! pgBackRest with a local repository: it makes replicas, has everything across a switchover, and gives the cluster back as it was.

use crate::bad_input::as_account;
use crate::story::{SPAN, Story};
use crate::ways_to_make_data::{argument, command};
use lab::{Target, pgbackrest_binary};
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

/// pgBackRest with its configuration; in a data directory, for the PostgreSQL that lies there.
fn install(story: &Story, dir: &Path) {
    let account = story.lab.account();
    for name in ["repo", "log", "lock", "spool"] {
        fs::create_dir(dir.join(name)).unwrap();
        account.own(&dir.join(name)).unwrap();
    }
    let n1 = story.at("n1");
    let at = |name: &str| dir.join(name).display().to_string();
    let config = format!(
        "[global]\nrepo1-path={}\nrepo1-retention-full=2\nlog-path={}\nlock-path={}\nspool-path={}\nstart-fast=y\ncompress-level=1\n\n\
         [main]\npg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
        at("repo"),
        at("log"),
        at("lock"),
        at("spool"),
        n1.data_dir().display(),
        n1.socket_dir().display(),
        own(story, "n1").port,
    );
    fs::write(dir.join("pgbackrest.conf"), config).unwrap();
    let real = pgbackrest_binary().unwrap();
    let body = format!(
        "here=--pg1-path=\"$PWD\"\n[ -e PG_VERSION ] || here=\ncase \"$*\" in *--pg1-path=*) here= ;; esac\nexec {} --config={} $here \"$@\"",
        real.display(),
        at("pgbackrest.conf")
    );
    command(dir, "pgbackrest", &body, account);
    let replica = format!(
        "{}\necho \"$datadir\" >> {}\nexec {} --stanza=main --pg1-path=\"$datadir\" --delta --type=none restore",
        argument("datadir"),
        at("replicas"),
        at("pgbackrest")
    );
    command(dir, "replica", &replica, account);
}

fn pgbackrest(story: &Story, dir: &Path, words: &[&str]) {
    let mut program = Command::new(dir.join("pgbackrest"));
    program.arg("--stanza=main").args(words).env("PGPASSWORD", &own(story, "n1").password);
    let done = as_account(story, &mut program);
    assert!(done.status.success(), "{words:?}: {}{}", text(&done.stdout), text(&done.stderr));
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
    let at = |name: &str| dir.join(name).display().to_string();
    let mut story = Story::prepare("pgbackrest", |spec| {
        spec.etcd = 1;
        spec.members = 2;
        spec.router = false;
        spec.dynamic = json!({
            "baton": { "archive_check": format!("{} --stanza=main archive-get %f %p", at("pgbackrest")) },
            "postgresql": {
                "parameters": {
                    "archive_mode": "on",
                    "archive_command": format!("{} --stanza=main archive-push %p", at("pgbackrest")),
                },
                "recovery_conf": { "restore_command": format!("{} --stanza=main archive-get %f \"%p\"", at("pgbackrest")) },
                "create_replica_methods": ["pgbackrest", "basebackup"],
                "pgbackrest": { "command": at("replica"), "keep_data": true },
            },
        });
    })
    .await;
    story.lab.account().own(&dir).unwrap();
    install(&story, &dir);
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    pgbackrest(&story, &dir, &["stanza-create"]);
    let n1 = own(&story, "n1");
    n1.run("CREATE TABLE words (word text); INSERT INTO words VALUES ('backup')", SPAN).await.unwrap();
    pgbackrest(&story, &dir, &["--type=full", "backup"]);

    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.healthy().await;
    let made = fs::read_to_string(dir.join("replicas")).unwrap();
    assert_eq!(made.trim(), story.at("n2").data_dir().display().to_string());

    across_a_switchover(&story).await;
    back_in_time(&mut story, &dir).await;
    story.end().await;
    fs::remove_dir_all(&dir).unwrap();
}

/// The new leader finds that the archive has everything across the fork, and says so everywhere.
async fn across_a_switchover(story: &Story) {
    let body = json!({ "leader": "n1", "candidate": "n2" });
    let answer = story.send("n1", "POST", "/switchover", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    story.healthy().await;
    let n2 = own(story, "n2");
    n2.run("INSERT INTO words VALUES ('before')", SPAN).await.unwrap();
    n2.run("SELECT pg_create_restore_point('before')", SPAN).await.unwrap();
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
}

/// Into another directory while the cluster runs; in place only when it does not.
async fn back_in_time(story: &mut Story, dir: &Path) {
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
    let done = restore(story, dir, &["--name", "before", "--in-place", "--force"]);
    let said = text(&done.stdout);
    assert!(done.status.success(), "{said}{}", text(&done.stderr));
    let kept = said.lines().find_map(|line| line.strip_prefix("What was there is kept as "));
    let kept = kept.and_then(|path| path.strip_suffix('.')).unwrap();
    assert!(Path::new(kept).join("PG_VERSION").exists(), "{kept}");
    forget(story).await;
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    words(story, "n1", "backup,before").await;
    own(story, "n1").run("INSERT INTO words VALUES ('anew')", SPAN).await.unwrap();
}

/// What etcd holds is about the cluster as it was.
async fn forget(story: &Story) {
    use std::io::Write;
    let program = story.at("n1").dir().join("bin/baton");
    let mut child = Command::new(program)
        .args(["-c", &story.at("n1").config().display().to_string(), "remove", "demo"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"demo\nYes I am aware\n").unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", text(&done.stdout));
}
