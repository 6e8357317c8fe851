//! What was found, as a YAML that both Baton and Patroni take: sections in the order in which people look for them, comments where
//! somebody has to decide.

use super::running::Running;
use crate::libpq::{TLS, Words};
use crate::yaml;
use serde_json::{Map, Value, json};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;
use types::Secret;

/// What somebody has to put in; `baton check` names what still says it.
const PLACEHOLDER: &str = "#FIXME";

/// What other keys say, or the server alone.
const LEFT_OUT: [&str; 7] = [
    "config_file",
    "data_directory",
    "hba_file",
    "ident_file",
    "synchronous_standby_names",
    "wal_keep_segments",
    "wal_keep_size",
];

/// Commands are those of one host.
const OF_THIS_NODE: [&str; 5] = [
    "archive_command",
    "archive_library",
    "archive_cleanup_command",
    "recovery_end_command",
    "restore_command",
];

/// The host that the file is for.
pub(super) struct Host {
    pub name: String,
    /// Where others reach it.
    pub address: String,
}

impl Host {
    /// This one. Its address is what its name means to itself, else the one from which it would call others.
    pub(super) fn this() -> Host {
        let named = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let name = if named.trim().is_empty() { "localhost" } else { named.trim() }.to_owned();
        let named = (name.as_str(), 0).to_socket_addrs().ok().and_then(|found| {
            found.map(|address| address.ip()).find(|ip| !ip.is_loopback() && matches!(ip, IpAddr::V4(_)))
        });
        // Nothing is sent: a datagram socket only learns its own end.
        let routed = || {
            let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
            socket.connect(SocketAddr::from(([192, 0, 2, 1], 9))).ok()?;
            socket.local_addr().ok().map(|address| address.ip())
        };
        let address = named.or_else(routed).map_or_else(|| name.clone(), |ip| ip.to_string());
        Host { name, address }
    }
}

/// The file. `own` is what the environment says, in the shape of the file.
pub(super) fn text(found: Running, words: &Words, own: Value, host: &Host) -> String {
    let mut sections = sections(found, words, host);
    merge(&mut sections, own);
    let mut text = "# Taken from a running PostgreSQL. Whatever says '#FIXME' is for you to fill in; `baton check FILE` names the rest.\n".to_owned();
    let order = [
        "scope",
        "namespace",
        "name",
        "log",
        "restapi",
        "ctl",
        "etcd3",
        "etcd",
        "bootstrap",
        "postgresql",
        "tags",
    ];
    let rest: Vec<String> = sections.keys().filter(|key| !order.contains(&key.as_str())).cloned().collect();
    for key in order.iter().map(|key| (*key).to_owned()).chain(rest) {
        let Some(section) = sections.get(&key) else { continue };
        if section.is_object() {
            text.push('\n');
        }
        match key.as_str() {
            "etcd3" => text.push_str("# All members of etcd.\n"),
            "bootstrap" => text.push_str(
                "# Becomes the dynamic configuration when the cluster is made or taken over; later `edit-config` changes it.\n",
            ),
            _ => {}
        }
        text.push_str(&yaml::block(&json!({ key: section })));
    }
    text
}

fn sections(mut found: Running, words: &Words, host: &Host) -> Map<String, Value> {
    let own: Map<String, Value> = OF_THIS_NODE
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), Value::from(found.parameters.remove(*name)?))))
        .collect();
    let logs_hints = found.parameters.get("wal_log_hints").is_some_and(|value| value == "on");
    let fixed = |name: &str| settings::is_controlled(name) && settings::controlled_default(name).is_none();
    let kept =
        |name: &String| !LEFT_OUT.contains(&name.as_str()) && !fixed(name) && !postgres::is_decided(name);
    let mut parameters: Map<String, Value> = Map::new();
    for (name, value) in found.parameters.iter().filter(|(name, _)| kept(name)) {
        parameters.insert(name.clone(), Value::from(value.as_str()));
    }
    if let Some(kept) = found.parameters.get("wal_keep_size").filter(|size| *size != "0") {
        parameters.insert("wal_keep_size".to_owned(), Value::from(kept.as_str()));
    }
    let sections = json!({
        "scope": if found.cluster_name.is_empty() { PLACEHOLDER } else { &found.cluster_name },
        "name": host.name,
        "restapi": {"listen": format!("{}:8008", host.address), "connect_address": format!("{}:8008", host.address)},
        "etcd3": {"hosts": ["127.0.0.1:2379"]},
        "bootstrap": {"dcs": {
            "ttl": 30, "loop_wait": 10, "retry_timeout": 10,
            "postgresql": {
                "use_slots": true, "use_pg_rewind": logs_hints || found.data_checksums, "parameters": parameters,
            },
        }},
        "postgresql": postgresql(&found, own, words, host),
        "tags": {"nofailover": false, "noloadbalance": false, "clonefrom": true, "nosync": false},
    });
    match sections {
        Value::Object(sections) => sections,
        _ => Map::new(),
    }
}

fn postgresql(found: &Running, parameters: Map<String, Value>, words: &Words, host: &Host) -> Value {
    let mut superuser = Map::from_iter([("username".to_owned(), Value::from(found.superuser.as_str()))]);
    if let Some(password) = found.password.as_ref().map(Secret::reveal) {
        superuser.insert("password".to_owned(), Value::from(password));
    }
    for word in TLS.into_iter().chain(["sslpassword"]) {
        superuser.extend(words.get(word).map(|value| (word.to_owned(), Value::from(value))));
    }
    let listen = if found.listen_addresses.is_empty() { &host.address } else { &found.listen_addresses };
    let addresses: Vec<&str> = listen.split(',').map(str::trim).collect();
    let loopback = |address: &&&str| {
        **address == "localhost"
            || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback() || ip.is_unspecified())
    };
    let reachable = addresses.iter().find(|address| **address != "*" && !loopback(address));
    let mut section = json!({
        "listen": format!("{}:{}", addresses.join(","), found.port),
        "connect_address": settings::address::join(reachable.unwrap_or(&host.address.as_str()), found.port),
        "data_dir": found.data_dir,
        "authentication": {
            "superuser": superuser,
            "replication": {
                "username": found.replication.as_deref().unwrap_or(PLACEHOLDER), "password": PLACEHOLDER,
            },
        },
        "pg_hba": found.pg_hba,
    });
    let config_dir = Path::new(&found.config_file).parent().filter(|dir| *dir != Path::new(&found.data_dir));
    let more = [
        ("bin_dir", found.bin_dir.as_deref().map(Value::from)),
        ("config_dir", config_dir.map(|dir| Value::from(dir.display().to_string()))),
        ("parameters", (!parameters.is_empty()).then_some(Value::Object(parameters))),
        ("pg_ident", (!found.pg_ident.is_empty()).then(|| Value::from(found.pg_ident.clone()))),
    ];
    if let Value::Object(section) = &mut section {
        section.extend(more.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
    }
    section
}

/// Lays what the environment says over what was found.
fn merge(sections: &mut Map<String, Value>, over: Value) {
    let Value::Object(over) = over else { return };
    if over.contains_key("etcd3") || over.contains_key("etcd") {
        sections.remove("etcd3");
    }
    lay(sections, over);
}

fn lay(under: &mut Map<String, Value>, over: Map<String, Value>) {
    for (key, value) in over {
        match (under.get_mut(&key), value) {
            (Some(Value::Object(under)), Value::Object(value)) => lay(under, value),
            (_, value) => drop(under.insert(key, value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Host, text};
    use crate::commands::generate_config::running::Running;
    use crate::libpq::Words;
    use serde_json::json;

    fn found() -> Running {
        let parameters = [
            ("archive_command", "cp %p /a"),
            ("hot_standby", "on"),
            ("max_connections", "50"),
            ("port", "5433"),
            ("primary_conninfo", "host=x password=secret"),
            ("recovery_target_timeline", "latest"),
            ("wal_log_hints", "on"),
            ("wal_keep_size", "0"),
            ("work_mem", "8MB"),
        ];
        Running {
            superuser: "postgres".to_owned(),
            password: Some("it's".into()),
            replication: None,
            bin_dir: Some("/usr/lib/postgresql/15/bin".to_owned()),
            data_dir: "/data".to_owned(),
            listen_addresses: "127.0.0.1, 10.0.0.7".to_owned(),
            port: 5433,
            cluster_name: String::new(),
            config_file: "/etc/postgresql/15/main/postgresql.conf".to_owned(),
            data_checksums: false,
            parameters: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            pg_hba: vec!["local all all peer".to_owned()],
            pg_ident: Vec::new(),
        }
    }

    #[test]
    fn the_file_says_what_was_found_and_what_is_to_be_filled_in() {
        let words = Words::of_dsn("host=x sslmode=require").unwrap();
        let host = Host { name: "pg-1".to_owned(), address: "10.0.0.7".to_owned() };
        let own = json!({"etcd3": {"hosts": "a:2379,b:2379"}, "scope": "demo"});
        insta::assert_snapshot!(text(found(), &words, own, &host));
    }
}
