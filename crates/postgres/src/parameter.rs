//! PostgreSQL's parameters: valid names, quoting, and which of them a reload does not change.

use crate::error::Error;

/// Refuses what would change the meaning of a configuration file or a command line.
pub(crate) fn check(name: &str, value: &str) -> Result<(), Error> {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    if !name.split('.').all(word) {
        return Err(Error::Refused(format!(
            "set parameter {name:?}: not a parameter name; correct the configuration"
        )));
    }
    if value.contains('\0') {
        return Err(Error::Refused(format!("set parameter {name}: the value holds a zero byte; correct it")));
    }
    Ok(())
}

/// A value as `postgresql.conf` wants it.
pub(crate) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('\'');
    for c in value.chars() {
        match c {
            '\'' => text.push_str("''"),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
    text.push('\'');
    text
}

/// The value that [`quoted`] made `text` from, or that a person wrote.
pub(crate) fn unquoted(text: &str) -> String {
    let Some(inner) = text.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) else {
        return text.to_owned();
    };
    let mut value = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some(other) => value.push(other),
                None => value.push('\\'),
            },
            '\'' => {
                // The second one of a pair.
                chars.next();
                value.push('\'');
            }
            other => value.push(other),
        }
    }
    value
}

/// The parameter and the raw value of a line of `postgresql.conf`; `None` for comments and empty lines.
pub(crate) fn of_line(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.' || c == '$'))?;
    let (name, rest) = line.split_at_checked(end)?;
    let value = rest.trim_start().trim_start_matches('=').trim();
    (!name.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}

/// Whether a change takes effect only with a restart. Parameters of extensions are not known here; the running server
/// tells about those (`pending_restart`).
pub(crate) fn needs_restart(name: &str, major: u32) -> bool {
    let name = name.to_ascii_lowercase();
    let reloadable_by_now = major >= 18 && name == "autovacuum_max_workers";
    let listed = RESTART.binary_search(&name.as_str()).is_ok() || name.starts_with("recovery_target");
    !reloadable_by_now && listed
}

/// A target left over from a restore would end a standby's recovery for good.
pub(crate) const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Whether a parameter says who follows whom, and how far: the cluster decides that, it is never configuration.
#[must_use]
pub fn is_decided(name: &str) -> bool {
    const MORE: [&str; 7] = [
        "primary_conninfo",
        "primary_slot_name",
        "promote_trigger_file",
        "recovery_target_action",
        "recovery_target_inclusive",
        "recovery_target_timeline",
        "standby_mode",
    ];
    TARGETS.contains(&name) || MORE.contains(&name)
}

/// The parameters with context `postmaster` in PostgreSQL 13 to 18, sorted; besides them every target of a recovery.
const RESTART: [&str; 63] = [
    "archive_mode",
    "autovacuum_freeze_max_age",
    "autovacuum_max_workers",
    "autovacuum_multixact_freeze_max_age",
    "autovacuum_worker_slots",
    "bonjour",
    "bonjour_name",
    "cluster_name",
    "commit_timestamp_buffers",
    "config_file",
    "data_directory",
    "data_sync_retry",
    "debug_io_direct",
    "dynamic_shared_memory_type",
    "event_source",
    "external_pid_file",
    "hba_file",
    "hot_standby",
    "huge_page_size",
    "huge_pages",
    "ident_file",
    "ignore_invalid_pages",
    "io_max_combine_limit",
    "io_max_concurrency",
    "io_method",
    "jit_provider",
    "listen_addresses",
    "logging_collector",
    "max_active_replication_origins",
    "max_connections",
    "max_files_per_process",
    "max_locks_per_transaction",
    "max_logical_replication_workers",
    "max_notify_queue_pages",
    "max_pred_locks_per_transaction",
    "max_prepared_transactions",
    "max_replication_slots",
    "max_wal_senders",
    "max_worker_processes",
    "min_dynamic_shared_memory",
    "multixact_member_buffers",
    "multixact_offset_buffers",
    "notify_buffers",
    "old_snapshot_threshold",
    "port",
    "reserved_connections",
    "serializable_buffers",
    "shared_buffers",
    "shared_memory_type",
    "shared_preload_libraries",
    "subtransaction_buffers",
    "superuser_reserved_connections",
    "trace_connection_negotiation",
    "track_activity_query_size",
    "track_commit_timestamp",
    "transaction_buffers",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "wal_buffers",
    "wal_decode_buffer_size",
    "wal_level",
    "wal_log_hints",
];

#[cfg(test)]
mod tests {
    use super::{RESTART, check, needs_restart, of_line, quoted, unquoted};

    #[test]
    fn quoting_goes_both_ways() {
        for value in ["", "on", "it's", r"C:\dir", "a\nb", "'", r"\", "%f \"%p\" 'x'"] {
            let text = quoted(value);
            assert!(!text.contains('\n'), "{text}");
            assert_eq!(unquoted(&text), value, "{text}");
        }
        assert_eq!(unquoted("128MB"), "128MB");
    }

    #[test]
    fn names_are_checked() {
        for good in ["work_mem", "pg_stat_statements.max", "_x", "plpgsql.extra$1"] {
            assert!(check(good, "1").is_ok(), "{good}");
        }
        for bad in ["", "a b", "a=1\nb", "a.", "1a", "a'", "-c"] {
            assert!(check(bad, "1").is_err(), "{bad}");
        }
        assert!(check("work_mem", "\0").is_err());
    }

    #[test]
    fn lines_are_read_as_people_write_them() {
        assert_eq!(of_line("  Work_Mem='4MB' "), Some(("work_mem".to_owned(), "'4MB'")));
        assert_eq!(of_line("port 5432 # x"), Some(("port".to_owned(), "5432 # x")));
        assert_eq!(of_line("# port = 1"), None);
        assert_eq!(of_line(""), None);
    }

    #[test]
    fn the_table_can_be_searched() {
        assert!(RESTART.is_sorted());
        assert!(
            needs_restart("Max_Connections", 15)
                && needs_restart("port", 15)
                && !needs_restart("work_mem", 15)
        );
        assert!(needs_restart("recovery_target_lsn", 15));
        assert!(needs_restart("autovacuum_max_workers", 17) && !needs_restart("autovacuum_max_workers", 18));
    }
}
