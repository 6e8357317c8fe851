//! Broken files and what an operator reads about them: file, line, column, what is wrong, what to do.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails by panicking, as tests do")]

use settings::{load, load_router};
use std::collections::BTreeMap;
use std::fs;

const GOOD: &str = "\
scope: demo
name: n1
restapi:
  listen: 127.0.0.1:8008
etcd3:
  host: 127.0.0.1:2379
postgresql:
  listen: 127.0.0.1:5432
  data_dir: /data
  authentication:
    replication:
      username: repl
      password: hunter2
";

/// The errors of a file, then its warnings, with the directory left out.
fn report(yaml: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("patroni.yml");
    fs::write(&file, yaml).unwrap();
    let lines: Vec<String> = match load(&file, &BTreeMap::new()) {
        Ok(loaded) => loaded.warnings.iter().map(|problem| format!("warning: {problem}")).collect(),
        Err(problems) => problems.0.iter().map(ToString::to_string).collect(),
    };
    lines.join("\n").replace(&format!("{}/", directory.path().display()), "")
}

fn with(more: &str) -> String {
    report(&format!("{GOOD}{more}"))
}

fn replaced(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old));
    report(&GOOD.replace(old, new))
}

#[test]
fn a_good_file_has_nothing_to_report() {
    assert_eq!(report(GOOD), "");
}

#[test]
fn unknown_keys_are_named_with_the_nearest_one() {
    insta::assert_snapshot!(replaced("data_dir:", "data_dirr:"), @r#"patroni.yml:9:3: unknown key "postgresql.data_dirr": did you mean "data_dir"?"#);
    insta::assert_snapshot!(with("ttl: 30\npostgres:\n  port: 5432\n"), @r#"
    patroni.yml:14:1: unknown key "ttl": it belongs to "bootstrap.dcs.ttl", move it there
    patroni.yml:15:1: unknown key "postgres": did you mean "postgresql"?
    "#);
    insta::assert_snapshot!(with("bootstrap:\n  dcs:\n    synchronus_mode: on\n    postgresql:\n      parametres: {}\n"), @r#"
    patroni.yml:16:5: unknown key "bootstrap.dcs.synchronus_mode": did you mean "synchronous_mode"?
    patroni.yml:18:7: unknown key "bootstrap.dcs.postgresql.parametres": did you mean "parameters"?
    "#);
}

#[test]
fn wrong_types_say_what_is_expected() {
    insta::assert_snapshot!(replaced("listen: 127.0.0.1:8008", "listen: 127.0.0.1:eight"), @r#"patroni.yml:4:11: restapi.listen should be addresses and port, such as 10.0.0.1:8008 or *:8008, but is "127.0.0.1:eight""#);
    insta::assert_snapshot!(replaced("data_dir: /data", "data_dir: [/data]\n  use_pg_rewind: sometimes"), @r#"
    patroni.yml:9:13: postgresql.data_dir should be a path, but is a list
    patroni.yml:10:18: postgresql.use_pg_rewind should be true or false, but is "sometimes"
    "#);
    insta::assert_snapshot!(with("log: DEBUG\nwatchdog: [off]\n"), @r"
    patroni.yml:14:6: log is a section: indent its keys below it (type, level, traceback_level, format, dateformat, static_fields, max_queue_size, dir, mode, file_num, file_size, loggers, deduplicate_heartbeat_logs)
    patroni.yml:15:11: watchdog is a section: indent its keys below it (mode, device, driver, safety_margin)
    ");
    insta::assert_snapshot!(with("log: {level: LOUD, mode: 0999, file_num: -1}\n"), @r#"
    patroni.yml:14:14: log.level should be one of DEBUG, INFO, WARNING, WARN, ERROR, CRITICAL, NOTSET, FATAL, but is "LOUD"
    patroni.yml:14:26: log.mode should be permissions of a file, such as 0644, but is "0999"
    patroni.yml:14:42: log.file_num should be a whole number from 0 to 10000, but is "-1"
    "#);
    insta::assert_snapshot!(with("bootstrap:\n  dcs:\n    ttl: soon\n  initdb: yes\n"), @r#"
    patroni.yml:16:10: bootstrap.dcs.ttl should be seconds as a whole number from 1 to 86400, or a time like 5min, but is "soon"
    patroni.yml:17:11: bootstrap.initdb should be a list of options like [data-checksums, {encoding: UTF8}], but is "yes"
    "#);
    insta::assert_snapshot!(with("tags:\n  nofailover: perhaps\n  failover_priority: high\n  mine: {a: 1}\n"), @r"
    patroni.yml:15:15: tags.nofailover should be true or false
    patroni.yml:16:22: tags.failover_priority should be a whole number
    patroni.yml:17:9: tags.mine should be a text, but is a mapping
    ");
}

#[test]
fn a_bad_password_is_not_repeated() {
    let report = replaced("password: hunter2", "password: {hunter2: hunter2}");
    insta::assert_snapshot!(report, @r"patroni.yml:13:17: postgresql.authentication.replication.password should be a text (not shown, because it is secret), but is a mapping");
    assert!(!report.contains("hunter2"));
}

#[test]
fn duplicate_keys_are_all_named() {
    insta::assert_snapshot!(with("scope: other\nlog:\n  level: INFO\n  level: DEBUG\n"), @r#"
    patroni.yml:14:1: duplicate key "scope": it is also in line 1; keep one of them
    patroni.yml:17:3: duplicate key "level": it is also in line 16; keep one of them
    "#);
}

#[test]
fn syntax_errors_have_a_place() {
    insta::assert_snapshot!(with("log:\n\tlevel: INFO\n"), @r"patroni.yml:15:2: a tab is used for indentation, which YAML does not allow: use spaces");
    insta::assert_snapshot!(with("log: {level: INFO\n"), @r"patroni.yml:14:6: not valid YAML: unclosed bracket '{'");
    insta::assert_snapshot!(with("log:\n  level: \"INFO\n"), @r"patroni.yml:15:10: not valid YAML: unclosed quote");
    insta::assert_snapshot!(with("---\nscope: second\n"), @r"patroni.yml:14:1: a second YAML document begins here: one file holds one document");
    insta::assert_snapshot!(with("log: *nowhere\n"), @r"patroni.yml:14:6: not valid YAML: while parsing node, found unknown anchor");
}

#[test]
fn missing_keys_say_where_they_belong() {
    insta::assert_snapshot!(report(""), @r#"
    patroni.yml: missing required section "etcd3": add it with hosts, such as `etcd3: {hosts: ["10.0.0.1:2379"]}`
    patroni.yml: missing required key "name": add it (or set PATRONI_NAME). The name of this member, unique in the cluster.
    patroni.yml: missing required key "postgresql.authentication.replication.username": add it (or set PATRONI_REPLICATION_USERNAME). The name of the replication user.
    patroni.yml: missing required key "postgresql.data_dir": add it (or set PATRONI_POSTGRESQL_DATA_DIR). The data directory.
    patroni.yml: missing required key "postgresql.listen": add it (or set PATRONI_POSTGRESQL_LISTEN). Where PostgreSQL listens.
    patroni.yml: missing required key "restapi.listen": add it (or set PATRONI_RESTAPI_LISTEN). Where the REST API listens.
    patroni.yml: missing required key "scope": add it (or set PATRONI_SCOPE). The name of the cluster: the last part of the prefix of its keys in etcd.
    "#);
    insta::assert_snapshot!(report("scope: demo\nname: n1\npostgresql:\n  listen: 127.0.0.1:5432\n"), @r#"
    patroni.yml:1:1: missing required section "etcd3": add it with hosts, such as `etcd3: {hosts: ["10.0.0.1:2379"]}`
    patroni.yml:1:1: missing required key "restapi.listen": add it (or set PATRONI_RESTAPI_LISTEN). Where the REST API listens.
    patroni.yml:3:1: missing required key "postgresql.authentication.replication.username": add it (or set PATRONI_REPLICATION_USERNAME). The name of the replication user.
    patroni.yml:3:1: missing required key "postgresql.data_dir": add it (or set PATRONI_POSTGRESQL_DATA_DIR). The data directory.
    "#);
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    insta::assert_snapshot!(with("consul: {host: x}\nkubernetes:\n  labels: {a: b}\ncitus: {group: 0}\n"), @r"
    patroni.yml:14:1: consul is refused: Baton keeps its state in etcd only: use etcd3
    patroni.yml:15:1: kubernetes is refused: Baton keeps its state in etcd only: use etcd3
    patroni.yml:17:1: citus is refused: Citus is not supported: keep this cluster on Patroni
    ");
}

#[test]
fn what_has_no_effect_is_a_warning() {
    insta::assert_snapshot!(replaced("restapi:", "restapi:\n  verify_client: required"), @"warning: patroni.yml:4:3: restapi.verify_client has no effect without restapi.certfile: plain HTTP knows no certificates");
    insta::assert_snapshot!(with("frobnicate: {a: 1}\nlog:\n  file: /var/log/x\nwatchdog:\n  colour: red\nbootstrap:\n  dcs: {pg_version: 15}\n"), @r#"
    warning: patroni.yml:14:1: unknown key "frobnicate" has no effect: remove it
    warning: patroni.yml:16:3: unknown key "log.file" has no effect: remove it; known here are type, level, traceback_level, format, dateformat, static_fields, max_queue_size, dir, mode, file_num, file_size, loggers, deduplicate_heartbeat_logs
    warning: patroni.yml:18:3: unknown key "watchdog.colour" has no effect: remove it; known here are mode, device, driver, safety_margin
    warning: patroni.yml:20:9: unknown key "bootstrap.dcs.pg_version" has no effect: remove it
    "#);
    let local = "  parameters: {max_connections: 500, port: 1, work_mem: 4MB}
  data_dir:";
    insta::assert_snapshot!(replaced("  data_dir:", local), @r"
    warning: patroni.yml:9:16: postgresql.parameters.max_connections has no effect: it must be equal on all members, set it with `baton edit-config -p`
    warning: patroni.yml:9:38: postgresql.parameters.port has no effect: Baton sets it itself
    ");
    insta::assert_snapshot!(with("tags: {nofailover: true, failover_priority: 1}\netcd: {host: x}\n"), @r"
    warning: patroni.yml:14:8: Conflicting configuration between nofailover: True and failover_priority: 1. Defaulting to nofailover: True
    warning: patroni.yml:15:8: etcd has no effect because etcd3 is given as well: remove one of them
    ");
}

#[test]
fn settings_of_a_node_have_no_effect_on_all() {
    let dcs = "bootstrap:\n  dcs:\n    postgresql:\n      data_dir: /x\n      authentication: {superuser: {password: p}}\n      listen: '*:1'\n    restapi: {listen: 'a:1'}\n    name: n9\n";
    insta::assert_snapshot!(with(dcs), @r"
    warning: patroni.yml:17:7: bootstrap.dcs.postgresql.data_dir has no effect: it counts only in the file of each node, move it there
    warning: patroni.yml:18:7: bootstrap.dcs.postgresql.authentication has no effect: it counts only in the file of each node, move it there
    warning: patroni.yml:19:7: bootstrap.dcs.postgresql.listen has no effect: it counts only in the file of each node, move it there
    warning: patroni.yml:20:5: bootstrap.dcs.restapi has no effect: it counts only in the file of each node, move it there
    warning: patroni.yml:21:5: bootstrap.dcs.name has no effect: it counts only in the file of each node, move it there
    ");
    let (_, warnings) = settings::dynamic(
        &serde_json::json!({"ttl": 30, "postgresql": {"pgpass": "/x", "config_dir": "/y"}, "log": {"level": "DEBUG"}}),
        false,
    );
    insta::assert_snapshot!(warnings.join("\n"), @r"
    postgresql.pgpass has no effect: it counts only in the file of each node, move it there
    postgresql.config_dir has no effect: it counts only in the file of each node, move it there
    log has no effect: it counts only in the file of each node, move it there
    ");
}

#[test]
fn what_was_to_be_filled_in_is_named() {
    insta::assert_snapshot!(replaced("hunter2", "'#FIXME'"), @"warning: patroni.yml:13:17: postgresql.authentication.replication.password still says #FIXME: fill it in");
}

#[test]
fn addresses_that_nobody_can_reach_are_refused() {
    insta::assert_snapshot!(replaced("listen: 127.0.0.1:5432", "listen: '*:5432'"), @r"patroni.yml:8:3: postgresql.listen names no address that the other members could reach: set postgresql.connect_address to one, as host:port");
    insta::assert_snapshot!(replaced("listen: 127.0.0.1:8008", "listen: 0.0.0.0:8008\n  connect_address: 0.0.0.0:8008"), @r"patroni.yml:5:3: restapi.connect_address names no address that the other members could reach: set restapi.connect_address to one, as host:port");
}

#[test]
fn etcd_members_are_checked() {
    insta::assert_snapshot!(replaced("host: 127.0.0.1:2379", "hosts: ['a:1', 'b:port', 'ftp://c']"), @r#"
    patroni.yml:6:3: etcd3.hosts: "b:port" is no etcd member: write host:port or http://host:port
    patroni.yml:6:3: etcd3.hosts: "ftp://c" is no etcd member: write host:port or http://host:port
    "#);
    insta::assert_snapshot!(replaced("host: 127.0.0.1:2379", "hosts: []"), @r"patroni.yml:6:3: etcd3.hosts is empty: list at least one etcd member as host:port");
    insta::assert_snapshot!(replaced("host: 127.0.0.1:2379", "host: a\n  cert: /x"), @r"patroni.yml:7:3: etcd3.cert is given without etcd3.key: give both");
    insta::assert_snapshot!(replaced("host: 127.0.0.1:2379", "url: gopher://root:hunter2@a"), @r#"patroni.yml:6:3: etcd3.url: "********" is no etcd member: write host:port or http://host:port"#);
}

#[test]
fn services_of_a_router_are_checked() {
    let services = "router:\n  services:\n    - {name: a, port: 5433, role: primary}\n    - {name: b, port: 5433, role: leader}\n    - {port: 1, rol: primary}\n    - {name: a, port: 2, role: replica, fallback: none}\n";
    insta::assert_snapshot!(with(services), @r#"
    patroni.yml:17:35: router.services.1.role should be one of primary, replica, sync, any, offline, but is "leader"
    patroni.yml:18:7: router.services.2 has no "name": add it
    patroni.yml:18:7: router.services.2 has no "role": add it
    patroni.yml:18:17: unknown key "router.services.2.rol": did you mean "role"?
    patroni.yml:19:7: service "a" has the name or port of another one: change it
    "#);
}

#[test]
fn what_does_not_go_together_in_a_router_is_said() {
    let text = "router:\n  proxy_from: [10.0.0.0/8, 10.0.0.0/33, nobody]\n  clusters:\n    - {name: other}\n    - {scope: nameless}\n    - {name: other}\n  services:\n    - {name: a, port: 1, role: primary, fallback: replica}\n    - {name: b, port: 2, role: any, cluster: third}\n    - {name: c, port: 3, role: replica, weights: {pg-1: heavy}, destination: pooler, destination_port: 7}\n    - {name: d, port: 4, role: replica, keyfile: /x}\n";
    insta::assert_snapshot!(with(text), @r#"
    patroni.yml:15:3: router.proxy_from should hold addresses and networks like 10.0.0.0/8, but has "10.0.0.0/33"
    patroni.yml:15:3: router.proxy_from should hold addresses and networks like 10.0.0.0/8, but has "nobody"
    patroni.yml:18:7: router.clusters.1 has no "name": add it
    patroni.yml:19:7: there are two clusters "other": rename one
    patroni.yml:21:5: service "b" leads to "third": name it in router.clusters
    patroni.yml:21:7: router.services.0: nobody can stand in for this role: leave `fallback` out
    patroni.yml:23:7: router.services.2.weights.pg-1 should be a number from 0 to 65535, not "heavy"
    patroni.yml:23:7: router.services.2: give `destination: pooler` or `destination_port`, not both
    patroni.yml:24:7: router.services.3: `keyfile` needs `certfile`
    "#);
}

#[test]
fn limits_hold() {
    let deep = format!("tags: {}1{}\n", "[".repeat(60), "]".repeat(60));
    insta::assert_snapshot!(with(&deep), @r"patroni.yml:14:46: more than 40 levels of nesting: flatten the file");
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, before) in ["b", "c", "d", "e", "f", "g"].iter().zip(["a", "b", "c", "d", "e", "f"]) {
        bomb.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{before}"); 10].join(", ")));
    }
    insta::assert_snapshot!(report(&bomb), @r"patroni.yml:4:7: more than 100000 values, aliases counted in full: shorten the file");
    insta::assert_snapshot!(report(&"# far too long\n".repeat(100_000)), @r"patroni.yml: cannot be read: larger than 1048576 bytes: is it the right file?");
}

#[test]
fn a_file_that_is_not_there_is_said() {
    let path = std::path::Path::new("/nonexistent/patroni.yml");
    insta::assert_snapshot!(load(path, &BTreeMap::new()).unwrap_err(), @r"/nonexistent/patroni.yml: there is no such file: give the path of the settings");
    let empty = tempfile::tempdir().unwrap();
    let problems = load(empty.path(), &BTreeMap::new()).unwrap_err().to_string();
    insta::assert_snapshot!(problems.replace(&empty.path().display().to_string(), "conf.d"), @r"conf.d: the directory has no *.yml or *.yaml file: put the settings there");
}

#[test]
fn a_router_needs_less() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("router.yml");
    fs::write(&file, "scope: demo\netcd3: {host: a}\nrestapi: {certfile: /x}\nconsul: {}\n").unwrap();
    assert_eq!(load_router(&file, &BTreeMap::new()).unwrap().router.services.len(), 4);
    fs::write(&file, "router: {hold_timeout: long, lisetn: 1}\n").unwrap();
    let problems = load_router(&file, &BTreeMap::new()).unwrap_err().to_string();
    insta::assert_snapshot!(problems.replace(&format!("{}/", directory.path().display()), ""), @r#"
    router.yml:1:1: missing required section "etcd3": add it with hosts, such as `etcd3: {hosts: ["10.0.0.1:2379"]}`
    router.yml:1:1: missing required key "scope": add it (or set PATRONI_SCOPE). The name of the cluster: the last part of the prefix of its keys in etcd.
    router.yml:1:24: router.hold_timeout should be a time like 15s, 500ms or 2min, but is "long"
    router.yml:1:30: unknown key "router.lisetn": did you mean "listen"?
    "#);
}

#[test]
fn a_method_that_cannot_run_is_an_error_now_and_not_at_the_next_clone() {
    let broken = "  create_replica_methods: [pgbackrest, mine, basebackup]\n  pgbackrest: {keep_data: true}\n  data_dir:";
    let report = replaced("  data_dir:", broken);
    for part in [
        "patroni.yml:10:3: postgresql.pgbackrest has no command: give it one, or take pgbackrest off the list",
        "patroni.yml:9:3: postgresql.create_replica_methods names mine, but there is no section postgresql.mine: add it with a command",
    ] {
        assert!(report.contains(part), "{report}");
    }
}
