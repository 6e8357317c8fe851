//! The probe against real servers in every state.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

mod common;
mod sql;

use common::{Scratch, Server, pg_bin, pg_bins, until};
use postgres::connection::{ConnectTo, Connection, Knock, Mode, knock};
use postgres::control;
use postgres::postmaster::Postmaster;
use postgres::probe::{Facts, Probe, Prober, SlotKind};
use postgres::waiters;
use rustix::process::{Pid, Signal, kill_process};
use sql::{facts_until, to};
use std::time::Duration;
use types::{Lsn, Timeline};

const WITHIN: Duration = Duration::from_secs(5);

#[tokio::test]
async fn a_primary_and_its_standby_tell_everything_on_every_version() {
    for bin in pg_bins() {
        let scratch = Scratch::new("probe-facts");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        let standby = primary.standby(&scratch, "standby");
        primary.psql("SELECT pg_create_physical_replication_slot('node_2', true)");
        standby.append("postgresql.conf", "primary_slot_name = 'node_2'\n");
        standby.start();
        primary.psql("CREATE TABLE t AS SELECT 1 AS n");
        primary.append("postgresql.conf", "max_connections = 77\n");
        primary.psql("SELECT pg_reload_conf()");

        let mut prober = Prober::new(to(&primary));
        let facts = facts_until("a streaming standby and the new setting", &mut prober, |facts| {
            let streams = facts.replication.iter().any(|s| s.state.as_deref() == Some("streaming"));
            streams && !facts.pending_restart.is_empty()
        })
        .await;
        assert!(!facts.in_recovery);
        assert_eq!(facts.timeline, Some(Timeline(1)));
        let [pending] = facts.pending_restart.as_slice() else { panic!("{:?}", facts.pending_restart) };
        let values = (pending.running.as_deref(), pending.wanted.as_deref());
        assert_eq!((pending.name.as_str(), values), ("max_connections", (Some("100"), Some("77"))));
        assert_eq!(facts.system_id, control::read(&primary.data_dir).unwrap().system_id);
        assert_eq!(facts.server_version.to_string(), primary.psql("SHOW server_version_num"));
        assert!(facts.flush_lsn.is_some_and(Lsn::is_valid) && facts.replayed_lsn.is_none());
        assert!(facts.postmaster_start_time.ends_with("+00:00"), "{}", facts.postmaster_start_time);
        assert_eq!(facts.postmaster_start_time.len(), "2026-11-23 00:07:28.123456+00:00".len());
        let [slot] = facts.slots.as_slice() else { panic!("{:?}", facts.slots) };
        assert_eq!((slot.name.as_str(), slot.kind, slot.temporary), ("node_2", SlotKind::Physical, false));
        assert_eq!(slot.wal_status.as_deref(), Some("reserved"));
        let [stream] = facts.replication.as_slice() else { panic!("{:?}", facts.replication) };
        assert_eq!(stream.sync_state.as_deref(), Some("async"));

        let mut prober = Prober::new(to(&standby));
        let target = facts.flush_lsn;
        let seen = facts_until("the standby's replay", &mut prober, |seen| seen.replayed_lsn >= target).await;
        assert!(seen.in_recovery && !seen.replay_paused && seen.flush_lsn.is_none());
        assert_eq!(seen.timeline, Some(Timeline(1)));
        assert!(seen.received_lsn >= target && seen.replayed_at.is_some_and(|at| at > 1_600_000_000_000_000));
        let receiver = seen.receiver.expect("a receiver");
        assert_eq!((receiver.status.as_str(), receiver.slot_name.as_deref()), ("streaming", Some("node_2")));
        assert_eq!((receiver.sender_port, receiver.received_tli), (Some(primary.port), Some(Timeline(1))));
        standby.psql("SELECT pg_wal_replay_pause()");
        facts_until("the pause", &mut prober, |seen| seen.replay_paused).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_not_accepting() {
    let scratch = Scratch::new("probe-none");
    let server = Server::init(&scratch, &pg_bin(), "data");
    let mut prober = Prober::new(to(&server));
    let probe = prober.probe(WITHIN).await;
    assert!(matches!(&probe, Probe::NotAccepting { why } if why.contains("running")), "{probe:?}");
    server.start();
    facts_until("a running server", &mut prober, |_| true).await;
    server.stop("fast");
    let probe = prober.probe(WITHIN).await;
    assert!(matches!(probe, Probe::NotAccepting { .. }), "{probe:?}");
    server.start();
    assert!(matches!(prober.probe(WITHIN).await, Probe::Running(_)), "connected anew in one probe");
}

#[tokio::test]
async fn a_server_that_takes_no_connections_yet_is_starting() {
    let scratch = Scratch::new("probe-starting");
    let primary = Server::init(&scratch, &pg_bin(), "primary");
    primary.start();
    let standby = primary.standby(&scratch, "standby");
    // It stays in the state in which every standby begins.
    standby.append("postgresql.conf", "hot_standby = off\n");
    standby.start();
    let probe = Prober::new(to(&standby)).probe(WITHIN).await;
    assert!(matches!(&probe, Probe::Starting { why } if why.contains("57P03")), "{probe:?}");
}

#[tokio::test]
async fn a_stopped_process_is_unresponsive_and_recovers() {
    let scratch = Scratch::new("probe-frozen");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.start();
    let mut kept = Prober::new(to(&server));
    facts_until("a running server", &mut kept, |_| true).await;
    let processes = common::processes_below(&server.data_dir);
    assert!(processes.len() > 3, "{processes:?}");
    signal(&processes, Signal::STOP);
    let mut fresh = Prober::new(to(&server));
    for prober in [&mut kept, &mut fresh] {
        let asked = tokio::time::Instant::now();
        let probe = prober.probe(Duration::from_millis(300)).await;
        assert!(matches!(probe, Probe::Unresponsive { .. }), "{probe:?}");
        assert!(asked.elapsed() < WITHIN, "it waited {:?}", asked.elapsed());
    }
    signal(&processes, Signal::CONT);
    facts_until("the kept prober", &mut kept, |_| true).await;
    facts_until("the new prober", &mut fresh, |_| true).await;
}

#[tokio::test]
async fn the_queue_of_a_stopped_postmaster_overflows_into_unresponsive() {
    let scratch = Scratch::new("probe-queue");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.append("postgresql.conf", "max_connections = 10\nmax_wal_senders = 2\n");
    server.start();
    let postmaster = [server.pid()];
    signal(&postmaster, Signal::STOP);
    let socket = server.socket_dir.join(format!(".s.PGSQL.{}", server.port));
    let mut queued = Vec::new();
    let full = loop {
        assert!(queued.len() < 20_000, "the queue never filled");
        match tokio::net::UnixStream::connect(&socket).await {
            Ok(stream) => queued.push(stream),
            Err(error) => break error,
        }
    };
    assert_eq!(full.kind(), std::io::ErrorKind::WouldBlock);
    let probe = Prober::new(to(&server)).probe(Duration::from_millis(300)).await;
    assert!(matches!(probe, Probe::Unresponsive { .. }), "{probe:?}");
    signal(&postmaster, Signal::CONT);
}

#[tokio::test]
async fn the_timeline_is_right_from_the_first_answer_after_a_promotion() {
    for bin in pg_bins() {
        let scratch = Scratch::new("probe-promote");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        let standby = primary.standby(&scratch, "standby");
        // The checkpoint that follows the promotion takes long, so that its timeline comes late.
        standby.append("postgresql.conf", "checkpoint_timeout = 1h\n");
        standby.start();
        primary.psql("CREATE TABLE t AS SELECT generate_series(1, 200000) AS n");
        let mut prober = Prober::new(to(&standby));
        facts_until("a standby", &mut prober, |facts| facts.in_recovery && facts.receiver.is_some()).await;
        standby.psql("SELECT pg_promote(false)");
        let facts = loop {
            match prober.probe(WITHIN).await {
                // PostgreSQL puts the new timeline into its control file a moment before it says that recovery is over.
                Probe::Running(facts) if facts.in_recovery => {
                    assert!([Some(Timeline(1)), Some(Timeline(2))].contains(&facts.timeline), "{facts:?}");
                }
                Probe::Running(facts) => break facts,
                other => panic!("a promotion is no outage: {other:?}"),
            }
        };
        assert_eq!(facts.timeline, Some(Timeline(2)));
        assert!(facts.flush_lsn.is_some() && facts.replayed_lsn.is_none() && facts.receiver.is_none());
        prober.checkpoint(sql::LONG).await.unwrap();
        assert_eq!(control::read(&standby.data_dir).unwrap().timeline, Timeline(2));
    }
}

#[tokio::test]
async fn a_killed_backend_costs_the_connection_and_not_the_prober() {
    let scratch = Scratch::new("probe-killed");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.start();
    let mut prober = Prober::new(to(&server));
    let before = facts_until("a running server", &mut prober, |_| true).await;
    server.psql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'baton heartbeat'",
    );
    assert!(matches!(prober.probe(WITHIN).await, Probe::Running(_)), "connected anew in one probe");
    let alone = "SELECT pid FROM pg_stat_activity WHERE application_name = 'baton heartbeat'";
    let pid = until("the one before to be gone", || server.psql(alone).parse().ok()).await;
    signal(&[pid], Signal::KILL);
    // All backends are ended and the server recovers under the same postmaster.
    let after = facts_until("the end of crash recovery", &mut prober, |_| true).await;
    assert_eq!(after.postmaster_start_time, before.postmaster_start_time);
}

#[tokio::test]
async fn a_probe_that_is_dropped_half_way_does_not_spoil_the_next() {
    let scratch = Scratch::new("probe-dropped");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.start();
    let mut prober = Prober::new(to(&server));
    facts_until("a running server", &mut prober, |_| true).await;
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::ZERO, prober.probe(WITHIN)).await;
        assert!(matches!(prober.probe(WITHIN).await, Probe::Running(_)));
    }
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_alive_and_tells_all_over_a_standbys_connection() {
    let scratch = Scratch::new("probe-crowded");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.append(
        "postgresql.conf",
        "max_connections = 6\nsuperuser_reserved_connections = 2\nmax_wal_senders = 1\n",
    );
    server.start();
    let mut kept = Prober::new(to(&server));
    let facts = facts_until("a running server", &mut kept, |_| true).await;
    assert_eq!(facts.free_slots, 3);
    let mut clients = Vec::new();
    let refused = loop {
        assert!(clients.len() < 20, "there is always room for one more");
        match Connection::open(&to(&server), Mode::Sql, &[], WITHIN).await {
            Ok(client) => clients.push(client),
            Err(error) => break error,
        }
    };
    assert_eq!(refused.sqlstate(), Some("53300"));
    let facts = facts_until("the kept connection", &mut kept, |_| true).await;
    assert!(facts.free_slots <= 0, "{}", facts.free_slots);
    let mut fresh = Prober::new(to(&server));
    let probe = fresh.probe(WITHIN).await;
    let Probe::Running(facts) = &probe else { panic!("{probe:?}") };
    assert!(!facts.in_recovery && facts.flush_lsn.is_some() && facts.free_slots <= 0, "{facts:?}");
    // That one is taken as well now.
    let probe = Prober::new(to(&server)).probe(WITHIN).await;
    assert!(matches!(&probe, Probe::Crowded { why } if why.contains("53300")), "{probe:?}");
    assert_eq!(knock(&to(&server), WITHIN).await, Knock::Greeted, "it is alive");
    drop(clients);
    facts_until("room again", &mut fresh, |facts| facts.free_slots > 0).await;
}

#[tokio::test]
async fn a_knock_tells_a_stopped_postmaster_from_a_living_one() {
    let scratch = Scratch::new("probe-knock");
    let server = Server::init(&scratch, &pg_bin(), "data");
    assert_eq!(knock(&to(&server), WITHIN).await, Knock::Closed);
    server.start();
    assert_eq!(knock(&to(&server), WITHIN).await, Knock::Greeted);
    let by_address = ConnectTo { host: "127.0.0.1".to_owned(), ..to(&server) };
    assert_eq!(knock(&by_address, WITHIN).await, Knock::Greeted);
    let postmaster = Postmaster::adopt(&server.data_dir).unwrap().unwrap();
    assert!(postmaster.look().is_some_and(|look| "SRD".contains(look.state)));
    // A query that is held up by a lock says nothing about the postmaster.
    let mut holder = Connection::open(&to(&server), Mode::Sql, &[], WITHIN).await.unwrap();
    holder.query("BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE", WITHIN).await.unwrap();
    let probe = Prober::new(to(&server)).probe(Duration::from_millis(500)).await;
    assert!(matches!(probe, Probe::Unresponsive { .. }), "{probe:?}");
    assert_eq!(knock(&to(&server), WITHIN).await, Knock::Greeted);
    drop(holder);
    signal(&[server.pid()], Signal::STOP);
    assert_eq!(knock(&to(&server), Duration::from_millis(300)).await, Knock::Silent);
    assert_eq!(postmaster.look().map(|look| look.state), Some('T'));
    signal(&[server.pid()], Signal::CONT);
    assert_eq!(knock(&to(&server), WITHIN).await, Knock::Greeted);
}

#[tokio::test]
async fn an_error_is_told_as_such() {
    let scratch = Scratch::new("probe-failed");
    let server = Server::init(&scratch, &pg_bin(), "data");
    server.start();
    let mut target = to(&server);
    target.user = "nobody_here".to_owned();
    let probe = Prober::new(target).probe(WITHIN).await;
    assert!(matches!(&probe, Probe::Failed { why } if why.contains("nobody_here")), "{probe:?}");
}

#[tokio::test]
async fn commits_whose_new_standby_has_confirmed_already_are_released() {
    for bin in pg_bins() {
        let scratch = Scratch::new("waiters");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        let standby = primary.standby(&scratch, "standby");
        // It speaks when there is WAL, and never by itself.
        standby.append("postgresql.conf", "wal_receiver_status_interval = 0\n");
        standby.start();
        primary.psql("CREATE TABLE t (n int)");
        let mut prober = Prober::new(to(&primary));
        let wait_for = |names: &str| {
            primary.psql(&format!("ALTER SYSTEM SET synchronous_standby_names = {names}"));
            primary.psql("SELECT pg_reload_conf()");
        };
        wait_for("gone");
        facts_until("the first names", &mut prober, |facts| facts.synchronous_standby_names == "gone").await;
        let mut commit = primary.psql_command("INSERT INTO t VALUES (1)").spawn().unwrap();
        until("the commit to wait, although the standby has it", || {
            let waits = "SELECT wait_event = 'SyncRep' AND pg_current_wal_flush_lsn() <= \
                         (SELECT flush_lsn FROM pg_stat_replication) FROM pg_stat_activity WHERE query LIKE 'INSERT%'";
            (primary.psql(waits) == "t").then_some(())
        })
        .await;
        wait_for("walreceiver");
        let new = |facts: &Facts| facts.synchronous_standby_names == "walreceiver";
        facts_until("the new names", &mut prober, new).await;
        waiters::release(&to(&primary), WITHIN).await.unwrap();
        let done = until("the commit", || commit.try_wait().unwrap()).await;
        assert!(done.success());
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}
