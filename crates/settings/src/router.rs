//! `router:`, Baton's own section.

use crate::build::Raw;
use crate::node::{Content, Node};
use crate::problem::Findings;
use crate::secret::{Credentials, Secret};
use crate::values::Values;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

const MAX_SERVICES: usize = 100;
const MAX_CLUSTERS: usize = 100;
const MAX_WEIGHT: u32 = 65_535;

/// The router of this node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Router {
    /// The addresses the services listen on; `*` is every one.
    pub listen: Vec<String>,
    /// How long a new connection is held while no primary is writable.
    pub hold_timeout: Duration,
    /// How many connections may be held at once.
    pub hold_limit: u32,
    pub services: Vec<Service>,
    /// Clusters besides the one of `scope`.
    pub clusters: Vec<Cluster>,
    /// `host:port` of metrics and health; missing means none.
    pub api: Option<String>,
    /// Who may give orders to it.
    pub authentication: Option<Credentials>,
    /// How long the last known truth is used after etcd went out of reach.
    pub etcd_patience: Duration,
    /// Zero is one for each processor.
    pub threads: u32,
    /// Zero is never.
    pub spin: Duration,
    /// `auto`, `epoll` or `io_uring`.
    pub io: String,
    pub max_connections: u32,
    pub handshake_timeout: Duration,
    pub handshake_limit: u32,
    pub connect_timeout: Duration,
    pub drain_timeout: Duration,
    /// Whether transactions that outlast the drain are cut.
    pub drain_cuts: bool,
    /// How long sessions outlast the exchange of the program; zero: as long as they like.
    pub linger: Duration,
    /// Whether each session is logged.
    pub log_connections: bool,
    /// Networks whose PROXY headers are believed: an address and how many of its bits count.
    pub proxy_from: Vec<(IpAddr, u8)>,
    pub keepalive_idle: Duration,
    pub keepalive_interval: Duration,
    pub keepalive_probes: u32,
    /// Zero leaves it to the kernel.
    pub tcp_user_timeout: Duration,
}

/// A cluster besides the one of `scope`, in the same etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cluster {
    pub name: String,
    pub scope: String,
    /// The file's own unless said.
    pub namespace: Option<String>,
    /// A user of etcd of its own.
    pub authentication: Option<Credentials>,
}

/// One port and who is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub name: String,
    pub port: u16,
    /// One of the clusters; that of `scope` unless said.
    pub cluster: Option<String>,
    /// Clusters by the server name that clients of TLS ask for.
    pub names: BTreeMap<String, String>,
    pub role: ServiceRole,
    /// The usual one of the role unless said.
    pub fallback: Option<Fallback>,
    /// Sessions at once.
    pub max_sessions: u32,
    /// Whether it leads to the members' poolers.
    pub pooler: bool,
    /// The port on the members, when it is not PostgreSQL's own (a pooler).
    pub destination_port: Option<u16>,
    pub balance: ServiceBalance,
    pub weights: BTreeMap<String, u32>,
    pub slow_start: Duration,
    pub max_lag: Option<u64>,
    pub max_lag_time: Option<Duration>,
    pub send_proxy: bool,
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    pub keyfile_password: Option<Secret>,
}

/// Who serves a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceRole {
    Primary,
    Replica,
    Sync,
    Any,
    Offline,
}

/// Who serves it when nobody of the role is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    None,
    Primary,
    Replica,
}

/// How sessions are spread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceBalance {
    LeastConn,
    RoundRobin,
}

impl Service {
    fn new(name: String, port: u16, role: ServiceRole) -> Service {
        Service {
            name,
            port,
            cluster: None,
            names: BTreeMap::new(),
            role,
            fallback: None,
            max_sessions: 5000,
            pooler: false,
            destination_port: None,
            balance: ServiceBalance::LeastConn,
            weights: BTreeMap::new(),
            slow_start: Duration::ZERO,
            max_lag: None,
            max_lag_time: None,
            send_proxy: false,
            certfile: None,
            keyfile: None,
            keyfile_password: None,
        }
    }
}

impl Router {
    /// The four services operators know: 5433 primary, 5434 replica, 5436 primary directly, 5438 offline.
    #[must_use]
    pub fn default_services() -> Vec<Service> {
        [
            ("primary", 5433, ServiceRole::Primary),
            ("replica", 5434, ServiceRole::Replica),
            ("default", 5436, ServiceRole::Primary),
            ("offline", 5438, ServiceRole::Offline),
        ]
        .map(|(name, port, role)| Service::new(name.to_owned(), port, role))
        .into()
    }
}

/// The section as meant; without one, the defaults.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Router {
    let values = raw.local;
    let section = |key: &str| raw.root.get("router").and_then(|section| section.get(key));
    let services = match section("services") {
        Some(node) if !node.is_null() => services(node, values, findings),
        _ => Router::default_services(),
    };
    let clusters = match section("clusters") {
        Some(node) if !node.is_null() => clusters(node, values, findings),
        _ => Vec::new(),
    };
    let own = values.text("scope");
    for service in &services {
        let known = |name: &String| own.as_ref() == Some(name) || clusters.iter().any(|c| c.name == *name);
        for name in service.cluster.iter().chain(service.names.values()).filter(|name| !known(name)) {
            let what = format!("service {:?} leads to {name:?}: name it in router.clusters", service.name);
            let place = section("services").map_or(&raw.root.place, |node| &node.place);
            findings.error(place, "router.services", what);
        }
    }
    Router {
        listen: values.texts("router.listen").unwrap_or_default(),
        hold_timeout: values.duration("router.hold_timeout"),
        hold_limit: values.number("router.hold_limit"),
        services,
        clusters,
        api: values.text("router.api"),
        authentication: login(values, "router.authentication"),
        etcd_patience: values.duration("router.etcd_patience"),
        threads: values.number("router.threads"),
        spin: Duration::from_micros(u64::from(values.number::<u32>("router.spin"))),
        io: values.text("router.io").unwrap_or_default(),
        max_connections: values.number("router.max_connections"),
        handshake_timeout: values.duration("router.handshake_timeout"),
        handshake_limit: values.number("router.handshake_limit"),
        connect_timeout: values.duration("router.connect_timeout"),
        drain_timeout: values.duration("router.drain_timeout"),
        drain_cuts: values.text("router.drain_end").as_deref() == Some("cut"),
        linger: values.duration("router.linger"),
        log_connections: values.flag("router.log_connections"),
        proxy_from: networks(values, findings),
        keepalive_idle: values.duration("router.keepalive_idle"),
        keepalive_interval: values.duration("router.keepalive_interval"),
        keepalive_probes: values.number("router.keepalive_probes"),
        tcp_user_timeout: values.duration("router.tcp_user_timeout"),
    }
}

fn login(values: &Values, at: &str) -> Option<Credentials> {
    let username = values.text(&format!("{at}.username"))?;
    Some(Credentials { username, password: values.secret(&format!("{at}.password"))? })
}

fn networks(values: &Values, findings: &mut Findings) -> Vec<(IpAddr, u8)> {
    let key = "router.proxy_from";
    let mut networks = Vec::new();
    for text in values.texts(key).unwrap_or_default() {
        let (address, bits) = text.split_once('/').map_or((text.as_str(), None), |(a, bits)| (a, Some(bits)));
        let address: Option<IpAddr> = address.trim().parse().ok();
        let longest = if address.is_some_and(|address| address.is_ipv4()) { 32 } else { 128 };
        let bits =
            bits.map_or(Some(longest), |bits| bits.trim().parse().ok().filter(|bits| *bits <= longest));
        match address.zip(bits) {
            Some(network) => networks.push(network),
            None => {
                let what =
                    format!("{key} should hold addresses and networks like 10.0.0.0/8, but has {text:?}");
                findings.error(&values.place(key), key, what);
            }
        }
    }
    networks
}

/// A list or a mapping by name: for each entry where it stands, its name if that is the key, and what it is.
fn entries(node: &Node) -> Vec<(String, Option<&str>, &Node)> {
    match &node.content {
        Content::List(items) => {
            items.iter().enumerate().map(|(n, item)| (n.to_string(), None, item)).collect()
        }
        Content::Map(entries) => {
            entries.iter().map(|(key, item)| (key.text.clone(), Some(key.text.as_str()), item)).collect()
        }
        Content::Scalar { .. } => Vec::new(),
    }
}

fn clusters(node: &Node, values: &Values, findings: &mut Findings) -> Vec<Cluster> {
    let mut clusters: Vec<Cluster> = Vec::new();
    for (at, name, item) in entries(node).into_iter().take(MAX_CLUSTERS) {
        let at = format!("router.clusters.{at}");
        let text = |key: &str| values.text(&format!("{at}.{key}"));
        let Some(name) = text("name").or_else(|| name.map(str::to_owned)) else {
            findings.error(&item.place, &at, format!("{at} has no \"name\": add it"));
            continue;
        };
        if clusters.iter().any(|other| other.name == name) || values.text("scope").as_ref() == Some(&name) {
            findings.error(
                &item.place,
                "router.clusters",
                format!("there are two clusters {name:?}: rename one"),
            );
        }
        clusters.push(Cluster {
            scope: text("scope").unwrap_or_else(|| name.clone()),
            name,
            namespace: text("namespace"),
            authentication: login(values, &at),
        });
    }
    clusters
}

/// The services as written: a list, or a mapping whose keys are their names.
fn services(node: &Node, values: &Values, findings: &mut Findings) -> Vec<Service> {
    let mut services: Vec<Service> = Vec::new();
    for (at, name, item) in entries(node).into_iter().take(MAX_SERVICES) {
        if let Some(service) = service(&format!("router.services.{at}"), name, item, values, findings) {
            if services.iter().any(|other| other.port == service.port || other.name == service.name) {
                let what =
                    format!("service {:?} has the name or port of another one: change it", service.name);
                findings.error(&item.place, "router.services", what);
            }
            services.push(service);
        }
    }
    services
}

fn service(
    at: &str,
    name: Option<&str>,
    item: &Node,
    values: &Values,
    findings: &mut Findings,
) -> Option<Service> {
    let text = |key: &str| values.text(&format!("{at}.{key}"));
    let int = |key: &str| values.int(&format!("{at}.{key}"));
    let mut need = |key: &str| findings.error(&item.place, at, format!("{at} has no {key:?}: add it"));
    let name = text("name").or_else(|| name.map(str::to_owned));
    let port = int("port").and_then(|port| u16::try_from(port).ok());
    let role = match text("role").as_deref() {
        Some("primary") => Some(ServiceRole::Primary),
        Some("replica") => Some(ServiceRole::Replica),
        Some("sync") => Some(ServiceRole::Sync),
        Some("any") => Some(ServiceRole::Any),
        Some("offline") => Some(ServiceRole::Offline),
        _ => None,
    };
    for (key, there) in [("name", name.is_some()), ("port", port.is_some()), ("role", role.is_some())] {
        if !there && item.get(key).is_none() {
            need(key);
        }
    }
    let mut service = Service::new(name?, port?, role?);
    service.fallback = match text("fallback").as_deref() {
        Some("none") => Some(Fallback::None),
        Some("primary") => Some(Fallback::Primary),
        Some("replica") => Some(Fallback::Replica),
        _ => None,
    };
    service.cluster = text("cluster");
    service.names = values
        .text_map(&format!("{at}.names"))
        .into_iter()
        .map(|(name, cluster)| (name.to_ascii_lowercase(), cluster))
        .collect();
    service.max_sessions = values.number(&format!("{at}.max_sessions"));
    service.pooler = text("destination").as_deref() == Some("pooler");
    service.destination_port = int("destination_port").and_then(|port| u16::try_from(port).ok());
    if text("balance").as_deref() == Some("round_robin") {
        service.balance = ServiceBalance::RoundRobin;
    }
    for (member, weight) in values.text_map(&format!("{at}.weights")) {
        match weight.parse().ok().filter(|weight| *weight <= MAX_WEIGHT) {
            Some(weight) => drop(service.weights.insert(member, weight)),
            None => {
                let what = format!(
                    "{at}.weights.{member} should be a number from 0 to {MAX_WEIGHT}, not {weight:?}"
                );
                findings.error(&item.place, at, what);
            }
        }
    }
    service.slow_start = values.duration(&format!("{at}.slow_start"));
    service.max_lag = int("max_lag").and_then(|bytes| u64::try_from(bytes).ok());
    service.max_lag_time =
        Some(values.duration(&format!("{at}.max_lag_time"))).filter(|time| !time.is_zero());
    service.send_proxy = values.flag(&format!("{at}.send_proxy"));
    service.certfile = values.path(&format!("{at}.certfile"));
    service.keyfile = values.path(&format!("{at}.keyfile"));
    service.keyfile_password = values.secret(&format!("{at}.keyfile_password"));
    if let Some(what) = contradiction(&service) {
        findings.error(&item.place, at, format!("{at}: {what}"));
    }
    Some(service)
}

/// What does not go together.
fn contradiction(service: &Service) -> Option<&'static str> {
    let alone = matches!(service.role, ServiceRole::Primary | ServiceRole::Any);
    if alone && service.fallback.is_some_and(|fallback| fallback != Fallback::None) {
        return Some("nobody can stand in for this role: leave `fallback` out");
    }
    if service.pooler && service.destination_port.is_some() {
        return Some("give `destination: pooler` or `destination_port`, not both");
    }
    if service.certfile.is_none() && (service.keyfile.is_some() || service.keyfile_password.is_some()) {
        return Some("`keyfile` needs `certfile`");
    }
    None
}
