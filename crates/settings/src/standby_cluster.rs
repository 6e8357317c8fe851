//! `standby_cluster` of the dynamic configuration: the remote node that the whole cluster follows.

use crate::values::Values;

/// What the leader of a standby cluster replicates from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StandbyCluster {
    /// One host, or several with commas between them.
    pub host: Option<String>,
    pub port: Option<u16>,
    pub primary_slot_name: Option<String>,
    pub restore_command: Option<String>,
    pub archive_cleanup_command: Option<String>,
    pub recovery_min_apply_delay: Option<String>,
    /// How the first member is made from the remote node; `None` is as for replicas.
    pub create_replica_methods: Option<Vec<String>>,
}

/// The section; `None` unless it says where WAL comes from.
pub(crate) fn build(values: &Values) -> Option<StandbyCluster> {
    let text = |key: &str| values.text(&format!("standby_cluster.{key}")).filter(|text| !text.is_empty());
    let port = values.int("standby_cluster.port").and_then(|port| u16::try_from(port).ok());
    let section = StandbyCluster {
        host: text("host"),
        port,
        primary_slot_name: text("primary_slot_name"),
        restore_command: text("restore_command"),
        archive_cleanup_command: text("archive_cleanup_command"),
        recovery_min_apply_delay: text("recovery_min_apply_delay"),
        create_replica_methods: values.texts("standby_cluster.create_replica_methods"),
    };
    let source = section.host.is_some() || section.port.is_some() || section.restore_command.is_some();
    source.then_some(section)
}
