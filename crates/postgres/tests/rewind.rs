//! Former primaries on their way back, on real servers: where their WAL ends, and how they are rewound.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a helper of tests fails by panicking, as tests do"
)]

mod common;
mod sql;

use common::{SUPERUSER, Scratch, Server, kill_below, pg_bin, pg_bins};
use postgres::basebackup::{self, CloneFrom};
use postgres::connection::ConnectTo;
use postgres::control;
use postgres::data_dir::{self, DataDir, Work};
use postgres::error::Error;
use postgres::installation::Installation;
use postgres::loss::{self, Account};
use postgres::probe::Prober;
use postgres::replication::identify_with_history;
use postgres::rewind::preflight::{self, Obstacle};
use postgres::rewind::{EndOfWal, Outcome, RewindError, RewindOptions, end_of_wal, run};
use sql::{LONG, ensure_users, facts_until, lock, to, to_as};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tokio_util::sync::CancellationToken;
use types::{Lsn, Timeline};

const PASSWORD: &str = "geheim:1\\2";

/// A primary with users and with a table, and a standby that has it all.
struct Pair {
    scratch: Scratch,
    old: Server,
    new: Server,
    installation: Installation,
}

impl Pair {
    async fn new(label: &str, bin: &Path, initdb: &[&str]) -> Pair {
        let scratch = Scratch::new(label);
        let old = Server::init_with(&scratch, bin, "old", &[&["--auth=trust"], initdb].concat());
        // Whatever commits after the fork is then ours; and checkpoints happen when the test says so.
        old.append(
            "postgresql.conf",
            "autovacuum = off\ncheckpoint_timeout = 1h\nmax_prepared_transactions = 5\n",
        );
        lock(&old, "scram-sha-256");
        old.start();
        ensure_users(&old, PASSWORD).await;
        old.psql("CREATE TABLE rows (n int); INSERT INTO rows SELECT generate_series(1, 100000)");
        let new = old.standby(&scratch, "new");
        new.start();
        let pair = Pair { scratch, old, new, installation: common::installation(bin).await };
        pair.in_step().await;
        pair
    }

    /// Waits until the standby has everything.
    async fn in_step(&self) {
        let end = self.old.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        let mut prober = Prober::new(to(&self.new));
        facts_until("the standby", &mut prober, |facts| facts.replayed_lsn >= Some(end)).await;
    }

    /// Ends the old primary as a power failure would.
    fn crash(&self) {
        kill_below(&self.old.data_dir);
    }

    fn promote(&self) {
        self.new.psql("SELECT pg_promote(true)");
    }

    async fn checkpoint(&self) {
        Prober::new(to(&self.new)).checkpoint(LONG).await.unwrap();
    }

    fn rewinder(&self) -> ConnectTo {
        to_as(&self.new, "rewinder", PASSWORD)
    }

    async fn rewind(&self) -> Result<Outcome, RewindError> {
        let never = CancellationToken::new();
        run(
            &self.installation,
            &self.old.data_dir,
            &self.rewinder(),
            &RewindOptions::default(),
            |_| {},
            &never,
        )
        .await
    }

    /// Starts the old primary as a standby of the new one, waits until it has everything, and compares.
    async fn follow(&self) {
        let conninfo =
            format!("host={} port={} user={SUPERUSER}", self.new.socket_dir.display(), self.new.port);
        self.old.append("postgresql.conf", &format!("primary_conninfo = '{conninfo}'\n"));
        self.old.append("standby.signal", "");
        self.start_old();
        self.new.psql("INSERT INTO rows VALUES (-1)");
        let end = self.new.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        let mut prober = Prober::new(to(&self.old));
        let facts = facts_until("the follower", &mut prober, |facts| facts.replayed_lsn >= Some(end)).await;
        assert!(facts.in_recovery);
        assert_eq!(facts.timeline, Some(Timeline(2)));
        let content = "SELECT count(*), sum(n), md5(string_agg(n::text, ',' ORDER BY n)) FROM rows";
        assert_eq!(self.old.psql(content), self.new.psql(content));
    }

    /// pg_ctl takes a dead postmaster that nobody has reaped yet for a live one.
    fn start_old(&self) {
        let lock = self.old.socket_dir.join(format!(".s.PGSQL.{}.lock", self.old.port));
        for file in [self.old.data_dir.join("postmaster.pid"), lock] {
            let _ = std::fs::remove_file(file);
        }
        self.old.start();
    }

    fn inspect(&self) -> DataDir {
        data_dir::inspect(&self.old.data_dir).unwrap()
    }

    async fn end(&self) -> EndOfWal {
        let control = control::read(&self.old.data_dir).unwrap();
        end_of_wal(&self.old.data_dir, &control).await.unwrap()
    }

    fn no_secret_was_logged(&self) {
        for server in [&self.old, &self.new] {
            assert!(!server.log().contains("geheim"), "{}", server.log());
        }
    }
}

#[tokio::test]
async fn a_crashed_primary_comes_back_and_its_own_commits_are_kept_and_counted() {
    for bin in pg_bins() {
        let pair = Pair::new("rewind", &bin, &["--data-checksums"]).await;
        // Enough for the checkpoint after the promotion to take minutes, spread over an hour as it is.
        pair.old.psql("CREATE TABLE much AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 12000)");
        pair.old.psql("ALTER TABLE much ALTER x SET STORAGE PLAIN");
        pair.in_step().await;
        pair.promote();
        let mut xids = Vec::new();
        for n in 1..=7 {
            let sql = format!("INSERT INTO rows VALUES ({}) RETURNING pg_current_xact_id()", -10 - n);
            xids.extend(pair.old.psql(&sql).lines().next().and_then(|line| line.parse::<u32>().ok()));
        }
        let prepare = |name: &str| {
            let begin = "BEGIN; SELECT pg_current_xact_id(); SAVEPOINT s; INSERT INTO rows VALUES (-30)";
            let said = pair.old.psql(&format!("{begin}; PREPARE TRANSACTION '{name}'"));
            said.lines().find_map(|line| line.parse::<u32>().ok()).expect("its number")
        };
        let open = prepare("open");
        xids.push(prepare("ended"));
        prepare("undone");
        pair.old.psql("COMMIT PREPARED 'ended'");
        pair.old.psql("ROLLBACK PREPARED 'undone'");
        // Into the next segment, by few records that pg_waldump prints in few bytes: a message it prints whole.
        let much = "INSERT INTO much SELECT repeat('x', 8000) FROM generate_series(1, 2100)";
        pair.old.psql(&format!("BEGIN; UPDATE rows SET n = n + 1 WHERE n < 0; {much}; ROLLBACK"));
        pair.old.append("postgresql.conf", "# the old primary's own\n");
        pair.new.psql("INSERT INTO rows VALUES (-2)");
        pair.crash();
        assert!(!pair.end().await.clean);

        // Until that checkpoint is done pg_rewind would read the old timeline in its control file.
        let early = pair.rewind().await.unwrap_err();
        assert!(matches!(early, RewindError::SourceNotReady(_)), "{early}");
        assert!(matches!(pair.inspect(), DataDir::Present { .. }));
        pair.checkpoint().await;
        let end = pair.end().await.end;
        let Outcome::Rewound(rewound) = pair.rewind().await.unwrap() else { panic!("it was needed") };
        assert_eq!((rewound.fork.timeline, rewound.end), (Timeline(1), end));
        let account = &rewound.account;
        let transactions = &account.transactions;
        assert_eq!((&transactions.xids, transactions.commits), (&xids, 8), "{account}");
        assert_eq!((&transactions.prepared_xids, transactions.prepared), (&vec![open], 1), "{account}");
        assert!(
            transactions.unread.is_none() && transactions.first_commit < transactions.last_commit,
            "{account}"
        );
        let rows =
            account.relations.touched.iter().find(|touched| touched.to_string() == "postgres.public.rows");
        assert!(
            rows.is_some_and(|rows| rows.records >= 8) && account.relations.unread.is_none(),
            "{account:?}"
        );
        assert_eq!(account.bytes, rewound.end.bytes_since(rewound.fork.lsn));
        assert_eq!(Account::read(&rewound.kept).as_ref(), Some(account));
        assert_eq!(Account::untold(&pair.old.data_dir).unwrap(), [(rewound.kept.clone(), account.clone())]);
        Account::told(&rewound.kept).unwrap();
        assert!(Account::untold(&pair.old.data_dir).unwrap().is_empty());
        assert!(
            matches!(pair.inspect(), DataDir::Present { backup_label: true, .. }),
            "{:?}",
            pair.inspect()
        );
        let kept = data_dir::kept(&pair.old.data_dir).unwrap();
        assert_eq!(kept.iter().map(|kept| &kept.path).collect::<Vec<_>>(), [&rewound.kept]);
        let lost = waldump(&bin, &rewound.kept, rewound.fork.lsn, Timeline(1));
        assert_eq!(lost.0.matches("desc: COMMIT").count(), 8, "{}", lost.0);
        let conf = std::fs::read_to_string(pair.old.data_dir.join("postgresql.conf")).unwrap();
        assert!(conf.contains("# the old primary's own"), "{conf}");
        pair.follow().await;
        pair.no_secret_was_logged();
    }
}

#[tokio::test]
async fn a_clean_stop_after_everything_was_sent_needs_no_rewind() {
    for bin in pg_bins() {
        let pair = Pair::new("rewind-clean", &bin, &[]).await;
        pair.old.psql("INSERT INTO rows VALUES (-3)");
        pair.old.stop("fast");
        let end = pair.end().await;
        assert!(end.clean);
        assert_eq!(end.last_record, control::read(&pair.old.data_dir).unwrap().checkpoint);
        let mut prober = Prober::new(to(&pair.new));
        facts_until("the shutdown checkpoint", &mut prober, |facts| facts.replayed_lsn >= Some(end.end))
            .await;
        pair.promote();
        pair.new.psql("INSERT INTO rows VALUES (-4)");
        assert_eq!(pair.rewind().await.unwrap(), Outcome::NotNeeded);
        assert!(data_dir::kept(&pair.old.data_dir).unwrap().is_empty());
        pair.follow().await;
    }
}

#[tokio::test]
async fn a_crash_after_everything_was_sent_needs_no_rewind_either() {
    let pair = Pair::new("rewind-even", &pg_bin(), &[]).await;
    pair.crash();
    let end = pair.end().await.end;
    let mut prober = Prober::new(to(&pair.new));
    let facts = facts_until("the standby", &mut prober, |facts| facts.received_lsn >= Some(end)).await;
    assert_eq!(facts.received_lsn.max(facts.replayed_lsn), Some(end));
    pair.promote();
    assert_eq!(pair.rewind().await.unwrap(), Outcome::NotNeeded);
    pair.follow().await;
}

#[tokio::test]
async fn a_primary_that_was_stopped_with_commits_of_its_own_comes_back() {
    let pair = Pair::new("rewind-stopped", &pg_bin(), &["--data-checksums"]).await;
    pair.promote();
    pair.old.psql("INSERT INTO rows VALUES (-5)");
    pair.old.stop("immediate");
    // What an agent leaves that had already made it a standby: crash recovery must not trip over it.
    pair.old.append("standby.signal", "");
    pair.checkpoint().await;
    let Outcome::Rewound(rewound) = pair.rewind().await.unwrap() else { panic!("it was needed") };
    assert_eq!(rewound.account.transactions.commits, 1);
    pair.follow().await;
}

#[tokio::test]
async fn a_source_without_the_wal_since_the_fork_could_never_be_followed() {
    let pair = Pair::new("rewind-gone", &pg_bin(), &["--data-checksums", "--wal-segsize=1"]).await;
    pair.promote();
    pair.old.psql("INSERT INTO rows VALUES (-9)");
    pair.crash();
    for _ in 0..4 {
        pair.new.psql("INSERT INTO rows VALUES (-10)");
        pair.new.psql("SELECT pg_switch_wal()");
        pair.checkpoint().await;
    }
    let gone = pair.rewind().await.unwrap_err();
    assert!(matches!(&gone, RewindError::Impossible(why) if why.contains("no longer has the WAL")), "{gone}");
    assert!(matches!(pair.inspect(), DataDir::Present { .. }));
    assert!(data_dir::kept(&pair.old.data_dir).unwrap().is_empty());
}

#[tokio::test]
async fn it_is_refused_where_it_could_not_work_and_nothing_is_changed() {
    let no_checksums: &[&str] =
        if pg_bin().to_string_lossy().contains("18") { &["--no-data-checksums"] } else { &[] };
    let pair = Pair::new("rewind-refused", &pg_bin(), no_checksums).await;
    pair.old.append("postgresql.conf", "wal_log_hints = off\n");
    let running = pair.rewind().await.unwrap_err();
    assert!(matches!(running, RewindError::Local(Error::AlreadyRunning { .. })), "{running}");
    pair.old.stop("fast");
    let still = pair.rewind().await.unwrap_err();
    assert!(matches!(&still, RewindError::SourceNotReady(why) if why.contains("recovery")), "{still}");
    pair.old.start();
    // While all is well it can be known what it would fail of.
    let here = preflight::here(&pair.installation, &pair.old.data_dir, &to(&pair.old), false).await.unwrap();
    assert_eq!(here.obstacles, [Obstacle::NoHints]);
    assert!(here.wal.is_some_and(|(written, kept)| written > 0 && kept == 0), "{here:?}");
    assert_eq!(preflight::there(&pair.rewinder()).await.unwrap(), None);
    let nobody = preflight::there(&to_as(&pair.new, "rewinder", "falsch")).await.unwrap();
    assert!(matches!(nobody, Some(Obstacle::Login { .. })), "{nobody:?}");
    pair.promote();
    pair.checkpoint().await;
    pair.old.psql("INSERT INTO rows VALUES (-6)");
    pair.old.stop("immediate");
    let before = control::read(&pair.old.data_dir).unwrap();
    let hints = pair.rewind().await.unwrap_err();
    assert!(matches!(&hints, RewindError::Impossible(why) if why.contains("wal_log_hints")), "{hints}");

    // It will be copied anew: what only it has is told all the same, and is in the directory that is moved aside.
    let replicator = to_as(&pair.new, "replicator", PASSWORD);
    let (identity, history) = identify_with_history(&replicator, LONG).await.unwrap();
    let theirs = (identity.system_id, &history);
    let account = loss::account(&pair.installation, &pair.old.data_dir, &before, theirs).await.unwrap();
    assert_eq!((account.transactions.commits, account.transactions.unread.is_none()), (1, true), "{account}");
    assert!(account.relations.unread.is_none() && !account.relations.touched.is_empty(), "{account}");

    pair.new.psql("REVOKE EXECUTE ON FUNCTION pg_read_binary_file(text) FROM rewinder");
    let missing = preflight::there(&pair.rewinder()).await.unwrap();
    assert!(
        matches!(&missing, Some(Obstacle::Rights { missing, .. }) if missing.contains("pg_read_binary_file(text)")),
        "{missing:?}"
    );
    let rights = pair.rewind().await.unwrap_err();
    assert!(matches!(&rights, RewindError::NotAllowed(why) if why.contains("GRANT EXECUTE")), "{rights}");

    let stranger = Server::init(&pair.scratch, &pg_bin(), "stranger");
    stranger.start();
    let (from, never) = (to(&stranger), CancellationToken::new());
    let options = RewindOptions::default();
    let other =
        run(&pair.installation, &pair.old.data_dir, &from, &options, |_| {}, &never).await.unwrap_err();
    assert!(matches!(&other, RewindError::NotAllowed(why) if why.contains("another cluster")), "{other}");
    stranger.stop("fast");
    let gone =
        run(&pair.installation, &pair.old.data_dir, &from, &options, |_| {}, &never).await.unwrap_err();
    assert!(matches!(gone, RewindError::Source(_)), "{gone}");
    assert_eq!(control::read(&pair.old.data_dir).unwrap(), before);
    assert!(matches!(pair.inspect(), DataDir::Present { .. }));
    assert!(data_dir::kept(&pair.old.data_dir).unwrap().is_empty());
}

#[tokio::test]
async fn wal_that_the_target_no_longer_has_comes_from_the_archive() {
    let pair = Pair::new("rewind-archive", &pg_bin(), &["--data-checksums"]).await;
    let archive = pair.scratch.dir("archive");
    let command = format!("test ! -f {0}/%f && cp %p {0}/%f", archive.display());
    let settings = format!("archive_mode = on\narchive_command = '{command}'\nwal_keep_size = 1GB\n");
    pair.old.append("postgresql.conf", &settings);
    pair.old.stop("fast");
    pair.old.start();
    pair.old.psql("INSERT INTO rows VALUES (-20)");
    pair.in_step().await;
    pair.promote();
    pair.checkpoint().await;
    for _ in 0..3 {
        pair.old.psql("INSERT INTO rows VALUES (-21)");
        pair.old.psql("SELECT pg_switch_wal()");
    }
    pair.old.psql("CHECKPOINT");
    pair.old.stop("fast");
    let (control, wal) = (control::read(&pair.old.data_dir).unwrap(), pair.old.data_dir.join("pg_wal"));
    let needed = format!("00000001{:016X}", control.redo.0 >> 24);
    let mut removed = 0;
    for entry in std::fs::read_dir(&wal).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.len() == 24 && name < needed {
            assert!(archive.join(&name).exists(), "{name} was archived before the stop ended");
            std::fs::remove_file(entry.path()).unwrap();
            removed += 1;
        }
    }
    assert!(removed >= 3, "{removed}");
    let restore = format!("cp {}/%f '%p'", archive.display());
    let options = RewindOptions { restore_command: Some(restore), ..RewindOptions::default() };
    let (from, never) = (pair.rewinder(), CancellationToken::new());
    let data_dir = &pair.old.data_dir;
    let outcome = run(&pair.installation, data_dir, &from, &options, |_| {}, &never).await.unwrap();
    let Outcome::Rewound(rewound) = outcome else { panic!("it was needed") };
    let account = &rewound.account;
    assert!(
        account.transactions.unread.is_some() && !account.is_nothing(),
        "it could not be read: {account}"
    );
    assert!(account.to_string().contains("perhaps more"), "{account}");
    assert!(!pair.scratch.join("old.baton-rewind.conf").exists());
    pair.follow().await;
}

#[tokio::test]
async fn an_interrupted_rewind_leaves_the_mark_and_a_clone_heals_it() {
    let pair = Pair::new("rewind-cut", &pg_bin(), &["--data-checksums"]).await;
    pair.promote();
    pair.old.psql("INSERT INTO rows VALUES (-7)");
    // Without it the checkpoint below removes the WAL since the fork, which is another story.
    pair.new.psql("ALTER SYSTEM SET wal_keep_size = '1GB'");
    pair.new.psql("SELECT pg_reload_conf()");
    pair.crash();
    pair.new
        .psql("CREATE TABLE big AS SELECT repeat('x', 1000) AS x, n FROM generate_series(1, 100000) AS n");
    pair.checkpoint().await;
    let cancel = CancellationToken::new();
    let stop = |_| cancel.cancel();
    let (from, options) = (pair.rewinder(), RewindOptions::default());
    let cut = run(&pair.installation, &pair.old.data_dir, &from, &options, stop, &cancel).await.unwrap_err();
    assert!(matches!(cut, RewindError::Cancelled), "{cut}");
    assert!(matches!(pair.inspect(), DataDir::Incomplete { work: Work::Rewind, .. }), "{:?}", pair.inspect());
    let kept = data_dir::kept(&pair.old.data_dir).unwrap();
    assert_eq!(kept.len(), 1, "the tail");
    let again = pair.rewind().await.unwrap_err();
    assert!(matches!(&again, RewindError::Impossible(why) if why.contains("unfinished rewind")), "{again}");

    let clone = CloneFrom { connect: to_as(&pair.new, "replicator", PASSWORD), slot: None };
    let never = CancellationToken::new();
    let data_dir = &pair.old.data_dir;
    let refused =
        basebackup::run(&pair.installation, &clone, data_dir, &[], |_| {}, &never).await.unwrap_err();
    assert!(refused.to_string().contains("unfinished rewind"), "{refused}");
    data_dir::move_aside(data_dir, "rewind").unwrap();
    basebackup::run(&pair.installation, &clone, data_dir, &[], |_| {}, &never).await.unwrap();
    assert!(matches!(pair.inspect(), DataDir::Present { .. }), "{:?}", pair.inspect());
    pair.old.append_settings();
    // The source was a standby once and has that in a file that outranks the other.
    std::fs::write(pair.old.data_dir.join("postgresql.auto.conf"), "").unwrap();
    pair.follow().await;
}

#[tokio::test]
async fn the_end_of_the_wal_is_where_pg_waldump_finds_it() {
    for bin in pg_bins() {
        let pair = Pair::new("rewind-end", &bin, &["--wal-segsize=1"]).await;
        let chores = [
            "SELECT pg_logical_emit_message(false, 'big', repeat('x', 5000000))",
            "SELECT pg_switch_wal()",
            "CREATE TABLE wide AS SELECT repeat(md5(n::text), 100) FROM generate_series(1, 3000) AS n",
            "SELECT count(pg_logical_emit_message(true, 'small', repeat('y', n))) FROM generate_series(1, 900) AS n",
            "CREATE DATABASE another",
            "CHECKPOINT",
            "SELECT pg_logical_emit_message(true, 'odd', repeat('z', 8151))",
        ];
        for chore in chores {
            pair.old.psql(chore);
            pair.crash();
            check_against_waldump(&bin, &pair.old.data_dir).await;
            pair.start_old();
        }
        pair.old.psql("INSERT INTO rows VALUES (-8)");
        pair.crash();
        // A byte of the last record changes: it no longer counts.
        let (end, wal) = (pair.end().await, pair.old.data_dir.join("pg_wal"));
        let name =
            format!("00000001{:08X}{:08X}", end.last_record.0 >> 32, (end.last_record.0 & 0xFFFF_FFFF) >> 20);
        let file = std::fs::OpenOptions::new().write(true).open(wal.join(name)).unwrap();
        file.write_all_at(&[0xA5], (end.last_record.0 & 0xF_FFFF) + 17).unwrap();
        assert!(pair.end().await.end <= end.last_record);
        check_against_waldump(&bin, &pair.old.data_dir).await;
    }
}

async fn check_against_waldump(bin: &Path, data_dir: &Path) {
    let control = control::read(data_dir).unwrap();
    let found = end_of_wal(data_dir, &control).await.unwrap();
    let (records, stop) = waldump(bin, &data_dir.join("pg_wal"), control.checkpoint, control.timeline);
    let last = records.lines().filter_map(|line| line.split_once(", lsn: ")?.1.split_once(',')).next_back();
    let last = last.expect("a record").0.parse::<Lsn>().unwrap();
    assert_eq!(found.last_record, last, "{stop}");
    // `invalid record length at 0/2B: …`: in whatever words, the place where the next record should begin.
    if let Some((_, at)) = stop.rsplit_once("invalid record length at ") {
        let at = at.split([':', ' ']).next().unwrap().parse::<Lsn>().unwrap();
        assert_eq!(found.end, at, "{stop}");
    }
}

/// What pg_waldump prints from `start` on, and its complaint at the end.
fn waldump(bin: &Path, dir: &PathBuf, start: Lsn, timeline: Timeline) -> (String, String) {
    let mut waldump = common::program(bin, "pg_waldump");
    waldump.arg("--path").arg(dir).args(["--start", &start.to_string(), "--timeline", &timeline.to_string()]);
    let output = waldump.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(output.stdout), text(output.stderr))
}

/// A standby that follows onto a new timeline gets the segment in which it begins anew, from its beginning. When its primary is lost
/// meanwhile, it has a file of which only the beginning is written, and PostgreSQL looks into no other.
#[tokio::test]
async fn a_segment_that_was_received_by_halves_is_not_in_the_way_of_a_promotion() {
    for bin in pg_bins() {
        let pair = Pair::new("halves", &bin, &[]).await;
        let standby = &pair.new;
        let size = u64::from(control::read(&standby.data_dir).unwrap().wal_segment_size);
        pair.old.psql("INSERT INTO rows SELECT generate_series(100001, 101000)");
        pair.in_step().await;
        let end = pair.old.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        standby.stop("fast");
        pair.crash();
        let wal = standby.data_dir.join("pg_wal");
        let segment = |timeline: u32| wal.join(format!("{timeline:08X}{:08X}{:08X}", 0, end.0 / size));
        let mut halves = std::fs::read(segment(1)).unwrap();
        halves[3 * 8192..].fill(0);
        let (newer, history) = (segment(2), wal.join("00000002.history"));
        std::fs::write(&newer, &halves).unwrap();
        std::fs::write(&history, format!("1\t{end}\tno recovery target specified\n")).unwrap();
        for file in [&newer, &history] {
            common::own(file);
        }
        standby.append("postgresql.conf", "primary_conninfo = ''\nrecovery_target_timeline = 'latest'\n");

        let name = newer.file_name().unwrap().to_str().unwrap().to_owned();
        // One that has all of it is left where it is.
        std::fs::copy(segment(1), &newer).unwrap();
        assert_eq!(data_dir::remove_half_received(&standby.data_dir).unwrap(), [""; 0]);
        std::fs::write(&newer, &halves).unwrap();
        assert_eq!(data_dir::remove_half_received(&standby.data_dir).unwrap(), [name]);
        assert!(!newer.exists());
        standby.start();
        assert!(matches!(data_dir::remove_half_received(&standby.data_dir), Err(Error::Refused(_))));
        pair.promote();
        assert_eq!(standby.psql("SELECT count(*) FROM rows"), "101000");
        assert_eq!(standby.psql("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"), "00000003");
    }
}
