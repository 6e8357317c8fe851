//! A former primary comes back, and is interrupted: the agent is killed, the program that works, or everything at once, at
//! random moments; and the disk is full. After each interruption the directory is untouched, or marked as nobody's
//! database, or complete; what only it had is still there; and in the end it follows with every row.
//!
//! The agent is a process of its own here: this program again, told to do one attempt and nothing else.
//!
//!     BATON_TEST_INTERRUPTIONS=100   so many interruptions instead of 8  (`make interruptions`)
//!     BATON_TEST_SEED=7              another order of them
#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper of tests fails by panicking, as tests do")]

mod common;
mod sql;

use common::{SUPERUSER, Scratch, Server, kill_below, own, pg_bin, program, run};
use postgres::basebackup::{self, CloneError, CloneFrom};
use postgres::connection::ConnectTo;
use postgres::control;
use postgres::data_dir::{self, DataDir, Work};
use postgres::error::Error;
use postgres::loss::Account;
use postgres::probe::{Probe, Prober};
use postgres::rewind::{self, Outcome, RewindError, RewindOptions};
use rustix::process::{Pid, Signal};
use sql::{LONG, facts_until, to};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use types::Lsn;

/// What the child is told: `bin|data directory|socket directory|port`.
const ORDER: &str = "BATON_TEST_REJOIN";
const WORDS: &[u8] = b"only the old primary has this";

/// What a process that is killed at any moment does: the steps of the agent's jobs, in their order.
async fn attempt(bin: &Path, data_dir: &Path, from: &ConnectTo) -> Result<(), String> {
    let (installation, never) = (common::installation(bin).await, CancellationToken::new());
    let options = RewindOptions { options: vec!["--no-sync".to_owned()], ..RewindOptions::default() };
    let found = data_dir::inspect(data_dir).map_err(|error| error.to_string())?;
    if matches!(found, DataDir::Present { .. }) {
        let ended = rewind::run(&installation, data_dir, from, &options, |_| {}, &never).await;
        return ended.map(drop).map_err(|error| error.to_string());
    }
    data_dir::make_room(data_dir).map_err(|error| error.to_string())?;
    let clone = CloneFrom { connect: from.clone(), slot: None };
    let options = ["--no-sync".to_owned()];
    let ended = basebackup::run(&installation, &clone, data_dir, &options, |_| {}, &never).await;
    ended.map_err(|error| error.to_string())
}

#[tokio::test]
async fn the_attempt_of_a_child() {
    let Ok(order) = std::env::var(ORDER) else { return };
    let parts: Vec<&str> = order.split('|').collect();
    let [bin, data_dir, host, port] = parts.as_slice() else { panic!("{order}") };
    let from = ConnectTo {
        host: (*host).to_owned(),
        port: port.parse().unwrap(),
        user: SUPERUSER.to_owned(),
        password: None,
        dbname: "postgres".to_owned(),
        application_name: "baton test".to_owned(),
        tls: BTreeMap::new(),
        sslpassword: None,
    };
    if let Err(why) = attempt(Path::new(bin), Path::new(data_dir), &from).await {
        eprintln!("attempt failed: {why}");
        std::process::exit(3);
    }
    std::process::exit(0);
}

/// A new primary, and the directory of the one that crashed with commits of its own.
struct Scene {
    scratch: Scratch,
    new: Server,
    /// The crashed directory as it was; each round begins with a copy of it.
    template: PathBuf,
    data_dir: PathBuf,
    commits: u64,
    timeline: u32,
    rows: String,
}

impl Scene {
    async fn new(label: &str) -> Scene {
        let scratch = Scratch::new(label);
        let bin = pg_bin();
        let options = ["--auth=trust", "--data-checksums", "--wal-segsize=1"];
        let old = Server::init_with(&scratch, &bin, "old", &options);
        // What a rewound directory needs from the fork on stays; and checkpoints happen when the test says so.
        let settings =
            "autovacuum = off\ncheckpoint_timeout = 1h\nmax_wal_size = 1GB\nwal_keep_size = 256MB\n";
        old.append("postgresql.conf", settings);
        old.start();
        old.psql("CREATE TABLE rows (n int, word text)");
        old.psql("INSERT INTO rows SELECT n, repeat('x', 300) FROM generate_series(1, 30000) AS n");
        let new = old.standby(&scratch, "new");
        new.start();
        let end = old.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        let mut prober = Prober::new(to(&new));
        facts_until("the standby", &mut prober, |facts| facts.replayed_lsn >= Some(end)).await;
        old.psql("CHECKPOINT");
        let end = old.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        facts_until("the standby", &mut prober, |facts| facts.replayed_lsn >= Some(end)).await;
        new.psql("SELECT pg_promote(true)");
        let commits = 5;
        for n in 1..=commits {
            old.psql(&format!("INSERT INTO rows VALUES (-{n}, '{}')", String::from_utf8_lossy(WORDS)));
        }
        kill_below(&old.data_dir);
        // Whom it followed itself would come along with a copy.
        new.psql("ALTER SYSTEM RESET primary_conninfo");
        // Much to copy, in new files and in old ones.
        new.psql("UPDATE rows SET n = n + 1 WHERE n % 2 = 0");
        new.psql("CREATE TABLE more AS SELECT * FROM rows");
        new.psql("CHECKPOINT");
        let rows = new.psql(CONTENT);
        let template = scratch.join("template");
        let _ = fs::remove_file(old.data_dir.join("postmaster.pid"));
        fs::rename(&old.data_dir, &template).unwrap();
        let data_dir = scratch.dir("round").join("data");
        let timeline = control::read(&template).unwrap().timeline.0;
        Scene { scratch, new, template, data_dir, commits, timeline, rows }
    }

    /// Nothing but the crashed directory.
    fn begin(&self, round: &Path) {
        kill_below(round);
        for entry in fs::read_dir(round).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let mut copy = program(Path::new("/bin"), "cp");
        run(copy.arg("-a").arg(&self.template).arg(&self.data_dir));
    }

    fn round(&self) -> PathBuf {
        self.data_dir.parent().unwrap().to_owned()
    }

    fn child(&self) -> Child {
        let order = format!(
            "{}|{}|{}|{}",
            self.new.bin_dir.display(),
            self.data_dir.display(),
            self.new.socket_dir.display(),
            self.new.port
        );
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "the_attempt_of_a_child", "--nocapture"]).env(ORDER, order);
        child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The processes that work on the directory.
    fn workers(&self) -> Vec<Pid> {
        let name = self.data_dir.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let works = |pid: &i32| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).split('\0').any(|word| word.contains(name))
        };
        pids.filter(works).filter_map(Pid::from_raw).collect()
    }

    /// What must hold after any interruption.
    fn check(&self, when: &str) -> &'static str {
        let found = data_dir::inspect(&self.data_dir).unwrap();
        let signal = self.data_dir.join("standby.signal").exists();
        let state = match &found {
            DataDir::Present { control, backup_label: false, .. } if control.timeline.0 == self.timeline => {
                "untouched"
            }
            // Its first start is that of a standby.
            DataDir::Present { backup_label: true, standby_signal: true, .. } if signal => "complete",
            DataDir::Incomplete { work: Work::Rewind, .. } => "half rewound",
            DataDir::Incomplete { work: Work::Clone, .. } => "half copied",
            DataDir::Missing | DataDir::Empty => "moved aside",
            other => panic!("{when}: {other:?}"),
        };
        let tail =
            if state == "untouched" { holds(&self.data_dir.join("pg_wal"), WORDS) } else { self.kept() };
        assert!(tail, "{when}: what only the old primary had is gone ({state})");
        state
    }

    /// The tail is kept whole, with its account.
    fn kept(&self) -> bool {
        let kept = data_dir::kept(&self.data_dir).unwrap();
        let accounts = kept.iter().filter_map(|kept| Account::read(&kept.path));
        let whole =
            |account: Account| account.transactions.commits == self.commits && holds(&account.kept, WORDS);
        accounts.into_iter().any(whole)
    }

    /// It starts as a standby and gets every row.
    async fn follow(&self) {
        let server =
            Server { data_dir: self.data_dir.clone(), log: self.round().join("log"), ..self.server() };
        server.append_settings();
        let conninfo =
            format!("host={} port={} user={SUPERUSER}", self.new.socket_dir.display(), self.new.port);
        server.append("postgresql.conf", &format!("primary_conninfo = '{conninfo}'\nfsync = off\n"));
        let started = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| server.start()));
        assert!(started.is_ok(), "{}", server.log());
        let end = self.new.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        let mut prober = Prober::new(to(&server));
        let deadline = Instant::now() + LONG;
        loop {
            let found = prober.probe(LONG).await;
            if let Probe::Running(facts) = &found
                && facts.receiver.is_some()
                && facts.replayed_lsn >= Some(end)
            {
                assert!(facts.in_recovery);
                break;
            }
            assert!(Instant::now() < deadline, "not yet at {end}: {found:?}\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.psql(CONTENT), self.rows);
        server.stop("immediate");
    }

    fn server(&self) -> Server {
        Server::at(&self.scratch, &self.new.bin_dir, "round")
    }
}

const CONTENT: &str =
    "SELECT count(*), sum(n), md5(string_agg(n::text || word, ',' ORDER BY n, word)) FROM rows";

fn holds(dir: &Path, text: &[u8]) -> bool {
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    files
        .filter_map(|entry| fs::read(entry.path()).ok())
        .any(|bytes| bytes.windows(text.len()).any(|window| window == text))
}

/// xorshift: the same seed, the same moments.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % below.max(1)
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn kill(pid: Pid) {
    // It fails when the process is gone, which is what is wanted.
    let _ = rustix::process::kill_process(pid, Signal::KILL);
}

/// Interrupts the child after so long, in one of three ways. `false`: it had ended before.
async fn interrupt(scene: &Scene, child: &mut Child, after: Duration, way: u64) -> Option<bool> {
    let deadline = Instant::now() + after;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.success());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let agent = Pid::from_child(child);
    match way {
        // The agent alone: what it started goes on until its next message.
        0 => kill(agent),
        // The program that works: the agent sees it fail.
        1 => {
            scene.workers().into_iter().for_each(kill);
            let gone = Instant::now() + LONG;
            while child.try_wait().unwrap().is_none() && Instant::now() < gone {
                scene.workers().into_iter().for_each(kill);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        // Everything at once, as when the power goes.
        _ => {
            kill(agent);
            scene.workers().into_iter().for_each(kill);
        }
    }
    kill(agent);
    child.wait().unwrap();
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupted_at_random_moments_it_always_converges_and_nothing_is_lost() {
    let (wanted, seed) = (number("BATON_TEST_INTERRUPTIONS", 8), number("BATON_TEST_SEED", 20_261_127));
    let mut scene = Scene::new("interrupted").await;
    let mut round = scene.round();
    let mut dice = Dice(seed);

    // How long each way takes when nobody interrupts it.
    scene.begin(&round);
    let began = Instant::now();
    assert!(scene.child().wait().unwrap().success());
    let mut span = began.elapsed();
    assert_eq!(scene.check("undisturbed"), "complete");
    scene.follow().await;

    let (mut interruptions, mut rounds) = (0, 0);
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    while interruptions < wanted {
        rounds += 1;
        // Each copy makes the source begin another segment, and it keeps only so many.
        if rounds % 15 == 0 {
            scene = Scene::new("interrupted").await;
            round = scene.round();
        }
        assert!(rounds <= 3 * wanted + 20, "hardly anything is hit: {seen:?}");
        scene.begin(&round);
        let mut done = false;
        for turn in 0..12 {
            let (mut child, began) = (scene.child(), Instant::now());
            let way = dice.roll(3);
            let after = Duration::from_micros(dice.roll(u64::try_from(span.as_micros()).unwrap()));
            // In the end it is let alone.
            let ended = if turn < 4 {
                interrupt(&scene, &mut child, after, way).await
            } else {
                Some(child.wait().unwrap().success())
            };
            let state = scene.check(&format!("round {rounds}, turn {turn}, way {way} after {after:?}"));
            *seen.entry(state).or_default() += u64::from(ended.is_none());
            interruptions += u64::from(ended.is_none());
            if ended == Some(true) {
                // As long as it takes now: the machine may have become faster or slower.
                span = (span + began.elapsed()) / 2;
                done = true;
                break;
            }
            // What an interrupted agent left behind may still be at work; the next attempt comes later, as in life.
            tokio::time::sleep(Duration::from_millis(u64::from(turn >= 4) * 300)).await;
        }
        assert!(done, "round {rounds}: it never came to an end");
        assert_eq!(scene.check("in the end"), "complete");
        scene.follow().await;
    }
    println!(
        "seed {seed}: {interruptions} interruptions in {rounds} rounds, {span:?} an attempt, found after them: {seen:?}"
    );
}

/// A small disk.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: &Path, megabytes: u32) -> Disk {
        let size = format!("size={megabytes}m,mode=0700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir));
        own(dir);
        Disk(dir.to_owned())
    }

    /// Leaves so much free.
    fn fill(&self, free: u64) {
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        let available = disk.f_bavail * disk.f_frsize;
        let file = fs::File::create(self.0.join("fill")).unwrap();
        let length = available.saturating_sub(free);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).unwrap();
    }

    fn empty(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        kill_below(&self.0);
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_waited_for_and_costs_nothing() {
    assert!(rustix::process::geteuid().is_root(), "this mounts a small disk: run the tests as root");
    let scene = Scene::new("full").await;
    let disk = Disk::mount(&scene.round(), 600);
    let (bin, never) = (pg_bin(), CancellationToken::new());
    let installation = common::installation(&bin).await;
    let (from, data_dir) = (to(&scene.new), &scene.data_dir);
    let options = RewindOptions::default();
    let rewind = || rewind::run(&installation, data_dir, &from, &options, |_| {}, &never);

    // Known beforehand: nothing is begun.
    scene.begin(&scene.round());
    disk.fill(8 << 20);
    let before = control::read(data_dir).unwrap();
    let full = rewind().await.unwrap_err();
    assert!(matches!(&full, RewindError::NoRoom(why) if why.contains("no room for the rewind")), "{full}");
    assert_eq!((control::read(data_dir).unwrap(), scene.check("no room")), (before, "untouched"));
    assert!(data_dir::kept(data_dir).unwrap().is_empty());
    disk.empty();
    assert!(matches!(rewind().await.unwrap(), Outcome::Rewound(_)));
    scene.follow().await;

    // In the middle of pg_rewind: there is more to copy than anybody could know.
    scene.begin(&scene.round());
    scene.new.psql("CREATE TABLE big AS SELECT repeat(md5(n::text), 30) FROM generate_series(1, 90000) AS n");
    scene.new.psql("CHECKPOINT");
    let wal = scene.new.psql("SELECT sum(size) FROM pg_ls_waldir()").parse::<u64>().unwrap();
    disk.fill(wal + (48 << 20));
    let full = rewind().await.unwrap_err();
    assert!(matches!(full, RewindError::Failed { .. }) && full.to_string().contains("Make room"), "{full}");
    assert_eq!(scene.check("full in the middle"), "half rewound");
    // A copy needs room too, and the old directory is not even moved before there is.
    let aside = data_dir::make_room(data_dir).unwrap_err();
    assert!(matches!(&aside, Error::Refused(why) if why.contains("no room for a copy")), "{aside}");
    assert_eq!(scene.check("no room for a copy"), "half rewound");
    disk.empty();
    data_dir::make_room(data_dir).unwrap().expect("it was in the way");

    // In the middle of a copy: half of one is of no use, and goes at once.
    let clone = CloneFrom { connect: from.clone(), slot: None };
    disk.fill(20 << 20);
    let full = basebackup::run(&installation, &clone, data_dir, &[], |_| {}, &never).await.unwrap_err();
    assert!(matches!(&full, CloneError::Failed { tries: 1, .. }), "{full}");
    assert!(full.to_string().contains("No space left") && full.to_string().contains("Make room"), "{full}");
    assert_eq!(scene.check("full in a copy"), "half copied");
    assert!(fs::read_dir(data_dir).map_or(0, Iterator::count) == 0, "it takes no room");
    disk.empty();
    basebackup::run(&installation, &clone, data_dir, &[], |_| {}, &never).await.unwrap();
    assert_eq!(scene.check("at last"), "complete");
    scene.follow().await;
}
