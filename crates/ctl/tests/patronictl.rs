//! The real patronictl and `baton` under that name, side by side: the same keys in etcd, the same members that answer, the
//! same words and answers. What they print, how they end, what they ask of members and what they leave in etcd is equal.
//!
//!     keys ─▶ namespace of the one,  members of the one   ─▶ patronictl ─▶ outcome ─┐
//!     keys ─▶ namespace of the other, members of the other ─▶ baton     ─▶ outcome ─┴▶ equal?

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;
mod side;

use one_etcd::Etcd;
use side::{Case, Side};
use std::path::PathBuf;

/// The cluster, the words, and what is typed.
const CASES: &[(&str, &str, &str)] = &[
    ("rich", "list SCOPE", ""),
    ("rich", "list SCOPE -f tsv", ""),
    ("rich", "list SCOPE -f json", ""),
    ("rich", "list SCOPE -f yaml", ""),
    ("rich", "list SCOPE -f yml", ""),
    ("plain", "list SCOPE -e -t", ""),
    ("plain", "list -e -f json SCOPE", ""),
    ("plain", "list -e -f tsv SCOPE", ""),
    ("quorum", "list SCOPE", ""),
    ("paused", "list SCOPE", ""),
    ("standby", "list SCOPE", ""),
    ("leaderless", "list SCOPE", ""),
    ("nothing", "list SCOPE", ""),
    ("nothing", "list SCOPE -f yaml", ""),
    ("rich", "topology SCOPE", ""),
    ("leaderless", "topology SCOPE", ""),
    ("rich", "history SCOPE", ""),
    ("rich", "history SCOPE -f tsv", ""),
    ("rich", "history SCOPE -f json", ""),
    ("rich", "history SCOPE -f yaml", ""),
    ("plain", "history SCOPE", ""),
    ("odd", "show-config SCOPE", ""),
    ("nothing", "show-config SCOPE", ""),
    ("rich", "dsn SCOPE", ""),
    ("rich", "dsn SCOPE -r replica", ""),
    ("rich", "dsn SCOPE -m pg-3", ""),
    ("rich", "dsn SCOPE -m pg-3 -r replica", ""),
    ("leaderless", "dsn SCOPE", ""),
    ("rich", "edit-config SCOPE -s ttl=20 --force", ""),
    ("rich", "edit-config SCOPE -s ttl=20", "y\n"),
    ("rich", "edit-config SCOPE -s ttl=20", "n\n"),
    ("rich", "edit-config SCOPE -s ttl=20", ""),
    ("rich", "edit-config SCOPE -s ttl=30 --force", ""),
    ("rich", "edit-config SCOPE -q -s ttl= -s loop_wait=5 -p superuser_reserved_connections=6 --force", ""),
    ("rich", "edit-config SCOPE -s postgresql.parameters.pg_stat_statements.max=10 --force", ""),
    (
        "rich",
        "edit-config SCOPE --apply - --force",
        "ttl: 25\npostgresql:\n  parameters:\n    work_mem: null\n",
    ),
    ("rich", "edit-config SCOPE --apply -", "ttl: 25\n"),
    ("rich", "edit-config SCOPE --replace - --force", "ttl: 25\n"),
    ("rich", "edit-config SCOPE -s ttl --force", ""),
    ("nothing", "edit-config SCOPE -s ttl=20 --force", ""),
    ("plain", "switchover SCOPE --force", ""),
    ("plain", "switchover SCOPE", "\npg-2\n\nwhat\ny\n"),
    ("plain", "switchover SCOPE", "\npg-2\n2030-01-01T10:00+02:00\ny\n"),
    ("plain", "switchover SCOPE", "\npg-2\ntomorrow\n"),
    ("plain", "switchover SCOPE", "\n\n\nn\n"),
    ("plain", "switchover SCOPE", "\n"),
    ("plain", "switchover SCOPE --leader pg-2 --force", ""),
    ("rich", "switchover --candidate pg-4 --force SCOPE", ""),
    ("rich", "switchover SCOPE --candidate pg-2 --primary pg-1 --scheduled now --force", ""),
    ("alone", "switchover SCOPE --force", ""),
    ("leaderless", "switchover SCOPE --force", ""),
    ("paused", "switchover SCOPE --force --candidate pg-2 --scheduled 2030-01-01T10:00+00:00", ""),
    ("standby", "switchover SCOPE", "\npg-2\n\ny\n"),
    ("down", "switchover SCOPE --candidate pg-2 --force", ""),
    ("refusing", "switchover SCOPE --force", ""),
    ("plain", "failover SCOPE --force", ""),
    ("rich", "failover SCOPE", "pg-3\ny\ny\n"),
    ("rich", "failover SCOPE", "pg-3\nn\n"),
    ("leaderless", "failover SCOPE", "pg-2\ny\n"),
    ("plain", "restart SCOPE", "\ny\n15.2\n"),
    ("plain", "restart SCOPE pg-2", "2030-01-01T10:00+00:00\ny\n\n"),
    ("plain", "restart SCOPE pg-9 pg-2 --timeout 1min --force", ""),
    ("plain", "restart SCOPE pg-2 -r leader --force", ""),
    ("plain", "restart SCOPE -r standby-leader --force", ""),
    ("plain", "restart SCOPE pg-2 --pg-version x --force", ""),
    ("rich", "restart SCOPE --pending --force", ""),
    ("rich", "restart SCOPE pg-4 --scheduled 2030-01-01T10:00 --force", ""),
    ("refusing", "restart SCOPE pg-2 --force", ""),
    ("plain", "reload SCOPE", "y\n"),
    ("plain", "reload SCOPE", "n\n"),
    ("plain", "reinit SCOPE pg-2 pg-3 --from-leader", "y\n"),
    ("plain", "reinit SCOPE pg-2", "n\n"),
    ("refusing", "reinit SCOPE pg-2", "y\ny\n"),
    ("plain", "pause SCOPE", ""),
    ("paused", "pause SCOPE", ""),
    ("paused", "resume SCOPE", ""),
    ("refusing", "pause SCOPE", ""),
    ("rich", "flush SCOPE restart", "y\n"),
    ("paused", "flush SCOPE switchover", ""),
    ("plain", "flush SCOPE switchover --force", ""),
    ("dead", "flush SCOPE switchover --force", ""),
    ("plain", "remove SCOPE", "SCOPE\nYes I am aware\npg-1\n"),
    ("plain", "remove SCOPE", "SCOPE\nYes I am aware\npg-2\n"),
    ("plain", "remove SCOPE", "SCOPE\nyes\n"),
    ("plain", "remove SCOPE -f json", "other\n"),
    ("plain", "demote-cluster SCOPE", ""),
    ("plain", "demote-cluster SCOPE --host h", "n\n"),
    ("standby", "demote-cluster SCOPE --host h --force", ""),
    ("plain", "promote-cluster SCOPE", ""),
    ("leaderless", "promote-cluster SCOPE --force", ""),
    ("nothing", "query SCOPE", ""),
    ("nothing", "query SCOPE -c select", ""),
    ("rich", "query SCOPE -c select -m pg-9", ""),
];

#[test]
fn both_say_and_do_the_same() {
    let real = real();
    let etcd = Etcd::start();
    let dir = tempfile::tempdir().unwrap();
    let own = dir.path().join("patronictl");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_baton"), &own).unwrap();
    // Two cases at a time: what takes time is starting an interpreter.
    let halves: Vec<String> = std::thread::scope(|scope| {
        let (etcd, real, own) = (&etcd, &real, &own);
        let run = |half: usize| {
            let sides = [Side::new(&etcd.endpoint, real, half), Side::new(&etcd.endpoint, own, half + 2)];
            let cases = CASES.iter().skip(half).step_by(2);
            cases.filter_map(|case| differs(&sides, &Case::new(*case))).collect::<Vec<_>>().concat()
        };
        let threads = [0, 1].map(|half| scope.spawn(move || run(half)));
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let differences = halves.concat();
    assert!(differences.is_empty(), "patronictl (-) and baton (+) differ:\n{differences}");
}

/// What the two outcomes differ in, if they do.
fn differs(sides: &[Side; 2], case: &Case) -> Option<String> {
    let outcomes = std::thread::scope(|scope| {
        let threads = sides.each_ref().map(|side| scope.spawn(move || side.run(case)));
        threads.map(|thread| thread.join().unwrap())
    });
    let [real, own] = outcomes;
    let diff = similar::TextDiff::from_lines(&real, &own);
    (real != own).then(|| {
        format!("\n### {}: {}\n{}", case.cluster, case.words, diff.unified_diff().context_radius(30))
    })
}

/// The real patronictl.
fn real() -> PathBuf {
    let set = std::env::var("BATON_TEST_PATRONI").unwrap_or_default();
    assert!(!set.is_empty(), "BATON_TEST_PATRONI names no directory: `make setup` prepares the real Patroni");
    PathBuf::from(set).join("patronictl")
}
