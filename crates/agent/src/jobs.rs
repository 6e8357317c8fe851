//! The jobs that take their time: one at a time, beside the loop.
//!
//! Every job that changes the data directory marks it first (in the postgres crate), so that one that was cut off half-way is never
//! taken for a database; and what was there is moved aside, not removed.

use crate::configure::{self, As, Upstream};
use crate::local::Local;
use crate::wake::{Cell, Wake};
use anyhow::Context;
use ha::{Finished, Work};
use postgres::basebackup::Progress;
use postgres::basebackup::{self, CloneFrom};
use postgres::control;
use postgres::data_dir::{self, DataDir};
use postgres::initdb::{self, InitdbOptions};
use postgres::postmaster::{Postmaster, StartOptions, Stop};
use postgres::probe::{Probe, Prober};
use postgres::replication;
use postgres::rewind::{self, Outcome, RewindError, RewindOptions};
use postgres::users::{self, User, Users};
use settings::{Dynamic, Login, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::Moment;

/// So many whole directories that were moved aside may lie beside the data directory. They are never removed here: each may be
/// the only copy of something. One more is refused, so that a member that is copied again and again does not fill the disk.
const KEPT: usize = 5;
/// A new leader has written its first checkpoint within this time, or the rewind is tried again later.
const SOURCE_READY_WITHIN: Duration = Duration::from_secs(120);
const SOURCE_WITHIN: Duration = Duration::from_secs(10);
const CHECKPOINT_WITHIN: Duration = Duration::from_secs(300);

/// Runs jobs; a cheap clone.
#[derive(Clone)]
pub(crate) struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    wake: Wake,
    state: Cell<State>,
}

#[derive(Default)]
struct State {
    running: Option<(Work, Moment, CancellationToken)>,
    finished: Option<Finished>,
    progress: Option<Progress>,
    lost: Option<Lost>,
}

/// What the last rewind undid: written by this node alone, kept in a file, gone from the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Lost {
    pub timeline: types::Timeline,
    pub fork: types::Lsn,
    pub bytes: u64,
    pub commits: Option<u64>,
    pub kept: String,
}

/// What a job works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub settings: Arc<Settings>,
    pub dynamic: Arc<Dynamic>,
    pub local: Local,
    /// The member that the job copies or is measured against.
    pub source: Option<Upstream>,
}

impl Jobs {
    pub(crate) fn new(wake: Wake) -> Jobs {
        Jobs { inner: Arc::new(Inner { wake, state: Cell::new(State::default()) }) }
    }

    /// The running job.
    pub(crate) fn running(&self) -> ha::Job {
        self.inner.state.with(|state| match &state.running {
            Some((work, since, _)) => ha::Job::Running { work: work.clone(), since: *since },
            None => ha::Job::Idle,
        })
    }

    /// The job that has ended since this was asked last.
    pub(crate) fn take_finished(&self) -> Option<Finished> {
        self.inner.state.with(|state| state.finished.take())
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.inner.state.with(|state| state.progress)
    }

    /// What the last rewind undid.
    pub(crate) fn lost(&self) -> Option<Lost> {
        self.inner.state.with(|state| state.lost.clone())
    }

    pub(crate) fn cancel(&self) {
        self.inner.state.with(|state| {
            if let Some((_, _, token)) = &state.running {
                token.cancel();
            }
        });
    }

    /// Begins a job. There is never more than one: the decisions see to that.
    pub(crate) fn begin(&self, work: Work, tools: Tools) {
        let token = CancellationToken::new();
        self.inner.state.with(|state| {
            state.running = Some((work.clone(), clock::now(), token.clone()));
            state.progress = None;
        });
        let jobs = self.clone();
        tokio::spawn(async move {
            tracing::info!(job = name(&work), "job begins");
            let outcome = jobs.run(&work, &tools, &token).await;
            match &outcome {
                Ok(()) => tracing::info!(job = name(&work), "job done"),
                Err(error) => tracing::error!(job = name(&work), error = format!("{error:#}"), "job failed"),
            }
            tools.local.look_at_data().await;
            jobs.inner.state.with(|state| {
                state.running = None;
                state.progress = None;
                state.finished = Some(Finished { work, ok: outcome.is_ok() });
            });
            jobs.inner.wake.wake();
        });
    }

    async fn run(&self, work: &Work, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        match work {
            Work::Bootstrap => bootstrap(tools, token).await,
            Work::Clone(_) => self.clone_from(tools, token).await,
            Work::Rewind { .. } => self.rewind(tools, token).await,
            Work::Checkpoint => checkpoint(tools).await,
        }
    }

    fn note(&self, progress: Progress) {
        self.inner.state.with(|state| state.progress = Some(progress));
    }

    /// Copies the leader's data directory; the present one is moved aside first.
    async fn clone_from(&self, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        let source = tools.source.as_ref().context("find the leader's address in its member key")?;
        let data_dir = tools.local.data_dir().to_owned();
        let login = &tools.settings.postgresql.authentication.replication;
        let connect = configure::connect_to(login, &source.host, source.port, "postgres", "baton clone");
        // Before anything is touched here: is the source there, and does it let us in?
        replication::identify_system(&connect, SOURCE_WITHIN).await?;
        tokio::task::spawn_blocking(move || make_room(&data_dir)).await??;
        let from = CloneFrom { connect, slot: None };
        let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
        let options: Vec<String> = effective
            .basebackup
            .iter()
            .map(|(name, value)| match value {
                Some(value) => format!("--{name}={value}"),
                None => format!("--{name}"),
            })
            .collect();
        let note = |progress: Progress| self.note(progress);
        basebackup::run(tools.local.installation(), &from, tools.local.data_dir(), &options, note, token)
            .await?;
        Ok(())
    }

    /// Rewinds the data directory to the leader's history; the tail is kept first.
    async fn rewind(&self, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        let source = tools.source.as_ref().context("find the leader's address in its member key")?;
        let authentication = &tools.settings.postgresql.authentication;
        let login = authentication.rewind.as_ref().unwrap_or(&authentication.superuser);
        let database = &tools.settings.postgresql.database;
        let connect = configure::connect_to(login, &source.host, source.port, database, "baton rewind");
        let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
        let options = RewindOptions {
            restore_command: effective.recovery_conf.get("restore_command").cloned(),
            config_file: None,
            options: Vec::new(),
        };
        let note = |progress: Progress| self.note(progress);
        let began = clock::now();
        let outcome = loop {
            let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
            match rewind::run(installation, data_dir, &connect, &options, note, token).await {
                Err(RewindError::SourceNotReady(why)) if clock::now().since(began) < SOURCE_READY_WITHIN => {
                    if self.progress().is_none() {
                        tracing::info!(why, "the rewind waits for the new leader's first checkpoint");
                        self.note(Progress { done_bytes: 0, total_bytes: None, rate: 0 });
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                ended => break ended?,
            }
        };
        if let Outcome::Rewound(rewound) = outcome {
            let lost = Lost {
                timeline: rewound.fork.timeline,
                fork: rewound.fork.lsn,
                bytes: rewound.end.bytes_since(rewound.fork.lsn),
                commits: rewound.commits,
                kept: rewound.kept.display().to_string(),
            };
            tracing::warn!(
                timeline = lost.timeline.0, fork = %lost.fork, bytes = lost.bytes, commits = ?lost.commits,
                kept = lost.kept, "what only this node had is undone and kept"
            );
            self.inner.state.with(|state| state.lost = Some(lost));
        }
        Ok(())
    }
}

fn name(work: &Work) -> &'static str {
    match work {
        Work::Bootstrap => "bootstrap",
        Work::Clone(_) => "clone",
        Work::Rewind { .. } => "rewind",
        Work::Checkpoint => "checkpoint",
    }
}

async fn checkpoint(tools: &Tools) -> anyhow::Result<()> {
    Prober::new(tools.local.connect().clone()).checkpoint(CHECKPOINT_WITHIN).await?;
    Ok(())
}

/// Moves aside what is in the way of a copy: a whole directory, or what a rewind or a bootstrap left unfinished.
fn make_room(data_dir: &std::path::Path) -> anyhow::Result<()> {
    let label = match data_dir::inspect(data_dir)? {
        DataDir::Present { .. } => "before_clone",
        DataDir::Incomplete { work: data_dir::Work::Rewind | data_dir::Work::Bootstrap, .. } => "unfinished",
        DataDir::Incomplete { work: data_dir::Work::Clone, .. }
        | DataDir::Missing
        | DataDir::Empty
        | DataDir::Foreign { .. } => return Ok(()),
    };
    let kept = data_dir::kept(data_dir)?.into_iter().filter(|kept| kept.label != "wal").count();
    anyhow::ensure!(
        kept < KEPT,
        "move the data directory aside: {kept} older ones lie beside it already; remove those named \
         {}.kept-* that nobody needs any more",
        data_dir.display()
    );
    let aside = data_dir::move_aside(data_dir, label)?;
    data_dir::clear_mark(data_dir)?;
    tracing::warn!(kept = %aside.display(), "the old data directory is moved aside");
    Ok(())
}

/// Creates the cluster: initdb, then its users in a PostgreSQL that listens on no address, then a clean stop.
async fn bootstrap(tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
    let settings = &tools.settings;
    let superuser = &settings.postgresql.authentication.superuser;
    let options = InitdbOptions {
        options: settings.bootstrap.initdb.clone(),
        superuser: superuser.username.clone(),
        superuser_password: superuser.password.clone(),
        keep_mark: true,
    };
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    if let DataDir::Incomplete { .. } = data_dir::inspect(data_dir)? {
        data_dir::set_failed_aside(data_dir)?;
        data_dir::clear_mark(data_dir)?;
    }
    initdb::run(installation, data_dir, &options).await?;
    let outcome = populate(tools, token).await;
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
            Err(error.context(format!("complete the new cluster; what there is of it is kept as {aside}")))
        }
    }
}

async fn populate(tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
    let settings = &tools.settings;
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    let socket_dir = tempdir(data_dir)?;
    let connect = postgres::connection::ConnectTo {
        host: socket_dir.display().to_string(),
        ..tools.local.connect().clone()
    };
    let args = [
        ("listen_addresses", ""),
        ("unix_socket_directories", &connect.host),
        ("unix_socket_permissions", "0700"),
        ("archive_mode", "off"),
        ("max_wal_senders", "0"),
        ("wal_level", "minimal"),
    ];
    let options = StartOptions {
        args: args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        log_file: tools.local.log_file().to_owned(),
        port: Some(connect.port),
        ..StartOptions::default()
    };
    let effective = configure::effective(settings, &tools.dynamic, &tools.local);
    append_hba(data_dir, &settings.bootstrap.pg_hba)?;
    let postmaster = Postmaster::start(installation, data_dir, &options).await?;
    ready(&connect, &postmaster, token).await?;
    users::ensure(&connect, &users(settings), Duration::from_secs(30)).await?;
    if let Some(command) = &settings.bootstrap.post_bootstrap {
        post_bootstrap(command, &connect, tools).await?;
    }
    postmaster.signal(Stop::Fast)?;
    tokio::time::timeout(Duration::from_secs(120), postmaster.exited())
        .await
        .context("stop the new cluster after its users were created")?;
    std::fs::remove_dir_all(&socket_dir)?;
    configure::write(settings, &effective, &tools.local, &As::Primary)?;
    anyhow::ensure!(control::read(data_dir)?.state.is_clean(), "stop the new cluster cleanly");
    Ok(())
}

/// A directory for the private socket, short enough for a socket's path.
fn tempdir(data_dir: &std::path::Path) -> anyhow::Result<std::path::PathBuf> {
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

fn append_hba(data_dir: &std::path::Path, lines: &[String]) -> anyhow::Result<()> {
    use std::io::Write;
    if lines.is_empty() {
        return Ok(());
    }
    let mut file = std::fs::OpenOptions::new().append(true).open(data_dir.join("pg_hba.conf"))?;
    for line in lines {
        writeln!(file, "{line}")?;
    }
    Ok(file.sync_all()?)
}

async fn ready(
    connect: &postgres::connection::ConnectTo,
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
    connect: &postgres::connection::ConnectTo,
    tools: &Tools,
) -> anyhow::Result<()> {
    let dsn = postgres::config_files::conninfo(&connect.pairs());
    let mut script = tools.local.installation().command("/bin/sh");
    script
        .arg("-c")
        .arg(format!("{command} \"$1\""))
        .arg("post_bootstrap")
        .arg(dsn)
        .env("PGOPTIONS", "-c synchronous_commit=local -c statement_timeout=0");
    let output = script.output().await.context("run bootstrap.post_bootstrap")?;
    let words = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "run bootstrap.post_bootstrap: {}: {words}", output.status);
    Ok(())
}
