//! The last WAL of a crashed primary, given to a standby that had not got it: it is replayed, promoted, and nothing is lost.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;
mod sql;

use common::{SUPERUSER, Scratch, Server, kill_below, pg_bins, until};
use postgres::control;
use postgres::handover::WalFiles;
use postgres::probe::{Facts, Prober};
use rustix::process::{Pid, Signal, kill_process};
use sql::{facts_until, to};
use std::path::Path;
use types::{Lsn, Timeline};

const CONTENT: &str = "SELECT count(*), sum(n), md5(string_agg(n::text, ',' ORDER BY n)) FROM rows";

/// A primary and a standby that has everything; both have segments that wait to be used again, with old content.
struct Pair {
    scratch: Scratch,
    old: Server,
    new: Server,
}

impl Pair {
    async fn new(label: &str, bin: &Path, initdb: &[&str]) -> Pair {
        let scratch = Scratch::new(label);
        let old = Server::init_with(&scratch, bin, "old", &[&["--auth=trust"], initdb].concat());
        let settings = "autovacuum = off\ncheckpoint_timeout = 1h\nmin_wal_size = 64MB\nmax_wal_size = 1GB\n";
        old.append("postgresql.conf", settings);
        old.start();
        old.psql("CREATE TABLE rows (n int)");
        let new = old.standby(&scratch, "new");
        new.append("postgresql.conf", settings);
        new.start();
        let pair = Pair { scratch, old, new };
        for _ in 0..2 {
            pair.old
                .psql("CREATE TABLE much AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 12000)");
            pair.in_step().await;
            pair.old.psql("DROP TABLE much; CHECKPOINT");
            pair.in_step().await;
            pair.new.psql("CHECKPOINT");
        }
        pair
    }

    async fn in_step(&self) {
        let end = self.old.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
        self.facts("the standby in step", |facts| facts.replayed_lsn >= Some(end)).await;
    }

    async fn facts(&self, what: &str, wanted: impl Fn(&Facts) -> bool) -> Facts {
        facts_until(what, &mut Prober::new(to(&self.new)), wanted).await
    }

    /// Holds back what the primary would send.
    fn hold_back(&self) {
        for pid in self.old.psql("SELECT pid FROM pg_stat_replication").lines() {
            let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
            kill_process(pid, Signal::STOP).unwrap();
        }
    }

    /// The primary dies; the standby notices that its stream has ended. How far it is: replayed, and received.
    async fn crash(&self) -> (Lsn, Lsn) {
        kill_below(&self.old.data_dir);
        let facts = self.facts("the end of the stream", |facts| facts.receiver.is_none()).await;
        let replayed = facts.replayed_lsn.unwrap();
        (replayed, facts.received_lsn.max(facts.replayed_lsn).unwrap())
    }

    fn wal(server: &Server) -> WalFiles {
        WalFiles::of(&server.data_dir, &control::read(&server.data_dir).unwrap()).unwrap()
    }

    /// Gives the standby everything after `have`; where it ends.
    fn hand_over(&self, replayed: Lsn, have: Lsn, chunk: u64) -> Lsn {
        let (ours, theirs) = (Pair::wal(&self.old), Pair::wal(&self.new));
        let end = ours.end(replayed).unwrap();
        assert_eq!(end, ours.end(Lsn(0)).unwrap(), "the same from the checkpoint on");
        assert!(!theirs.is_whole(replayed, end).unwrap(), "nothing was given yet");
        let from = Lsn(have.0.saturating_sub(1) / 8192 * 8192);
        ours.flush(from, end).unwrap();
        let (mut at, mut have) = (from, have);
        while at < end {
            let bytes = ours.read(at, end, chunk).unwrap();
            theirs.write(at, have, &bytes).unwrap();
            at = Lsn(at.0 + bytes.len() as u64);
            have = have.max(at);
        }
        assert!(theirs.is_whole(replayed, end).unwrap());
        end
    }
}

#[tokio::test]
async fn a_standby_that_is_given_the_last_wal_has_every_commit_and_the_old_primary_follows_it_as_it_is() {
    for (bin, options) in pg_bins().iter().zip([&["--wal-segsize=1"][..], &[], &["--wal-segsize=1"]]) {
        let pair = Pair::new("handover", bin, options).await;
        pair.hold_back();
        // Large and small transactions; what is over a few segments, and ends somewhere in a page.
        pair.old.psql("INSERT INTO rows SELECT generate_series(1, 300000)");
        for n in 0..20 {
            pair.old.psql(&format!("INSERT INTO rows VALUES ({})", -n));
        }
        let content = pair.old.psql(CONTENT);
        let (replayed, have) = pair.crash().await;
        let replay = Pair::wal(&pair.old).to_replay().unwrap();
        let end = pair.hand_over(replayed, have, 1 << 20);
        assert!(end.bytes_since(have) > 16 << 20, "{have} to {end}: there was much to be given");
        let exact = end.bytes_since(control::read(&pair.old.data_dir).unwrap().redo);
        assert!(replay >= exact && replay < exact + 16384, "{replay} to replay, {exact} by reading it all");

        pair.new.psql("SELECT pg_promote(true)");
        assert_eq!(pair.new.psql(CONTENT), content);
        let switch = std::fs::read_to_string(pair.new.data_dir.join("pg_wal/00000002.history")).unwrap();
        assert!(switch.contains(&end.to_string()), "{switch} begins at {end}");
        assert_eq!(pair.new.psql("SELECT count(*) FROM pg_ls_waldir() WHERE name LIKE '%baton%'"), "0");

        // The old primary has nothing that the new one lacks: it follows without a rewind.
        let conninfo =
            format!("host={} port={} user={SUPERUSER}", pair.new.socket_dir.display(), pair.new.port);
        pair.old.append("postgresql.conf", &format!("primary_conninfo = '{conninfo}'\n"));
        pair.old.append("standby.signal", "");
        restart(&pair.old);
        pair.new.psql("INSERT INTO rows VALUES (-1000)");
        let content = pair.new.psql(CONTENT);
        until("the old primary in step", || (pair.old.psql(CONTENT) == content).then_some(())).await;
        let mut prober = Prober::new(to(&pair.old));
        let follows = |facts: &Facts| facts.timeline == Some(Timeline(2));
        assert!(facts_until("the follower", &mut prober, follows).await.in_recovery);
        drop(pair.scratch);
    }
}

#[tokio::test]
async fn a_primary_that_comes_back_after_all_is_followed_by_the_standby_that_was_given_its_wal() {
    for bin in pg_bins() {
        let pair = Pair::new("handover-vain", &bin, &["--wal-segsize=1"]).await;
        pair.hold_back();
        pair.old.psql("INSERT INTO rows SELECT generate_series(1, 20000)");
        let (replayed, have) = pair.crash().await;
        pair.hand_over(replayed, have, 10_000);
        restart(&pair.old);
        pair.old.psql("INSERT INTO rows VALUES (-1)");
        let content = pair.old.psql(CONTENT);
        until("the standby in step", || (pair.new.psql(CONTENT) == content).then_some(())).await;
        assert_eq!(pair.new.psql("SELECT pg_is_in_recovery()"), "t");
        drop(pair.scratch);
    }
}

#[tokio::test]
async fn a_standby_that_is_restarted_or_given_a_part_goes_on_from_there() {
    let bin = &pg_bins()[0];
    let pair = Pair::new("handover-part", bin, &["--wal-segsize=1"]).await;
    pair.hold_back();
    pair.old.psql("INSERT INTO rows SELECT generate_series(1, 20000)");
    let content = pair.old.psql(CONTENT);
    let (replayed, have) = pair.crash().await;
    let (ours, theirs) = (Pair::wal(&pair.old), Pair::wal(&pair.new));
    let end = ours.end(replayed).unwrap();
    // A gap is refused, and so is what contradicts what is there.
    let (gap, bytes) = (Lsn(have.0 + 8), ours.read(have, end, 1000).unwrap());
    assert!(theirs.write(gap, have, &bytes).is_err());
    let page = Lsn((have.0 - 1) / 8192 * 8192);
    let mut wrong = ours.read(page, end, 20_000).unwrap();
    wrong[100] ^= 1;
    assert!(theirs.write(page, have, &wrong).is_err());
    // A part, which ends in the middle of a record and of a page; then the standby is restarted; then the rest.
    let part = ours.read(have, end, 500_123).unwrap();
    theirs.write(have, have, &part).unwrap();
    assert!(!theirs.is_whole(replayed, end).unwrap());
    pair.new.stop("immediate");
    restart(&pair.new);
    let facts = pair.facts("an answer", |facts| facts.replayed_lsn.is_some()).await;
    let replayed = facts.replayed_lsn.unwrap();
    assert!(replayed <= Lsn(have.0 + part.len() as u64), "no more than it was given");
    pair.hand_over(replayed, facts.received_lsn.max(facts.replayed_lsn).unwrap(), 1 << 20);
    pair.new.psql("SELECT pg_promote(true)");
    assert_eq!(pair.new.psql(CONTENT), content);
}

/// pg_ctl takes a dead postmaster that nobody has reaped yet for a live one.
fn restart(server: &Server) {
    let lock = server.socket_dir.join(format!(".s.PGSQL.{}.lock", server.port));
    for file in [server.data_dir.join("postmaster.pid"), lock] {
        let _ = std::fs::remove_file(file);
    }
    server.start();
}
