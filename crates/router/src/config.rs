//! What a router is told: its clusters, its services, its limits, its patience.

use http::{Client, Credentials};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use types::NodeName;

/// Everything the router needs to know. Built by [`Config::new`], then changed field by field.
#[derive(Clone, Debug)]
pub struct Config {
    /// The clusters it leads to; the first is the one of services that name none.
    pub clusters: Vec<Cluster>,
    /// What is offered, one entry for each port.
    pub services: Vec<Service>,
    /// Where `/health`, `/metrics` and `/services` are served; `None` serves them nowhere.
    pub api: Option<SocketAddr>,
    /// Who may change something by the API; without it only requests from this host may.
    pub login: Option<Credentials>,
    /// How agents are asked for their positions, and while etcd is away.
    pub agents: Client,
    /// Threads that serve clients.
    pub threads: usize,
    /// How long the processor looks for the next message of a session that is alone on its thread, before the thread sleeps.
    pub spin: Duration,
    /// How the bytes of busy sessions are moved.
    pub io: Io,
    /// So many messages within a second make a session busy.
    pub busy: u32,
    /// Clients at once, over all services.
    pub max_connections: usize,
    /// Networks of load balancers whose PROXY headers are believed.
    pub proxy_from: Vec<Network>,
    pub drain: Drain,
    pub hold: Hold,
    pub handshake: Handshake,
    pub backend: Backend,
    pub truth: TruthLimits,
    pub tcp: Tcp,
    /// How long sessions may go on after another process has taken over; zero: until they end by themselves.
    pub linger: Duration,
    /// How long sessions get at the end to take their last message.
    pub stop_timeout: Duration,
}

/// How the bytes of busy sessions are moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Io {
    /// By io_uring where the kernel has it for us.
    Auto,
    /// As all others.
    Epoll,
    /// By io_uring; the router does not start where it is not to be had.
    Uring,
}

/// One cluster and where its keys are.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The cluster's name, for log lines, metrics and the messages clients read.
    pub name: String,
    pub etcd: etcd::Config,
    pub keys: etcd::Keys,
}

/// One port and what is behind it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// The name in log lines and metrics.
    pub name: String,
    /// The addresses it listens on; port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// Its cluster; `None` for the first of the configuration.
    pub cluster: Option<String>,
    /// Clusters by the server name that clients of TLS ask for.
    pub names: BTreeMap<String, String>,
    pub role: Role,
    /// Who stands in when nobody of the role is left.
    pub fallback: Fallback,
    /// Which port of a member it leads to.
    pub destination: Destination,
    /// Sessions at once; the next one is refused with SQLSTATE 53300.
    pub max_sessions: usize,
    pub balance: Balance,
    /// Shares of members; [`Service::WEIGHT`] unless said, 0 for none.
    pub weights: BTreeMap<NodeName, u32>,
    /// A replica that has just become usable comes to its full share in this time.
    pub slow_start: Duration,
    /// Replicas further behind are left out until they have caught up to half of it.
    pub max_lag: LagLimit,
    /// Whether members are told the client's address by a PROXY header (a pooler; PostgreSQL understands none).
    pub send_proxy: bool,
    /// Whether each session is logged when it begins and ends, with the address under which the member sees its client.
    pub log_connections: bool,
    /// Our own certificate, where the router ends TLS itself.
    pub tls: Option<tls::Identity>,
}

/// How sessions are spread over the members that serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Balance {
    /// To the one with the fewest sessions.
    LeastConn,
    /// In turn.
    RoundRobin,
}

/// How far a replica may be behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LagLimit {
    /// Bytes of WAL not replayed.
    pub bytes: Option<u64>,
    /// Time since the primary was where the replica is.
    pub time: Option<Duration>,
}

/// Who serves when nobody of the role is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fallback {
    /// Nobody: connections wait.
    None,
    /// Any replica.
    Replica,
    /// Any replica, then the primary.
    Primary,
}

/// A network of IP addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Network {
    pub address: IpAddr,
    pub bits: u8,
}

/// A planned switchover: how long sessions get to end their transactions before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drain {
    /// How long idle sessions are held, and transactions are waited for.
    pub timeout: Duration,
    /// What becomes of the transactions that still run then.
    pub end: DrainEnd,
}

/// What becomes of transactions that outlast the drain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainEnd {
    /// Everything goes on; PostgreSQL ends what is left when it stops.
    Resume,
    /// The router ends their sessions, and the switchover goes on at once.
    Cut,
}

/// Which members serve a service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// The primary, while it accepts writes.
    Primary,
    /// The replicas, those tagged `offline` only when no other is left.
    Replica,
    /// The synchronous standbys.
    Sync,
    /// Every member that runs, the primary as well.
    Any,
    /// Members tagged `offline` or `pg_offline_query`.
    Offline,
}

impl Role {
    /// The word in log lines and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Sync => "sync",
            Role::Any => "any",
            Role::Offline => "offline",
        }
    }

    /// Who stands in unless said.
    #[must_use]
    pub fn usual_fallback(self) -> Fallback {
        match self {
            Role::Primary | Role::Any => Fallback::None,
            Role::Replica | Role::Sync => Fallback::Primary,
            Role::Offline => Fallback::Replica,
        }
    }
}

/// The port of a member that a service leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Destination {
    /// PostgreSQL itself, at the port in the member's `conn_url`.
    Postgres,
    /// The pooler of the member's `proxy_url`; a member without one is not used.
    Pooler,
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
    /// How long a sign of etcd is enough for sessions in a pooler; then the agent is asked. A watch gives one each second.
    pub sign_lifetime: Duration,
    /// How long a replica that has stopped streaming still gets sessions: replicas change their source after a failover.
    pub streaming_grace: Duration,
    /// How long sessions of a replica outlive its member key: agents are restarted.
    pub gone_grace: Duration,
    /// How long an announced switchover holds sessions; taken from [`Drain`].
    pub(crate) drain: Duration,
}

impl Default for TruthLimits {
    fn default() -> TruthLimits {
        TruthLimits {
            etcd_patience: Duration::from_secs(10),
            vouch_lifetime: types::ROUTER_BELIEVES_AGENT,
            sign_lifetime: Duration::from_secs(2),
            streaming_grace: Duration::from_secs(10),
            gone_grace: Duration::from_secs(10),
            drain: Duration::from_secs(5),
        }
    }
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
    pub fn new(cluster: Cluster, listen: IpAddr) -> Config {
        Config {
            clusters: vec![cluster],
            services: vec![
                Service::new("primary", SocketAddr::new(listen, 5433), Role::Primary),
                Service::new("replica", SocketAddr::new(listen, 5434), Role::Replica),
                Service::new("default", SocketAddr::new(listen, 5436), Role::Primary),
                Service::new("offline", SocketAddr::new(listen, 5438), Role::Offline),
            ],
            api: None,
            login: None,
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            spin: Duration::ZERO,
            io: Io::Epoll,
            busy: 64,
            max_connections: 20_000,
            proxy_from: Vec::new(),
            drain: Drain { timeout: Duration::from_secs(5), end: DrainEnd::Resume },
            agents: Client::for_members(&settings::Ctl::default()),
            hold: Hold { timeout: Duration::from_secs(15), limit: 10_000 },
            handshake: Handshake { packet_bytes: 10_000, timeout: Duration::from_secs(10), limit: 2_000 },
            backend: Backend {
                connect_timeout: Duration::from_secs(1),
                retry_pause: Duration::from_millis(50),
                answer_timeout: Duration::from_secs(60),
            },
            truth: TruthLimits::default(),
            tcp: Tcp {
                keepalive_idle: Duration::from_secs(10),
                keepalive_interval: Duration::from_secs(5),
                keepalive_probes: 3,
                user_timeout: Some(Duration::from_secs(60)),
            },
            linger: Duration::ZERO,
            stop_timeout: Duration::from_secs(2),
        }
    }
}

impl Service {
    /// The share of a member that no weight is given for.
    pub const WEIGHT: u32 = 100;

    /// Whether its sessions are to write and need not be on connections of their own.
    pub(crate) fn is_pooled_to_write(&self) -> bool {
        self.role == Role::Primary && self.destination != Destination::Postgres
    }

    /// A service with the usual limits that leads to PostgreSQL itself.
    #[must_use]
    pub fn new(name: impl Into<String>, listen: SocketAddr, role: Role) -> Service {
        Service {
            name: name.into(),
            listen: vec![listen],
            cluster: None,
            names: BTreeMap::new(),
            role,
            fallback: role.usual_fallback(),
            destination: Destination::Postgres,
            max_sessions: 5_000,
            balance: Balance::LeastConn,
            weights: BTreeMap::new(),
            slow_start: Duration::ZERO,
            max_lag: LagLimit::default(),
            send_proxy: false,
            log_connections: false,
            tls: None,
        }
    }
}

impl Network {
    /// Whether `address` lies in it. An IPv4 address that is written as IPv6 counts as what it is.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        let (bits, network, address) = match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                (32, u128::from(network.to_bits()), u128::from(address.to_bits()))
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => (128, network.to_bits(), address.to_bits()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return false,
        };
        let ignored = u32::from(self.bits).min(bits);
        let shift = bits - ignored;
        network.checked_shr(shift).unwrap_or(0) == address.checked_shr(shift).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn a_network_holds_its_addresses() {
        for (network, bits, address, inside) in [
            ("10.0.0.0", 8, "10.200.0.1", true),
            ("10.0.0.0", 8, "11.0.0.1", false),
            ("10.0.0.7", 32, "10.0.0.7", true),
            ("10.0.0.7", 32, "10.0.0.6", false),
            ("10.0.0.0", 8, "::ffff:10.0.0.1", true),
            ("0.0.0.0", 0, "1.2.3.4", true),
            ("0.0.0.0", 0, "::1", false),
            ("fd00::", 8, "fd12::1", true),
            ("fd00::", 8, "fe80::1", false),
            ("::", 0, "fe80::1", true),
        ] {
            let network = Network { address: network.parse().unwrap(), bits };
            assert_eq!(network.contains(address.parse().unwrap()), inside, "{network:?} {address}");
        }
    }
}
