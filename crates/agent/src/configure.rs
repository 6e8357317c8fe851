//! PostgreSQL's configuration: what the settings, the dynamic configuration and the present role ask for, written to its files.

use crate::local::Local;
use crate::upstream::Sender;
use ha::Data;
use postgres::config_files::{self, Follow, PgPass, Refusal, Wanted, Written};
use postgres::connection::ConnectTo;
use settings::{Dynamic, Effective, Login, Settings, ShmemMinimums, StandbyCluster};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use types::{NodeName, slot_name};

/// Whom a standby is to follow.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Upstream {
    pub name: NodeName,
    pub host: String,
    pub port: u16,
}

impl Upstream {
    /// From a member's `conn_url`: `postgres://host:port/db`.
    pub(crate) fn of(name: &NodeName, conn_url: &str) -> Option<Upstream> {
        let rest = conn_url.split_once("://")?.1;
        let place = rest.split(['/', '?']).next()?;
        let place = place.rsplit_once('@').map_or(place, |(_, place)| place);
        let (host, port) = place.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Some(Upstream { name: name.clone(), host, port: port.parse().ok()? })
    }
}

/// What PostgreSQL shall run as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum As {
    Primary,
    Standby(Sender),
}

/// What is asked of PostgreSQL, from all sources.
pub(crate) fn effective(settings: &Settings, dynamic: &Dynamic, local: &Local) -> Effective {
    let version = local.installation().version.num();
    let minimums = match local.data() {
        Data::Present(control) if control.standby => {
            postgres::control::read(local.data_dir()).ok().map(|control| ShmemMinimums {
                max_connections: control.max_connections,
                max_worker_processes: control.max_worker_processes,
                max_wal_senders: control.max_wal_senders,
                max_prepared_transactions: control.max_prepared_xacts,
                max_locks_per_transaction: control.max_locks_per_xact,
            })
        }
        Data::Present(_) | Data::Empty | Data::Incomplete | Data::Unusable => None,
    };
    settings::effective(settings, dynamic, version, minimums.as_ref())
}

/// Writes the files for this role, without what PostgreSQL would not start with; that is gone from `effective` then as well.
/// Reads and writes the data directory: call it beside the loop.
pub(crate) fn write(
    settings: &Settings,
    effective: &mut Effective,
    local: &Local,
    role: &As,
) -> Result<Written, postgres::Error> {
    let standby = match role {
        As::Primary => None,
        As::Standby(sender) => Some(follow(settings, effective, sender)?),
    };
    // Of two writers the later one must know the later names.
    let _one_at_a_time = local.names().writing();
    let mut parameters = effective.parameters.clone();
    if let Some(names) = local.names().value(matches!(role, As::Primary), local.shown_names()) {
        parameters.retain(|name, _| !name.eq_ignore_ascii_case("synchronous_standby_names"));
        parameters.insert("synchronous_standby_names".to_owned(), names);
    }
    // What a user decides about it counts; and a standby is asked by nobody.
    if let (As::Primary, Some(slots)) = (role, local.awaited_slots()) {
        parameters.entry("synchronized_standby_slots".to_owned()).or_insert_with(|| slots.join(","));
    }
    // A standby that finds no slot at a new leader yet tries again at once, not after PostgreSQL's 5 seconds.
    parameters.entry("wal_retrieve_retry_interval".to_owned()).or_insert_with(|| "500ms".to_owned());
    if let Some(directory) = &settings.postgresql.unix_socket_directory {
        parameters.entry("unix_socket_directories".to_owned()).or_insert_with(|| directory.clone());
    }
    let mut wanted = Wanted {
        parameters,
        pg_hba: effective.pg_hba.clone(),
        pg_ident: effective.pg_ident.clone(),
        custom_conf: effective.custom_conf.clone(),
        standby,
    };
    let config_dir = settings.postgresql.config_dir.as_deref();
    leave_out(&refusals(&wanted, &effective.warnings, config_dir, local), &mut wanted, effective);
    local.raised(&effective.raised);
    config_files::write(local.data_dir(), config_dir, &wanted, local.installation().version)
}

/// What PostgreSQL would not start with. It is asked when something of it is new: a restart after a crash does not wait for this.
fn refusals(wanted: &Wanted, warnings: &[String], config_dir: Option<&Path>, local: &Local) -> Vec<Refusal> {
    // Whom it follows is not in question.
    let others = wanted.standby.as_ref().map(|follow| follow.others.clone()).unwrap_or_default();
    let key = Wanted {
        parameters: wanted.parameters.clone(),
        standby: Some(Follow { others, ..Follow::default() }),
        custom_conf: wanted.custom_conf.clone(),
        ..Wanted::default()
    };
    if let Some(refused) = local.checked(&key) {
        return refused;
    }
    for warning in warnings {
        tracing::warn!("dynamic configuration: {warning}");
    }
    let refused = match config_files::refusals(local.installation(), local.data_dir(), config_dir, wanted) {
        Ok(refused) => refused,
        Err(error) => {
            // It will say so itself when it starts.
            tracing::debug!(%error, "failed to have PostgreSQL check its configuration");
            return Vec::new();
        }
    };
    for refusal in local.note_checked(key, &refused) {
        tracing::warn!(
            parameter = refusal.name,
            "PostgreSQL would not start with a parameter of the configuration, which is left out: {}; correct it",
            refusal.why
        );
    }
    refused
}

/// Takes what PostgreSQL refused out of what is asked of it. A controlled parameter has its default instead.
fn leave_out(refused: &[Refusal], wanted: &mut Wanted, effective: &mut Effective) {
    for refusal in refused {
        wanted.parameters.remove(&refusal.name);
        if let Some(follow) = &mut wanted.standby {
            follow.others.remove(&refusal.name);
        }
        if let Some(default) = settings::controlled_default(&refusal.name) {
            wanted.parameters.insert(refusal.name.clone(), default.to_owned());
            let given = effective.command_line.iter_mut().find(|(name, _)| *name == refusal.name);
            if let Some((_, value)) = given {
                default.clone_into(value);
            }
        }
    }
}

fn follow(settings: &Settings, effective: &Effective, sender: &Sender) -> Result<Follow, postgres::Error> {
    let mut follow = Follow {
        restore_command: effective.recovery_conf.get("restore_command").cloned(),
        others: effective.recovery_conf.clone(),
        ..Follow::default()
    };
    follow.others.remove("restore_command");
    match sender {
        Sender::Archive => return Ok(follow),
        Sender::Member(_) => follow.slot = effective.use_slots.then(|| slot_name(&settings.name)),
        Sender::Remote(remote) => from_remote(&mut follow, remote),
    }
    let login = &settings.postgresql.authentication.replication;
    let addresses = sender.addresses();
    let Some((first, port)) = addresses.first() else { return Ok(follow) };
    let mut conninfo = connect_to(login, first, *port, "postgres", settings.name.as_str()).pairs();
    if let Some(password) = &login.sslpassword {
        // libpq reads it from nowhere else; the file is its owner's alone.
        conninfo.push(("sslpassword".to_owned(), password.reveal().to_owned()));
    }
    if addresses.len() > 1 {
        let listed = |words: Vec<String>| words.join(",");
        let hosts = listed(addresses.iter().map(|(host, _)| host.clone()).collect());
        let ports = listed(addresses.iter().map(|(_, port)| port.to_string()).collect());
        for (name, value) in &mut conninfo {
            match name.as_str() {
                "host" => value.clone_from(&hosts),
                "port" => value.clone_from(&ports),
                _ => {}
            }
        }
        // Of several nodes the one that leads is followed, wherever the lead goes over there.
        conninfo.push(("target_session_attrs".to_owned(), "read-write".to_owned()));
    }
    if let Some(password) = &login.password {
        let passfile = pgpass_path(settings);
        let entry = |(host, port): &(String, u16)| PgPass {
            host: host.clone(),
            port: port.to_string(),
            database: "*".to_owned(),
            user: login.username.clone(),
            password: password.clone(),
        };
        config_files::write_pgpass(&passfile, &addresses.iter().map(entry).collect::<Vec<_>>())?;
        conninfo.push(("passfile".to_owned(), passfile.display().to_string()));
    }
    follow.primary_conninfo = conninfo;
    Ok(follow)
}

/// What the leader of a standby cluster has instead of the recovery settings of replicas.
fn from_remote(follow: &mut Follow, remote: &StandbyCluster) {
    follow.slot.clone_from(&remote.primary_slot_name);
    if let Some(command) = &remote.restore_command {
        follow.restore_command = Some(command.clone());
    }
    let others = [
        ("archive_cleanup_command", &remote.archive_cleanup_command),
        ("recovery_min_apply_delay", &remote.recovery_min_apply_delay),
    ];
    for (name, value) in others {
        if let Some(value) = value {
            follow.others.insert(name.to_owned(), value.clone());
        }
    }
}

/// The password file that PostgreSQL's own connections read.
fn pgpass_path(settings: &Settings) -> PathBuf {
    settings.postgresql.pgpass.clone().unwrap_or_else(|| {
        let mut name = settings.postgresql.data_dir.as_os_str().to_owned();
        name.push(".pgpass");
        PathBuf::from(name)
    })
}

/// A connection with this login.
pub(crate) fn connect_to(login: &Login, host: &str, port: u16, dbname: &str, application: &str) -> ConnectTo {
    let words = [
        ("sslmode", &login.sslmode),
        ("sslcert", &login.sslcert),
        ("sslkey", &login.sslkey),
        ("sslrootcert", &login.sslrootcert),
        ("sslcrl", &login.sslcrl),
        ("sslcrldir", &login.sslcrldir),
        ("gssencmode", &login.gssencmode),
        ("channel_binding", &login.channel_binding),
        ("sslnegotiation", &login.sslnegotiation),
    ];
    let tls: BTreeMap<String, String> =
        words.into_iter().filter_map(|(word, value)| Some((word.to_owned(), value.clone()?))).collect();
    ConnectTo {
        host: host.to_owned(),
        port,
        user: login.username.clone(),
        password: login.password.clone(),
        dbname: dbname.to_owned(),
        application_name: application.to_owned(),
        tls,
        sslpassword: login.sslpassword.clone(),
    }
}

/// How the agent itself reaches the local PostgreSQL: by its Unix socket where that is configured, else by an address it listens on.
pub(crate) fn local_connection(settings: &Settings, dynamic: &Dynamic) -> ConnectTo {
    let postgresql = &settings.postgresql;
    let host = if postgresql.use_unix_socket.unwrap_or(dynamic.use_unix_socket) {
        let listed = dynamic.parameters.get("unix_socket_directories").map(String::as_str);
        let directory = postgresql.unix_socket_directory.as_deref().or(listed);
        directory.unwrap_or("/var/run/postgresql").split(',').next().unwrap_or_default().trim().to_owned()
    } else {
        match postgresql.listen.first().map(String::as_str) {
            None | Some("*" | "0.0.0.0" | "::") => "localhost".to_owned(),
            Some(address) => address.to_owned(),
        }
    };
    connect_to(&postgresql.authentication.superuser, &host, postgresql.port, &postgresql.database, "baton")
}
