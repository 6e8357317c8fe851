//! The configuration files of a lab: what an administrator would write for three nodes, with Patroni's keys.

use crate::lab::Spec;
use crate::place::Block;
use crate::wal_disk::WalDisk;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::path::Path;

/// The cluster's name.
pub const SCOPE: &str = "demo";
/// The first part of its etcd keys.
pub const NAMESPACE: &str = "service";
/// The account that clients use.
pub const SUPERUSER: &str = "postgres";

/// The passwords of one lab.
#[derive(Clone)]
pub(crate) struct Passwords {
    pub superuser: String,
    pub replication: String,
    pub rewind: String,
}

/// The name of a node.
#[must_use]
pub(crate) fn node_name(index: usize) -> String {
    format!("n{}", index + 1)
}

/// `agent.yml` of one node, and, as the same file, what the command line reads.
#[must_use]
pub(crate) fn agent(
    spec: &Spec,
    block: &Block,
    passwords: &Passwords,
    index: usize,
    dir: &Path,
    bin_dir: &Path,
) -> Value {
    let address = block.node(index);
    let ports = block.ports;
    let text = |name: &str| dir.join(name).display().to_string();
    let mut file = json!({
        "scope": SCOPE,
        "namespace": NAMESPACE,
        "name": node_name(index),
        "log": { "level": spec.log_level },
        "restapi": {
            "listen": format!("{address}:{}", ports.rest()),
            "connect_address": format!("{address}:{}", ports.rest()),
        },
        "etcd3": { "hosts": etcd_hosts(spec, block) },
        "bootstrap": {
            "dcs": dynamic(spec),
            "initdb": [{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums"],
        },
        "postgresql": {
            "listen": format!("{address}:{}", ports.postgres()),
            "connect_address": format!("{address}:{}", ports.postgres()),
            "data_dir": text("data"),
            "bin_dir": bin_dir.display().to_string(),
            "pgpass": text("pgpass"),
            "authentication": {
                "superuser": { "username": SUPERUSER, "password": passwords.superuser },
                "replication": { "username": "replicator", "password": passwords.replication },
                "rewind": { "username": "rewinder", "password": passwords.rewind },
            },
            "parameters": { "unix_socket_directories": text("run") },
            "pg_hba": pg_hba(&block.sources()),
        },
    });
    if spec.wal_disk.is_some() {
        let wal = WalDisk::wal_dir(dir).display().to_string();
        merge(&mut file, &json!({ "postgresql": { "basebackup": [{ "waldir": wal }] } }));
        let initdb = json!([{ "encoding": "UTF8" }, { "locale": "C" }, "data-checksums", { "waldir": wal }]);
        merge(&mut file, &json!({ "bootstrap": { "initdb": initdb } }));
    }
    if !spec.tags.is_null() && index + 1 == spec.members {
        merge(&mut file, &json!({ "tags": spec.tags }));
    }
    merge(&mut file, &spec.agent);
    file
}

/// `router.yml`.
#[must_use]
pub(crate) fn router(spec: &Spec, block: &Block) -> Value {
    let ports = block.ports;
    let mut file = json!({
        "scope": SCOPE,
        "namespace": NAMESPACE,
        "log": { "level": spec.log_level },
        "etcd3": { "hosts": etcd_hosts(spec, block) },
        "router": {
            "listen": block.router().to_string(),
            "services": [
                { "name": "primary", "port": ports.primary(), "role": "primary" },
                { "name": "replica", "port": ports.replica(), "role": "replica", "fallback": "primary" },
                { "name": "default", "port": ports.direct(), "role": "primary" },
                { "name": "offline", "port": ports.offline(), "role": "offline", "fallback": "replica" },
            ],
        },
    });
    merge(&mut file, &spec.router_file);
    file
}

/// The addresses of the etcd members.
#[must_use]
pub(crate) fn etcd_hosts(spec: &Spec, block: &Block) -> Vec<String> {
    (0..spec.etcd).map(|index| endpoint(block.etcd(index), block.ports.etcd_client())).collect()
}

/// `host:port`.
#[must_use]
pub(crate) fn endpoint(address: Ipv4Addr, port: u16) -> String {
    format!("{address}:{port}")
}

/// Writes a file that only the processes of the lab can read: it holds passwords. JSON is YAML.
#[must_use]
pub(crate) fn yaml(value: &Value) -> String {
    let mut text = String::new();
    render(value, 0, &mut text);
    text
}

fn dynamic(spec: &Spec) -> Value {
    let mut dynamic = json!({
        "postgresql": {
            "use_pg_rewind": true,
            "use_slots": true,
            "parameters": { "max_connections": 100, "shared_buffers": "32MB", "wal_keep_size": "64MB" },
        },
    });
    if let Some(ttl) = spec.ttl {
        // The same proportions as the settings that a cluster is born with: 5, 1, 2.
        merge(
            &mut dynamic,
            &json!({ "ttl": ttl, "loop_wait": 1.max(ttl / 5), "retry_timeout": 1.max(ttl * 2 / 5) }),
        );
    }
    if spec.wal_disk.is_some() {
        let small = json!({ "min_wal_size": "32MB", "max_wal_size": "64MB", "wal_keep_size": "32MB" });
        merge(&mut dynamic, &json!({ "postgresql": { "parameters": small } }));
    }
    merge(&mut dynamic, &spec.dynamic);
    dynamic
}

fn pg_hba(sources: &str) -> Vec<String> {
    vec![
        "local all all scram-sha-256".to_owned(),
        format!("host all all {sources} scram-sha-256"),
        format!("host replication replicator {sources} scram-sha-256"),
    ]
}

/// Lays `over` onto `under`: objects key by key, anything else replaces.
pub(crate) fn merge(under: &mut Value, over: &Value) {
    match (under, over) {
        (_, Value::Null) => {}
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over.clone(),
    }
}

/// Block style, as people write it; scalars as JSON, which YAML understands.
fn render(value: &Value, depth: usize, text: &mut String) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                match value {
                    Value::Object(inner) if !inner.is_empty() => {
                        text.push_str(&format!("{indent}{key}:\n"));
                        render(value, depth + 1, text);
                    }
                    Value::Array(inner) if !inner.is_empty() => {
                        text.push_str(&format!("{indent}{key}:\n"));
                        render(value, depth + 1, text);
                    }
                    scalar => text.push_str(&format!("{indent}{key}: {scalar}\n")),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| text.push_str(&format!("{indent}- {item}\n"))),
        scalar => text.push_str(&format!("{indent}{scalar}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::{merge, yaml};
    use serde_json::json;

    #[test]
    fn files_are_written_as_people_write_them() {
        let value = json!({ "scope": "demo", "etcd3": { "hosts": ["a:1", "b:2"] }, "tags": {}, "n": 3 });
        assert_eq!(
            yaml(&value),
            "scope: \"demo\"\netcd3:\n  hosts:\n    - \"a:1\"\n    - \"b:2\"\ntags: {}\nn: 3\n"
        );
    }

    #[test]
    fn later_words_win_key_by_key() {
        let mut under = json!({ "a": { "b": 1, "c": 2 } });
        merge(&mut under, &json!({ "a": { "c": 3 }, "d": [1] }));
        assert_eq!(under, json!({ "a": { "b": 1, "c": 3 }, "d": [1] }));
        merge(&mut under, &serde_json::Value::Null);
        assert_eq!(under["a"]["b"], 1);
    }
}
