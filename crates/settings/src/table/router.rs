//! `router:`, Baton's own section.

use super::Row;
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new("router.listen", Kind::Texts, "The addresses the services listen on.")
        .default("'*'")
        .env(&["BATON_ROUTER_LISTEN"]),
    Row::new(
        "router.hold_timeout",
        Kind::Duration,
        "How long a connection is held while no primary is writable.",
    )
    .default("15s")
    .env(&["BATON_ROUTER_HOLD_TIMEOUT"]),
    Row::new("router.hold_limit", Kind::Int(0, 1_000_000), "How many connections may be held at once.")
        .default("10000")
        .env(&["BATON_ROUTER_HOLD_LIMIT"]),
    Row::new("router.api", Kind::Address, "Where metrics and health are served.").env(&["BATON_ROUTER_API"]),
    Row::new("router.etcd_patience", Kind::Duration, "How long the last known truth is used without etcd.")
        .default("10s")
        .env(&["BATON_ROUTER_ETCD_PATIENCE"]),
    Row::new("router.threads", Kind::Int(0, 1024), "Threads that serve clients; 0 is one for each processor.")
        .default("0")
        .env(&["BATON_ROUTER_THREADS"]),
    Row::new(
        "router.spin",
        Kind::Int(0, 1000),
        "Microseconds that a processor looks for the next message of a session that is alone on its thread, before the thread sleeps.",
    )
    .default("0")
    .env(&["BATON_ROUTER_SPIN"]),
    Row::new(
        "router.io",
        Kind::Choice(&["auto", "epoll", "io_uring"]),
        "How the bytes of busy sessions are moved: by io_uring where it is to be had (`auto`), as those of all others, or by io_uring or not at all: the router does not start where it is not to be had.",
    )
    .default("auto")
    .env(&["BATON_ROUTER_IO"]),
    Row::new("router.max_connections", Kind::Int(1, 1_000_000), "Clients at once, over all services.")
        .default("20000")
        .env(&["BATON_ROUTER_MAX_CONNECTIONS"]),
    Row::new("router.handshake_timeout", Kind::Duration, "The time in which a client has to say what it wants.")
        .default("10s"),
    Row::new(
        "router.handshake_limit",
        Kind::Int(1, 1_000_000),
        "How many clients of a service may not have said yet what they want.",
    )
    .default("2000"),
    Row::new("router.connect_timeout", Kind::Duration, "How long a connection to a member may take to open.")
        .default("1s"),
    Row::new("router.drain_timeout", Kind::Duration, "How long a planned switchover waits for transactions to end.")
        .default("5s"),
    Row::new(
        "router.drain_end",
        Kind::Choice(&["resume", "cut"]),
        "What becomes of transactions that outlast it: all sessions go on until PostgreSQL stops, or the router cuts them.",
    )
    .default("resume"),
    Row::new(
        "router.linger",
        Kind::Duration,
        "How long sessions may go on in the old process after the program was exchanged (SIGUSR2); then they end, at rest if they can. 0: until they end by themselves.",
    )
    .default("0s"),
    Row::new(
        "router.log_connections",
        Kind::Bool,
        "Log each session when it begins and ends, with its client and the address under which its member sees it.",
    )
    .default("false"),
    Row::new(
        "router.proxy_from",
        Kind::Texts,
        "Addresses and networks of load balancers whose PROXY headers (version 2) are believed.",
    ),
    Row::new("router.keepalive_idle", Kind::Duration, "Silence before a connection is probed, on both sides.")
        .default("10s"),
    Row::new("router.keepalive_interval", Kind::Duration, "The time between probes.").default("5s"),
    Row::new("router.keepalive_probes", Kind::Int(1, 100), "Unanswered probes that end a connection.").default("3"),
    Row::new(
        "router.tcp_user_timeout",
        Kind::Duration,
        "How long sent data may stay unacknowledged; 0 leaves it to the kernel.",
    )
    .default("60s"),
    Row::new("router.authentication.username", Kind::Text, "Who may give orders to the router's API."),
    Row::new("router.authentication.password", Kind::Secret, "The password for that."),
    Row::new(
        "router.clusters",
        Kind::Json,
        "More clusters than that of `scope`: a list, or a mapping by name. They are in the same etcd.",
    ),
    Row::new("router.clusters.*.name", Kind::Text, "The name by which services call the cluster."),
    Row::new("router.clusters.*.scope", Kind::Text, "Its scope; the name unless said."),
    Row::new("router.clusters.*.namespace", Kind::Text, "Its namespace; that of this file unless said."),
    Row::new("router.clusters.*.username", Kind::Text, "The user of etcd for it, if it has one of its own."),
    Row::new("router.clusters.*.password", Kind::Secret, "The password of that user."),
    Row::new(
        "router.services",
        Kind::Json,
        "The services: a list, or a mapping by name; the usual four unless said.",
    ),
    Row::new("router.services.*.name", Kind::Text, "The name of a service."),
    Row::new("router.services.*.port", Kind::Int(1, 65_535), "The port it listens on."),
    Row::new("router.services.*.cluster", Kind::Text, "Its cluster, one of `router.clusters`; `scope` unless said."),
    Row::new(
        "router.services.*.names",
        Kind::TextMap,
        "Clusters by the server name (SNI) that clients of TLS ask for: one port for several clusters.",
    ),
    Row::new(
        "router.services.*.role",
        Kind::Choice(&["primary", "replica", "sync", "any", "offline"]),
        "Who serves it.",
    ),
    Row::new(
        "router.services.*.fallback",
        Kind::Choice(&["none", "primary", "replica"]),
        "Who serves it when nobody of the role is left: for replica and sync the primary unless said, for offline the replicas.",
    ),
    Row::new("router.services.*.max_sessions", Kind::Int(1, 1_000_000), "Sessions at once.").default("5000"),
    Row::new(
        "router.services.*.destination",
        Kind::Choice(&["postgres", "pooler"]),
        "PostgreSQL itself, or the pooler that the member names (`postgresql.proxy_address`).",
    )
    .default("postgres"),
    Row::new(
        "router.services.*.destination_port",
        Kind::Int(1, 65_535),
        "The port on the members, if not PostgreSQL's own.",
    ),
    Row::new(
        "router.services.*.balance",
        Kind::Choice(&["least_conn", "round_robin"]),
        "How sessions are spread over the members that serve.",
    )
    .default("least_conn"),
    Row::new(
        "router.services.*.weights",
        Kind::TextMap,
        "Shares of members by name, 0 to 65535; 100 unless said, 0 for no sessions at all.",
    ),
    Row::new(
        "router.services.*.slow_start",
        Kind::Duration,
        "A replica that has just become usable comes to its share in this time; a primary has it at once.",
    )
    .default("0"),
    Row::new(
        "router.services.*.max_lag",
        Kind::Bytes(1, i64::MAX),
        "Replicas further behind get no new sessions, until they have caught up to half of it.",
    ),
    Row::new(
        "router.services.*.max_lag_time",
        Kind::Duration,
        "The same in time: how long ago the primary was where the replica is.",
    ),
    Row::new(
        "router.services.*.send_proxy",
        Kind::Bool,
        "Tell members the client's address by a PROXY header of version 2 (for a pooler; PostgreSQL understands none).",
    )
    .default("false"),
    Row::new(
        "router.services.*.certfile",
        Kind::Path,
        "The router's own certificate: TLS ends here, and members are reached in the clear.",
    ),
    Row::new("router.services.*.keyfile", Kind::Path, "Its key, when it is not in the same file."),
    Row::new("router.services.*.keyfile_password", Kind::Secret, "The password of an encrypted key."),
];
