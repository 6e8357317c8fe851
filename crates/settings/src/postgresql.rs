//! `postgresql:`, the local half.

use crate::secret::Secret;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The PostgreSQL of this node.
#[derive(Clone, Debug)]
pub struct Postgresql {
    /// The addresses PostgreSQL listens on; `*` is every one.
    pub listen: Vec<String>,
    pub port: u16,
    /// Host and port under which the others reach it.
    pub connect_host: String,
    pub connect_port: u16,
    /// `host:port` of a pooler that is published beside it.
    pub proxy_address: Option<String>,
    pub data_dir: PathBuf,
    pub bin_dir: Option<PathBuf>,
    /// Other names of programs: `pg_ctl`, `postgres`, …
    pub bin_name: BTreeMap<String, String>,
    /// Where the configuration files are, when not in `data_dir`.
    pub config_dir: Option<PathBuf>,
    /// The operator's own file to include instead of `postgresql.base.conf`.
    pub custom_conf: Option<PathBuf>,
    /// The password file that Baton writes; `~/pgpass` of the user it runs as when missing.
    pub pgpass: Option<PathBuf>,
    /// Whether Baton itself, and replication from it, connect through the Unix socket.
    pub use_unix_socket: bool,
    pub use_unix_socket_repl: bool,
    /// The first of `parameters.unix_socket_directories`.
    pub unix_socket_directory: Option<String>,
    pub database: String,
    pub authentication: Authentication,
    pub parameters: BTreeMap<String, String>,
    /// `None` when the file has no such list: the dynamic one then counts, else the file is left alone.
    pub pg_hba: Option<Vec<String>>,
    pub pg_ident: Option<Vec<String>>,
    pub callbacks: BTreeMap<String, String>,
    pub create_replica_methods: Vec<String>,
    /// The sections of those methods, as written.
    pub replica_methods: BTreeMap<String, Value>,
    /// Options of pg_basebackup without the dashes.
    pub basebackup: Vec<(String, Option<String>)>,
    /// `None`: the dynamic configuration decides. The same goes for the others with `Option`.
    pub use_pg_rewind: Option<bool>,
    pub remove_data_directory_on_rewind_failure: Option<bool>,
    pub remove_data_directory_on_diverged_timelines: Option<bool>,
    pub pg_ctl_timeout: Option<u32>,
    pub pre_promote: Option<String>,
    pub before_stop: Option<String>,
    pub recovery_conf: BTreeMap<String, String>,
}

impl Postgresql {
    /// `host:port` under which the others reach it; an IPv6 host is in brackets.
    #[must_use]
    pub fn connect_address(&self) -> String {
        crate::address::join(&self.connect_host, self.connect_port)
    }
}

/// `postgresql.authentication`
#[derive(Clone, Debug)]
pub struct Authentication {
    pub superuser: Login,
    pub replication: Login,
    /// The user of pg_rewind; the superuser when missing.
    pub rewind: Option<Login>,
}

/// A database user and how it connects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    pub username: String,
    pub password: Option<Secret>,
    pub sslmode: Option<String>,
    pub sslcert: Option<String>,
    pub sslkey: Option<String>,
    pub sslpassword: Option<Secret>,
    pub sslrootcert: Option<String>,
    pub sslcrl: Option<String>,
    pub sslcrldir: Option<String>,
    pub gssencmode: Option<String>,
    pub channel_binding: Option<String>,
    pub sslnegotiation: Option<String>,
}
