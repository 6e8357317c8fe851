//! Backups and WAL that go wrong: a repository host that is spelled wrong, full, holed and damaged, and a standby whose WAL is nowhere.

use crate::bad_input::as_account;
use crate::story::{SPAN, Story, directory};
use lab::{PgBackRest, Target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::Authority;

fn own(story: &Story, name: &str) -> Target {
    story.lab.own_socket(story.at(name))
}

async fn metric(story: &Story, name: &str, metric: &str, wanted: &str) {
    lab::wait::until(SPAN, &format!("{metric} {wanted} of {name}"), async || {
        // An agent that was just started does not answer yet.
        let metrics = lab::rest::get(story.at(name).rest, "/metrics", SPAN).await.ok()?.body;
        let line = metrics.lines().find(|line| line.starts_with(&format!("{metric}{{")))?.to_owned();
        line.ends_with(&format!(" {wanted}")).then_some(())
    })
    .await
    .unwrap();
}

/// Ends the segment that is written to; its name.
async fn next_segment(story: &Story, name: &str) -> String {
    let sql =
        "SELECT pg_walfile_name(lsn) FROM pg_logical_emit_message(false, 'story', 'next') AS written(lsn)";
    let ended = own(story, name).ask(sql, SPAN).await.unwrap();
    own(story, name).run("SELECT pg_switch_wal()", SPAN).await.unwrap();
    ended
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_waits_for_wal_that_nobody_has_is_named_until_somebody_has_it() {
    let archive = directory("lost-wal").join("archive");
    let mut story = Story::prepare("lost-wal", |spec| {
        spec.etcd = 1;
        spec.members = 2;
        spec.router = false;
        spec.dynamic = json!({ "postgresql": {
            "use_slots": false,
            "parameters": {
                "archive_mode": "on", "archive_command": format!("cp %p {}/%f", archive.display()),
                "wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB",
            },
            "recovery_conf": { "restore_command": format!("cp {}/%f %p", archive.display()) },
        } });
    })
    .await;
    // Copies and compression leave a small machine no time for a while.
    story.expect("has not answered whether this member may lead on without etcd");
    story.expect("this member waits for WAL that nobody has");
    story.expect("if this member had to be rewound");
    fs::create_dir(&archive).unwrap();
    story.lab.account().own(&archive).unwrap();
    story.lab.start_etcd().await.unwrap();
    story.lab.start_agents().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    story.healthy().await;
    let (leads, follows) = (story.primary().await, story.a_replica().await);
    metric(&story, &follows, "baton_waits_for_lost_wal", "0").await;

    assert!(story.lab.node(&follows).unwrap().stop_agent(SPAN).await);
    let lost = next_segment(&story, &leads).await;
    for _ in 0..3 {
        next_segment(&story, &leads).await;
        own(&story, &leads).run("CHECKPOINT", SPAN).await.unwrap();
    }
    let there = story.at(&leads).data_dir().join("pg_wal").join(&lost);
    lab::wait::until(SPAN, "the segment to be removed", async || {
        own(&story, &leads).run("CHECKPOINT", SPAN).await.unwrap();
        (!there.exists() && archive.join(&lost).exists()).then_some(())
    })
    .await
    .unwrap();
    let aside = archive.with_file_name("aside");
    fs::rename(archive.join(&lost), &aside).unwrap();

    story.lab.node(&follows).unwrap().start_agent().unwrap();
    metric(&story, &follows, "baton_waits_for_lost_wal", "1").await;
    let said: Value = story.get(&follows, "/patroni").await.json().unwrap();
    assert_eq!(said["baton"]["waits_for_lost_wal"], json!(lost), "{said}");
    let words = format!("this member waits for WAL that nobody has: {leads} has removed {lost}");
    let why = story.get(&follows, "/baton/why").await.body;
    assert!(why.contains(&words) && why.contains("the archive does not have it"), "{why}");
    let listed = lab::wait::until(SPAN, "a note below the list", async || {
        let listed = story.baton(&leads, &["list", "demo"]).await;
        listed.contains(" Note: ").then_some(listed)
    })
    .await
    .unwrap();
    let note = format!(" Note: {follows} waits for WAL that nobody has: {leads} has removed {lost}");
    assert!(listed.contains(&note) && listed.contains(&format!("baton reinit demo {follows}")), "{listed}");
    metric(&story, &leads, "baton_waits_for_lost_wal", "0").await;

    // Somebody finds it.
    fs::rename(&aside, archive.join(&lost)).unwrap();
    story.healthy().await;
    metric(&story, &follows, "baton_waits_for_lost_wal", "0").await;
    story.await_log(&follows, "this member no longer waits for WAL").await;
    let log = fs::read_to_string(story.at(&follows).log()).unwrap();
    assert_eq!(log.matches("this member waits for WAL that nobody has").count(), 1, "{log}");
    story.end().await;
    fs::remove_dir_all(archive.parent().unwrap()).unwrap();
}

/// A pgBackRest that serves others over TLS. Ended when dropped.
struct Server(Child);

impl Server {
    fn start(story: &Story, dir: &Path, config: &Path) -> Server {
        let mut program = Command::new(lab::pgbackrest_binary().unwrap());
        program.arg(format!("--config={}", config.display())).arg("server").current_dir(dir);
        program.env("PGPASSWORD", &own(story, "n1").password).stdin(Stdio::null());
        let log = fs::File::create(config.with_extension("log")).unwrap();
        program.stdout(log.try_clone().unwrap()).stderr(log);
        story.lab.account().apply(&mut program);
        Server(program.spawn().unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = Pid::from_raw(self.0.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.0.wait();
    }
}

/// A disk of its own for the repository, which a test can fill. It goes when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(story: &Story, at: PathBuf) -> Disk {
        fs::create_dir(&at).unwrap();
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=96m,mode=755", "story"]).arg(&at).status();
        assert!(done.unwrap().success());
        story.lab.account().own(&at).unwrap();
        Disk(at)
    }

    /// Leaves no room.
    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filled")).unwrap();
        assert!(std::io::copy(&mut std::io::repeat(1), &mut file).is_err());
    }

    fn clear(&self) {
        fs::remove_file(self.0.join("filled")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// What stands on both hosts: who serves, with which certificate, for whom.
fn serving(certificates: &Path, port: u16, name: &str) -> String {
    let at = |file: &str| certificates.join(file).display().to_string();
    format!(
        "tls-server-address=127.0.0.1\ntls-server-port={port}\ntls-server-ca-file={}\ntls-server-cert-file={}\ntls-server-key-file={}\n\
         tls-server-auth=127.0.0.1=main\n",
        at("ca.pem"),
        at(&format!("{name}.pem")),
        at(&format!("{name}.key")),
    )
}

/// How one host reaches the other.
fn reaching(certificates: &Path, prefix: &str, port: u16, name: &str, config: &Path) -> String {
    let at = |file: &str| certificates.join(file).display().to_string();
    format!(
        "{prefix}-host=127.0.0.1\n{prefix}-host-type=tls\n{prefix}-host-port={port}\n{prefix}-host-ca-file={}\n{prefix}-host-cert-file={}\n\
         {prefix}-host-key-file={}\n{prefix}-host-config={}\n",
        at("ca.pem"),
        at(&format!("{name}.pem")),
        at(&format!("{name}.key")),
        config.display(),
    )
}

/// A repository host: it makes the backups, and keeps them and the WAL on its disk.
struct RepositoryHost {
    config: PathBuf,
    /// What the configuration says when it knows the second member too.
    second: String,
    disk: Disk,
    _servers: [Server; 2],
}

impl RepositoryHost {
    fn start(story: &Story, dir: &Path, backups: &PgBackRest) -> RepositoryHost {
        let account = story.lab.account();
        let certificates = dir.join("certificates");
        fs::create_dir(&certificates).unwrap();
        let authority = Authority::new(&certificates);
        for name in ["repository", "database"] {
            // pgBackRest compares no addresses, but any common name.
            authority.sign_without_hosts(name, "127.0.0.1");
            let key = authority.path(&format!("{name}.key"));
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
            account.own(&key).unwrap();
        }
        let disk = Disk::mount(story, dir.join("disk"));
        let (here, there) = (free_port(), free_port());
        let config = dir.join("repository.conf");
        let database = dir.join("pgbackrest.conf");
        let more = reaching(&certificates, "repo1", there, "database", &config)
            + &serving(&certificates, here, "database");
        backups.install(&story.lab, &more).unwrap();
        let n1 = story.at("n1");
        let at = |name: &str| dir.join(name).display().to_string();
        let text = format!(
            "[global]\nrepo1-path={}/repo\nrepo1-retention-full=2\nlog-path={}\nlock-path={}\nspool-path={}\nstart-fast=y\ncompress-level=1\n{}\n\
             [main]\n{}pg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
            disk.0.display(),
            at("log"),
            at("lock-of-the-repository"),
            at("spool"),
            serving(&certificates, there, "repository"),
            reaching(&certificates, "pg1", here, "repository", &database),
            n1.data_dir().display(),
            n1.socket_dir().display(),
            own(story, "n1").port,
        );
        fs::write(&config, text).unwrap();
        let n2 = story.at("n2");
        let second = format!(
            "{}pg2-path={}\npg2-socket-path={}\npg2-port={}\npg2-user=postgres\n",
            reaching(&certificates, "pg2", here, "repository", &database),
            n2.data_dir().display(),
            n2.socket_dir().display(),
            own(story, "n2").port,
        );
        fs::create_dir(dir.join("lock-of-the-repository")).unwrap();
        account.own(&dir.join("lock-of-the-repository")).unwrap();
        let servers = [Server::start(story, dir, &config), Server::start(story, dir, &database)];
        RepositoryHost { config, second, disk, _servers: servers }
    }

    fn run(&self, story: &Story, words: &[&str]) -> Result<(), String> {
        let mut program = Command::new(lab::pgbackrest_binary().unwrap());
        program.arg(format!("--config={}", self.config.display())).arg("--stanza=main").args(words);
        let done = as_account(story, &mut program);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(()) } else { Err(text(&done.stdout) + &text(&done.stderr)) }
    }

    /// Where a segment lies, once it does.
    async fn archived(&self, segment: &str) -> PathBuf {
        let dir = self.disk.0.join("repo/archive/main");
        lab::wait::until(SPAN, &format!("{segment} in the repository"), async || {
            let database = fs::read_dir(&dir).ok()?.flatten().find(|entry| entry.path().is_dir())?;
            let files = fs::read_dir(database.path().join(&segment[..16])).ok()?;
            files.flatten().map(|file| file.path()).find(|path| {
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                name.starts_with(segment) && name.ends_with(".gz")
            })
        })
        .await
        .unwrap()
    }
}

/// Waits until the leader says this of the archive; the row.
async fn says(story: &Story, name: &str, found: &str) -> Value {
    lab::wait::until(SPAN, &format!("{name} to call the archive {found}"), async || {
        let rows: Value = story.get(name, "/baton/archive").await.json().ok()?;
        rows.as_array()?.last().filter(|row| row["found"] == found).cloned()
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_host_that_is_spelled_wrong_holed_damaged_and_full() {
    if !rustix::process::geteuid().is_root() {
        println!("left out: a disk that can be filled needs root");
        return;
    }
    let dir = directory("repository");
    let backups = PgBackRest::at(&dir);
    let right = backups.dynamic()["baton"]["archive_check"].clone();
    let mut story = Story::prepare("repository", |spec| {
        spec.etcd = 1;
        spec.members = 2;
        spec.router = false;
        spec.dynamic = backups.dynamic();
        let wrong = right.as_str().unwrap().replace("--stanza=main", "--stanza=mian");
        spec.dynamic["baton"] = json!({ "archive_check": wrong, "archive_check_timeout": 10 });
    })
    .await;
    // Copies and compression leave a small machine no time for a while.
    story.expect("has not answered whether this member may lead on without etcd");
    story.expect("baton.archive_check");
    story.expect("this member archives nothing: archive_command fails");
    story.expect("the archive lacks what a restore across the fork of timeline 2");
    story.lab.account().own(&dir).unwrap();
    let host = RepositoryHost::start(&story, &dir, &backups);
    story.lab.start_etcd().await.unwrap();
    story.lab.node("n1").unwrap().start_agent().unwrap();
    story.lab.await_writable(SPAN).await.unwrap();
    host.run(&story, &["stanza-create"]).unwrap();
    own(&story, "n1")
        .run("CREATE TABLE words (word text); INSERT INTO words VALUES ('backup')", SPAN)
        .await
        .unwrap();
    host.run(&story, &["--type=full", "backup"]).unwrap();
    story.lab.node("n2").unwrap().start_agent().unwrap();
    story.healthy().await;

    // A hole before the fork, in a stanza that nobody knows.
    next_segment(&story, "n1").await;
    let hole = next_segment(&story, "n1").await;
    let place = host.archived(&hole).await;
    let aside = dir.join("aside");
    fs::copy(&place, &aside).unwrap();
    fs::remove_file(&place).unwrap();
    story.switch_over("n1", &json!({ "leader": "n1", "candidate": "n2" })).await;
    assert_eq!(story.another_primary("n1").await, "n2");
    let first = next_segment(&story, "n2").await;
    let row = says(&story, "n2", "unknown").await;
    assert!(row["why"].as_str().unwrap().contains("it ended with "), "{row}");
    story.configure(&json!({ "baton": { "archive_check": right } })).await;
    lab::wait::until(SPAN, "the hole and nothing else to be named", async || {
        (says(&story, "n2", "incomplete").await["names"] == json!([hole])).then_some(())
    })
    .await
    .unwrap();
    metric(&story, "n2", "baton_archive_continuity", "0").await;
    metric(&story, "n2", "baton_archive_missing_files", "1").await;
    let told = story.baton("n1", &["history", "demo", "--archive", "-f", "tsv"]).await;
    assert!(told.contains("incomplete") && told.contains(&hole), "{told}");
    fs::copy(&aside, &place).unwrap();
    story.lab.account().own(&place).unwrap();
    says(&story, "n2", "complete").await;
    metric(&story, "n2", "baton_archive_continuity", "1").await;

    damaged(&story, &dir, &host.archived(&first).await);
    from_a_standby(&story, &host, &dir);
    full(&story, &host).await;
    story.end().await;
    drop(host);
    fs::remove_dir_all(&dir).unwrap();
}

/// A segment that cannot be read ends a restore that needs it: nothing is put anywhere, and what was there stays.
fn damaged(story: &Story, dir: &Path, segment: &Path) {
    let good = fs::read(segment).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad.iter_mut().skip(middle).take(64).for_each(|byte| *byte ^= 0x55);
    fs::write(segment, bad).unwrap();
    let new = dir.join("new");
    let restore = |words: &[&str]| {
        let mut program = Command::new(story.at("n1").dir().join("bin/baton"));
        program.arg("restore").arg(story.at("n1").config()).args(words).args(["--force", "--to"]).arg(&new);
        program.env("TMPDIR", dir).env("PGBACKREST_LOG_LEVEL_CONSOLE", "warn");
        as_account(story, &mut program)
    };
    let refused = restore(&["--lsn", "F/0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && !new.exists(), "{said}");
    assert!(
        said.contains("PostgreSQL ended before it reached the target")
            && said.contains("nothing was replaced"),
        "{said}"
    );
    let name = segment.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&name[..24]), "the segment is named: {said}");
    fs::remove_dir_all(dir.join("new.restoring")).unwrap();
    fs::write(segment, good).unwrap();
}

/// The primary is spared: its standby gives the files.
fn from_a_standby(story: &Story, host: &RepositoryHost, dir: &Path) {
    let known = fs::read_to_string(&host.config).unwrap();
    fs::write(&host.config, known + &host.second).unwrap();
    host.run(story, &["--type=incr", "--backup-standby", "backup"]).unwrap();
    let said = fs::read_to_string(dir.join("log/main-backup.log")).unwrap();
    assert!(said.contains("wait for replay on the standby"), "{said}");
}

/// A full repository costs the cluster nothing: what waits is archived when there is room again.
async fn full(story: &Story, host: &RepositoryHost) {
    host.disk.fill();
    let waits = next_segment(story, "n2").await;
    let n2 = own(story, "n2");
    lab::wait::until(SPAN, "archiving to fail", async || {
        n2.ask("SELECT last_failed_wal FROM pg_stat_archiver", SPAN).await.ok().filter(|name| *name == waits)
    })
    .await
    .unwrap();
    n2.run("INSERT INTO words VALUES ('while it was full')", Duration::from_secs(5)).await.unwrap();
    metric(story, "n2", "baton_archives_nothing", "1").await;
    let told = format!("n2 archives nothing: archive_command fails for {waits}");
    let listed = lab::wait::until(SPAN, "the failure in baton list", async || {
        let listed = story.baton("n1", &["list"]).await;
        listed.contains(&told).then_some(listed)
    });
    listed.await.unwrap();
    story.healthy().await;
    host.disk.clear();
    // After three failures PostgreSQL waits for a minute, or for the next segment.
    next_segment(story, "n2").await;
    host.archived(&waits).await;
    metric(story, "n2", "baton_archives_nothing", "0").await;
}
