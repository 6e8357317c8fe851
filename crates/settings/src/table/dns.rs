//! `dns:`, Baton's own section.

use super::Row;
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new("dns.zone", Kind::Text, "The zone of the cluster's names, such as pg-main.db.example.org."),
    Row::new("dns.listen", Kind::Listen, "Where questions are answered, by UDP and TCP. None: nowhere."),
    Row::new(
        "dns.api",
        Kind::Address,
        "Where `baton dns` serves metrics and health; the agent does in its own API.",
    ),
    Row::new("dns.ttl", Kind::Duration, "How long others may keep an answer.").default("1s"),
    Row::new(
        "dns.name_servers",
        Kind::Texts,
        "The name servers of the zone, as the zone above has them. None: ns below the zone, with the address that is listened on.",
    ),
    Row::new("dns.max_lag", Kind::Bytes(1, i64::MAX), "Replicas further behind are not found as replicas."),
    Row::new(
        "dns.hosts_file",
        Kind::Path,
        "The same names as a hosts file, replaced as a whole: for dnsmasq, in its hostsdir.",
    ),
    Row::new(
        "dns.updates",
        Kind::Json,
        "Names of the primary on other servers, kept by RFC 2136: a list. None: none.",
    ),
    Row::new(
        "dns.updates.*.server",
        Kind::Address,
        "The server of the zone that takes updates, as host:port.",
    ),
    Row::new("dns.updates.*.zone", Kind::Text, "The zone there."),
    Row::new(
        "dns.updates.*.name",
        Kind::Text,
        "The name in it that leads to the primary; its term stands below it, at _baton.",
    ),
    Row::new("dns.updates.*.ttl", Kind::Duration, "How long others may keep it.").default("1s"),
    Row::new("dns.updates.*.key_name", Kind::Text, "The name of the TSIG key. None: updates are not signed."),
    Row::new(
        "dns.updates.*.key_algorithm",
        Kind::Choice(&["hmac-sha1", "hmac-sha256", "hmac-sha384", "hmac-sha512"]),
        "Its algorithm.",
    )
    .default("hmac-sha256"),
    Row::new("dns.updates.*.key_secret", Kind::Secret, "Its secret, in base64."),
];
