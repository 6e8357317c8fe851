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
    Row::new(
        "router.services",
        Kind::Json,
        "The services: a list, or a mapping by name; the usual four unless said.",
    ),
    Row::new("router.services.*.name", Kind::Text, "The name of a service."),
    Row::new("router.services.*.port", Kind::Int(1, 65_535), "The port it listens on."),
    Row::new("router.services.*.role", Kind::Choice(&["primary", "replica", "offline"]), "Who serves it."),
    Row::new(
        "router.services.*.fallback",
        Kind::Choice(&["none", "primary", "replica"]),
        "Who serves it when nobody of the role is left.",
    )
    .default("none"),
    Row::new("router.services.*.max_sessions", Kind::Int(1, 1_000_000), "Sessions at once.").default("5000"),
    Row::new(
        "router.services.*.destination_port",
        Kind::Int(1, 65_535),
        "The port on the members, if not PostgreSQL's own.",
    ),
];
