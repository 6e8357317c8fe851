//! A copy of another PostgreSQL's data directory, by pg_basebackup.
//!
//! ```text
//! end leftovers ─> mark incomplete ─> pg_basebackup ──ok──> a standby ─> clear the mark
//!                        ^                  │ fails: not for want of room
//!                        └── clean, wait <──┘ once
//! ```
//!
//! While the mark is there the directory is nobody's database: a copy that stopped half-way never starts, and the
//! next clone removes what it left.

use crate::connection::ConnectTo;
use crate::data_dir::{self, DataDir, Work};
use crate::error::Error;
use crate::installation::Installation;
use crate::job::{self, JobError, Meter};
use crate::passfile::PassFiles;
use crate::room;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

pub use crate::job::Progress;

const TRIES: u32 = 2;
const PAUSE: Duration = Duration::from_secs(5);

/// Options of pg_basebackup that are ours to choose.
const RESERVED: [&str; 11] = [
    "pgdata",
    "format",
    "wal-method",
    "xlog-method",
    "gzip",
    "version",
    "dbname",
    "host",
    "port",
    "username",
    "password",
];

/// What to copy.
#[derive(Clone, Debug)]
pub struct CloneFrom {
    /// A user with the `REPLICATION` attribute.
    pub connect: ConnectTo,
    /// The slot that keeps the source's WAL until the copy has it, and that the standby goes on using.
    pub slot: Option<String>,
}

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
pub enum CloneError {
    /// It was told to stop. What it copied is removed by the next clone.
    #[error("clone: cancelled")]
    Cancelled,
    /// pg_basebackup failed each time: trying again later can help once its words are heeded.
    #[error("clone {from}: pg_basebackup failed {tries} times ({how}): {last_words}")]
    Failed { from: String, tries: u32, how: String, last_words: String },
    /// This host is the problem.
    #[error(transparent)]
    Local(#[from] Error),
}

/// Copies `from` into `data_dir`, which must be missing, empty, or the rest of an earlier attempt.
pub async fn run(
    installation: &Installation,
    from: &CloneFrom,
    data_dir: &Path,
    options: &[String],
    progress: impl Fn(Progress) + Send,
    cancel: &CancellationToken,
) -> Result<(), CloneError> {
    let target = format!("--pgdata={}", data_dir.display());
    job::end_leftovers(installation, "pg_basebackup", &target).await?;
    clean(data_dir).await?;
    data_dir::mark_incomplete(data_dir, Work::Clone)?;
    let passwords = PassFiles::write(data_dir, &from.connect)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let mut command = installation.command("pg_basebackup");
        command.arg(&target).args(arguments(installation, from, options));
        passwords.give(&mut command);
        let meter = Meter::new();
        let on_line = |line: &str| meter.read(line).map(&progress).is_some();
        match job::run(command, cancel, on_line).await {
            Ok(()) => break,
            Err(JobError::Cancelled) => return Err(CloneError::Cancelled),
            Err(JobError::System(error)) => return Err(error.into()),
            Err(JobError::Failed { how, last_words }) if tries >= TRIES || room::is_full(&last_words) => {
                let last_words = format!("{last_words}{}", room::remark(data_dir, &last_words));
                if room::is_full(&last_words) {
                    // Half a copy is of no use to anybody, and others write on this disk.
                    clean(data_dir).await?;
                }
                return Err(CloneError::Failed { from: from.connect.place(), tries, how, last_words });
            }
            Err(JobError::Failed { how, last_words }) => {
                tracing::warn!("pg_basebackup failed ({how}): {last_words}; trying once more");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PAUSE) => {}
            () = cancel.cancelled() => return Err(CloneError::Cancelled),
        }
        clean(data_dir).await?;
    }
    // Before the mark goes: from its first start on it is a standby.
    data_dir::make_standby(data_dir)?;
    data_dir::clear_mark(data_dir)?;
    Ok(())
}

fn arguments(installation: &Installation, from: &CloneFrom, options: &[String]) -> Vec<String> {
    let mut arguments = vec![
        "--format=plain".to_owned(),
        "--wal-method=stream".to_owned(),
        "--checkpoint=fast".to_owned(),
        "--progress".to_owned(),
        "--verbose".to_owned(),
        "--no-password".to_owned(),
        format!("--dbname={}", from.connect.conninfo()),
    ];
    arguments.extend(from.slot.as_ref().map(|slot| format!("--slot={slot}")));
    for option in options {
        let option = option.trim_start_matches('-');
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let by_server =
            name != "compress" || installation.version.major >= 15 && value.starts_with("server-");
        if RESERVED.contains(&name) || !by_server {
            tracing::warn!(option, "option of pg_basebackup is not allowed and is left out");
            continue;
        }
        arguments.push(format!("--{option}"));
    }
    arguments
}

/// Makes room: removes what an unfinished clone left, refuses to touch anything else.
pub async fn clean(data_dir: &Path) -> Result<(), Error> {
    let data_dir = data_dir.to_owned();
    let work = move || match data_dir::inspect(&data_dir)? {
        DataDir::Missing | DataDir::Empty => Ok(()),
        DataDir::Incomplete { work: Work::Clone, .. } => remove_leavings(&data_dir),
        // The mark is about the path: what it was for has been moved aside.
        DataDir::Incomplete { .. } if entries(&data_dir)?.is_empty() => Ok(()),
        DataDir::Incomplete { work, .. } => refuse(&data_dir, &format!("holds an unfinished {work}")),
        DataDir::Present { .. } => refuse(&data_dir, "holds a database"),
        DataDir::Foreign { .. } => refuse(&data_dir, "is not empty"),
    };
    spawn_blocking(work)
        .await
        .map_err(|error| Error::Refused(format!("clean the data directory: {error}")))?
}

fn refuse(data_dir: &Path, what: &str) -> Result<(), Error> {
    Err(Error::Refused(format!("clone into {}: it {what}; move it aside first", data_dir.display())))
}

/// Removes everything in `data_dir`, what its `pg_wal` link points at, and what its tablespace links point at as far
/// as it is a PostgreSQL's. pg_basebackup makes those links only after it found their targets empty.
fn remove_leavings(data_dir: &Path) -> Result<(), Error> {
    for target in entries(&data_dir.join("pg_tblspc"))? {
        for inside in entries(&target)? {
            let name = inside.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if target.is_symlink() && name.starts_with("PG_") {
                remove(&inside)?;
            }
        }
    }
    if data_dir.join("pg_wal").is_symlink() {
        for inside in entries(&data_dir.join("pg_wal"))? {
            remove(&inside)?;
        }
    }
    for inside in entries(data_dir)? {
        remove(&inside)?;
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |error| Error::io("list", dir, error);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(fail(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(fail)).collect()
}

fn remove(path: &Path) -> Result<(), Error> {
    let is_dir = !path.is_symlink() && path.is_dir();
    let done = if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.map_err(|error| Error::io("remove", path, error))
}

#[cfg(test)]
mod tests {
    use super::{CloneFrom, arguments};
    use crate::connection::ConnectTo;
    use crate::installation::{Installation, Version};

    #[test]
    fn reserved_options_are_left_out_and_no_password_is_in_the_arguments() {
        let connect = ConnectTo {
            host: "/tmp/it's here".to_owned(),
            port: 5432,
            user: "replicator".to_owned(),
            password: Some("hunter2".into()),
            dbname: "postgres".to_owned(),
            application_name: "node 1".to_owned(),
            tls: [("sslmode".to_owned(), "prefer".to_owned())].into(),
            sslpassword: None,
        };
        let from = CloneFrom { connect, slot: Some("node_1".to_owned()) };
        let version = Version { major: 15, minor: 4 };
        let installation = Installation { bin_dir: "/x".into(), version, run_as: None };
        let options =
            ["--max-rate=100M", "waldir=/wal", "--pgdata=/etc", "compress=gzip", "compress=server-lz4"];
        let arguments = arguments(&installation, &from, &options.map(str::to_owned));
        let has = |word: &str| arguments.iter().any(|argument| argument == word);
        assert!(
            has("--max-rate=100M") && has("--waldir=/wal") && has("--compress=server-lz4"),
            "{arguments:?}"
        );
        assert!(has("--slot=node_1") && !has("--pgdata=/etc") && !has("--compress=gzip"), "{arguments:?}");
        assert!(
            arguments.iter().any(|argument| argument.contains(r"host='/tmp/it\'s here'")),
            "{arguments:?}"
        );
        assert!(!arguments.iter().any(|argument| argument.contains("hunter2")), "{arguments:?}");
    }
}
