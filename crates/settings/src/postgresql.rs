//! `postgresql:`, the local half.

use crate::address;
use crate::build::{self, Raw};
use crate::callbacks::Callbacks;
use crate::methods::{self, ReplicaMethod};
use crate::node::{Content, Node};
use crate::problem::{Findings, Place};
use crate::secret::Secret;
use crate::values::Values;
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
    /// Whether Baton itself connects through the Unix socket; `None`: the dynamic configuration decides.
    pub use_unix_socket: Option<bool>,
    /// The first of `parameters.unix_socket_directories`.
    pub unix_socket_directory: Option<String>,
    pub database: String,
    pub authentication: Authentication,
    pub parameters: BTreeMap<String, String>,
    /// `None` when the file has no such list: the dynamic one then counts, else the file is left alone.
    pub pg_hba: Option<Vec<String>>,
    pub pg_ident: Option<Vec<String>>,
    /// `None` where the file has none: the dynamic ones then count. The same goes for the next.
    pub callbacks: Option<Callbacks>,
    pub create_replica_methods: Option<Vec<String>>,
    /// The sections of the methods that have one, by name.
    pub replica_methods: BTreeMap<String, ReplicaMethod>,
    /// Options of pg_basebackup without the dashes.
    pub basebackup: Vec<(String, Option<String>)>,
    /// Options of pg_rewind without the dashes.
    pub rewind: Vec<(String, Option<String>)>,
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
        address::join(&self.connect_host, self.connect_port)
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

/// The section as meant.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Option<Postgresql> {
    let values = raw.local;
    let at = |key: &str| format!("postgresql.{key}");
    let listen = values.text("postgresql.listen")?;
    let (hosts, port) = address::split(&listen, Some(5432))?;
    let listen: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
    let (connect_host, connect_port) = connect(values, &listen, port, findings);
    let parameters = values.text_map("postgresql.parameters");
    warn_of_controlled(values, &parameters, findings);
    let optional = |key: &str| values.bool(&at(key));
    let create_replica_methods = values.written_texts("postgresql.create_replica_methods");
    Some(Postgresql {
        unix_socket_directory: parameters
            .get("unix_socket_directories")
            .and_then(|list| list.split(',').next())
            .map(|directory| directory.trim().to_owned())
            .filter(|directory| !directory.is_empty()),
        listen,
        port,
        connect_host,
        connect_port,
        proxy_address: values.text("postgresql.proxy_address"),
        data_dir: values.path("postgresql.data_dir")?,
        bin_dir: values.path("postgresql.bin_dir"),
        bin_name: bin_names(values),
        config_dir: values.path("postgresql.config_dir"),
        custom_conf: values.path("postgresql.custom_conf"),
        pgpass: values.path("postgresql.pgpass"),
        use_unix_socket: optional("use_unix_socket"),
        database: values.text("postgresql.database").unwrap_or_default(),
        authentication: authentication(values)?,
        parameters,
        pg_hba: values.texts("postgresql.pg_hba"),
        pg_ident: values.texts("postgresql.pg_ident"),
        callbacks: Callbacks::build(values),
        replica_methods: replica_methods(raw, create_replica_methods.as_deref(), findings),
        create_replica_methods,
        basebackup: values.pairs("postgresql.basebackup"),
        rewind: values.pairs("postgresql.rewind"),
        use_pg_rewind: optional("use_pg_rewind"),
        remove_data_directory_on_rewind_failure: optional("remove_data_directory_on_rewind_failure"),
        remove_data_directory_on_diverged_timelines: optional("remove_data_directory_on_diverged_timelines"),
        pg_ctl_timeout: values
            .int("postgresql.pg_ctl_timeout")
            .and_then(|seconds| u32::try_from(seconds).ok()),
        pre_promote: values.text("postgresql.pre_promote"),
        before_stop: values.text("postgresql.before_stop"),
        recovery_conf: values.text_map("postgresql.recovery_conf"),
    })
}

fn connect(values: &Values, listen: &[String], port: u16, findings: &mut Findings) -> (String, u16) {
    let written = values.text("postgresql.connect_address");
    let address = written.unwrap_or_else(|| {
        let reachable = listen.iter().find(|host| !address::is_wildcard(host)).cloned().unwrap_or_default();
        address::join(&reachable, port)
    });
    build::unreachable(&address, "postgresql.connect_address", values, findings);
    address::split(&address, Some(port)).unwrap_or((address, port))
}

/// Parameters that must be equal on all members, or are Baton's own, count only in the dynamic configuration.
fn warn_of_controlled(values: &Values, parameters: &BTreeMap<String, String>, findings: &mut Findings) {
    for name in parameters.keys().filter(|name| crate::guc::is_controlled(name)) {
        let key = format!("postgresql.parameters.{name}");
        let place =
            values.origins.iter().find(|origin| origin.key == key).map(|origin| origin.origin.clone());
        let what = match crate::guc::is_fixed(name) {
            true => format!("{key} has no effect: Baton sets it itself"),
            false => format!(
                "{key} has no effect: it must be equal on all members, set it with `baton edit-config -p`"
            ),
        };
        findings.warn(&place.unwrap_or(Place::Default), &key, what);
    }
}

fn bin_names(values: &Values) -> BTreeMap<String, String> {
    let programs = [
        "pg_ctl",
        "initdb",
        "pg_controldata",
        "pg_basebackup",
        "postgres",
        "pg_isready",
        "pg_rewind",
        "pg_waldump",
    ];
    let named = |name: &str| Some((name.to_owned(), values.text(&format!("postgresql.bin_name.{name}"))?));
    programs.into_iter().filter_map(named).collect()
}

/// The sections of methods, listed here or perhaps in the dynamic configuration. A listed one that cannot run is an error
/// now, not at the next clone.
fn replica_methods(
    raw: &Raw<'_>,
    listed: Option<&[String]>,
    findings: &mut Findings,
) -> BTreeMap<String, ReplicaMethod> {
    let mut found = BTreeMap::new();
    let listed = listed.unwrap_or_default();
    if let Some(Node { content: Content::Map(entries), .. }) = raw.root.get("postgresql") {
        for (key, node) in entries.iter().filter(|(_, node)| matches!(node.content, Content::Map(_))) {
            let name = &key.text;
            if raw.local.is_known(&format!("postgresql.{name}")) {
                continue;
            }
            match ReplicaMethod::read(name, &node.to_json()) {
                Ok(method) => drop(found.insert(name.clone(), method)),
                Err(why) if listed.contains(name) => {
                    let what = format!("postgresql.{name} {why}");
                    findings.error(&key.place, &format!("postgresql.{name}"), what);
                }
                Err(_) => {}
            }
        }
    }
    for name in listed.iter().filter(|name| *name != methods::BASEBACKUP) {
        if raw.root.get("postgresql").is_none_or(|section| section.get(name).is_none()) {
            let key = "postgresql.create_replica_methods";
            let what = format!(
                "{key} names {name}, but there is no section postgresql.{name}: add it with a command"
            );
            findings.error(&raw.local.place(key), key, what);
        }
    }
    found
}

fn authentication(values: &Values) -> Option<Authentication> {
    Some(Authentication {
        superuser: login(values, "superuser")?,
        replication: login(values, "replication")?,
        rewind: login(values, "rewind"),
    })
}

fn login(values: &Values, role: &str) -> Option<Login> {
    let text = |key: &str| values.text(&format!("postgresql.authentication.{role}.{key}"));
    let secret = |key: &str| values.secret(&format!("postgresql.authentication.{role}.{key}"));
    Some(Login {
        username: text("username")?,
        password: secret("password"),
        sslmode: text("sslmode"),
        sslcert: text("sslcert"),
        sslkey: text("sslkey"),
        sslpassword: secret("sslpassword"),
        sslrootcert: text("sslrootcert"),
        sslcrl: text("sslcrl"),
        sslcrldir: text("sslcrldir"),
        gssencmode: text("gssencmode"),
        channel_binding: text("channel_binding"),
        sslnegotiation: text("sslnegotiation"),
    })
}
