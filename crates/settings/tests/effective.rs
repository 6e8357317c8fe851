//! Local and dynamic configuration together, as PostgreSQL gets it.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

use serde_json::{Value, json};
use settings::{Effective, Settings, ShmemMinimums, dynamic, effective, load_environment};
use std::collections::BTreeMap;

fn settings(postgresql: &str) -> Settings {
    let yaml = format!(
        "{{scope: demo, name: n1, restapi: {{listen: '127.0.0.1:8008'}}, etcd3: {{host: '127.0.0.1:2379'}}, postgresql: \
         {{listen: '127.0.0.1,127.0.0.2:5433', data_dir: /data, authentication: {{replication: {{username: repl}}}}, {postgresql}}}}}"
    );
    let env = BTreeMap::from([("PATRONI_CONFIGURATION".to_owned(), yaml)]);
    load_environment(&env).unwrap().settings
}

fn put_together(local: &str, config: &Value, version: u32, shmem: Option<&ShmemMinimums>) -> Effective {
    effective(&settings(local), &dynamic(config, false).0, version, shmem)
}

fn option<'a>(effective: &'a Effective, name: &str) -> Option<&'a str> {
    effective.command_line.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
}

#[test]
fn controlled_parameters_have_defaults_and_come_from_the_cluster_only() {
    let config = json!({"postgresql": {"parameters": {"max_connections": 200, "work_mem": "4MB", "port": 1, "hot_standby": "off"}}});
    let together = put_together("parameters: {max_connections: 50, work_mem: 8MB}", &config, 150_018, None);
    insta::assert_debug_snapshot!(together.command_line, @r#"
    [
        (
            "listen_addresses",
            "127.0.0.1,127.0.0.2",
        ),
        (
            "port",
            "5433",
        ),
        (
            "cluster_name",
            "demo",
        ),
        (
            "wal_level",
            "replica",
        ),
        (
            "hot_standby",
            "on",
        ),
        (
            "max_connections",
            "200",
        ),
        (
            "max_wal_senders",
            "10",
        ),
        (
            "max_prepared_transactions",
            "0",
        ),
        (
            "max_locks_per_transaction",
            "64",
        ),
        (
            "track_commit_timestamp",
            "off",
        ),
        (
            "max_replication_slots",
            "10",
        ),
        (
            "max_worker_processes",
            "8",
        ),
        (
            "wal_log_hints",
            "on",
        ),
    ]
    "#);
    assert_eq!(together.parameters["work_mem"], "8MB");
    assert_eq!(together.parameters["max_connections"], "200");
    assert_eq!(together.parameters["wal_keep_size"], "128MB");
    assert!(!together.parameters.contains_key("wal_keep_segments"));
    assert_eq!(together.warnings, Vec::<String>::new());
}

#[test]
fn a_controlled_value_below_its_floor_is_not_used() {
    for (name, bad, used) in [
        ("max_connections", json!(5), "100"),
        ("max_connections", json!("many"), "100"),
        ("max_locks_per_transaction", json!(31), "64"),
        ("max_worker_processes", json!(1), "8"),
        ("max_prepared_transactions", json!(-1), "0"),
        ("max_wal_senders", json!(2), "10"),
        ("max_replication_slots", json!(3), "10"),
        ("wal_level", json!("minimal"), "replica"),
        ("track_commit_timestamp", json!("maybe"), "off"),
        ("wal_keep_size", json!("15MB"), "128MB"),
    ] {
        let together = put_together("", &json!({"postgresql": {"parameters": {name: bad}}}), 160_000, None);
        assert_eq!(together.parameters[name], used, "{name}");
        assert_eq!(together.warnings.len(), 1, "{name}: {:?}", together.warnings);
        assert!(together.warnings[0].contains(name), "{:?}", together.warnings);
    }
}

#[test]
fn a_controlled_value_that_is_right_is_used() {
    for (name, good, used) in [
        ("max_connections", json!(25), "25"),
        ("wal_level", json!("logical"), "logical"),
        ("track_commit_timestamp", json!(true), "on"),
        ("wal_keep_size", json!("2GB"), "2GB"),
        ("wal_keep_size", json!(16), "16"),
    ] {
        let together = put_together("", &json!({"postgresql": {"parameters": {name: good}}}), 160_000, None);
        assert_eq!(together.parameters[name], used, "{name}");
    }
}

#[test]
fn old_versions_have_the_old_parameter() {
    let together = put_together("", &json!({}), 120_022, None);
    assert_eq!(together.parameters["wal_keep_segments"], "8");
    assert!(!together.parameters.contains_key("wal_keep_size"));
    assert_eq!(option(&together, "wal_keep_segments"), None);
}

#[test]
fn a_standby_has_at_least_what_its_primary_had() {
    let shmem = ShmemMinimums {
        max_connections: 300,
        max_worker_processes: 8,
        max_wal_senders: 20,
        max_prepared_transactions: 0,
        max_locks_per_transaction: 64,
    };
    let config = json!({"postgresql": {"parameters": {"max_connections": 200, "max_wal_senders": 30}}});
    let together = put_together("", &config, 150_018, Some(&shmem));
    assert_eq!(option(&together, "max_connections"), Some("300"));
    assert_eq!(option(&together, "max_wal_senders"), Some("30"));
    let raised: Vec<_> =
        together.raised.iter().map(|r| (r.name.as_str(), r.configured.as_str(), r.used.as_str())).collect();
    assert_eq!(raised, [("max_connections", "200", "300")]);
}

#[test]
fn local_wins_over_dynamic_where_both_may_speak() {
    let config = json!({"postgresql": {
        "pg_hba": ["host all all 0.0.0.0/0 reject"], "pg_ident": ["m a b"], "use_pg_rewind": true, "use_slots": false,
        "recovery_conf": {"restore_command": "cp", "archive_cleanup_command": "rm"}, "pg_ctl_timeout": 30,
    }});
    let local = "pg_hba: [local all all trust], use_pg_rewind: false, use_slots: true, recovery_conf: {restore_command: scp}";
    let together = put_together(local, &config, 150_018, None);
    assert_eq!(together.pg_hba, Some(vec!["local all all trust".to_owned()]));
    assert_eq!(together.pg_ident, Some(vec!["m a b".to_owned()]));
    assert!(!together.use_pg_rewind);
    assert!(!together.use_slots, "use_slots is dynamic only");
    assert_eq!(together.recovery_conf["restore_command"], "scp");
    assert_eq!(together.recovery_conf["archive_cleanup_command"], "rm");
    assert_eq!(together.pg_ctl_timeout, 30);
    assert_eq!(put_together("", &json!({}), 150_018, None).pg_hba, None);
}

#[test]
fn postgresql_17_is_told_to_keep_failover_slots_on_standbys() {
    let slot = |failover: bool| json!({"slots": {"cdc": {"database": "shop", "plugin": "pgoutput", "failover": failover}}});
    let asked = |config: &Value, version, local: &str| {
        let together = put_together(local, config, version, None);
        let given = |name: &str| together.parameters.get(name).cloned();
        (given("sync_replication_slots"), given("hot_standby_feedback"))
    };
    let on = || Some("on".to_owned());
    assert_eq!(asked(&slot(true), 180_000, ""), (on(), on()));
    assert_eq!(asked(&slot(true), 180_000, "parameters: {sync_replication_slots: off}"), (on(), on()));
    assert_eq!(asked(&slot(true), 160_000, ""), (None, on()), "older ones do not know it");
    assert_eq!(asked(&slot(false), 180_000, ""), (None, on()));
}
