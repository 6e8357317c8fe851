//! Sections of Patroni that Baton refuses, because a cluster that needs them would not work as its operator thinks.

use super::Row;
use crate::kind::Kind;

const OTHER_STORE: &str = "Baton keeps its state in etcd only: use etcd3";
const NO_CITUS: &str = "Citus is not supported: keep this cluster on Patroni";

pub(super) const ROWS: &[Row] = &[
    Row::new("consul", Kind::Json, "Consul as the store.").refused(OTHER_STORE),
    Row::new("zookeeper", Kind::Json, "ZooKeeper as the store.").refused(OTHER_STORE),
    Row::new("exhibitor", Kind::Json, "ZooKeeper found by Exhibitor as the store.").refused(OTHER_STORE),
    Row::new("kubernetes", Kind::Json, "Kubernetes as the store.").refused(OTHER_STORE),
    Row::new("raft", Kind::Json, "Patroni's own Raft as the store.").refused(OTHER_STORE),
    Row::new("citus", Kind::Json, "A Citus cluster.").refused(NO_CITUS),
];

pub(super) const ENV_PREFIXES: &[(&str, &str)] = &[
    ("PATRONI_CONSUL_", "consul"),
    ("PATRONI_ZOOKEEPER_", "zookeeper"),
    ("PATRONI_EXHIBITOR_", "exhibitor"),
    ("PATRONI_KUBERNETES_", "kubernetes"),
    ("PATRONI_RAFT_", "raft"),
    ("PATRONI_CITUS_", "citus"),
];
