//! `route`: services, members and why each is used or not, sessions.

use crate::table::{Column, Side, draw};
use serde_json::Value;

/// The text for a person, from what `/services` says.
pub(crate) fn route(state: &Value, sessions: bool) -> String {
    let mut out = draw(
        Some(&format!(
            "Services ({} clients, {} waiting)",
            text(&state["connections"]),
            text(&state["waiting"])
        )),
        &columns(&["Service", "Role", "Cluster", "Listens on"], &["Sessions", "Waiting", "At most"]),
        &rows(
            &state["services"],
            &["name", "role", "cluster", "listen", "sessions", "waiting", "max_sessions"],
        ),
    );
    for cluster in list(&state["clusters"]) {
        let (name, term) = (text(&cluster["name"]), text(&cluster["term"]));
        let primary = match cluster["primary"].as_str() {
            Some(primary) => format!("primary {primary}"),
            None => format!("no primary: {}", text(&cluster["why_no_primary"])),
        };
        out.push_str(&format!("\nCluster {name}, term {term}, etcd {}: {primary}\n", text(&cluster["etcd"])));
        if cluster["doubted"] == true {
            out.push_str("Sessions in a pooler of the primary wait: neither etcd nor its agent says just now that it takes writes\n");
        }
        if let Some(why) = cluster["unproven"].as_str() {
            out.push_str(&format!(
                "What cannot be looked at (TLS that is passed on) waits until its agent says that it takes writes: {why}\n"
            ));
        }
        let members: Vec<Vec<String>> = list(&cluster["members"]).iter().map(member).collect();
        out.push_str(&draw(None, &columns(&["Member", "Use"], &["Sessions", "Lag"]), &members));
        if sessions {
            out.push('\n');
            out.push_str(&sessions_of(cluster));
        }
    }
    for older in list(&state["older_processes"]) {
        let [pid, clients, waiting] = ["pid", "connections", "waiting"].map(|field| text(&older[field]));
        out.push_str(&format!(
            "\nProcess {pid}, from before the program was exchanged ({clients} clients, {waiting} waiting)\n"
        ));
        for cluster in list(&older["clusters"]) {
            let counts = rows(&cluster["counts"], &["service", "member", "term", "count"]);
            let title = format!("Cluster {}", text(&cluster["name"]));
            out.push_str(&draw(
                Some(&title),
                &columns(&["Service", "Member"], &["Term", "Sessions"]),
                &counts,
            ));
            if sessions {
                out.push_str(&sessions_of(cluster));
            }
        }
    }
    out
}

fn sessions_of(cluster: &Value) -> String {
    let rows = rows(&cluster["sessions"], &["client", "service", "member", "local", "term", "seconds"]);
    let columns = columns(&["Client", "Service", "Member", "Seen by it as"], &["Term", "Seconds"]);
    draw(None, &columns, &rows)
}

fn member(member: &Value) -> Vec<String> {
    let mut usage = text(&member["use"]);
    if member["sync"] == true {
        usage.push_str(", synchronous");
    }
    if member["drained"] == true {
        usage.push_str("; by order no new sessions");
    }
    let pinned = list(&member["pinned_for"]);
    if !pinned.is_empty() {
        let names: Vec<String> = pinned.iter().map(text).collect();
        usage.push_str(&format!("; by order all new sessions of {}", names.join(", ")));
    }
    let behind = list(&member["too_far_behind_for"]);
    if !behind.is_empty() {
        let names: Vec<String> = behind.iter().map(text).collect();
        usage.push_str(&format!("; too far behind for {}", names.join(", ")));
    }
    let lag = match (member["lag_bytes"].as_u64(), member["lag_seconds"].as_f64()) {
        (Some(bytes), Some(seconds)) => format!("{bytes} B, {seconds:.1} s"),
        (Some(bytes), None) => format!("{bytes} B"),
        (None, _) => String::new(),
    };
    vec![text(&member["name"]), usage, text(&member["sessions"]), lag]
}

fn columns(left: &[&str], right: &[&str]) -> Vec<Column> {
    let column = |heading: &&str, side| Column { heading: (*heading).to_owned(), side };
    let right = right.iter().map(|heading| column(heading, Side::Right));
    left.iter().map(|heading| column(heading, Side::Left)).chain(right).collect()
}

fn rows(list_of: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    list(list_of).iter().map(|row| fields.iter().map(|field| text(&row[*field])).collect()).collect()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Number(number) if number.is_f64() => format!("{:.0}", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::route;
    use serde_json::json;

    #[test]
    fn a_person_sees_who_is_used_and_why_not() {
        let state = json!({
            "connections": 3, "waiting": 1,
            "services": [{"name": "primary", "role": "primary", "cluster": null, "listen": ["0.0.0.0:5433"],
                          "sessions": 2, "waiting": 1, "max_sessions": 5000}],
            "clusters": [{"name": "demo", "term": 17, "etcd": "live", "primary": "pg-1",
                "doubted": true, "unproven": "its agent at http://10.0.0.1:8008/patroni cannot be asked", "members": [
                {"name": "pg-1", "use": "primary", "pinned_for": ["reports", "any"], "sessions": 2},
                {"name": "pg-2", "use": "replica", "drained": true, "sync": true,
                 "too_far_behind_for": ["fresh"], "lag_bytes": 4096, "lag_seconds": 1.25, "sessions": 0},
            ], "sessions": [{"client": "10.0.0.9:4000", "service": "primary", "member": "pg-1",
                             "local": "10.0.0.5:5000", "term": 17, "seconds": 12.3}]}],
            "older_processes": [{"pid": 4711, "connections": 2, "waiting": 1, "clusters": [{"name": "demo",
                "counts": [{"service": "primary", "member": "pg-1", "term": 16, "count": 1}],
                "sessions": [{"client": "10.0.0.8:4000", "service": "primary", "member": "pg-1",
                              "local": "10.0.0.5:5001", "term": 16, "seconds": 99.9}]}]}],
        });
        let text = route(&state, true);
        for wanted in [
            "Services (3 clients, 1 waiting)",
            "| primary | primary |         | 0.0.0.0:5433 |        2 |       1 |    5000 |",
            "Cluster demo, term 17, etcd live: primary pg-1",
            "Sessions in a pooler of the primary wait",
            "says that it takes writes: its agent at http://10.0.0.1:8008/patroni cannot be asked",
            "primary; by order all new sessions of reports, any",
            "replica, synchronous; by order no new sessions; too far behind for fresh",
            "4096 B, 1.2 s",
            "| 10.0.0.9:4000 | primary | pg-1   | 10.0.0.5:5000 |   17 |      12 |",
            "Process 4711, from before the program was exchanged (2 clients, 1 waiting)",
            "| primary | pg-1   |   16 |        1 |",
            "| 10.0.0.8:4000 | primary | pg-1   | 10.0.0.5:5001 |   16 |     100 |",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let short = route(&state, false);
        assert!(!short.contains("10.0.0.9") && !short.contains("10.0.0.8"));
    }
}
