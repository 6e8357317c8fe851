//! What a process whose program was exchanged tells of itself, and what becomes of that in the process that listens now.

use super::status::lines;
use crate::sessions::Tallied;
use crate::shared::{Cluster, Shared};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use types::{NodeName, Term};

/// What this process still has; with each of its sessions, or only their numbers.
pub(crate) fn report(shared: &Shared, each: bool) -> Value {
    let of = |cluster: &Cluster| {
        let spread = cluster.sessions.spread();
        let counted = spread.iter().map(|((service, member, term), count)| {
            json!({"service": service, "member": member.as_str(), "term": term.map(|term| term.0), "count": count})
        });
        let mut all = Map::new();
        all.insert("name".to_owned(), cluster.name.clone().into());
        all.insert("counts".to_owned(), counted.collect());
        if each {
            all.insert("sessions".to_owned(), lines(cluster).into());
        }
        Value::Object(all)
    };
    let clusters: Vec<Value> = shared.clusters().iter().map(|cluster| of(cluster)).collect();
    json!({
        "pid": std::process::id(),
        "connections": shared.connections.get(),
        "waiting": shared.waiting.get(),
        "clusters": clusters,
    })
}

/// The clients of all processes that reported.
pub(super) fn connections(reports: &[Value]) -> u64 {
    reports.iter().filter_map(|report| report.get("connections")?.as_u64()).sum()
}

/// Their sessions in a cluster.
pub(super) fn spread(reports: &[Value], cluster: &str) -> BTreeMap<Tallied, u64> {
    let clusters = reports.iter().filter_map(|report| report.get("clusters")?.as_array()).flatten();
    let own = clusters.filter(|one| one.get("name").and_then(Value::as_str) == Some(cluster));
    let mut spread = BTreeMap::new();
    for counted in own.filter_map(|one| one.get("counts")?.as_array()).flatten() {
        let text = |name: &str| counted.get(name).and_then(Value::as_str).unwrap_or_default();
        let term = counted.get("term").and_then(Value::as_i64).map(Term);
        let tallied = (text("service").to_owned(), NodeName::from(text("member")), term);
        let count = counted.get("count").and_then(Value::as_u64).unwrap_or(0);
        *spread.entry(tallied).or_insert(0) += count;
    }
    spread
}
