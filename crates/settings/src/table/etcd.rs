//! `etcd3:` and `etcd:`. Both mean etcd's version 3 protocol here: version 2 is long gone from etcd.

use super::Row;
use crate::kind::Kind;

const NO_SRV: &str = "discovery by DNS SRV records is not built yet: list the members under hosts";

pub(super) const ROWS: &[Row] = &[
    Row::new("etcd3.host", Kind::Text, "One etcd member as host:port.").env(&["PATRONI_ETCD3_HOST"]),
    Row::new("etcd3.hosts", Kind::Texts, "The etcd members as host:port, a list or with commas.")
        .env(&["PATRONI_ETCD3_HOSTS"]),
    Row::new("etcd3.port", Kind::Int(1, 65_535), "The port where `host` or `hosts` have none.")
        .env(&["PATRONI_ETCD3_PORT"]),
    Row::new("etcd3.url", Kind::Text, "One etcd member as a URL.").env(&["PATRONI_ETCD3_URL"]),
    Row::new("etcd3.proxy", Kind::Text, "The URL of an etcd proxy; no other member is looked for.")
        .env(&["PATRONI_ETCD3_PROXY"]),
    Row::new(
        "etcd3.use_proxies",
        Kind::Bool,
        "Whether the hosts are proxies, so that no other member is looked for.",
    )
    .default("false")
    .env(&["PATRONI_ETCD3_USE_PROXIES"]),
    Row::new("etcd3.protocol", Kind::Choice(&["http", "https"]), "Of `host` and `hosts`.")
        .default("http")
        .env(&["PATRONI_ETCD3_PROTOCOL"]),
    Row::new("etcd3.srv", Kind::Text, "A domain whose SRV records name the members.")
        .refused(NO_SRV)
        .env(&["PATRONI_ETCD3_SRV"]),
    Row::new("etcd3.srv_suffix", Kind::Text, "The suffix of the SRV service name.")
        .refused(NO_SRV)
        .env(&["PATRONI_ETCD3_SRV_SUFFIX"]),
    Row::new("etcd3.username", Kind::Text, "The user for etcd's authentication.")
        .env(&["PATRONI_ETCD3_USERNAME"]),
    Row::new("etcd3.password", Kind::Secret, "The password of that user.").env(&["PATRONI_ETCD3_PASSWORD"]),
    Row::new("etcd3.cacert", Kind::Path, "The CA that etcd's certificates are verified with.")
        .env(&["PATRONI_ETCD3_CACERT"]),
    Row::new("etcd3.cert", Kind::Path, "The client certificate.").env(&["PATRONI_ETCD3_CERT"]),
    Row::new("etcd3.key", Kind::Path, "The key of the client certificate.").env(&["PATRONI_ETCD3_KEY"]),
    Row::new("etcd3.discovery_srv", Kind::Text, "An old name of srv.").alias_of("etcd3.srv").refused(NO_SRV),
    Row::new("etcd.host", Kind::Text, "One etcd member as host:port.").env(&["PATRONI_ETCD_HOST"]),
    Row::new("etcd.hosts", Kind::Texts, "The etcd members as host:port, a list or with commas.")
        .env(&["PATRONI_ETCD_HOSTS"]),
    Row::new("etcd.port", Kind::Int(1, 65_535), "The port where `host` or `hosts` have none.")
        .env(&["PATRONI_ETCD_PORT"]),
    Row::new("etcd.url", Kind::Text, "One etcd member as a URL.").env(&["PATRONI_ETCD_URL"]),
    Row::new("etcd.proxy", Kind::Text, "The URL of an etcd proxy; no other member is looked for.")
        .env(&["PATRONI_ETCD_PROXY"]),
    Row::new(
        "etcd.use_proxies",
        Kind::Bool,
        "Whether the hosts are proxies, so that no other member is looked for.",
    )
    .default("false")
    .env(&["PATRONI_ETCD_USE_PROXIES"]),
    Row::new("etcd.protocol", Kind::Choice(&["http", "https"]), "Of `host` and `hosts`.")
        .default("http")
        .env(&["PATRONI_ETCD_PROTOCOL"]),
    Row::new("etcd.srv", Kind::Text, "A domain whose SRV records name the members.")
        .refused(NO_SRV)
        .env(&["PATRONI_ETCD_SRV"]),
    Row::new("etcd.srv_suffix", Kind::Text, "The suffix of the SRV service name.")
        .refused(NO_SRV)
        .env(&["PATRONI_ETCD_SRV_SUFFIX"]),
    Row::new("etcd.username", Kind::Text, "The user for etcd's authentication.")
        .env(&["PATRONI_ETCD_USERNAME"]),
    Row::new("etcd.password", Kind::Secret, "The password of that user.").env(&["PATRONI_ETCD_PASSWORD"]),
    Row::new("etcd.cacert", Kind::Path, "The CA that etcd's certificates are verified with.")
        .env(&["PATRONI_ETCD_CACERT"]),
    Row::new("etcd.cert", Kind::Path, "The client certificate.").env(&["PATRONI_ETCD_CERT"]),
    Row::new("etcd.key", Kind::Path, "The key of the client certificate.").env(&["PATRONI_ETCD_KEY"]),
    Row::new("etcd.discovery_srv", Kind::Text, "An old name of srv.").alias_of("etcd.srv").refused(NO_SRV),
];
