//! Slots on a real primary and a real standby.

mod common;
mod sql;

use common::{Scratch, Server, pg_bin, pg_bins};
use postgres::probe::{Prober, Slot};
use postgres::slots::{SlotPlan, ensure_physical, execute};
use sql::{LONG, facts_until, session, to};
use types::Lsn;

async fn slots(server: &Server) -> Vec<Slot> {
    facts_until("the slots", &mut Prober::new(to(server)), |_| true).await.slots
}

fn names(slots: &[Slot]) -> Vec<&str> {
    slots.iter().map(|slot| slot.name.as_str()).collect()
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
            let mut session = session(server).await;
            let wanted = ["node_2".to_owned(), "node_3".to_owned()];
            assert_eq!(ensure_physical(&mut session, &wanted, LONG).await.unwrap(), wanted);
            assert!(ensure_physical(&mut session, &wanted, LONG).await.unwrap().is_empty(), "there already");
            let before = slots(server).await;
            assert_eq!(names(&before), ["node_2", "node_3"]);
            assert!(before.iter().all(|slot| slot.restart_lsn.is_some() && !slot.active), "{before:?}");

            primary.psql("SELECT pg_switch_wal()");
            primary.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)");
            let target = primary.psql("SELECT pg_current_wal_flush_lsn()").parse::<Lsn>().unwrap();
            let there =
                |facts: &postgres::probe::Facts| facts.flush_lsn.max(facts.replayed_lsn) >= Some(target);
            facts_until("the WAL", &mut Prober::new(to(server)), there).await;
            let plan = SlotPlan {
                create: vec!["node_4".to_owned(), "Not A Slot".to_owned()],
                drop: vec!["node_3".to_owned(), "unknown".to_owned()],
                advance: vec![("node_2".to_owned(), target), ("unknown".to_owned(), target)],
            };
            let done = execute(&mut session, &plan, LONG).await.unwrap();
            assert_eq!((done.created, done.dropped), (vec!["node_4".to_owned()], vec!["node_3".to_owned()]));
            assert_eq!(done.advanced, ["node_2"]);
            let [failure] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
            assert_eq!((failure.slot.as_str(), failure.step), ("Not A Slot", "create"));
            let after = slots(server).await;
            assert_eq!(names(&after), ["node_2", "node_4"]);
            assert_eq!(after.first().and_then(|slot| slot.restart_lsn), Some(target));

            // Again, and back: nothing left to do, and never backwards.
            let back = SlotPlan { advance: vec![("node_2".to_owned(), Lsn(1))], ..SlotPlan::default() };
            let done = execute(&mut session, &back, LONG).await.unwrap();
            assert!(done.advanced.is_empty() && done.failed.is_empty(), "{done:?}");
        }
    }
}

#[tokio::test]
async fn a_slot_in_use_is_neither_dropped_nor_moved() {
    let scratch = Scratch::new("slots-busy");
    let primary = Server::init(&scratch, &pg_bin(), "primary");
    primary.start();
    let mut session = session(&primary).await;
    ensure_physical(&mut session, &["node_2".to_owned()], LONG).await.unwrap();
    let standby = primary.standby(&scratch, "standby");
    standby.append("postgresql.conf", "primary_slot_name = 'node_2'\n");
    standby.start();
    let busy = |facts: &postgres::probe::Facts| facts.slots.iter().any(|slot| slot.active);
    facts_until("a busy slot", &mut Prober::new(to(&primary)), busy).await;
    let name = || "node_2".to_owned();
    let plan =
        SlotPlan { drop: vec![name()], advance: vec![(name(), Lsn(u64::MAX >> 1))], ..SlotPlan::default() };
    let done = execute(&mut session, &plan, LONG).await.unwrap();
    let [failure] = done.failed.as_slice() else { panic!("{:?}", done.failed) };
    assert_eq!((failure.step, failure.source.sqlstate()), ("drop", Some("55006")));
    assert!(done.dropped.is_empty() && done.advanced.is_empty());
    assert_eq!(names(&slots(&primary).await), ["node_2"]);
}
