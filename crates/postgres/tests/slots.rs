//! Slots on a real primary and a real standby.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod common;
mod sql;

use common::{Scratch, Server, major, pg_bin, pg_bins};
use postgres::probe::{Facts, Prober, Slot};
use postgres::slots::{CopiedSlot, SlotPlan, advance_logical, execute, install, read_logical};
use sql::{LONG, ensure_users, facts_until, lock, to, to_as};
use types::{Lsn, SlotWish};

async fn slots(server: &Server) -> Vec<Slot> {
    facts_until("the slots", &mut Prober::new(to(server)), |_| true).await.slots
}

fn names(slots: &[Slot]) -> Vec<&str> {
    slots.iter().map(|slot| slot.name.as_str()).collect()
}

fn create(names: &[&str]) -> SlotPlan {
    let create = names.iter().map(|name| ((*name).to_owned(), SlotWish::Physical)).collect();
    SlotPlan { create, ..SlotPlan::default() }
}

fn written(server: &Server) -> Lsn {
    server.psql("SELECT pg_current_wal_flush_lsn()").parse().unwrap()
}

async fn wal_is_there(server: &Server, target: Lsn) {
    let there = |facts: &Facts| facts.flush_lsn.max(facts.replayed_lsn) >= Some(target);
    facts_until("the WAL", &mut Prober::new(to(server)), there).await;
}

#[tokio::test]
async fn slots_are_made_moved_and_dropped_on_both_sides() {
    for bin in pg_bins() {
        let scratch = Scratch::new("slots");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.start();
        let standby = primary.standby(&scratch, "standby");
        standby.start();
        for server in [&primary, &standby] {
            let wanted = create(&["node_2", "node_3"]);
            let done = execute(&to(server), &wanted, LONG).await.unwrap();
            assert_eq!(done.created, ["node_2", "node_3"]);
            let again = execute(&to(server), &wanted, LONG).await.unwrap();
            assert!(again.created.is_empty() && again.failed.is_empty(), "there already: {again:?}");
            let before = slots(server).await;
            assert_eq!(names(&before), ["node_2", "node_3"]);
            assert!(before.iter().all(|slot| slot.restart_lsn.is_some() && !slot.active), "{before:?}");

            primary.psql("SELECT pg_switch_wal()");
            primary.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)");
            let target = written(&primary);
            wal_is_there(server, target).await;
            let plan = SlotPlan {
                mark: Vec::new(),
                create: create(&["node_4", "Not A Slot"]).create,
                drop: vec!["node_3".to_owned(), "unknown".to_owned()],
                clear: vec!["node_2".to_owned(), "unknown".to_owned()],
                advance: vec![("node_2".to_owned(), target), ("unknown".to_owned(), target)],
            };
            let done = execute(&to(server), &plan, LONG).await.unwrap();
            assert_eq!((done.created, done.dropped), (vec!["node_4".to_owned()], vec!["node_3".to_owned()]));
            assert_eq!((done.cleared, done.advanced), (vec!["node_2".to_owned()], vec!["node_2".to_owned()]));
            let [failure] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
            assert_eq!((failure.slot.as_str(), failure.step), ("Not A Slot", "create"));
            let after = slots(server).await;
            assert_eq!(names(&after), ["node_2", "node_4"]);
            assert_eq!(after.first().and_then(|slot| slot.restart_lsn), Some(target));

            // Again, and back: nothing left to do, and never backwards.
            let back = SlotPlan { advance: vec![("node_2".to_owned(), Lsn(1))], ..SlotPlan::default() };
            let done = execute(&to(server), &back, LONG).await.unwrap();
            assert!(done.advanced.is_empty() && done.failed.is_empty(), "{done:?}");
        }
    }
}

#[tokio::test]
async fn a_slot_in_use_is_neither_dropped_nor_moved_and_a_deserted_one_lets_go_of_dead_rows() {
    let scratch = Scratch::new("slots-busy");
    let primary = Server::init(&scratch, &pg_bin(), "primary");
    primary.start();
    execute(&to(&primary), &create(&["node_2"]), LONG).await.unwrap();
    let standby = primary.standby(&scratch, "standby");
    standby.append("postgresql.conf", "primary_slot_name = 'node_2'\nhot_standby_feedback = on\n");
    standby.start();
    let busy = |facts: &Facts| facts.slots.iter().any(|slot| slot.active && slot.holds_xmin);
    facts_until("a busy slot", &mut Prober::new(to(&primary)), busy).await;
    let name = || "node_2".to_owned();
    let plan = SlotPlan {
        drop: vec![name()],
        clear: vec![name()],
        advance: vec![(name(), Lsn(u64::MAX >> 1))],
        ..SlotPlan::default()
    };
    let done = execute(&to(&primary), &plan, LONG).await.unwrap();
    let [failure] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
    assert_eq!((failure.step, failure.source.sqlstate()), ("drop", Some("55006")));
    assert!(done.dropped.is_empty() && done.advanced.is_empty() && done.cleared.is_empty());
    assert_eq!(names(&slots(&primary).await), ["node_2"]);

    standby.stop("immediate");
    let deserted = |facts: &Facts| facts.slots.iter().all(|slot| !slot.active);
    let before = facts_until("a deserted slot", &mut Prober::new(to(&primary)), deserted).await.slots;
    assert!(before[0].holds_xmin && before[0].restart_lsn.is_some());
    let clear = SlotPlan { clear: vec![name()], ..SlotPlan::default() };
    assert_eq!(execute(&to(&primary), &clear, LONG).await.unwrap().cleared, [name()]);
    let after = slots(&primary).await;
    assert_eq!(names(&after), ["node_2"]);
    assert!(!after[0].holds_xmin && after[0].restart_lsn.is_some(), "{after:?}");
}

#[tokio::test]
async fn a_logical_slot_is_copied_to_a_standby_moved_there_and_used_after_its_promotion() {
    for bin in pg_bins() {
        let scratch = Scratch::new("slots-copy");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.append("postgresql.conf", "wal_level = logical\n");
        lock(&primary, "scram-sha-256");
        primary.start();
        primary.psql("CREATE DATABASE shop");
        let psql = |server: &Server, sql: &str| {
            let mut psql = server.psql_command(sql);
            psql.args(["--dbname", "shop"]);
            common::run(&mut psql).trim().to_owned()
        };
        psql(&primary, "CREATE TABLE t (word text)");
        psql(&primary, "CREATE PUBLICATION p FOR TABLE t");
        ensure_users(&primary, "secret").await;
        execute(&to(&primary), &create(&["standby"]), LONG).await.unwrap();
        let standby = primary.standby(&scratch, "standby");
        let conf = "wal_level = logical\nprimary_slot_name = 'standby'\nhot_standby_feedback = on\n";
        standby.append("postgresql.conf", conf);
        standby.start();

        let wish =
            SlotWish::Logical { database: "shop".to_owned(), plugin: "pgoutput".to_owned(), failover: false };
        let plan = SlotPlan { create: vec![("cdc".to_owned(), wish.clone())], ..SlotPlan::default() };
        let done = execute(&to(&primary), &plan, LONG).await.unwrap();
        assert_eq!(done.created, ["cdc"], "{done:?}");
        let on_primary = slots(&primary).await;
        assert!(wish.is_met_by(&on_primary[0]) && on_primary[0].catalog_xmin.is_some(), "{on_primary:?}");

        // As the user of pg_rewind, who has no other rights.
        let rewinder = to_as(&primary, "rewinder", "secret");
        let found = read_logical(&rewinder, &["cdc".to_owned(), "unknown".to_owned()], LONG).await.unwrap();
        let [cdc] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((cdc.database.as_str(), cdc.plugin.as_str(), cdc.failover), ("shop", "pgoutput", false));
        assert!(read_logical(&to(&standby), &["cdc".to_owned()], LONG).await.unwrap().is_empty());
        standby.stop("fast");
        let copy = [CopiedSlot { name: "cdc".to_owned(), state: cdc.state.clone() }];
        assert_eq!(install(&standby.data_dir, &copy).unwrap(), ["cdc"]);
        assert!(install(&standby.data_dir, &copy).unwrap().is_empty(), "there already");
        standby.start();
        assert_eq!(names(&slots(&standby).await), ["cdc"], "PostgreSQL {}", major(&bin));

        let changes = "SELECT string_agg(encode(data, 'escape'), ' ') FROM pg_logical_slot_get_binary_changes(\
                       'cdc', NULL, NULL, 'proto_version', '1', 'publication_names', 'p')";
        psql(&primary, "INSERT INTO t VALUES ('first')");
        let seen = psql(&primary, changes);
        assert!(seen.contains("first"), "{seen}");
        let confirmed = slots(&primary).await[0].confirmed_flush_lsn.unwrap();
        wal_is_there(&standby, confirmed).await;
        assert!(advance_logical(&to(&standby), "shop", "cdc", confirmed, LONG).await.unwrap());
        assert!(
            !advance_logical(&to(&standby), "shop", "cdc", confirmed, LONG).await.unwrap(),
            "there already"
        );
        assert_eq!(slots(&standby).await[0].confirmed_flush_lsn, Some(confirmed));

        psql(&primary, "INSERT INTO t VALUES ('second')");
        wal_is_there(&standby, written(&primary)).await;
        primary.stop("immediate");
        standby.pg_ctl(&["promote", "--wait"]);
        psql(&standby, "INSERT INTO t VALUES ('third')");
        let seen = psql(&standby, changes);
        assert!(seen.contains("second") && seen.contains("third"), "no gap: {seen}");
        assert!(!seen.contains("first"), "and no repetition: {seen}");
    }
}

/// PostgreSQL 17 and later keeps these on standbys by itself.
#[tokio::test]
async fn failover_slots_are_made_and_marked() {
    for bin in pg_bins().into_iter().filter(|bin| major(bin) >= 17) {
        let scratch = Scratch::new("failover_slots");
        let primary = Server::init(&scratch, &bin, "primary");
        primary.append("postgresql.conf", "wal_level = logical\n");
        primary.start();
        let wish = |failover| SlotWish::Logical {
            database: "postgres".to_owned(),
            plugin: "pgoutput".to_owned(),
            failover,
        };
        let create = vec![("made".to_owned(), wish(true)), ("marked".to_owned(), wish(false))];
        let plan = SlotPlan { create, ..SlotPlan::default() };
        let done = execute(&to(&primary), &plan, LONG).await.unwrap();
        assert_eq!(done.created, ["made", "marked"], "{done:?}");
        let failover = |slots: &[Slot]| slots.iter().map(|slot| slot.failover).collect::<Vec<_>>();
        assert_eq!(failover(&slots(&primary).await), [true, false]);
        let mark = vec!["marked".to_owned(), "unknown".to_owned()];
        let done = execute(&to(&primary), &SlotPlan { mark, ..SlotPlan::default() }, LONG).await.unwrap();
        assert_eq!((done.marked.len(), done.failed.len()), (1, 1), "{done:?}");
        assert_eq!(failover(&slots(&primary).await), [true, true]);
    }
}
