//! `/metrics`, in the text of Prometheus: per cluster, per service, and per service, member and term.

use super::older;
use crate::carrier::Carrier;
use crate::metrics::{ServiceCounts, Tally};
use crate::sessions::Tallied;
use crate::shared::{Cluster, Service, Shared};
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use types::exposition;

type OfCluster = (&'static str, &'static str, &'static str, fn(&Cluster) -> u64);
type GaugeOfService = (&'static str, &'static str, fn(&Service) -> usize);
type OfMember = (&'static str, &'static str, fn(&Tally) -> u64);
type OfService = (&'static str, &'static str, &'static str, fn(&ServiceCounts) -> u64);

const CLUSTERS: [OfCluster; 8] = [
    ("term", "gauge", "The newest term seen.", |cluster| {
        cluster.sessions.truth().term.and_then(|term| u64::try_from(term.0).ok()).unwrap_or(0)
    }),
    ("primary_up", "gauge", "Whether new sessions have a primary.", |cluster| {
        cluster.sessions.truth().primary.is_ok().into()
    }),
    ("replicas", "gauge", "Replicas in use.", |cluster| cluster.sessions.truth().replicas.len() as u64),
    ("etcd_lost", "gauge", "Whether etcd is out of reach.", |cluster| {
        cluster.etcd_lost.load(Ordering::Relaxed).into()
    }),
    ("changes_total", "counter", "Changes of the primary or its term.", |cluster| cluster.changes.get()),
    ("drained_members", "gauge", "Members that get no sessions by order.", |cluster| {
        cluster.sessions.drained().len() as u64
    }),
    ("pinned_services", "gauge", "Services sent to certain members by order.", |cluster| {
        cluster.sessions.pinned().len() as u64
    }),
    (
        "unproven_total",
        "counter",
        "Questions whether the primary takes writes to which its agent did not say yes.",
        |cluster| cluster.proof.in_vain.get(),
    ),
];

const SERVICES: [OfService; 13] = [
    ("accepted_total", "counter", "Connections accepted.", |counts| counts.accepted.get()),
    ("sessions_total", "counter", "Sessions opened.", |counts| counts.opened.get()),
    ("cut_total", "counter", "Sessions ended by the router.", |counts| counts.cut.get()),
    ("held_total", "counter", "Connections that had to wait.", |counts| counts.held.get()),
    ("waiting", "gauge", "Connections that wait now.", |counts| counts.waiting.get() as u64),
    ("held_in_vain_total", "counter", "Connections that waited in vain.", |counts| counts.held_in_vain.get()),
    ("refused_total", "counter", "Connections refused.", |counts| counts.refused.get()),
    ("late_total", "counter", "Of these, clients that took too long to say what they want.", |counts| {
        counts.late.get()
    }),
    (
        "accept_failed_total",
        "counter",
        "Failures to accept, for want of file descriptors or memory.",
        |counts| counts.accept_failed.get(),
    ),
    ("connect_failed_total", "counter", "Failed attempts to open a session.", |counts| {
        counts.connect_failed.get()
    }),
    ("cancels_total", "counter", "Requests to cancel a query.", |counts| counts.cancels.get()),
    ("bytes_to_client_total", "counter", "Bytes from servers.", |counts| counts.traffic.to_client.get()),
    ("bytes_to_server_total", "counter", "Bytes from clients.", |counts| counts.traffic.to_server.get()),
];

const GAUGES: [GaugeOfService; 2] = [
    ("sessions", "Open sessions.", |service| service.open.get()),
    ("silent", "Clients that have not said yet what they want.", |service| service.handshakes.get()),
];

const TALLIES: [OfMember; 3] = [
    ("member_sessions_total", "Sessions opened by member and term.", |tally| tally.opened),
    ("member_cut_total", "Sessions ended by the router by member and term.", |tally| tally.cut),
    ("member_connect_failed_total", "Failed attempts to open a session by member and term.", |tally| {
        tally.failed
    }),
];

pub(super) fn metrics(shared: &Shared) -> String {
    let (clusters, services) = (shared.clusters(), shared.services());
    let mut out = String::new();
    for (name, kind, help, read) in CLUSTERS {
        head(&mut out, name, kind, help);
        for cluster in &clusters {
            line(&mut out, name, &[("scope", &cluster.name)], read(cluster));
        }
    }
    for (name, kind, help, read) in SERVICES {
        head(&mut out, name, kind, help);
        for service in &services {
            let scope = scope(shared, service);
            line(&mut out, name, &[("scope", &scope), ("service", &service.name)], read(&service.counts));
        }
    }
    for (name, help, read) in GAUGES {
        head(&mut out, name, "gauge", help);
        for service in &services {
            let scope = scope(shared, service);
            line(&mut out, name, &[("scope", &scope), ("service", &service.name)], read(service) as u64);
        }
    }
    per_member(&mut out, &clusters);
    older(&mut out, shared, &clusters);
    let up = shared.carrier.as_ref().is_some_and(Carrier::is_up);
    let carried = shared.carrier.as_ref().map_or(0, Carrier::carried);
    for (name, kind, help, value) in [
        ("connections", "gauge", "Clients.", shared.connections.get() as u64),
        (
            "carrier_up",
            "gauge",
            "Whether io_uring takes busy sessions: 0 also where router.io is epoll.",
            up.into(),
        ),
        ("carried", "gauge", "Busy sessions that are carried by io_uring.", carried as u64),
        (
            "bulk",
            "gauge",
            "Directions of sessions in which large amounts are moved, in large pieces.",
            shared.bulk.get() as u64,
        ),
        ("reloads_total", "counter", "Configurations taken up since the start.", shared.reloads.get()),
    ] {
        head(&mut out, name, kind, help);
        line(&mut out, name, &[], value);
    }
    out
}

fn per_member(out: &mut String, clusters: &[Arc<Cluster>]) {
    let name = "member_sessions";
    head(out, name, "gauge", "Open sessions by member and term; no term on a replica.");
    for cluster in clusters {
        for (tallied, count) in cluster.sessions.spread() {
            of_member(out, name, cluster, &tallied, count as u64);
        }
    }
    for (name, help, read) in TALLIES {
        head(out, name, "counter", help);
        for cluster in clusters {
            for (tallied, tally) in cluster.sessions.tallies() {
                of_member(out, name, cluster, &tallied, read(&tally));
            }
        }
    }
}

/// What processes that were exchanged for this one still serve.
fn older(out: &mut String, shared: &Shared, clusters: &[Arc<Cluster>]) {
    let reports = shared.elders.reports();
    for (name, help, value) in [
        (
            "older_processes",
            "Processes of before an exchange of the program that still serve sessions.",
            reports.len() as u64,
        ),
        ("older_connections", "Their clients.", older::connections(&reports)),
    ] {
        head(out, name, "gauge", help);
        line(out, name, &[], value);
    }
    let name = "older_member_sessions";
    head(out, name, "gauge", "Their open sessions by member and term; no term on a replica.");
    for cluster in clusters {
        for (tallied, count) in older::spread(&reports, &cluster.name) {
            of_member(out, name, cluster, &tallied, count);
        }
    }
}

fn of_member(out: &mut String, name: &str, cluster: &Cluster, tallied: &Tallied, value: u64) {
    let (service, member, term) = tallied;
    let term = term.map(|term| term.0.to_string()).unwrap_or_default();
    let labels = [
        ("scope", cluster.name.as_str()),
        ("service", service),
        ("member", member.as_str()),
        ("term", &term),
    ];
    line(out, name, &labels, value);
}

/// A service belongs to one cluster, save where clients choose it by name: then it is the one of all others.
fn scope(shared: &Shared, service: &Service) -> String {
    let cluster = shared.cluster(service.settings().cluster.as_deref());
    cluster.map(|cluster| cluster.name.clone()).unwrap_or_default()
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String does not fail.
    let _ = write!(out, "# HELP baton_router_{name} {help}\n# TYPE baton_router_{name} {kind}\n");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: u64) {
    let labels =
        if labels.is_empty() { String::new() } else { format!("{{{}}}", exposition::labels(labels)) };
    let _ = writeln!(out, "baton_router_{name}{labels} {value}");
}
