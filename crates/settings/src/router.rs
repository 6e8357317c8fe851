//! `router:`, Baton's own section.

use std::time::Duration;

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
