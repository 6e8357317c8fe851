//! The mark of unfinished work: `<data_dir>.baton-incomplete`, with the job's name and the time it began.

use crate::error::Error;
use crate::files;
use std::fmt;
use std::path::{Path, PathBuf};

/// A job that leaves the data directory unusable until it is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Work {
    Clone,
    /// A command of the operator works over the data that were there.
    Restore,
    Rewind,
    Bootstrap,
}

impl Work {
    /// The word in the mark.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Work::Clone => "clone",
            Work::Restore => "restore",
            Work::Rewind => "rewind",
            Work::Bootstrap => "bootstrap",
        }
    }
}

impl fmt::Display for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

fn path(data_dir: &Path) -> PathBuf {
    files::beside(data_dir, ".baton-incomplete")
}

/// Marks `data_dir` as unusable; on return the mark survives a power failure. The time of an earlier mark is kept
/// when it is for the same work.
pub fn mark_incomplete(data_dir: &Path, work: Work) -> Result<(), Error> {
    if read(data_dir)?.is_some_and(|(marked, _)| marked == work) {
        return Ok(());
    }
    let since = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    let text = format!("{work} {}\n", since.strftime("%Y-%m-%dT%H:%M:%SZ"));
    files::replace(&path(data_dir), text.as_bytes(), 0o600).map(|_| ()).map_err(|error| match error {
        Error::Io { what, source } => Error::Io {
            what: format!(
                "{what} (the directory above the data directory must be writable: use a subdirectory)"
            ),
            source,
        },
        other => other,
    })
}

/// Takes the mark away: the work is done, or the directory has been moved aside.
pub fn clear_mark(data_dir: &Path) -> Result<(), Error> {
    files::remove_if_there(&path(data_dir)).map(|_| ())
}

/// The mark, if there is one. A mark that cannot be understood still is one.
pub(super) fn read(data_dir: &Path) -> Result<Option<(Work, String)>, Error> {
    let Some(bytes) = files::read_if_there(&path(data_dir))? else { return Ok(None) };
    let text = String::from_utf8_lossy(&bytes);
    let (word, since) = text.trim().split_once(' ').unwrap_or((text.trim(), "unknown"));
    let work = [Work::Clone, Work::Restore, Work::Rewind, Work::Bootstrap]
        .into_iter()
        .find(|work| work.as_str() == word);
    // A clone is what every unfinished directory needs at worst.
    Ok(Some((work.unwrap_or(Work::Clone), since.to_owned())))
}
