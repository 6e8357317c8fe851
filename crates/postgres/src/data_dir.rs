//! The data directory: what is in it, and whether it may be used.
//!
//!     Missing / Empty ──mark──> Incomplete ──(initdb, pg_basebackup, pg_rewind done)──clear──> Present
//!     Present ──move_aside──> Missing      and `<data_dir>.kept-…` beside it
//!
//! The mark is a file *beside* the directory, durable before the work starts: pg_basebackup and initdb want the
//! directory empty, and pg_rewind copies over whatever is inside. While it is there, the directory is nobody's
//! database, however complete it looks.

mod aside;
mod half_received;
mod mark;
mod wal_tail;

pub use aside::{Kept, kept, make_room, move_aside, prune_kept, set_failed_aside};
pub(crate) use aside::{WAL_TAIL, keep_in_one_step};
pub use half_received::remove_half_received;
pub use mark::{Work, clear_mark, mark_incomplete};
pub(crate) use wal_tail::wal_tail_bytes;
pub use wal_tail::{Tail, keep_wal_tail};

use crate::control::{self, Control};
use crate::error::Error;
use crate::files;
use crate::installation::Installation;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a data directory is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DataDir {
    /// There is nothing at this path.
    Missing,
    /// There is an empty directory.
    Empty,
    /// A job on it was started and never finished: not to be started, whatever it holds.
    Incomplete {
        /// The job.
        work: Work,
        /// When it was started, as text for people.
        since: String,
    },
    /// A database that could be started.
    Present {
        /// The content of its control file.
        control: Control,
        /// Whether it would start as a standby.
        standby_signal: bool,
        /// Whether it would start with a targeted recovery.
        recovery_signal: bool,
        /// Whether it is a restored backup that has not been started yet.
        backup_label: bool,
        /// The major version it was made by.
        major: u32,
    },
    /// Something that cannot be used.
    Foreign {
        /// What is wrong, and what to do about it.
        why: String,
    },
}

/// Looks at `data_dir`. An error means that it could not be looked at, which is not the same as empty.
pub fn inspect(data_dir: &Path) -> Result<DataDir, Error> {
    let metadata = match fs::metadata(data_dir) {
        Ok(metadata) if metadata.is_dir() => Some(metadata),
        Ok(_) => return Ok(foreign(data_dir, "is no directory; correct postgresql.data_dir")),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("inspect", data_dir, error)),
    };
    if let Some((work, since)) = mark::read(data_dir)? {
        return Ok(DataDir::Incomplete { work, since });
    }
    let Some(metadata) = metadata else { return Ok(DataDir::Missing) };
    if is_empty(data_dir)? {
        return Ok(DataDir::Empty);
    }
    let Some(major) = major(data_dir)? else {
        let advice =
            "is neither empty nor a database (no PG_VERSION); empty it or correct postgresql.data_dir";
        return Ok(foreign(data_dir, advice));
    };
    if let Some(why) = wrong_access(&metadata) {
        return Ok(foreign(data_dir, &why));
    }
    let control = match control::read(data_dir) {
        Ok(control) => control,
        Err(error @ (Error::Control { .. } | Error::Io { .. })) => {
            return Ok(DataDir::Foreign { why: error.to_string() });
        }
        Err(error) => return Err(error),
    };
    let has = |name: &str| data_dir.join(name).exists();
    Ok(DataDir::Present {
        control,
        standby_signal: has("standby.signal"),
        recovery_signal: has("recovery.signal"),
        backup_label: has("backup_label"),
        major,
    })
}

/// The work that was begun here and not finished: whatever the directory looks like, it is nobody's database.
pub(crate) fn unfinished(data_dir: &Path) -> Result<Option<Work>, Error> {
    Ok(mark::read(data_dir)?.map(|(work, _)| work))
}

/// The same, and a database of another major version than `installation` is foreign.
pub fn inspect_for(data_dir: &Path, installation: &Installation) -> Result<DataDir, Error> {
    let found = inspect(data_dir)?;
    if let DataDir::Present { major, .. } = found
        && major != installation.version.major
    {
        let why = format!(
            "was made by PostgreSQL {major}, but {} is version {}; install version {major} and set \
             postgresql.bin_dir, or run pg_upgrade",
            installation.bin_dir.display(),
            installation.version
        );
        return Ok(foreign(data_dir, &why));
    }
    Ok(found)
}

/// Says that what is in `data_dir` is a copy: its next start makes it a standby, never a primary of its own.
pub fn make_standby(data_dir: &Path) -> Result<(), Error> {
    files::replace(&data_dir.join("standby.signal"), b"", files::mode_in(data_dir)).map(drop)
}

fn foreign(data_dir: &Path, why: &str) -> DataDir {
    DataDir::Foreign { why: format!("{} {why}", data_dir.display()) }
}

fn is_empty(dir: &Path) -> Result<bool, Error> {
    let mut entries = fs::read_dir(dir).map_err(|error| Error::io("list", dir, error))?;
    match entries.next() {
        None => Ok(true),
        Some(Ok(_)) => Ok(false),
        Some(Err(error)) => Err(Error::io("list", dir, error)),
    }
}

fn major(data_dir: &Path) -> Result<Option<u32>, Error> {
    let path = data_dir.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", &path, error)),
    }
}

/// The rules that PostgreSQL itself has for its data directory, checked before it complains in its log.
fn wrong_access(metadata: &fs::Metadata) -> Option<String> {
    let user = rustix::process::geteuid();
    if metadata.uid() == 0 {
        return Some(
            "belongs to root, which PostgreSQL refuses; chown it to the user that runs Baton".to_owned(),
        );
    }
    if !user.is_root() && metadata.uid() != user.as_raw() {
        let (owner, user) = (metadata.uid(), user.as_raw());
        return Some(format!(
            "belongs to uid {owner} and not to the user that runs Baton (uid {user}); chown it"
        ));
    }
    if metadata.mode() & 0o027 != 0 {
        let mode = metadata.mode() & 0o777;
        return Some(format!("has mode {mode:04o}; PostgreSQL wants 0700 or 0750: chmod it"));
    }
    None
}
