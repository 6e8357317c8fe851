//! `postgresql:`, the local half.

use super::Row;
use crate::kind::Kind;

const NO_ROLES: &str = "configuration by role is not built yet (Patroni has it from 4.2 on)";

pub(super) const ROWS: &[Row] = &[
    Row::new("postgresql.listen", Kind::Listen, "Where PostgreSQL listens.")
        .env(&["PATRONI_POSTGRESQL_LISTEN"])
        .required(),
    Row::new("postgresql.connect_address", Kind::Address, "How the others reach it; `listen` unless said.")
        .env(&["PATRONI_POSTGRESQL_CONNECT_ADDRESS"]),
    Row::new("postgresql.proxy_address", Kind::Address, "A pooler in front of it, published beside it.")
        .env(&["PATRONI_POSTGRESQL_PROXY_ADDRESS"]),
    Row::new("postgresql.data_dir", Kind::Path, "The data directory.")
        .env(&["PATRONI_POSTGRESQL_DATA_DIR"])
        .required(),
    Row::new(
        "postgresql.bin_dir",
        Kind::Path,
        "Where PostgreSQL's programs are; found by itself when missing.",
    )
    .env(&["PATRONI_POSTGRESQL_BIN_DIR"]),
    Row::new("postgresql.config_dir", Kind::Path, "Where the configuration files are, if not in data_dir.")
        .env(&["PATRONI_POSTGRESQL_CONFIG_DIR"]),
    Row::new("postgresql.custom_conf", Kind::Path, "A configuration file of your own, included first."),
    Row::new("postgresql.pgpass", Kind::Path, "The password file that is written.")
        .env(&["PATRONI_POSTGRESQL_PGPASS"]),
    Row::new("postgresql.bin_name.pg_ctl", Kind::Text, "Another name of pg_ctl.")
        .env(&["PATRONI_POSTGRESQL_BIN_PG_CTL"]),
    Row::new("postgresql.bin_name.initdb", Kind::Text, "Another name of initdb.")
        .env(&["PATRONI_POSTGRESQL_BIN_INITDB"]),
    Row::new("postgresql.bin_name.pg_controldata", Kind::Text, "Another name of pg_controldata.")
        .env(&["PATRONI_POSTGRESQL_BIN_PG_CONTROLDATA"]),
    Row::new("postgresql.bin_name.pg_basebackup", Kind::Text, "Another name of pg_basebackup.")
        .env(&["PATRONI_POSTGRESQL_BIN_PG_BASEBACKUP"]),
    Row::new("postgresql.bin_name.postgres", Kind::Text, "Another name of postgres.")
        .env(&["PATRONI_POSTGRESQL_BIN_POSTGRES"]),
    Row::new("postgresql.bin_name.pg_isready", Kind::Text, "Another name of pg_isready.")
        .env(&["PATRONI_POSTGRESQL_BIN_PG_ISREADY"]),
    Row::new("postgresql.bin_name.pg_rewind", Kind::Text, "Another name of pg_rewind.")
        .env(&["PATRONI_POSTGRESQL_BIN_PG_REWIND"]),
    Row::new("postgresql.bin_name.pg_waldump", Kind::Text, "Another name of pg_waldump."),
    Row::new("postgresql.use_unix_socket", Kind::Bool, "Whether the agent connects through the Unix socket."),
    Row::new(
        "postgresql.use_unix_socket_repl",
        Kind::Bool,
        "Whether a replication connection to the own PostgreSQL does so; Baton makes none.",
    ),
    Row::new("postgresql.database", Kind::Text, "The database the agent connects to.").default("postgres"),
    Row::new("postgresql.authentication.superuser.username", Kind::Text, "The name of the superuser.")
        .env(&["PATRONI_SUPERUSER_USERNAME"])
        .default("postgres"),
    Row::new("postgresql.authentication.superuser.password", Kind::Secret, "Its password.")
        .env(&["PATRONI_SUPERUSER_PASSWORD"]),
    Row::new("postgresql.authentication.superuser.sslmode", Kind::Text, "libpq's sslmode.")
        .env(&["PATRONI_SUPERUSER_SSLMODE"]),
    Row::new("postgresql.authentication.superuser.sslcert", Kind::Text, "The client certificate.")
        .env(&["PATRONI_SUPERUSER_SSLCERT"]),
    Row::new("postgresql.authentication.superuser.sslkey", Kind::Text, "The key of the certificate.")
        .env(&["PATRONI_SUPERUSER_SSLKEY"]),
    Row::new("postgresql.authentication.superuser.sslpassword", Kind::Secret, "The password of the key.")
        .env(&["PATRONI_SUPERUSER_SSLPASSWORD"]),
    Row::new(
        "postgresql.authentication.superuser.sslrootcert",
        Kind::Text,
        "The CA of the server's certificate.",
    )
    .env(&["PATRONI_SUPERUSER_SSLROOTCERT"]),
    Row::new("postgresql.authentication.superuser.sslcrl", Kind::Text, "Revoked certificates.")
        .env(&["PATRONI_SUPERUSER_SSLCRL"]),
    Row::new(
        "postgresql.authentication.superuser.sslcrldir",
        Kind::Text,
        "A directory of revoked certificates.",
    )
    .env(&["PATRONI_SUPERUSER_SSLCRLDIR"]),
    Row::new("postgresql.authentication.superuser.gssencmode", Kind::Text, "libpq's gssencmode.")
        .env(&["PATRONI_SUPERUSER_GSSENCMODE"]),
    Row::new("postgresql.authentication.superuser.channel_binding", Kind::Text, "libpq's channel_binding.")
        .env(&["PATRONI_SUPERUSER_CHANNEL_BINDING"]),
    Row::new("postgresql.authentication.superuser.sslnegotiation", Kind::Text, "libpq's sslnegotiation.")
        .env(&["PATRONI_SUPERUSER_SSLNEGOTIATION"]),
    Row::new(
        "postgresql.authentication.replication.username",
        Kind::Text,
        "The name of the replication user.",
    )
    .env(&["PATRONI_REPLICATION_USERNAME"])
    .required(),
    Row::new("postgresql.authentication.replication.password", Kind::Secret, "Its password.")
        .env(&["PATRONI_REPLICATION_PASSWORD"]),
    Row::new("postgresql.authentication.replication.sslmode", Kind::Text, "libpq's sslmode.")
        .env(&["PATRONI_REPLICATION_SSLMODE"]),
    Row::new("postgresql.authentication.replication.sslcert", Kind::Text, "The client certificate.")
        .env(&["PATRONI_REPLICATION_SSLCERT"]),
    Row::new("postgresql.authentication.replication.sslkey", Kind::Text, "The key of the certificate.")
        .env(&["PATRONI_REPLICATION_SSLKEY"]),
    Row::new("postgresql.authentication.replication.sslpassword", Kind::Secret, "The password of the key.")
        .env(&["PATRONI_REPLICATION_SSLPASSWORD"]),
    Row::new(
        "postgresql.authentication.replication.sslrootcert",
        Kind::Text,
        "The CA of the server's certificate.",
    )
    .env(&["PATRONI_REPLICATION_SSLROOTCERT"]),
    Row::new("postgresql.authentication.replication.sslcrl", Kind::Text, "Revoked certificates.")
        .env(&["PATRONI_REPLICATION_SSLCRL"]),
    Row::new(
        "postgresql.authentication.replication.sslcrldir",
        Kind::Text,
        "A directory of revoked certificates.",
    )
    .env(&["PATRONI_REPLICATION_SSLCRLDIR"]),
    Row::new("postgresql.authentication.replication.gssencmode", Kind::Text, "libpq's gssencmode.")
        .env(&["PATRONI_REPLICATION_GSSENCMODE"]),
    Row::new("postgresql.authentication.replication.channel_binding", Kind::Text, "libpq's channel_binding.")
        .env(&["PATRONI_REPLICATION_CHANNEL_BINDING"]),
    Row::new("postgresql.authentication.replication.sslnegotiation", Kind::Text, "libpq's sslnegotiation.")
        .env(&["PATRONI_REPLICATION_SSLNEGOTIATION"]),
    Row::new("postgresql.authentication.rewind.username", Kind::Text, "The name of the rewind user.")
        .env(&["PATRONI_REWIND_USERNAME"]),
    Row::new("postgresql.authentication.rewind.password", Kind::Secret, "Its password.")
        .env(&["PATRONI_REWIND_PASSWORD"]),
    Row::new("postgresql.authentication.rewind.sslmode", Kind::Text, "libpq's sslmode.")
        .env(&["PATRONI_REWIND_SSLMODE"]),
    Row::new("postgresql.authentication.rewind.sslcert", Kind::Text, "The client certificate.")
        .env(&["PATRONI_REWIND_SSLCERT"]),
    Row::new("postgresql.authentication.rewind.sslkey", Kind::Text, "The key of the certificate.")
        .env(&["PATRONI_REWIND_SSLKEY"]),
    Row::new("postgresql.authentication.rewind.sslpassword", Kind::Secret, "The password of the key.")
        .env(&["PATRONI_REWIND_SSLPASSWORD"]),
    Row::new(
        "postgresql.authentication.rewind.sslrootcert",
        Kind::Text,
        "The CA of the server's certificate.",
    )
    .env(&["PATRONI_REWIND_SSLROOTCERT"]),
    Row::new("postgresql.authentication.rewind.sslcrl", Kind::Text, "Revoked certificates.")
        .env(&["PATRONI_REWIND_SSLCRL"]),
    Row::new(
        "postgresql.authentication.rewind.sslcrldir",
        Kind::Text,
        "A directory of revoked certificates.",
    )
    .env(&["PATRONI_REWIND_SSLCRLDIR"]),
    Row::new("postgresql.authentication.rewind.gssencmode", Kind::Text, "libpq's gssencmode.")
        .env(&["PATRONI_REWIND_GSSENCMODE"]),
    Row::new("postgresql.authentication.rewind.channel_binding", Kind::Text, "libpq's channel_binding.")
        .env(&["PATRONI_REWIND_CHANNEL_BINDING"]),
    Row::new("postgresql.authentication.rewind.sslnegotiation", Kind::Text, "libpq's sslnegotiation.")
        .env(&["PATRONI_REWIND_SSLNEGOTIATION"]),
    Row::new("postgresql.parameters", Kind::TextMap, "Parameters of PostgreSQL on this node."),
    Row::new("postgresql.pg_hba", Kind::Lines, "The lines of pg_hba.conf."),
    Row::new("postgresql.pg_ident", Kind::Lines, "The lines of pg_ident.conf."),
    Row::new("postgresql.callbacks.on_start", Kind::Text, "A command to run when PostgreSQL was started."),
    Row::new("postgresql.callbacks.on_stop", Kind::Text, "A command to run when PostgreSQL was stopped."),
    Row::new(
        "postgresql.callbacks.on_restart",
        Kind::Text,
        "A command to run when PostgreSQL was restarted.",
    ),
    Row::new(
        "postgresql.callbacks.on_reload",
        Kind::Text,
        "A command to run when PostgreSQL was told to reload.",
    ),
    Row::new(
        "postgresql.callbacks.on_role_change",
        Kind::Text,
        "A command to run when the role of this member changed.",
    ),
    Row::new(
        "postgresql.create_replica_methods",
        Kind::Texts,
        "How replicas are made, in order of preference: basebackup, or names of sections here with a command of your own.",
    )
    .default("[basebackup]"),
    Row::new("postgresql.create_replica_method", Kind::Texts, "An old name of create_replica_methods.")
        .alias_of("postgresql.create_replica_methods"),
    Row::new("postgresql.basebackup", Kind::Options, "Options of pg_basebackup."),
    Row::new("postgresql.use_pg_rewind", Kind::Bool, "Whether a diverged former primary is rewound."),
    Row::new(
        "postgresql.remove_data_directory_on_rewind_failure",
        Kind::Bool,
        "Whether a node that cannot be rewound is cloned afresh.",
    ),
    Row::new(
        "postgresql.remove_data_directory_on_diverged_timelines",
        Kind::Bool,
        "Whether a node that diverged is cloned afresh without a rewind.",
    ),
    Row::new("postgresql.pg_ctl_timeout", Kind::Seconds(1, 86_400), "How long pg_ctl waits."),
    Row::new("postgresql.pre_promote", Kind::Text, "A fencing script that must succeed before a promotion."),
    Row::new("postgresql.before_stop", Kind::Text, "A script that runs before PostgreSQL is stopped."),
    Row::new(
        "postgresql.recovery_conf",
        Kind::TextMap,
        "Recovery parameters of replicas, such as restore_command.",
    ),
    Row::new("postgresql.rewind", Kind::Options, "Options of pg_rewind."),
    Row::new("postgresql.krbsrvname", Kind::Text, "The Kerberos service name.")
        .refused("it is not built yet"),
    Row::new("postgresql.parameters_primary", Kind::TextMap, "parameters of a primary.").refused(NO_ROLES),
    Row::new("postgresql.parameters_replica", Kind::TextMap, "parameters of a replica.").refused(NO_ROLES),
    Row::new("postgresql.parameters_standby_leader", Kind::TextMap, "parameters of a standby_leader.")
        .refused(NO_ROLES),
    Row::new("postgresql.pg_hba_primary", Kind::Lines, "pg_hba of a primary.").refused(NO_ROLES),
    Row::new("postgresql.pg_hba_replica", Kind::Lines, "pg_hba of a replica.").refused(NO_ROLES),
    Row::new("postgresql.pg_hba_standby_leader", Kind::Lines, "pg_hba of a standby_leader.")
        .refused(NO_ROLES),
    Row::new("postgresql.pg_ident_primary", Kind::Lines, "pg_ident of a primary.").refused(NO_ROLES),
    Row::new("postgresql.pg_ident_replica", Kind::Lines, "pg_ident of a replica.").refused(NO_ROLES),
    Row::new("postgresql.pg_ident_standby_leader", Kind::Lines, "pg_ident of a standby_leader.")
        .refused(NO_ROLES),
    Row::new("postgresql.use_slots", Kind::Bool, "Dynamic only: whether replicas stream through slots.")
        .ignored("it counts only in the dynamic configuration (bootstrap.dcs.postgresql.use_slots)"),
];
