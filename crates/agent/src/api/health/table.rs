//! The truth table of the contract, row by row, and what holds of every state there can be.

use super::check::{Facts, Is, is_ready, passes};
use crate::api::query::Query;
use types::{Lsn, TagValue, Tags};

/// The columns of the table, each with the spellings of its path.
const PATHS: [&[&str]; 11] = [
    &["", "primary", "read-write", "master"],
    &["leader"],
    &["standby-leader", "standby_leader"],
    &["replica", "foo-replica-x"],
    &["read-only"],
    &["sync", "synchronous"],
    &["async", "asynchronous"],
    &["quorum"],
    &["read-only-sync", "read-only-synchronous"],
    &["read-only-quorum"],
    &["health"],
];

fn facts(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = Facts {
        postgres: Is::Standby,
        running: true,
        readable: true,
        leader_lsn: Some(Lsn(1000)),
        received: Some(Lsn(950)),
        replayed: Some(Lsn(900)),
        replication_state: Some("streaming"),
        ..Facts::default()
    };
    change(&mut facts);
    facts
}

fn primary(facts: &mut Facts) {
    facts.postgres = Is::Primary;
    facts.replication_state = None;
}

/// The answers for one state as the contract writes them: a digit for each column, 2 is 200 and 5 is 503.
fn row(facts: &Facts, query: &str) -> String {
    let query = Query::parse(query);
    let code = |path: &str| if passes(path, &query, facts, false) { '2' } else { '5' };
    PATHS
        .iter()
        .map(|paths| {
            let first = code(paths[0]);
            assert!(paths.iter().all(|path| code(path) == first), "{paths:?} do not agree for {facts:?}");
            first
        })
        .collect()
}

/// What is changed of an ordinary replica, what is asked, and what must be answered.
type Row = (&'static str, &'static str, fn(&mut Facts), &'static str);

fn alone(facts: &mut Facts) {
    facts.paused = true;
    facts.readable = false;
}

fn noloadbalance(facts: &mut Facts) {
    facts.tags = Tags([("noloadbalance".to_owned(), TagValue::Bool(true))].into());
}

#[rustfmt::skip]
const ROWS: [Row; 22] = [
    ("primary with lock", "", |f| { primary(f); f.leads = true; }, "22552555222"),
    ("lock held, PostgreSQL is down", "", |f| { primary(f); f.leads = true; f.running = false; }, "22552555225"),
    ("lock held, PostgreSQL never answered", "",
        |f| { f.leads = true; f.running = false; f.postgres = Is::Unknown; }, "22552555225"),
    ("primary without lock", "", primary, "55555555552"),
    ("primary without lock, paused", "", |f| { primary(f); f.paused = true; }, "55555555552"),
    ("async replica", "", |_| (), "55522525552"),
    ("sync standby", "", |f| f.sync = true, "55522255252"),
    ("quorum standby", "", |f| f.quorum = true, "55522552522"),
    ("noloadbalance", "", noloadbalance, "55555555552"),
    ("sync standby with noloadbalance", "", |f| { noloadbalance(f); f.sync = true; }, "55555555552"),
    ("quorum standby with noloadbalance", "", |f| { noloadbalance(f); f.quorum = true; }, "55555555552"),
    ("lag too big", "lag=99", |_| (), "55555555552"),
    ("sync standby, lag too big", "lag=99", |f| f.sync = true, "55555555552"),
    ("lag just right", "lag=100", |_| (), "55522525552"),
    ("a lag that is none", "lag=much", |_| (), "55522525552"),
    ("replica, not running", "", |f| f.running = false, "55555555555"),
    ("standby leader", "", |f| { f.leads = true; f.standby_cluster = true; }, "52252555222"),
    ("replica in a standby cluster", "", |f| f.standby_cluster = true, "55522525552"),
    ("primary, paused, etcd gone", "", |f| { primary(f); alone(f); }, "22552555552"),
    ("standby leader, paused, etcd gone", "",
        |f| { alone(f); f.standby_cluster = true; f.led = true; }, "52252555552"),
    ("replica, paused, etcd gone", "", alone, "55522555552"),
    ("replica, etcd gone", "", |f| f.readable = false, "55522555552"),
];

#[test]
fn the_truth_table_holds_row_by_row() {
    for (what, query, change, codes) in ROWS {
        assert_eq!(row(&facts(change), query), codes, "{what}");
    }
}

#[test]
fn a_writable_primary_is_more_than_one_with_the_lock() {
    let passes =
        |query: &str, strict: bool, facts: &Facts| passes("primary", &Query::parse(query), facts, strict);
    let mut leader = facts(|f| {
        primary(f);
        f.leads = true;
    });
    assert!(passes("", false, &leader) && !passes("writable", false, &leader) && !passes("", true, &leader));
    leader.writable = true;
    assert!(passes("writable", false, &leader) && passes("", true, &leader));
    leader.running = false;
    assert!(passes("", false, &leader) && !passes("writable", false, &leader));
}

#[test]
fn tags_and_the_state_of_replication_are_asked_for() {
    let tagged = facts(|f| f.tags = Tags([("dc".to_owned(), TagValue::Text("east".to_owned()))].into()));
    assert_eq!(row(&tagged, "tag_dc=east"), "55522525552");
    assert_eq!(row(&tagged, "tag_dc=west"), "55555555555");
    assert_eq!(row(&tagged, "tag_rack=1"), "55555555555");
    let leader = facts(|f| {
        primary(f);
        f.leads = true;
    });
    assert_eq!(row(&leader, "tag_dc=east"), "22555555555", "leaders are found whatever their tags");
    assert_eq!(row(&facts(|_| ()), "replication_state=streaming"), "55522525552");
    assert_eq!(row(&facts(|_| ()), "replication_state=in%20archive%20recovery"), "55555555552");
}

#[test]
fn ready_is_who_leads_or_streams_near_the_leader() {
    let ready = |query: &str, facts: &Facts| is_ready(&Query::parse(query), facts, 99);
    let replica = facts(|_| ());
    assert!(!ready("", &replica) && ready("lag=100", &replica) && ready("mode=write", &replica));
    assert!(!ready("mode=write&lag=49", &replica) && !ready("mode=apply", &replica));
    assert!(!ready("lag=100", &facts(|f| f.replication_state = Some("in archive recovery"))));
    assert!(!ready("lag=100", &facts(|f| f.running = false)));
    assert!(ready(
        "",
        &facts(|f| {
            f.leads = true;
            f.running = false;
        })
    ));
    assert!(!ready("", &facts(|f| f.leader_lsn = None)));
    assert!(ready(
        "",
        &facts(|f| {
            f.leader_lsn = None;
            f.failsafe = true;
        })
    ));
}

#[test]
fn no_state_answers_two_roles_at_once() {
    for bits in 0..1_u32 << 10 {
        for postgres in [Is::Unknown, Is::Primary, Is::Standby] {
            let bit = |at: u32| bits >> at & 1 == 1;
            let state = facts(|f| {
                (f.postgres, f.leads, f.led, f.standby_cluster) = (postgres, bit(0), bit(1), bit(2));
                (f.running, f.writable, f.paused, f.readable) = (bit(3), bit(4), bit(5), bit(6));
                (f.sync, f.quorum) = (bit(7), bit(8));
                if bit(9) {
                    noloadbalance(f);
                }
            });
            let passes = |path: &str| passes(path, &Query::parse(""), &state, false);
            let (primary, standby_leader) = (passes("primary"), passes("standby-leader"));
            assert!(!(primary && standby_leader), "{state:?}");
            assert_eq!(passes("leader"), primary || standby_leader, "{state:?}");
            assert_eq!(passes("read-only"), passes("leader") || passes("replica"), "{state:?}");
            assert!(!(passes("async") && (passes("sync") || passes("quorum"))), "{state:?}");
            assert!(!passes("replica") || state.running && state.postgres == Is::Standby, "{state:?}");
            let strict = super::check::passes("primary", &Query::parse("writable"), &state, false);
            assert!(!strict || primary && state.running && state.writable, "{state:?}");
        }
    }
}
