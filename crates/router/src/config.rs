//! What a router is told: its services, its limits, its patience.

use http::Client;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Everything the router needs to know besides etcd. Built by [`Config::new`], then changed field by field.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's name (`scope`), for log lines, metrics and the messages clients read.
    pub cluster: String,
    /// What is offered, one entry for each port.
    pub services: Vec<Service>,
    /// Where `/health`, `/metrics` and `/services` are served; `None` serves them nowhere.
    pub api: Option<SocketAddr>,
    /// How agents are asked while etcd is away.
    pub agents: Client,
    pub hold: Hold,
    pub handshake: Handshake,
    pub backend: Backend,
    pub truth: TruthLimits,
    pub tcp: Tcp,
    /// How long sessions get at the end to take their last message.
    pub stop_timeout: Duration,
}

/// One port and what is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The name in log lines and metrics.
    pub name: String,
    /// The addresses it listens on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    pub role: Role,
    /// Which port of a member it leads to.
    pub destination: Destination,
    /// Sessions at once; the next one is refused with SQLSTATE 53300.
    pub max_sessions: usize,
    /// Replicas further behind than so many bytes of WAL are left out.
    pub max_lag: Option<u64>,
}

/// Which members serve a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The primary, while it accepts writes.
    Primary,
    /// The replicas; the primary only when no replica is left.
    Replica,
    /// Members tagged `offline` or `pg_offline_query`, else replicas; never the primary.
    Offline,
}

impl Role {
    /// The word in log lines and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Offline => "offline",
        }
    }
}

/// The port of a member that a service leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// PostgreSQL itself, at the port in the member's `conn_url`.
    Postgres,
    /// Another port of the same host, such as a pooler's 6432.
    Port(u16),
}

/// Waiting for a target that is not there yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hold {
    /// How long a new connection waits before it is told 57P03.
    pub timeout: Duration,
    /// How many may wait at once, over all services.
    pub limit: usize,
}

/// Limits on clients that have not yet said what they want.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handshake {
    /// The longest startup packet; PostgreSQL's own limit.
    pub packet_bytes: usize,
    /// The time in which it has to arrive.
    pub timeout: Duration,
    /// How many connections of a service may be at this stage at once.
    pub limit: usize,
}

/// Opening a connection to a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backend {
    /// How long the connection may take to open.
    pub connect_timeout: Duration,
    /// The pause before the next attempt after a failed one.
    pub retry_pause: Duration,
    /// How long PostgreSQL may take to answer the first packet.
    pub answer_timeout: Duration,
}

/// How long what was once seen is believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TruthLimits {
    /// How long the last state holds while etcd is out of reach; after it only the primary's agent keeps sessions alive.
    /// Twice the `ttl` of a cluster born under Baton: by then a primary that lost its lease has stopped itself.
    pub etcd_patience: Duration,
    /// How long one "yes, I am the primary" of that agent holds.
    pub vouch_lifetime: Duration,
    /// How long a replica that has stopped streaming still gets sessions: replicas change their source after a failover.
    pub streaming_grace: Duration,
    /// How long sessions of a replica outlive its member key: agents are restarted.
    pub gone_grace: Duration,
}

/// Options of every socket, on both sides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tcp {
    /// Silence before the first keepalive probe.
    pub keepalive_idle: Duration,
    /// The time between probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes that end a connection, when `user_timeout` is `None`.
    pub keepalive_probes: u32,
    /// How long sent data may stay unacknowledged (TCP_USER_TIMEOUT). It also ends a connection whose living peer does
    /// not read for so long, and the kernel then waits so long for keepalive answers too: hence not a few seconds.
    pub user_timeout: Option<Duration>,
}

impl Config {
    /// The four usual services (5433 primary, 5434 replica, 5436 default, 5438 offline) on one address.
    #[must_use]
    pub fn new(cluster: impl Into<String>, listen: IpAddr) -> Config {
        Config {
            cluster: cluster.into(),
            services: vec![
                Service::new("primary", SocketAddr::new(listen, 5433), Role::Primary),
                Service::new("replica", SocketAddr::new(listen, 5434), Role::Replica),
                Service::new("default", SocketAddr::new(listen, 5436), Role::Primary),
                Service::new("offline", SocketAddr::new(listen, 5438), Role::Offline),
            ],
            api: None,
            agents: Client::for_members(&settings::Ctl::default()),
            hold: Hold { timeout: Duration::from_secs(15), limit: 10_000 },
            handshake: Handshake { packet_bytes: 10_000, timeout: Duration::from_secs(10), limit: 2_000 },
            backend: Backend {
                connect_timeout: Duration::from_secs(1),
                retry_pause: Duration::from_millis(50),
                answer_timeout: Duration::from_secs(60),
            },
            truth: TruthLimits {
                etcd_patience: Duration::from_secs(10),
                vouch_lifetime: Duration::from_secs(3),
                streaming_grace: Duration::from_secs(10),
                gone_grace: Duration::from_secs(10),
            },
            tcp: Tcp {
                keepalive_idle: Duration::from_secs(10),
                keepalive_interval: Duration::from_secs(5),
                keepalive_probes: 3,
                user_timeout: Some(Duration::from_secs(60)),
            },
            stop_timeout: Duration::from_secs(2),
        }
    }
}

impl Service {
    /// A service with the usual limits that leads to PostgreSQL itself.
    #[must_use]
    pub fn new(name: impl Into<String>, listen: SocketAddr, role: Role) -> Service {
        Service {
            name: name.into(),
            listen: vec![listen],
            role,
            destination: Destination::Postgres,
            max_sessions: 5_000,
            max_lag: None,
        }
    }
}
