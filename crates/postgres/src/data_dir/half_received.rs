//! The segment of a new timeline of which a standby has received only the beginning.
//!
//! ```text
//!   timeline 2   ▓▓▓▓▓▓▓▓▓▓▓│        replayed up to here, where timeline 3 begins
//!   timeline 3   ▓▓▓▓▓······│        streamed from the beginning of the segment anew, when its primary was lost
//! ```
//!
//! PostgreSQL reads a segment from the newest timeline that has a file of it, and does not look into an older one for what is missing
//! there: a promotion then ends in a panic or an error, and a start that has nobody to ask waits for ever. All that such a file has the
//! older one has as well, and more; without it the older one is read.

use crate::control;
use crate::error::Error;
use crate::files;
use crate::postmaster::Postmaster;
use crate::wal::{self, PAGE};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use types::{History, Lsn, Timeline};

/// Removes such files of a stopped standby, and gives their names.
pub fn remove_half_received(data_dir: &Path) -> Result<Vec<String>, Error> {
    if let Some(postmaster) = Postmaster::adopt(data_dir)? {
        let what = format!("look through the WAL: process {} serves it; stop that first", postmaster.pid);
        return Err(Error::Refused(what));
    }
    let control = control::read(data_dir)?;
    let wal_dir = data_dir.join("pg_wal");
    let mut removed = Vec::new();
    if !control.state.is_standby() {
        return Ok(removed);
    }
    for timeline in timelines(&wal_dir)? {
        let history = wal::local_history(&wal_dir, timeline)?;
        let Some((newer, older)) = twins(&wal_dir, &history, control.wal_segment_size.into()) else {
            continue;
        };
        if newer.lacks_what_is_in(&older)? {
            fs::remove_file(&newer.path).map_err(|error| Error::io("remove", &newer.path, error))?;
            removed.extend(newer.path.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    if !removed.is_empty() {
        files::sync_dir(&wal_dir)?;
    }
    Ok(removed)
}

/// The timelines whose history is here, oldest first: an older file may be such a one itself.
fn timelines(wal_dir: &Path) -> Result<Vec<Timeline>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(wal_dir).map_err(|error| Error::io("list", wal_dir, error))? {
        let name = entry.map_err(|error| Error::io("list", wal_dir, error))?.file_name();
        let digits = name.to_str().and_then(|name| name.strip_suffix(".history"));
        found.extend(digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()).map(Timeline));
    }
    found.sort_unstable();
    Ok(found)
}

/// The segment in which a timeline begins, and the same one of its nearest ancestor that has a file of it.
fn twins(wal_dir: &Path, history: &History, size: u64) -> Option<(Part, Part)> {
    let fork = history.lines.last()?.end;
    let number = fork.0.checked_div(size)?;
    let mut paths = wal::segment_paths(wal_dir, history, number, size);
    let part = |path| Part { path, start: number * size, fork, end: (number + 1) * size };
    let newer = paths.next().filter(|path| path.exists())?;
    let older = paths.find(|path| path.exists())?;
    Some((part(newer), part(older)))
}

/// A file of a segment in which a timeline begins.
struct Part {
    path: PathBuf,
    start: u64,
    fork: Lsn,
    end: u64,
}

impl Part {
    /// Whether the other one goes on, before the timeline begins, where this one has nothing more.
    fn lacks_what_is_in(&self, older: &Part) -> Result<bool, Error> {
        let (own, other) = (self.open()?, older.open()?);
        let mut pages = (self.start..self.end).step_by(usize::try_from(PAGE).unwrap_or(usize::MAX));
        let missing = loop {
            let Some(page) = pages.next().filter(|page| *page < self.fork.0) else { return Ok(false) };
            if !self.has(&own, page)? {
                break page;
            }
        };
        if !older.has(&other, missing)? {
            return Ok(false);
        }
        for page in pages {
            if self.has(&own, page)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open(&self) -> Result<File, Error> {
        File::open(&self.path).map_err(|error| Error::io("read", &self.path, error))
    }

    fn has(&self, file: &File, page: u64) -> Result<bool, Error> {
        let written = wal::is_written(file, page - self.start, Lsn(page));
        written.map_err(|error| Error::io("read", &self.path, error))
    }
}
