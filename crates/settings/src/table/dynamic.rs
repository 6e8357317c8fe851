//! The dynamic configuration: `/config` in etcd, and `bootstrap.dcs` in the file of a new cluster.

use super::Row;
use crate::kind::Kind;

const NO_ROLES: &str = "configuration by role is not built yet (Patroni has it from 4.2 on)";

pub(super) const ROWS: &[Row] = &[
    Row::new("ttl", Kind::Seconds(1, 86_400), "How long a leader that went silent still leads.")
        .default("30")
        .dynamic(),
    Row::new("loop_wait", Kind::Seconds(1, 86_400), "The longest pause between two turns.")
        .default("10")
        .dynamic(),
    Row::new("retry_timeout", Kind::Seconds(1, 86_400), "How long etcd and PostgreSQL are tried.")
        .default("10")
        .dynamic(),
    Row::new("maximum_lag_on_failover", Kind::Bytes(0, i64::MAX), "The most WAL a new leader may lack.")
        .default("1048576")
        .dynamic(),
    Row::new(
        "maximum_lag_on_syncnode",
        Kind::Bytes(-1, i64::MAX),
        "The most WAL a synchronous standby may lack; -1 is any.",
    )
    .default("-1")
    .dynamic(),
    Row::new("max_timelines_history", Kind::Int(0, i64::MAX), "How many rows of history are kept; 0 is all.")
        .default("0")
        .dynamic(),
    Row::new(
        "primary_start_timeout",
        Kind::Seconds(0, 86_400 * 7),
        "How long a crashed primary may take to come back.",
    )
    .default("300")
    .dynamic(),
    Row::new("master_start_timeout", Kind::Seconds(0, 86_400 * 7), "An old name of primary_start_timeout.")
        .dynamic()
        .alias_of("primary_start_timeout"),
    Row::new(
        "primary_stop_timeout",
        Kind::Seconds(0, 86_400 * 7),
        "How long a synchronous primary may take to stop; 0 is any.",
    )
    .default("0")
    .dynamic(),
    Row::new("master_stop_timeout", Kind::Seconds(0, 86_400 * 7), "An old name of primary_stop_timeout.")
        .dynamic()
        .alias_of("primary_stop_timeout"),
    Row::new(
        "synchronous_mode",
        Kind::Choice(&["off", "on", "quorum"]),
        "Whether commits wait for a standby.",
    )
    .default("off")
    .dynamic(),
    Row::new("synchronous_mode_strict", Kind::Bool, "Whether they wait even when no standby is there.")
        .default("false")
        .dynamic(),
    Row::new("synchronous_node_count", Kind::Int(1, 1000), "For how many standbys they wait.")
        .default("1")
        .dynamic(),
    Row::new("check_timeline", Kind::Bool, "Whether a new leader must have the newest timeline.")
        .default("false")
        .dynamic(),
    Row::new(
        "failsafe_mode",
        Kind::Bool,
        "Whether a primary without etcd goes on while all members answer it.",
    )
    .default("false")
    .dynamic(),
    Row::new(
        "member_slots_ttl",
        Kind::Seconds(0, 86_400 * 365),
        "How long the slot of an absent member is kept.",
    )
    .default("30min")
    .dynamic(),
    Row::new(
        "baton.crash",
        Kind::Choice(&["auto", "restart", "failover"]),
        "After a crash of the primary: whatever is faster and loses nothing, a restart where it is, or a failover that loses nothing.",
    )
    .default("auto")
    .dynamic(),
    Row::new(
        "baton.await_routers",
        Kind::Duration,
        "How long a promotion after a failure waits at most, 10 s at the utmost, until every router that is there says that it has no session on an older primary; 0 is not at all.",
    )
    .default("0")
    .dynamic(),
    Row::new(
        "baton.archive_check",
        Kind::Text,
        "How the archive is asked after a promotion whether it holds the file %f, which may be fetched to %p: exit status 0 there, 1 not there; usually the restore_command.",
    )
    .dynamic(),
    Row::new(
        "baton.archive_check_timeout",
        Kind::Seconds(10, 86_400),
        "What the archive does not hold so long after a promotion is called missing; it is asked for on and on.",
    )
    .default("300")
    .dynamic(),
    Row::new("pause", Kind::Bool, "Maintenance mode: nothing is started, stopped or promoted.")
        .default("false")
        .dynamic(),
    Row::new(
        "primary_race_backoff",
        Kind::Seconds(0, 86_400),
        "How long a race waits for a silent old primary.",
    )
    .dynamic()
    .ignored("Patroni has it from 4.2 on; it is not built yet"),
    Row::new(
        "standby_cluster.host",
        Kind::Text,
        "The remote node that this whole cluster follows; several with commas.",
    )
    .dynamic(),
    Row::new("standby_cluster.port", Kind::Int(1, 65_535), "The port of the remote node.").dynamic(),
    Row::new(
        "standby_cluster.primary_slot_name",
        Kind::Text,
        "The replication slot to use on the remote node.",
    )
    .dynamic(),
    Row::new(
        "standby_cluster.restore_command",
        Kind::Text,
        "How WAL of the remote node comes from an archive.",
    )
    .dynamic(),
    Row::new(
        "standby_cluster.archive_cleanup_command",
        Kind::Text,
        "The archive_cleanup_command of the standby leader.",
    )
    .dynamic(),
    Row::new(
        "standby_cluster.recovery_min_apply_delay",
        Kind::Text,
        "How long the standby leader waits before it replays.",
    )
    .dynamic(),
    Row::new(
        "standby_cluster.create_replica_methods",
        Kind::Texts,
        "How the standby leader is made from the remote node.",
    )
    .dynamic(),
    Row::new("slots", Kind::Json, "Replication slots that always exist.").dynamic(),
    Row::new("permanent_slots", Kind::Json, "An old name of slots.").dynamic().alias_of("slots"),
    Row::new("permanent_replication_slots", Kind::Json, "An old name of slots.").dynamic().alias_of("slots"),
    Row::new("ignore_slots", Kind::Json, "Replication slots that are never touched.").dynamic(),
    Row::new("postgresql.parameters", Kind::TextMap, "Parameters of PostgreSQL on every member.").dynamic(),
    Row::new("postgresql.pg_hba", Kind::Lines, "The lines of pg_hba.conf on every member.").dynamic(),
    Row::new("postgresql.pg_ident", Kind::Lines, "The lines of pg_ident.conf on every member.").dynamic(),
    Row::new("postgresql.recovery_conf", Kind::TextMap, "Recovery parameters of replicas.").dynamic(),
    Row::new("postgresql.use_slots", Kind::Bool, "Whether replicas stream through slots.")
        .default("true")
        .dynamic(),
    Row::new("postgresql.use_pg_rewind", Kind::Bool, "Whether a diverged former primary is rewound.")
        .default("false")
        .dynamic(),
    Row::new(
        "postgresql.remove_data_directory_on_rewind_failure",
        Kind::Bool,
        "Whether a node that cannot be rewound is cloned afresh.",
    )
    .default("false")
    .dynamic(),
    Row::new(
        "postgresql.remove_data_directory_on_diverged_timelines",
        Kind::Bool,
        "Whether a node that diverged is cloned afresh without a rewind.",
    )
    .default("false")
    .dynamic(),
    Row::new("postgresql.pg_ctl_timeout", Kind::Seconds(1, 86_400), "How long pg_ctl waits.")
        .default("60")
        .dynamic(),
    Row::new("postgresql.basebackup", Kind::Options, "Options of pg_basebackup.").dynamic(),
    Row::new("postgresql.rewind", Kind::Options, "Options of pg_rewind.").dynamic(),
    Row::new(
        "postgresql.bin_dir",
        Kind::Path,
        "Where PostgreSQL's programs are, on nodes whose file does not say; an agent takes it up when it starts.",
    )
    .dynamic(),
    Row::new("postgresql.custom_conf", Kind::Path, "A configuration file of your own, included first.").dynamic(),
    Row::new("postgresql.use_unix_socket", Kind::Bool, "Whether the agent connects through the Unix socket.")
        .default("false")
        .dynamic(),
    Row::new(
        "postgresql.use_unix_socket_repl",
        Kind::Bool,
        "Whether a replication connection to the own PostgreSQL does so; Baton makes none.",
    )
    .default("false")
    .dynamic(),
    Row::new("postgresql.pre_promote", Kind::Text, "A fencing script that must succeed before a promotion.")
        .dynamic(),
    Row::new("postgresql.before_stop", Kind::Text, "A script that runs before PostgreSQL is stopped.")
        .dynamic(),
    Row::new("postgresql.callbacks.on_start", Kind::Text, "A command to run when PostgreSQL was started.")
        .dynamic(),
    Row::new("postgresql.callbacks.on_stop", Kind::Text, "A command to run when PostgreSQL was stopped.")
        .dynamic(),
    Row::new(
        "postgresql.callbacks.on_restart",
        Kind::Text,
        "A command to run when PostgreSQL was restarted.",
    )
    .dynamic(),
    Row::new(
        "postgresql.callbacks.on_reload",
        Kind::Text,
        "A command to run when PostgreSQL was told to reload.",
    )
    .dynamic(),
    Row::new(
        "postgresql.callbacks.on_role_change",
        Kind::Text,
        "A command to run when the role of this member changed.",
    )
    .dynamic(),
    Row::new("postgresql.create_replica_methods", Kind::Texts, "How replicas are made.").dynamic(),
    Row::new("postgresql.create_replica_method", Kind::Texts, "An old name of create_replica_methods.")
        .dynamic()
        .alias_of("postgresql.create_replica_methods"),
    Row::new("postgresql.parameters_primary", Kind::TextMap, "Parameters of a primary.")
        .dynamic()
        .refused(NO_ROLES),
    Row::new("postgresql.parameters_replica", Kind::TextMap, "Parameters of a replica.")
        .dynamic()
        .refused(NO_ROLES),
    Row::new("postgresql.pg_hba_primary", Kind::Lines, "pg_hba of a primary.").dynamic().refused(NO_ROLES),
    Row::new("postgresql.pg_hba_replica", Kind::Lines, "pg_hba of a replica.").dynamic().refused(NO_ROLES),
];
