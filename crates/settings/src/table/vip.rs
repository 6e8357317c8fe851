//! `vip:`, Baton's own section.

use super::Row;
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "vip.addresses",
        Kind::Json,
        "The virtual addresses that this member may hold: a list. None: none.",
    ),
    Row::new("vip.api", Kind::Address, "Where `baton vip` serves metrics and health; the agent does in its own API."),
    Row::new(
        "vip.addresses.*.address",
        Kind::Text,
        "IPv4 or IPv6, with a prefix length if it is not alone in its subnet: 10.0.0.5, 10.0.0.5/24, fd00::5/128.",
    ),
    Row::new("vip.addresses.*.interface", Kind::Text, "The network interface it is put on; needless with a command."),
    Row::new(
        "vip.addresses.*.role",
        Kind::Choice(&["primary", "replica", "sync", "any"]),
        "Whose it is: of the primary while it accepts writes, or of one of the replicas, synchronous standbys or members.",
    )
    .default("primary"),
    Row::new(
        "vip.addresses.*.routed",
        Kind::Bool,
        "Whether it may be in no network of its interface, because routers know the way to it.",
    )
    .default("false"),
    Row::new(
        "vip.addresses.*.command",
        Kind::Text,
        "A command that moves the address, in a cloud: run with acquire or release and the address as its last arguments.",
    ),
    Row::new(
        "vip.addresses.*.timeout",
        Kind::Duration,
        "The command is killed when it takes longer.",
    )
    .default("30s"),
    Row::new(
        "vip.addresses.*.refresh",
        Kind::Duration,
        "How often neighbours are told again where the address is, by ARP or NDP; at least 1 s.",
    )
    .default("60s"),
    Row::new(
        "vip.addresses.*.bgp",
        Kind::Bool,
        "Announced by BGP as well, where vip.bgp is set and the address is on an interface.",
    )
    .default("true"),
    Row::new("vip.bgp.as", Kind::Int(1, ASN), "The AS number of this host's BGP speaker."),
    Row::new(
        "vip.bgp.router_id",
        Kind::Text,
        "Its BGP identifier: an IPv4 address that no other speaker has, best this host's own.",
    ),
    Row::new(
        "vip.bgp.listen",
        Kind::Listen,
        "Where neighbors may connect to, best *:179. None: they are only connected to.",
    ),
    Row::new(
        "vip.bgp.hold_time",
        Kind::Duration,
        "Without a word for so long, a neighbor drops the routes. Whole seconds, at least 3; at most what the lease can prove: (ttl * 2/3 - 1.5 s) * 3/5.",
    )
    .default("3s"),
    Row::new("vip.bgp.med", Kind::Int(0, ASN), "The metric (MED) that neighbors are told; the lower one wins."),
    Row::new(
        "vip.bgp.communities",
        Kind::Texts,
        "Communities that the routes carry, like 65000:100, or no-export, no-advertise.",
    ),
    Row::new("vip.bgp.neighbors", Kind::Json, "The routers that are told: a list."),
    Row::new("vip.bgp.neighbors.*.address", Kind::Text, "Its address, IPv4 or IPv6."),
    Row::new("vip.bgp.neighbors.*.as", Kind::Int(1, ASN), "Its AS number."),
    Row::new("vip.bgp.neighbors.*.port", Kind::Int(1, 65_535), "The TCP port on which the neighbour speaks BGP.").default("179"),
    Row::new(
        "vip.bgp.neighbors.*.password",
        Kind::Secret,
        "Packets are signed with it (TCP-MD5); up to 80 bytes, the same on both sides.",
    ),
    Row::new(
        "vip.bgp.neighbors.*.ttl_security",
        Kind::Bool,
        "Packets from further away than hops are dropped (GTSM); the same on both sides.",
    )
    .default("false"),
    Row::new(
        "vip.bgp.neighbors.*.hops",
        Kind::Int(1, 255),
        "How many hops away it is, when it is in another AS or ttl_security is on.",
    )
    .default("1"),
    Row::new("vip.bgp.neighbors.*.passive", Kind::Bool, "It connects to this host, and is not connected to.")
        .default("false"),
    Row::new(
        "vip.bgp.neighbors.*.local_address",
        Kind::Text,
        "The address of this host from which it is connected to. None: what the system takes.",
    ),
    Row::new(
        "vip.bgp.neighbors.*.next_hops",
        Kind::Texts,
        "Where routes lead, at most one address of each kind. None: this end of the connection, so addresses of its kind only.",
    ),
];

/// The largest number of four bytes.
const ASN: i64 = 4_294_967_295;
