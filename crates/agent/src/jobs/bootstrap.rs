//! Creating the cluster: a data directory by initdb or by the operator's command, its users, the operator's script.
//!
//! ```text
//!   initdb | command ─► PostgreSQL that listens on no address (recovery, if there is one, ends first)
//!                          ─► users ─► post_bootstrap ─► stopped cleanly ─► the agent takes the lead and starts it
//! ```
//! What fails on the way is kept as `<data_dir>.failed`.

use super::copy::Passwords;
use super::{Jobs, Tools};
use crate::configure::{self, As};
use anyhow::Context;
use postgres::connection::ConnectTo;
use postgres::data_dir::{self, DataDir, Work};
use postgres::initdb::{self, InitdbOptions};
use postgres::postmaster::{Postmaster, StartOptions, Stop};
use postgres::probe::{Probe, Prober};
use postgres::users::{self, User, Users};
use postgres::{control, script};
use settings::{BootstrapMethod, Login, Settings};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::PostgresState;

impl Jobs {
    /// Creates the cluster.
    pub(super) async fn bootstrap(&self, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        let data_dir = tools.local.data_dir();
        if let DataDir::Incomplete { .. } = data_dir::inspect(data_dir)? {
            data_dir::set_failed_aside(data_dir)?;
            data_dir::clear_mark(data_dir)?;
        }
        let outcome = match &tools.settings.bootstrap.custom {
            None => {
                by_initdb(tools).await?;
                populate(tools, None, token).await
            }
            Some(script) => {
                self.creates(PostgresState::CustomBootstrap);
                match by_script(tools, script, token).await {
                    Ok(()) => {
                        self.creates(PostgresState::BootstrapStarting);
                        populate(tools, Some(script), token).await
                    }
                    Err(error) => Err(error),
                }
            }
        };
        match outcome {
            // The mark stays until /initialize names this cluster: should the agent die before, these are nobody's data.
            Ok(()) => {
                tools.local.newborn(true);
                Ok(())
            }
            Err(error) => {
                if let Some(postmaster) = Postmaster::adopt(data_dir)? {
                    postmaster.kill_all()?;
                }
                let aside = data_dir::set_failed_aside(data_dir)?;
                data_dir::clear_mark(data_dir)?;
                let aside = aside.map(|path| path.display().to_string()).unwrap_or_default();
                Err(error
                    .context(format!("complete the new cluster; what there is of it is kept as {aside}")))
            }
        }
    }
}

async fn by_initdb(tools: &Tools) -> anyhow::Result<()> {
    let superuser = &tools.settings.postgresql.authentication.superuser;
    let options = InitdbOptions {
        options: tools.settings.bootstrap.initdb.clone(),
        superuser: superuser.username.clone(),
        superuser_password: superuser.password.clone(),
        keep_mark: true,
    };
    Ok(initdb::run(tools.local.installation(), tools.local.data_dir(), &options).await?)
}

/// The operator's command, and what the first start after it needs.
async fn by_script(tools: &Tools, script: &BootstrapMethod, token: &CancellationToken) -> anyhow::Result<()> {
    let data_dir = tools.local.data_dir();
    data_dir::mark_incomplete(data_dir, Work::Bootstrap)?;
    let mut arguments = Vec::new();
    if !script.no_params {
        arguments.push(format!("--scope={}", tools.settings.scope));
        arguments.push(format!("--datadir={}", data_dir.display()));
    }
    arguments.extend(script.options.iter().map(|(name, value)| format!("--{name}={value}")));
    script::run(tools.local.installation(), &script.command, &arguments, &[], token)
        .await
        .with_context(|| format!("create the cluster with bootstrap.{}", script.name))?;
    anyhow::ensure!(
        data_dir.join("PG_VERSION").is_file() && control::read(data_dir).is_ok(),
        "find a database in {} after bootstrap.{}: its command ended well and left none",
        data_dir.display(),
        script.name
    );
    let config_dir = tools.settings.postgresql.config_dir.as_deref().unwrap_or(data_dir);
    if !config_dir.join("postgresql.conf").exists() {
        let mut effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
        configure::write(&tools.settings, &mut effective, &tools.local, &As::Primary)?;
    }
    signals(data_dir, script)
}

/// Whether the first start recovers from an archive: as the configuration says, or as the command has left it.
fn signals(data_dir: &Path, script: &BootstrapMethod) -> anyhow::Result<()> {
    let path = |name: &str| data_dir.join(name);
    let left = path("standby.signal").exists() || path("recovery.signal").exists();
    for name in ["standby.signal", "recovery.signal"] {
        match std::fs::remove_file(path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            Ok(()) | Err(_) => {}
        }
    }
    let recovers = script.recovery_conf.is_some() || (script.keep_existing_recovery_conf && left);
    if recovers {
        std::fs::write(path("recovery.signal"), "")?;
    }
    Ok(())
}

/// The settings of a PostgreSQL that serves nobody but us.
fn private(
    socket_dir: &str,
    hba: &Path,
    script: Option<&BootstrapMethod>,
    data_dir: &Path,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut args: Vec<(String, String)> = [
        ("listen_addresses", ""),
        ("unix_socket_directories", socket_dir),
        ("unix_socket_permissions", "0700"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let mut add = |name: &str, value: String| args.push((name.to_owned(), value));
    let Some(script) = script else {
        add("archive_mode", "off".to_owned());
        add("max_wal_senders", "0".to_owned());
        add("wal_level", "minimal".to_owned());
        return Ok(args);
    };
    // Rules that came with the data may let nobody in; only we can enter the directory of the socket.
    add("hba_file", hba.display().to_string());
    // Nobody can connect before recovery has ended, and what is written meanwhile waits for the real archive_command.
    add("hot_standby", "off".to_owned());
    add("wal_level", "replica".to_owned());
    add("archive_mode", "on".to_owned());
    add("archive_command", "false".to_owned());
    let found = control::read(data_dir)?;
    add("max_connections", found.max_connections.to_string());
    add("max_worker_processes", found.max_worker_processes.to_string());
    add("max_wal_senders", found.max_wal_senders.to_string());
    add("max_prepared_transactions", found.max_prepared_xacts.to_string());
    add("max_locks_per_transaction", found.max_locks_per_xact.to_string());
    let conf = script.recovery_conf.clone().unwrap_or_default();
    let targeted = conf.keys().any(|name| name.starts_with("recovery_target"));
    if targeted && !conf.contains_key("recovery_target_action") {
        add("recovery_target_action", "promote".to_owned());
    }
    for (name, value) in &conf {
        // Settings of recovery.conf that PostgreSQL has signals for now.
        if !matches!(name.as_str(), "standby_mode" | "trigger_file" | "promote_trigger_file") {
            add(name, value.clone());
        }
    }
    Ok(args)
}

async fn populate(
    tools: &Tools,
    script: Option<&BootstrapMethod>,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    let settings = &tools.settings;
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    let socket_dir = tempdir(data_dir)?;
    let connect = ConnectTo { host: socket_dir.display().to_string(), ..tools.local.connect() };
    let hba = socket_dir.join("pg_hba.conf");
    std::fs::write(&hba, "local all all trust\n").context("write rules for the first start")?;
    let options = StartOptions {
        args: private(&connect.host, &hba, script, data_dir)?,
        log_file: tools.local.log_file().to_owned(),
        port: Some(connect.port),
        ..StartOptions::default()
    };
    append_hba(data_dir, &settings.bootstrap.pg_hba)?;
    let postmaster = Postmaster::start(installation, data_dir, &options).await?;
    ready(&connect, &postmaster, token).await?;
    users::ensure(&connect, &users(settings), Duration::from_secs(30)).await?;
    if let Some(command) = &settings.bootstrap.post_bootstrap {
        post_bootstrap(command, &connect, tools, token).await?;
    }
    postmaster.signal(Stop::Fast)?;
    tokio::time::timeout(Duration::from_secs(120), postmaster.exited())
        .await
        .context("stop the new cluster after its users were created")?;
    std::fs::remove_dir_all(&socket_dir)?;
    let mut effective = configure::effective(settings, &tools.dynamic, &tools.local);
    configure::write(settings, &mut effective, &tools.local, &As::Primary)?;
    anyhow::ensure!(control::read(data_dir)?.state.is_clean(), "stop the new cluster cleanly");
    Ok(())
}

/// A directory for the private socket, short enough for a socket's path.
fn tempdir(data_dir: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    let name = format!("baton-boot-{}", std::process::id());
    let path = [std::env::temp_dir(), data_dir.parent().unwrap_or(data_dir).to_owned()]
        .into_iter()
        .map(|parent| parent.join(&name))
        .find(|path| path.as_os_str().len() < 80)
        .context("find a short path for a Unix socket; set TMPDIR to one")?;
    std::fs::DirBuilder::new().mode(0o700).create(&path).context("create a directory for a Unix socket")?;
    Ok(path)
}

fn append_hba(data_dir: &Path, lines: &[String]) -> anyhow::Result<()> {
    use std::io::Write;
    if lines.is_empty() {
        return Ok(());
    }
    let mut file =
        std::fs::OpenOptions::new().append(true).create(true).open(data_dir.join("pg_hba.conf"))?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(file.sync_all()?)
}

/// Waits until it takes connections, which it does only when recovery has ended.
async fn ready(
    connect: &ConnectTo,
    postmaster: &Postmaster,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    let mut prober = Prober::new(connect.clone());
    loop {
        anyhow::ensure!(postmaster.alive(), "start the new cluster: PostgreSQL ended; its log says why");
        anyhow::ensure!(!token.is_cancelled(), "create the cluster: cancelled");
        if let Probe::Running(_) = prober.probe(Duration::from_secs(2)).await {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn users(settings: &Settings) -> Users {
    let user = |login: &Login| User { name: login.username.clone(), password: login.password.clone() };
    let authentication = &settings.postgresql.authentication;
    Users {
        superuser: user(&authentication.superuser),
        replication: user(&authentication.replication),
        rewind: authentication.rewind.as_ref().map(user),
    }
}

/// Runs the operator's script with a connection string as its last argument.
async fn post_bootstrap(
    command: &str,
    connect: &ConnectTo,
    tools: &Tools,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    let dsn = postgres::config_files::conninfo(&connect.pairs());
    let passwords = Passwords::write(tools.local.data_dir(), Some(connect))?;
    let mut environment =
        vec![("PGOPTIONS", Path::new("-c synchronous_commit=local -c statement_timeout=0"))];
    environment.extend(passwords.iter().map(|file| ("PGPASSFILE", file.path())));
    script::run(tools.local.installation(), command, &[dsn], &environment, token)
        .await
        .context("run bootstrap.post_bootstrap")
}
