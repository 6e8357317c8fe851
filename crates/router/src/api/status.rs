//! `/health` and `/services` as values.

use crate::sessions::Line;
use crate::shared::{Cluster, Service, Shared};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use types::NodeName;

/// Sessions listed of each cluster.
const SESSIONS: usize = 1000;

/// A router that holds connections is healthy, too: what counts is that the clusters are known.
pub(super) fn health(shared: &Shared) -> Value {
    let clusters: Vec<Value> = shared.clusters().iter().map(|cluster| of_cluster(cluster)).collect();
    json!({ "clusters": clusters })
}

fn of_cluster(cluster: &Cluster) -> Value {
    let truth = cluster.sessions.truth();
    json!({
        "name": cluster.name,
        "known": truth.is_known(),
        "etcd": if cluster.etcd_lost.load(Ordering::Relaxed) { "lost" } else { "live" },
        "term": truth.term.map(|term| term.0),
        "leader": truth.leader.as_ref().map(|name| name.as_str()),
        "doubted": truth.doubted,
        "unproven": cluster.proof.trouble(clock::now()),
        "primary": truth.primary.as_ref().ok().map(|target| target.name.as_str()),
        "why_no_primary": truth.primary.as_ref().err().map(ToString::to_string),
    })
}

pub(super) fn services(shared: &Shared) -> Value {
    let services = shared.services();
    let clusters: Vec<Value> = shared.clusters().iter().map(|cluster| whole(cluster, &services)).collect();
    let services: Vec<Value> = services.iter().map(|service| of_service(service)).collect();
    json!({
        "connections": shared.connections.get(),
        "waiting": shared.waiting.get(),
        "services": services,
        "clusters": clusters,
        "older_processes": shared.elders.reports(),
    })
}

fn of_service(service: &Service) -> Value {
    let settings = service.settings();
    json!({
        "name": service.name,
        "role": settings.role.as_str(),
        "cluster": settings.cluster,
        "listen": settings.listen.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "sessions": service.open.get(),
        "waiting": service.counts.waiting.get(),
        "max_sessions": settings.max_sessions,
    })
}

fn whole(cluster: &Cluster, services: &[std::sync::Arc<Service>]) -> Value {
    let (sessions, now) = (&cluster.sessions, clock::now());
    let (truth, by_member, drained) = (sessions.truth(), sessions.by_member(), sessions.drained());
    let lagging: BTreeMap<&str, BTreeSet<NodeName>> =
        services.iter().map(|service| (service.name.as_str(), sessions.lagging(&service.name))).collect();
    let pinned = sessions.pinned();
    let members: Vec<Value> = truth
        .members
        .iter()
        .map(|(name, verdict)| {
            let lag = sessions.lag(name, now);
            let behind: Vec<&str> =
                lagging.iter().filter(|(_, who)| who.contains(name)).map(|(service, _)| *service).collect();
            let known = truth.replicas.iter().chain(&truth.offline).find(|target| target.name == *name);
            json!({
                "name": name.as_str(),
                "use": verdict.to_string(),
                "drained": drained.contains(name),
                "pinned_for": pinned_for(&pinned, name),
                "too_far_behind_for": behind,
                "lag_bytes": lag.bytes.or(known.and_then(|target| target.lag)),
                "lag_seconds": lag.time.map(|time| time.as_secs_f64()),
                "sync": known.is_some_and(|target| target.sync),
                "sessions": by_member.get(name).copied().unwrap_or(0),
            })
        })
        .collect();
    let mut all = of_cluster(cluster);
    if let Value::Object(fields) = &mut all {
        fields.insert("handing_over".to_owned(), Value::Bool(truth.handover.is_some()));
        fields.insert("members".to_owned(), Value::Array(members));
        fields.insert("sessions".to_owned(), Value::Array(lines(cluster)));
    }
    all
}

/// The oldest sessions of a cluster, one by one.
pub(super) fn lines(cluster: &Cluster) -> Vec<Value> {
    let now = clock::now();
    let line = |line: Line| {
        json!({
            "client": line.client.to_string(),
            "local": line.local.map(|local| local.to_string()),
            "service": line.service,
            "member": line.member.as_str(),
            "term": line.term.map(|term| term.0),
            "seconds": now.since(line.since).as_secs_f64(),
        })
    };
    cluster.sessions.lines(SESSIONS).into_iter().map(line).collect()
}

/// The services that a person sent to this member.
fn pinned_for<'a>(pinned: &'a BTreeMap<String, BTreeSet<NodeName>>, member: &NodeName) -> Vec<&'a str> {
    let on = pinned.iter().filter(|(_, members)| members.contains(member));
    on.map(|(service, _)| service.as_str()).collect()
}
