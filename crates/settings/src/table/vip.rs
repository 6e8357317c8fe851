//! `vip:`, Baton's own section.

use super::{Row, Support};
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new(
        "vip.addresses",
        Kind::Json,
        "The virtual addresses that this member may hold: a list. None: none.",
    ),
    Row::new(
        "vip.addresses.*.address",
        Kind::Text,
        "IPv4 or IPv6, with a prefix length if it is not alone in its subnet: 10.0.0.5, 10.0.0.5/24, fd00::5/128.",
    ),
    Row::new("vip.addresses.*.interface", Kind::Text, "The network interface it is put on."),
    Row::new(
        "vip.addresses.*.role",
        Kind::Choice(&["primary", "replica", "sync", "any"]),
        "Whose it is: of the primary while it accepts writes, or of one of the replicas, synchronous standbys or members.",
    )
    .default("primary")
    .support(Support::Limited {
        fine: &["primary"],
        warned: &[],
        why: "who of several members holds the address is not elected yet",
    }),
];
