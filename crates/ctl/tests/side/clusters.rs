//! What the members of the compared clusters have written into etcd.

use serde_json::{Value, json};

/// The keys of the cluster of this name, whose members' REST APIs are at these ports.
pub(crate) fn keys(cluster: &str, ports: [u16; 4]) -> Vec<(String, String)> {
    let mut found = match cluster {
        "nothing" => return Vec::new(),
        "rich" => rich(ports),
        "alone" => plain(ports, 1),
        _ => plain(ports, 3),
    };
    let scheduled = json!({"leader": "pg-1", "member": "pg-2", "scheduled_at": "2030-01-01T10:00:00+00:00"});
    match cluster {
        "leaderless" => found.retain(|(key, _)| key != "leader"),
        "paused" => {
            change(&mut found, "config", |config| config["pause"] = json!(true));
            found.push(("failover".into(), scheduled));
        }
        "dead" => found.push(("failover".into(), scheduled)),
        "quorum" => {
            change(&mut found, "config", |config| config["synchronous_mode"] = json!("quorum"));
            found.push(("sync".into(), json!({"leader": "pg-1", "sync_standby": "pg-2,pg-3", "quorum": 1})));
        }
        "standby" => {
            change(&mut found, "config", |config| config["standby_cluster"] = json!({"host": "10.9.9.9"}));
            change(&mut found, "members/pg-1", |member| member["role"] = json!("standby_leader"));
        }
        "odd" => change(&mut found, "config", |config| *config = odd()),
        _ => {}
    }
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    found.into_iter().map(|(key, value)| (key, text(value))).collect()
}

fn change(keys: &mut [(String, Value)], key: &str, with: impl FnOnce(&mut Value)) {
    with(&mut keys.iter_mut().find(|(name, _)| name == key).unwrap().1);
}

fn member(host: &str, port: u16, rest: u16, more: Value) -> Value {
    let mut member = json!({
        "conn_url": format!("postgres://{host}:{port}/postgres"), "api_url": format!("http://127.0.0.1:{rest}/patroni"),
        "state": "running", "role": "replica", "version": "4.1.5"
    });
    for (key, value) in more.as_object().unwrap() {
        member[key] = value.clone();
    }
    member
}

fn replica(host: &str, port: u16, rest: u16) -> Value {
    let positions = json!({"xlog_location": 67108960, "replay_lsn": 63108960, "receive_lsn": 67108960,
        "replication_state": "streaming", "timeline": 3});
    member(host, port, rest, positions)
}

fn plain(ports: [u16; 4], count: usize) -> Vec<(String, Value)> {
    let leader = json!({"role": "primary", "xlog_location": 67108960, "timeline": 3});
    let mut keys = vec![
        ("initialize".to_owned(), json!("7391234567890123456")),
        ("config".to_owned(), json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10})),
        ("leader".to_owned(), json!("pg-1")),
        ("status".to_owned(), json!({"optime": 67108960})),
        ("members/pg-1".to_owned(), member("10.0.0.1", 5432, ports[0], leader)),
    ];
    for number in 2..=count {
        let value = replica(&format!("10.0.0.{number}"), 5432, ports[number - 1]);
        keys.push((format!("members/pg-{number}"), value));
    }
    keys
}

fn rich(ports: [u16; 4]) -> Vec<(String, Value)> {
    let mut keys = plain(ports, 2);
    change(&mut keys, "config", |config| {
        *config = json!({"ttl": 30, "loop_wait": 10, "retry_timeout": 10, "maximum_lag_on_failover": 1048576,
            "synchronous_mode": true, "postgresql": {"use_pg_rewind": true,
            "parameters": {"max_connections": 100, "work_mem": "4MB"}}});
    });
    change(&mut keys, "members/pg-1", |member| {
        member["pending_restart"] = json!(true);
        member["pending_restart_reason"] = json!({"max_connections": {"old_value": "100", "new_value": "200"},
            "wal_level": {"old_value": "replica", "new_value": "logical"}});
        member["tags"] = json!({"clonefrom": true, "zone": "ä"});
    });
    let mut fourth = replica("10.0.0.4", 5433, ports[3]);
    fourth["tags"] = json!({"nofailover": true, "replicatefrom": "pg-2"});
    fourth["scheduled_restart"] =
        json!({"schedule": "2030-01-01T10:00:00+00:00", "postmaster_start_time": "2029-01-01"});
    keys.extend([
        ("members/pg-3".to_owned(), member("10.0.0.3", 5432, ports[2], json!({"state": "starting"}))),
        ("members/pg-4".to_owned(), fourth),
        ("sync".to_owned(), json!({"leader": "pg-1", "sync_standby": "pg-2", "quorum": 0})),
        (
            "history".to_owned(),
            json!([
                [1, 25165984, "no recovery target specified", "2026-11-20T10:00:00.123456+00:00", "pg-2"],
                [2, 50331808, "no recovery target specified"]
            ]),
        ),
    ]);
    keys
}

/// Every kind of value that a document may hold.
fn odd() -> Value {
    json!({
        "long": "word ".repeat(80), "plain": "word ".repeat(80).trim(), "hba": [format!("host all all 0.0.0.0/0 md5 {}", "x".repeat(90))],
        "deep": {"list": [{"a": 1, "b": [1, 2]}, [1, [2]]], "long": "word ".repeat(80).trim()},
        "unicode": "ünï", "lines": "one\ntwo\n\nthree\n", "empty": "", "true": "true", "null": null, "float": 1.5, "big": 1e10,
        "list": [], "map": {}, "quote": "it's", "lead": " x", "tab": "a\tb", "octal": "010", "double": "\"hi\"", "back": "a\\b",
        "percent": "%m [%p]: ", "at": "@x", "colon": "a:b", "hash": "a #b", "date": "2020-01-01", "no": "no", "whole": 123456789012345678_i64,
        "negative": -5, "tilde": "~", "equals": "=", "star": "*x", "bang": "!x", "dash": "-", "dashes": "- x", "question": "? x",
        "url": "http://x/y?z=1", "y": "y", "time": "10:30", "command": "pgbackrest --stanza=main archive-get %f \"%p\" && echo done"
    })
}
