//! `router:`, Baton's own section.

use crate::build::Raw;
use crate::node::{Content, Node};
use crate::problem::Findings;
use crate::values::Values;
use std::time::Duration;

const MAX_SERVICES: usize = 100;

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
    /// `host:port` of metrics and health; missing means none.
    pub api: Option<String>,
    /// How long the last known truth is used after etcd went out of reach.
    pub etcd_patience: Duration,
}

/// One port and who is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    pub name: String,
    pub port: u16,
    pub role: ServiceRole,
    pub fallback: Fallback,
    /// Sessions at once.
    pub max_sessions: u32,
    /// The port on the members, when it is not PostgreSQL's own (a pooler).
    pub destination_port: Option<u16>,
}

/// Who serves a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServiceRole {
    Primary,
    Replica,
    Offline,
}

/// Who serves it when nobody of the role is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    None,
    Primary,
    Replica,
}

impl Router {
    /// The four services operators know: 5433 primary, 5434 replica, 5436 primary directly, 5438 offline.
    #[must_use]
    pub fn default_services() -> Vec<Service> {
        let service = |name: &str, port, role, fallback| Service {
            name: name.to_owned(),
            port,
            role,
            fallback,
            max_sessions: 5000,
            destination_port: None,
        };
        vec![
            service("primary", 5433, ServiceRole::Primary, Fallback::None),
            service("replica", 5434, ServiceRole::Replica, Fallback::Primary),
            service("default", 5436, ServiceRole::Primary, Fallback::None),
            service("offline", 5438, ServiceRole::Offline, Fallback::Replica),
        ]
    }
}

/// The section as meant; without one, the defaults.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Router {
    let values = raw.local;
    let services = match raw.root.get("router").and_then(|section| section.get("services")) {
        Some(node) if !node.is_null() => services(node, values, findings),
        _ => Router::default_services(),
    };
    Router {
        listen: values.texts("router.listen").unwrap_or_default(),
        hold_timeout: values.duration("router.hold_timeout"),
        hold_limit: values.number("router.hold_limit"),
        services,
        api: values.text("router.api"),
        etcd_patience: values.duration("router.etcd_patience"),
    }
}

/// The services as written: a list, or a mapping whose keys are their names.
fn services(node: &Node, values: &Values, findings: &mut Findings) -> Vec<Service> {
    let entries: Vec<(String, Option<&str>, &Node)> = match &node.content {
        Content::List(items) => {
            items.iter().enumerate().map(|(n, item)| (n.to_string(), None, item)).collect()
        }
        Content::Map(entries) => {
            entries.iter().map(|(key, item)| (key.text.clone(), Some(key.text.as_str()), item)).collect()
        }
        Content::Scalar { .. } => Vec::new(),
    };
    let mut services: Vec<Service> = Vec::new();
    for (at, name, item) in entries.into_iter().take(MAX_SERVICES) {
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
        Some("offline") => Some(ServiceRole::Offline),
        _ => None,
    };
    for (key, there) in [("name", name.is_some()), ("port", port.is_some()), ("role", role.is_some())] {
        if !there && item.get(key).is_none() {
            need(key);
        }
    }
    let fallback = match text("fallback").as_deref() {
        Some("primary") => Fallback::Primary,
        Some("replica") => Fallback::Replica,
        _ => Fallback::None,
    };
    Some(Service {
        name: name?,
        port: port?,
        role: role?,
        fallback,
        max_sessions: values.number(&format!("{at}.max_sessions")),
        destination_port: int("destination_port").and_then(|port| u16::try_from(port).ok()),
    })
}
