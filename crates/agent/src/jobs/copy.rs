//! Making a replica: the configured methods one after the other, until the first that succeeds.
//!
//! ```text
//!   for each method   the old directory aside (unless keep_data) ─► mark ─► pg_basebackup or the operator's command
//!                        ok: it is a standby, clear the mark, done
//!                        failed: remove what it left, next method
//! ```

use super::{Jobs, Tools, as_arguments};
use crate::configure;
use crate::upstream::{self, Sender};
use anyhow::Context;
use postgres::basebackup::{self, CloneFrom, Progress};
use postgres::config_files::{self, PgPass};
use postgres::connection::ConnectTo;
use postgres::data_dir::{self, DataDir, Work};
use postgres::loss::{self, Account};
use postgres::{replication, rewind, script};
use settings::ReplicaMethod;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const SOURCE_WITHIN: Duration = Duration::from_secs(10);

impl Jobs {
    /// Makes the data directory anew.
    pub(super) async fn copy(&self, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        let sender = tools.source.as_ref().context("find the address of the source in its member key")?;
        let methods = methods(tools, sender);
        anyhow::ensure!(!methods.is_empty(), "make a replica: none of create_replica_methods can do it here");
        let last = methods.len() - 1;
        for (at, method) in methods.iter().enumerate() {
            let done = match &method.1 {
                None => self.basebackup(tools, sender, token).await,
                Some(script) => run_script(tools, sender, script, token).await,
            };
            match done {
                Ok(()) => return finish(tools.local.data_dir()),
                Err(error) if at == last || token.is_cancelled() => {
                    return Err(error.context(format!("make a replica with {}", method.0)));
                }
                Err(error) => {
                    let method = &method.0;
                    tracing::warn!(method, "failed to make a replica, the next method is tried: {error:#}");
                }
            }
        }
        Ok(())
    }

    async fn basebackup(
        &self,
        tools: &Tools,
        sender: &Sender,
        token: &CancellationToken,
    ) -> anyhow::Result<()> {
        // Before anything is touched here: is the source there, and does it let us in?
        let connect = source(tools, sender).await?;
        replication::identify_system(&connect, SOURCE_WITHIN).await?;
        let account = account(tools, &connect).await;
        let data_dir = tools.local.data_dir().to_owned();
        tokio::task::spawn_blocking(move || make_room(&data_dir, account)).await??;
        let from = CloneFrom { connect, slot: None };
        let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
        let options = as_arguments(&effective.basebackup);
        let note = |progress: Progress| self.note(progress);
        basebackup::run(tools.local.installation(), &from, tools.local.data_dir(), &options, note, token)
            .await?;
        Ok(())
    }
}

/// A method by its name; without a command it is pg_basebackup.
type Method = (String, Option<ReplicaMethod>);

/// What may be tried: without a running source, only what needs none.
fn methods(tools: &Tools, sender: &Sender) -> Vec<Method> {
    let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
    let names = match sender {
        Sender::Remote(remote) => remote.create_replica_methods.clone(),
        Sender::Member(_) | Sender::Archive => None,
    };
    let mut methods: Vec<Method> = Vec::new();
    for name in names.unwrap_or(effective.create_replica_methods) {
        match effective.replica_methods.get(&name) {
            Some(method) => methods.push((name, Some(method.clone()))),
            None if name == "basebackup" => methods.push((name, None)),
            None => tracing::warn!(
                name,
                "create_replica_methods names a section that is not there; it is left out"
            ),
        }
    }
    if sender.addresses().is_empty() {
        methods.retain(|(_, script)| script.is_some());
    }
    if *sender == Sender::Archive {
        methods.retain(|(_, script)| script.as_ref().is_some_and(|script| script.no_leader));
    }
    methods
}

async fn source(tools: &Tools, sender: &Sender) -> anyhow::Result<ConnectTo> {
    let login = &tools.settings.postgresql.authentication.replication;
    upstream::pick(sender.connections(login, "postgres", "baton clone"), SOURCE_WITHIN).await
}

/// The operator's command. It is told where everything is; its password is in a file that is gone afterwards.
async fn run_script(
    tools: &Tools,
    sender: &Sender,
    script: &ReplicaMethod,
    token: &CancellationToken,
) -> anyhow::Result<()> {
    let connect = match sender {
        Sender::Archive => None,
        Sender::Member(_) | Sender::Remote(_) => source(tools, sender).await.ok(),
    };
    let data_dir = tools.local.data_dir().to_owned();
    let keep = script.keep_data;
    let account = match &connect {
        Some(connect) => account(tools, connect).await,
        None => None,
    };
    let restores = tokio::task::spawn_blocking(move || prepare(&data_dir, keep, account)).await??;
    let mut arguments = Vec::new();
    if !script.no_params {
        let conninfo = connect.as_ref().map(|connect| config_files::conninfo(&connect.pairs()));
        arguments.push(format!("--scope={}", tools.settings.scope));
        arguments.push("--role=replica".to_owned());
        arguments.push(format!("--datadir={}", tools.local.data_dir().display()));
        arguments.push(format!("--connstring={}", conninfo.unwrap_or_default()));
    }
    arguments.extend(script.options.iter().map(|(name, value)| format!("--{name}={value}")));
    let passfile = Passwords::write(tools.local.data_dir(), connect.as_ref())?;
    let environment: Vec<(&str, &Path)> = passfile.iter().map(|file| ("PGPASSFILE", file.path())).collect();
    let installation = tools.local.installation();
    let ran = script::run(installation, &script.command, &arguments, &environment, token).await;
    let ran = ran.map_err(anyhow::Error::from).and_then(|()| is_database(tools.local.data_dir()));
    if ran.is_err() && !restores && !script.keep_data {
        basebackup::clean(tools.local.data_dir()).await?;
    }
    ran
}

/// What the command left is looked at before the mark goes.
fn is_database(data_dir: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(
        data_dir.join("PG_VERSION").is_file() && postgres::control::read(data_dir).is_ok(),
        "find a database in {} after the command: it ended well and left none",
        data_dir.display()
    );
    Ok(())
}

/// Whether what is there stays, to be worked over; it never is a database again before the command has ended well.
fn prepare(data_dir: &Path, keep_data: bool, account: Option<Account>) -> anyhow::Result<bool> {
    let found = data_dir::inspect(data_dir)?;
    let there = matches!(
        found,
        DataDir::Present { .. } | DataDir::Incomplete { work: Work::Restore | Work::Rewind, .. }
    );
    if keep_data && there {
        // The command works over what is there: what only this member has is kept first.
        if let Some(account) = account {
            rewind::keep_tail(data_dir, account)?;
        }
        data_dir::mark_incomplete(data_dir, Work::Restore)?;
        return Ok(true);
    }
    if !keep_data {
        make_room(data_dir, account)?;
        if matches!(data_dir::inspect(data_dir)?, DataDir::Foreign { .. }) {
            anyhow::bail!("make room in {}: it is neither empty nor a database", data_dir.display());
        }
    }
    data_dir::mark_incomplete(data_dir, Work::Clone)?;
    use std::os::unix::fs::DirBuilderExt;
    if !data_dir.exists() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    }
    Ok(false)
}

/// A copy is a standby from its first start on.
fn finish(data_dir: &Path) -> anyhow::Result<()> {
    data_dir::make_standby(data_dir)?;
    data_dir::clear_mark(data_dir)?;
    Ok(())
}

/// Moves aside what is in the way of a copy, with the account of what only it has; says where it is.
fn make_room(data_dir: &Path, account: Option<Account>) -> anyhow::Result<()> {
    let Some(aside) = data_dir::make_room(data_dir)? else { return Ok(()) };
    tracing::warn!(kept = %aside.display(), "the old data directory is moved aside");
    if let Some(account) = account {
        account.write(&aside)?;
    }
    Ok(())
}

/// What the directory that is about to be moved aside has and the source has not.
async fn account(tools: &Tools, connect: &ConnectTo) -> Option<Account> {
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    let inspected = data_dir.to_owned();
    let found = tokio::task::spawn_blocking(move || data_dir::inspect(&inspected)).await;
    let Ok(Ok(DataDir::Present { control, .. })) = found else { return None };
    let theirs = replication::identify_with_history(connect, SOURCE_WITHIN).await.ok()?;
    let theirs = (theirs.0.system_id, &theirs.1);
    let mut account = loss::account(installation, data_dir, &control, theirs).await?;
    let authentication = &tools.settings.postgresql.authentication;
    let login = authentication.rewind.as_ref().unwrap_or(&authentication.superuser);
    let database = &tools.settings.postgresql.database;
    let asked = configure::connect_to(login, &connect.host, connect.port, database, "baton loss");
    loss::name_relations(&mut account, &asked).await;
    Some(account)
}

/// The password file of an operator's command; removed when dropped.
pub(super) struct Passwords(PathBuf);

impl Passwords {
    pub(super) fn write(data_dir: &Path, connect: Option<&ConnectTo>) -> anyhow::Result<Option<Passwords>> {
        let Some((connect, password)) = connect.and_then(|c| Some((c, c.password.as_ref()?))) else {
            return Ok(None);
        };
        let mut path = data_dir.as_os_str().to_owned();
        path.push(".baton-script-pgpass");
        let entry = PgPass {
            host: connect.host.clone(),
            port: connect.port.to_string(),
            database: "*".to_owned(),
            user: connect.user.clone(),
            password: password.clone(),
        };
        let file = Passwords(PathBuf::from(path));
        config_files::write_pgpass(&file.0, &[entry])?;
        Ok(Some(file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Passwords {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            let path = self.0.display();
            tracing::warn!(%path, "failed to remove a password file: {error}; remove it by hand");
        }
    }
}
