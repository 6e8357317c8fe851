//! A former primary whose WAL went its own way is brought back, by pg_rewind, without a full copy.
//!
//! ```text
//! look ─> NotNeeded
//!   └─> room? ─> keep the tail and its account ─> end crash recovery ─> mark incomplete ─> pg_rewind
//!         └─> own files back ─> a standby ─> clear the mark
//! ```
//!
//! Everything that can be known before the first change is checked before it: whether this directory can be rewound
//! at all, whether the source is the right one and ready, whether the user may do what pg_rewind does. From the mark
//! on only success makes the directory a database again; what stops in between needs a full clone. What stops before
//! it can be done again: the tail is kept once.

mod fork;
pub mod preflight;
mod source;

pub use fork::{Fork, fork};

use crate::connection::{ConnectTo, SqlError};
use crate::control::{self, Control, ControlState};
use crate::data_dir::{self, Work};
use crate::error::Error;
use crate::files;
use crate::installation::Installation;
use crate::job::{self, JobError, Meter, Progress};
use crate::loss::{self, Account};
use crate::passfile::PassFiles;
use crate::postmaster;
use crate::room;
use crate::wal::{self, Wal};
use std::fs;
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use types::{History, Lsn, Timeline};

/// pg_rewind copies the source's over these; this node's own come back afterwards.
const OWN_FILES: [&str; 5] =
    ["postgresql.conf", "postgresql.base.conf", "postgresql.auto.conf", "pg_hba.conf", "pg_ident.conf"];

/// Options of pg_rewind that are ours to choose.
const RESERVED: [&str; 10] = [
    "target-pgdata",
    "source-pgdata",
    "source-server",
    "write-recovery-conf",
    "dry-run",
    "restore-target-wal",
    "config-file",
    "no-ensure-shutdown",
    "version",
    "help",
];

/// Where the WAL of a stopped PostgreSQL ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndOfWal {
    pub timeline: Timeline,
    /// How that timeline came about.
    pub history: History,
    /// The first position after the last valid record.
    pub end: Lsn,
    /// Where the last valid record begins.
    pub last_record: Lsn,
    /// The last record is the checkpoint of a clean stop.
    pub clean: bool,
}

/// What to know about the target beyond its directory.
#[derive(Clone, Debug, Default)]
pub struct RewindOptions {
    /// Fetches WAL that the target no longer has, with `%f` and `%p`.
    pub restore_command: Option<String>,
    /// `postgresql.conf`, when it is not in the data directory.
    pub config_file: Option<PathBuf>,
    /// More options of pg_rewind, such as `--no-sync`.
    pub options: Vec<String>,
}

/// How a rewind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The directory can follow the source as it is.
    NotNeeded,
    /// It was taken back to `fork` and can follow the source from there.
    Rewound(Box<Rewound>),
}

/// What a rewind undid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewound {
    /// Where the two histories part.
    pub fork: Fork,
    /// Where the WAL of this node ended.
    pub end: Lsn,
    /// What only this node had.
    pub account: Account,
    /// Where that WAL is kept.
    pub kept: PathBuf,
}

/// Why there was no rewind.
#[derive(Debug, thiserror::Error)]
pub enum RewindError {
    /// It was told to stop. When the mark is there, only a full clone helps.
    #[error("rewind: cancelled")]
    Cancelled,
    /// It can never work with this directory or this source: clone.
    #[error("rewind: {0}; clone instead")]
    Impossible(String),
    /// There is no room on the disk: nothing was changed, try again when there is.
    #[error("rewind: {0}")]
    NoRoom(String),
    /// The source cannot serve now: nothing was changed, try again.
    #[error("rewind: {0}; trying again")]
    SourceNotReady(String),
    /// An operator must allow it; nothing was changed.
    #[error("rewind: {0}")]
    NotAllowed(String),
    /// pg_rewind failed on the way and the directory is marked as incomplete: clone.
    #[error("rewind: {program} failed ({how}): {last_words}; clone instead")]
    Failed { program: &'static str, how: String, last_words: String },
    /// The source could not be asked; nothing was changed, try again.
    #[error("ask the source of the rewind: {0}")]
    Source(#[from] SqlError),
    /// This host is the problem.
    #[error(transparent)]
    Local(Error),
}

impl From<Error> for RewindError {
    fn from(error: Error) -> RewindError {
        if room::was_full(&error) {
            RewindError::NoRoom(error.to_string())
        } else {
            RewindError::Local(error)
        }
    }
}

/// Finds the end of the WAL of a stopped PostgreSQL by reading it from its last checkpoint on.
pub async fn end_of_wal(data_dir: &Path, control: &Control) -> Result<EndOfWal, Error> {
    let (dir, control) = (data_dir.join("pg_wal"), control.clone());
    blocking(move || {
        // Between a promotion and the first checkpoint after it only the second of the two knows the new timeline.
        let timeline = control.timeline.max(control.min_recovery_timeline);
        let history = wal::local_history(&dir, timeline)?;
        let wal = Wal { dir, segment_size: control.wal_segment_size, history };
        let walked = wal.walk(control.checkpoint)?;
        let Some(last_record) = walked.last_record else {
            return Err(Error::Refused(format!(
                "find the end of the WAL in {}: there is no checkpoint record at {} ({}); clone instead",
                wal.dir.display(),
                control.checkpoint,
                walked.because
            )));
        };
        let (end, clean) = (walked.end, walked.last_is_shutdown);
        Ok(EndOfWal { timeline, history: wal.history, end, last_record, clean })
    })
    .await
}

/// Rewinds `data_dir`, whose PostgreSQL is stopped, to follow the primary `from`. `from` names the user for the
/// rewind and the database in which that user was granted its rights.
pub async fn run(
    installation: &Installation,
    data_dir: &Path,
    from: &ConnectTo,
    options: &RewindOptions,
    progress: impl Fn(Progress) + Send,
    cancel: &CancellationToken,
) -> Result<Outcome, RewindError> {
    job::end_leftovers(installation, "pg_rewind", &target(data_dir)).await?;
    postmaster::clear_the_way(data_dir).await?;
    if let Some(work) = data_dir::unfinished(data_dir)? {
        return Err(RewindError::Impossible(format!("the data directory holds an unfinished {work}")));
    }
    let control = control::read(data_dir)?;
    let source = source::look(from, control.system_id).await?;
    let end = end_of_wal(data_dir, &control).await?;
    let Some(fork) = fork(&end.history, &source.history) else {
        return Err(RewindError::Impossible("the two have no timeline in common".to_owned()));
    };
    if end.end <= fork.lsn {
        return Ok(Outcome::NotNeeded);
    }
    if !control.data_checksums && !control.wal_log_hints {
        let why =
            "the data directory has neither checksums nor wal_log_hints, so changed pages cannot be known";
        return Err(RewindError::Impossible(why.to_owned()));
    }
    source.check_ready(from)?;
    if options.restore_command.is_none() && !source.has_wal_since(fork, control.wal_segment_size) {
        return Err(RewindError::Impossible(format!(
            "{} no longer has the WAL from {} on, and there is no restore_command",
            from.place(),
            fork.lsn
        )));
    }
    room::check(data_dir, "the rewind", room_needed(data_dir, fork, source.wal_bytes))
        .map_err(RewindError::NoRoom)?;
    let mut account = read_account(installation, data_dir, &control, &end, fork).await?;
    loss::add_relations(&mut account, installation, &data_dir.join("pg_wal"), &end).await;
    loss::name_relations(&mut account, from).await;
    let (dir, known) = (data_dir.to_owned(), account);
    let account = blocking(move || keep_tail(&dir, known)).await?;
    let kept = account.kept.clone();
    if !matches!(control.state, ControlState::ShutDown | ControlState::ShutDownInRecovery) {
        recover(installation, data_dir, options, cancel).await?;
    }
    data_dir::mark_incomplete(data_dir, Work::Rewind)?;
    pg_rewind(installation, data_dir, from, options, &progress, cancel).await?;
    bring_back(data_dir, &kept)?;
    data_dir::make_standby(data_dir)?;
    data_dir::clear_mark(data_dir)?;
    Ok(Outcome::Rewound(Box::new(Rewound { fork, end: end.end, account, kept })))
}

fn target(data_dir: &Path) -> String {
    format!("--target-pgdata={}", data_dir.display())
}

/// What must be free before anything begins: the tail is copied, and pg_rewind copies the WAL of the source.
fn room_needed(data_dir: &Path, fork: Fork, source_wal: u64) -> u64 {
    data_dir::wal_tail_bytes(data_dir, fork.lsn, fork.timeline).saturating_add(source_wal)
}

async fn read_account(
    installation: &Installation,
    data_dir: &Path,
    control: &Control,
    end: &EndOfWal,
    fork: Fork,
) -> Result<Account, Error> {
    let (data_dir, control, end, major) =
        (data_dir.to_owned(), control.clone(), end.clone(), installation.version.major);
    blocking(move || Ok(loss::read_tail(&data_dir, &control, major, &end, fork))).await
}

/// The divergent WAL, its account and this node's own configuration, safe before anything changes. Once: an attempt
/// that was cut off after this finds it again. Answers with the account, which says where.
pub fn keep_tail(data_dir: &Path, account: Account) -> Result<Account, Error> {
    if let Some(before) = loss::kept_before(data_dir, &account)? {
        own_files_into(data_dir, &before.kept)?;
        let account = Account { at: before.at, kept: before.kept, ..account };
        return account.write(&account.kept).map(|()| account);
    }
    let (fork, timeline) = (account.fork, Timeline(account.fork_timeline));
    let kept = data_dir::keep_in_one_step(data_dir, |into| {
        data_dir::keep_wal_tail(data_dir, fork, timeline, into)?;
        own_files_into(data_dir, into)?;
        account.write(into)
    })?;
    Ok(Account { kept, ..account })
}

fn own_files_into(data_dir: &Path, kept: &Path) -> Result<(), Error> {
    for name in OWN_FILES {
        if let Some(content) = files::read_if_there(&data_dir.join(name))? {
            files::replace(&kept.join(name), &content, 0o600)?;
        }
    }
    Ok(())
}

fn bring_back(data_dir: &Path, kept: &Path) -> Result<(), Error> {
    for name in OWN_FILES {
        if let Some(content) = files::read_if_there(&kept.join(name))? {
            files::replace(&data_dir.join(name), &content, files::mode_in(data_dir))?;
        }
    }
    Ok(())
}

/// Crash recovery by a PostgreSQL that serves nobody, so that pg_rewind finds a cleanly stopped directory. It keeps
/// all WAL (pg_rewind has to read it) and archives none (nobody else may ever follow it).
async fn recover(
    installation: &Installation,
    data_dir: &Path,
    options: &RewindOptions,
    cancel: &CancellationToken,
) -> Result<(), RewindError> {
    // A single-user PostgreSQL refuses to be a standby. Whoever starts this directory next says again what it is.
    for name in ["standby.signal", "recovery.signal"] {
        files::remove_if_there(&data_dir.join(name))?;
    }
    let mut command = installation.command("postgres");
    command.arg("--single").arg("-D").arg(data_dir);
    if let Some(file) = &options.config_file {
        command.arg("-c").arg(format!("config_file={}", file.display()));
    }
    let settings = [
        "archive_mode=off",
        "wal_keep_size=2147483647MB",
        "max_slot_wal_keep_size=-1",
        "log_destination=stderr",
    ];
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.arg("template1");
    finish("postgres --single", data_dir, job::run(command, cancel, |_| false).await)
}

async fn pg_rewind(
    installation: &Installation,
    data_dir: &Path,
    from: &ConnectTo,
    options: &RewindOptions,
    progress: &(impl Fn(Progress) + Send),
    cancel: &CancellationToken,
) -> Result<(), RewindError> {
    let passwords = PassFiles::write(data_dir, from)?;
    let config = ConfigFile::choose(installation, data_dir, options)?;
    let mut command = installation.command("pg_rewind");
    command.arg(target(data_dir)).arg(format!("--source-server={}", from.conninfo()));
    command.args(["--progress", "--no-ensure-shutdown"]);
    command.args(options.options.iter().filter(|option| is_free(option)));
    if config.restores {
        command.arg("--restore-target-wal");
    }
    if let Some(path) = &config.path {
        command.arg(format!("--config-file={}", path.display()));
    }
    passwords.give(&mut command);
    let meter = Meter::new();
    let on_line = |line: &str| meter.read(line).map(progress).is_some();
    finish("pg_rewind", data_dir, job::run(command, cancel, on_line).await)
}

/// Whether it is for the operator to choose; a reserved one is left out and named.
fn is_free(option: &str) -> bool {
    let name = option.trim_start_matches('-').split('=').next().unwrap_or_default();
    let free = !RESERVED.contains(&name);
    if !free {
        tracing::warn!(option = name, "this option of pg_rewind is not yours to choose, it is left out");
    }
    free
}

fn finish(program: &'static str, data_dir: &Path, result: Result<(), JobError>) -> Result<(), RewindError> {
    match result {
        Ok(()) => Ok(()),
        Err(JobError::Cancelled) => Err(RewindError::Cancelled),
        Err(JobError::System(error)) => Err(error.into()),
        Err(JobError::Failed { how, last_words }) => {
            let last_words = format!("{last_words}{}", room::remark(data_dir, &last_words));
            Err(RewindError::Failed { program, how, last_words })
        }
    }
}

/// The configuration that pg_rewind reads `restore_command` from: that of the target, with ours added.
struct ConfigFile {
    path: Option<PathBuf>,
    restores: bool,
    written: bool,
}

impl ConfigFile {
    fn choose(
        installation: &Installation,
        data_dir: &Path,
        options: &RewindOptions,
    ) -> Result<ConfigFile, Error> {
        if installation.version.major < 15 {
            // No --config-file yet: what postgresql.conf in the data directory says is all there is.
            return Ok(ConfigFile { path: None, restores: false, written: false });
        }
        let Some(restore) = &options.restore_command else {
            return Ok(ConfigFile { path: options.config_file.clone(), restores: false, written: false });
        };
        let quote = |text: &str| text.replace('\\', "\\\\").replace('\'', "''");
        let own = options.config_file.clone().unwrap_or_else(|| data_dir.join("postgresql.conf"));
        let own = quote(&own.display().to_string());
        let content = format!("include '{own}'\nrestore_command = '{}'\n", quote(restore));
        let path = files::beside(data_dir, ".baton-rewind.conf");
        files::replace(&path, content.as_bytes(), 0o600)?;
        Ok(ConfigFile { path: Some(path), restores: true, written: true })
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        if let (true, Some(path)) = (self.written, &self.path)
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!("failed to remove {}: {error}; remove it by hand", path.display());
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|error| Error::Refused(format!("read the data directory: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::is_free;

    #[test]
    fn options_that_decide_what_is_rewound_are_not_the_operator_s() {
        for free in ["--no-sync", "--sync-method=syncfs", "--debug"] {
            assert!(is_free(free), "{free}");
        }
        for reserved in ["--target-pgdata=/etc", "source-server=host=x", "--dry-run", "--config-file=/etc/x"]
        {
            assert!(!is_free(reserved), "{reserved}");
        }
    }
}
