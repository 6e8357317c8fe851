//! The node's settings and the cluster's together: what PostgreSQL is started with.
//!
//! Local parameters win over dynamic ones, except the controlled ones (`guc.rs`), which are never local. A standby must not
//! have less of the five shared-memory parameters than its primary had, or it will not start: the control file's values
//! are used then, and the difference is a reason for a restart later.

use crate::callbacks::Callbacks;
use crate::dynamic::Dynamic;
use crate::guc::{self, CONTROLLED, Controlled, Rule};
use crate::methods::{self, ReplicaMethod};
use crate::settings::Settings;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The first version that copies logical slots to standbys by itself.
pub const FAILOVER_SLOTS_SINCE: u32 = 170_000;

/// What pg_control says a standby needs at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShmemMinimums {
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_transactions: u32,
    pub max_locks_per_transaction: u32,
}

/// What PostgreSQL gets.
#[derive(Clone, PartialEq, Debug)]
pub struct Effective {
    /// For the file: all parameters, the controlled ones included.
    pub parameters: BTreeMap<String, String>,
    /// For the command line: the controlled ones.
    pub command_line: Vec<(String, String)>,
    /// Parameters that a standby has to have larger than configured.
    pub raised: Vec<Raised>,
    pub pg_hba: Option<Vec<String>>,
    pub pg_ident: Option<Vec<String>>,
    pub recovery_conf: BTreeMap<String, String>,
    pub basebackup: Vec<(String, Option<String>)>,
    pub rewind: Vec<(String, Option<String>)>,
    pub custom_conf: Option<PathBuf>,
    pub use_pg_rewind: bool,
    pub use_slots: bool,
    pub remove_data_directory_on_rewind_failure: bool,
    pub remove_data_directory_on_diverged_timelines: bool,
    pub pg_ctl_timeout: u32,
    pub callbacks: Callbacks,
    /// How replicas are made, in order of preference.
    pub create_replica_methods: Vec<String>,
    /// The sections of those that have one.
    pub replica_methods: BTreeMap<String, ReplicaMethod>,
    pub pre_promote: Option<String>,
    pub before_stop: Option<String>,
    /// Dynamic values that could not be used.
    pub warnings: Vec<String>,
}

/// A parameter that is larger than configured, until the standby has replayed the change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Raised {
    pub name: String,
    pub configured: String,
    pub used: String,
}

/// Puts them together for PostgreSQL `version_num` (150018 for 15.18); `standby_shmem` is given on a standby.
#[must_use]
pub fn effective(
    settings: &Settings,
    dynamic: &Dynamic,
    version_num: u32,
    standby_shmem: Option<&ShmemMinimums>,
) -> Effective {
    let local = &settings.postgresql;
    let mut parameters = dynamic.parameters.clone();
    parameters.extend(local.parameters.clone());
    parameters.retain(|name, _| !guc::is_controlled(name));
    // Without its feedback the primary removes rows that a copy of a logical slot still needs.
    if dynamic.has_logical_slots() && !settings.tags.nofailover() {
        parameters.insert("hot_standby_feedback".to_owned(), "on".to_owned());
    }
    // Below another standby PostgreSQL cannot copy slots.
    let tags = &settings.tags;
    let copies = !tags.nofailover() && !tags.nostream() && tags.replicatefrom().is_none();
    if dynamic.has_failover_slots() && version_num >= FAILOVER_SLOTS_SINCE && copies {
        parameters.insert("sync_replication_slots".to_owned(), "on".to_owned());
    }
    let mut warnings = Vec::new();
    let mut raised = Vec::new();
    let mut command_line = Vec::new();
    for guc in CONTROLLED.iter().filter(|guc| (guc.since..guc.until).contains(&version_num)) {
        let mut value = controlled_value(guc, settings, dynamic, &mut warnings);
        let least = standby_shmem.and_then(|shmem| minimum(guc.name, shmem));
        if let Some(least) = least
            && value.parse::<u32>().is_ok_and(|configured| configured < least)
        {
            let used = least.to_string();
            raised.push(Raised { name: guc.name.to_owned(), configured: value, used: used.clone() });
            value = used;
        }
        if guc.command_line {
            command_line.push((guc.name.to_owned(), value.clone()));
        }
        parameters.insert(guc.name.to_owned(), value);
    }
    let mut recovery_conf = dynamic.recovery_conf.clone();
    recovery_conf.extend(local.recovery_conf.clone());
    Effective {
        parameters,
        command_line,
        raised,
        pg_hba: local.pg_hba.clone().or_else(|| dynamic.pg_hba.clone()),
        pg_ident: local.pg_ident.clone().or_else(|| dynamic.pg_ident.clone()),
        recovery_conf,
        basebackup: if local.basebackup.is_empty() {
            dynamic.basebackup.clone()
        } else {
            local.basebackup.clone()
        },
        rewind: if local.rewind.is_empty() { dynamic.rewind.clone() } else { local.rewind.clone() },
        custom_conf: local.custom_conf.clone().or_else(|| dynamic.custom_conf.clone()),
        use_pg_rewind: local.use_pg_rewind.unwrap_or(dynamic.use_pg_rewind),
        use_slots: dynamic.use_slots,
        remove_data_directory_on_rewind_failure: local
            .remove_data_directory_on_rewind_failure
            .unwrap_or(dynamic.remove_data_directory_on_rewind_failure),
        remove_data_directory_on_diverged_timelines: local
            .remove_data_directory_on_diverged_timelines
            .unwrap_or(dynamic.remove_data_directory_on_diverged_timelines),
        pg_ctl_timeout: local.pg_ctl_timeout.unwrap_or(dynamic.pg_ctl_timeout),
        callbacks: local.callbacks.clone().unwrap_or_else(|| dynamic.callbacks.clone()),
        create_replica_methods: local
            .create_replica_methods
            .clone()
            .or_else(|| dynamic.create_replica_methods.clone())
            .unwrap_or_else(|| vec![methods::BASEBACKUP.to_owned()]),
        replica_methods: {
            let mut sections = dynamic.replica_methods.clone();
            sections.extend(local.replica_methods.clone());
            sections
        },
        pre_promote: local.pre_promote.clone().or_else(|| dynamic.pre_promote.clone()),
        before_stop: local.before_stop.clone().or_else(|| dynamic.before_stop.clone()),
        warnings,
    }
}

fn controlled_value(
    guc: &Controlled,
    settings: &Settings,
    dynamic: &Dynamic,
    warnings: &mut Vec<String>,
) -> String {
    match guc.name {
        "listen_addresses" => return settings.postgresql.listen.join(","),
        "port" => return settings.postgresql.port.to_string(),
        "cluster_name" => return settings.scope.clone(),
        _ => {}
    }
    let asked = dynamic.parameters.get(guc.name).filter(|_| !matches!(guc.rule, Rule::Fixed));
    match asked.map(|value| (value, guc.accept(value))) {
        None => guc.default.to_owned(),
        Some((_, Ok(value))) => value,
        Some((value, Err(expected))) => {
            warnings.push(format!(
                "postgresql.parameters.{} {value:?} is used as {}: it should be {expected}",
                guc.name, guc.default
            ));
            guc.default.to_owned()
        }
    }
}

fn minimum(name: &str, shmem: &ShmemMinimums) -> Option<u32> {
    match name {
        "max_connections" => Some(shmem.max_connections),
        "max_worker_processes" => Some(shmem.max_worker_processes),
        "max_wal_senders" => Some(shmem.max_wal_senders),
        "max_prepared_transactions" => Some(shmem.max_prepared_transactions),
        "max_locks_per_transaction" => Some(shmem.max_locks_per_transaction),
        _ => None,
    }
}
