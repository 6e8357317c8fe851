//! Clones of real servers: done, slowed down, cancelled, refused, taken up again.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;
mod sql;

use common::{Scratch, Server, pg_bin, pg_bins, until};
use postgres::basebackup::{CloneError, CloneFrom, Progress, run};
use postgres::data_dir::{self, DataDir, Work};
use postgres::error::Error;
use postgres::installation::Installation;
use postgres::probe::Prober;
use sql::{ensure_users, facts_until, lock, to, to_as};
use std::path::Path;
use std::sync::Mutex;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "geheim:1\\2";

struct Clone {
    scratch: Scratch,
    source: Server,
    installation: Installation,
}

impl Clone {
    async fn new(label: &str, bin: &Path) -> Clone {
        let scratch = Scratch::new(label);
        let source = Server::init(&scratch, bin, "source");
        lock(&source, "scram-sha-256");
        source.start();
        ensure_users(&source, PASSWORD).await;
        source.psql("SELECT pg_create_physical_replication_slot('node_2', true)");
        Clone { scratch, source, installation: common::installation(bin).await }
    }

    fn from(&self, password: &str) -> CloneFrom {
        let connect = to_as(&self.source, "replicator", password);
        CloneFrom { connect, slot: Some("node_2".to_owned()) }
    }

    async fn run(
        &self,
        target: &Server,
        options: &[&str],
        seen: impl Fn(Progress) + Send,
    ) -> Result<(), CloneError> {
        self.run_until(target, PASSWORD, options, seen, &CancellationToken::new()).await
    }

    async fn run_until(
        &self,
        target: &Server,
        password: &str,
        options: &[&str],
        seen: impl Fn(Progress) + Send,
        cancel: &CancellationToken,
    ) -> Result<(), CloneError> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        run(&self.installation, &self.from(password), &target.data_dir, &options, seen, cancel).await
    }
}

fn everything_that_processes_show() -> String {
    let mut shown = String::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            shown.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    shown
}

fn files_beside(target: &Server) -> Vec<String> {
    let parent = target.data_dir.parent().unwrap();
    let names = std::fs::read_dir(parent).unwrap().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("baton"))
        .collect()
}

#[tokio::test]
async fn a_clone_is_complete_and_its_progress_is_told() {
    for bin in pg_bins() {
        let clone = Clone::new("clone", &bin).await;
        let target = Server::at(&clone.scratch, &bin, "target");
        let seen: Mutex<Vec<Progress>> = Mutex::new(Vec::new());
        clone
            .run(&target, &["--label=a test"], |progress| seen.lock().unwrap().push(progress))
            .await
            .unwrap();
        let seen = seen.into_inner().unwrap();
        let last = seen.last().expect("progress");
        assert!(seen.windows(2).all(|pair| pair[0].done_bytes <= pair[1].done_bytes), "{seen:?}");
        assert!(last.done_bytes > 10 << 20 && last.total_bytes.is_some() && last.rate > 0, "{last:?}");
        let found = data_dir::inspect(&target.data_dir).unwrap();
        assert!(matches!(found, DataDir::Present { backup_label: true, .. }), "{found:?}");
        assert_eq!(files_beside(&target), Vec::<String>::new());

        target.append_settings();
        let conninfo =
            format!("host={} port={} user=postgres", clone.source.socket_dir.display(), clone.source.port);
        target.append(
            "postgresql.conf",
            &format!("primary_conninfo = '{conninfo}'\nprimary_slot_name = 'node_2'\n"),
        );
        target.append("standby.signal", "");
        target.start();
        facts_until("a streaming clone", &mut Prober::new(to(&target)), |facts| facts.receiver.is_some())
            .await;
        let refused = clone.run(&target, &[], |_| {}).await.unwrap_err();
        assert!(
            matches!(&refused, CloneError::Local(Error::Refused(why)) if why.contains("aside")),
            "{refused}"
        );
        assert!(!clone.source.log().contains("geheim"));
    }
}

#[tokio::test]
async fn a_cancelled_clone_leaves_the_mark_and_no_process_and_the_next_one_starts_over() {
    let clone = Clone::new("clone-cancel", &pg_bin()).await;
    let target = Server::at(&clone.scratch, &pg_bin(), "target");
    let (cancel, shown) = (CancellationToken::new(), Mutex::new(String::new()));
    let stop = |progress: Progress| {
        if progress.done_bytes > 0 {
            *shown.lock().unwrap() = everything_that_processes_show();
            cancel.cancel();
        }
    };
    let error = clone.run_until(&target, PASSWORD, &["--max-rate=1M"], stop, &cancel).await.unwrap_err();
    assert!(matches!(error, CloneError::Cancelled), "{error}");
    let shown = shown.into_inner().unwrap();
    // By its directory it is told from those of other tests.
    let copies = format!("--pgdata={}", target.data_dir.display());
    assert!(shown.contains(&copies) && shown.contains("PGPASSFILE"), "it ran while we looked");
    assert!(!shown.contains("geheim"), "a process shows the password");
    assert!(!everything_that_processes_show().contains(&copies), "it is gone");
    let found = data_dir::inspect(&target.data_dir).unwrap();
    assert!(matches!(found, DataDir::Incomplete { work: Work::Clone, .. }), "{found:?}");
    assert_eq!(files_beside(&target), ["target.baton-incomplete"]);
    assert!(
        target.data_dir.join("PG_VERSION").exists() || target.data_dir.join("base").exists(),
        "half a copy"
    );
    clone.run(&target, &[], |_| {}).await.unwrap();
    assert!(matches!(data_dir::inspect(&target.data_dir).unwrap(), DataDir::Present { .. }));
}

#[tokio::test]
async fn a_dropped_clone_ends_its_program() {
    let clone = Clone::new("clone-drop", &pg_bin()).await;
    let target = Server::at(&clone.scratch, &pg_bin(), "target");
    let started = CancellationToken::new();
    let job = clone.run(&target, &["--max-rate=33k"], |_| started.cancel());
    tokio::select! {
        result = job => panic!("too fast: {result:?}"),
        () = started.cancelled() => {}
    }
    until("the end of pg_basebackup", || {
        (!everything_that_processes_show().contains("--max-rate=33k")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_dead_agent_left_behind_is_ended_first() {
    let clone = Clone::new("clone-leftover", &pg_bin()).await;
    let target = Server::at(&clone.scratch, &pg_bin(), "target");
    let mut left = common::program(&pg_bin(), "pg_basebackup");
    left.arg(format!("--pgdata={}", target.data_dir.display())).arg("--host").arg(&clone.source.socket_dir);
    left.args(["--port", &clone.source.port.to_string(), "--username=postgres", "--max-rate=34k"]);
    data_dir::mark_incomplete(&target.data_dir, Work::Clone).unwrap();
    let mut left = left.spawn().unwrap();
    until("the first file", || target.data_dir.join("backup_label").exists().then_some(())).await;
    clone.run(&target, &[], |_| {}).await.unwrap();
    assert!(left.try_wait().unwrap().is_some(), "it was ended");
    assert!(matches!(data_dir::inspect(&target.data_dir).unwrap(), DataDir::Present { .. }));
}

#[tokio::test]
async fn a_wrong_password_and_a_foreign_directory_are_told() {
    let clone = Clone::new("clone-wrong", &pg_bin()).await;
    let target = Server::at(&clone.scratch, &pg_bin(), "target");
    let never = CancellationToken::new();
    let error = clone.run_until(&target, "geheim falsch", &[], |_| {}, &never).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, CloneError::Failed { tries: 2, .. }), "{text}");
    assert!(text.contains("password authentication failed") && !text.contains("geheim"), "{text}");
    let found = data_dir::inspect(&target.data_dir).unwrap();
    assert!(matches!(found, DataDir::Incomplete { work: Work::Clone, .. }), "{found:?}");

    let other = Server::at(&clone.scratch, &pg_bin(), "other");
    std::fs::create_dir(&other.data_dir).unwrap();
    std::fs::write(other.data_dir.join("letter.txt"), "keep me").unwrap();
    let error = clone.run(&other, &[], |_| {}).await.unwrap_err();
    assert!(matches!(&error, CloneError::Local(Error::Refused(_))), "{error}");
    assert!(other.data_dir.join("letter.txt").exists());
    assert_eq!(data_dir::inspect(&target.data_dir).unwrap(), found, "the mark of another directory");
}
