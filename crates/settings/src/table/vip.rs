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
];
