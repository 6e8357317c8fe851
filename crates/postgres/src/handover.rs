//! The last WAL of a crashed primary, carried into the `pg_wal` of a standby that lacks it.
//!
//! ```text
//!   the primary, stopped                                  a standby in recovery that streams from nobody
//!     end: the last valid record ends there
//!     flush, read ────────────── pieces ────────────────► write: what is there already must be the same; then what is new
//!                                                         is_whole: records up to the end, read back
//! ```
//! A standby whose stream has ended reads `pg_wal` again and again, and once more when it is promoted: what was written there is
//! replayed before it becomes a primary. The pieces are WAL of its own timeline, byte for byte as its primary wrote it, so a primary
//! that comes back instead finds nothing that it would not have sent itself, and a piece that is written late changes nothing. What
//! an older use of the segment left behind the end is told from a record as it is behind any stream: by where it says it belongs.

use crate::control::Control;
use crate::error::Error;
use crate::files;
use crate::wal::{self, Wal};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use types::{Lsn, Timeline};

/// The page size that all packages are built with.
const PAGE: u64 = 8192;

/// The WAL of one data directory.
#[derive(Clone, Debug)]
pub struct WalFiles {
    wal: Wal,
    checkpoint: Lsn,
    redo: Lsn,
    data_dir: PathBuf,
}

impl WalFiles {
    /// The WAL that the control file tells of.
    pub fn of(data_dir: &Path, control: &Control) -> Result<WalFiles, Error> {
        let dir = data_dir.join("pg_wal");
        // Between a promotion and the first checkpoint after it only the second of the two knows the new timeline.
        let timeline = control.timeline.max(control.min_recovery_timeline);
        let history = wal::local_history(&dir, timeline)?;
        Ok(WalFiles {
            wal: Wal { dir, segment_size: control.wal_segment_size, history },
            checkpoint: control.checkpoint,
            redo: control.redo,
            data_dir: data_dir.to_owned(),
        })
    }

    /// The same on a timeline that a running standby has got to since.
    pub fn on(mut self, timeline: Timeline) -> Result<WalFiles, Error> {
        if timeline != self.timeline() {
            self.wal.history = wal::local_history(&self.wal.dir, timeline)?;
        }
        Ok(self)
    }

    /// Its timeline.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.wal.history.timeline
    }

    /// The size of a segment.
    #[must_use]
    pub fn segment_size(&self) -> u64 {
        u64::from(self.wal.segment_size).max(PAGE)
    }

    /// About how many bytes a start has to replay; a few reads tell.
    pub fn to_replay(&self) -> Result<u64, Error> {
        Ok(self.wal.reach(self.checkpoint)?.bytes_since(self.redo))
    }

    /// Where the last valid record ends, found by reading on from `known`, where a record may end; else from the checkpoint.
    pub fn end(&self, known: Lsn) -> Result<Lsn, Error> {
        if known > self.checkpoint {
            let walked = self.wal.walk(known)?;
            if walked.last_record.is_some() {
                return Ok(walked.end);
            }
        }
        let walked = self.wal.walk(self.checkpoint)?;
        match walked.last_record {
            Some(_) => Ok(walked.end),
            None => Err(Error::Refused(format!(
                "find the end of the WAL in {}: there is no checkpoint record at {} ({})",
                self.wal.dir.display(),
                self.checkpoint,
                walked.because
            ))),
        }
    }

    /// Makes durable what is about to be sent: nobody may have WAL that a power failure takes from its primary.
    pub fn flush(&self, from: Lsn, end: Lsn) -> Result<(), Error> {
        let size = self.segment_size();
        for number in from.0 / size..end.0.div_ceil(size) {
            let path = self.segment(number);
            match File::open(&path).and_then(|file| file.sync_data()) {
                Ok(()) => {}
                Err(error) => return Err(Error::io("flush", &path, error)),
            }
        }
        Ok(())
    }

    /// The bytes from `from` on, up to `end`, at most `limit` and no more than one segment has.
    pub fn read(&self, from: Lsn, end: Lsn, limit: u64) -> Result<Vec<u8>, Error> {
        let size = self.segment_size();
        let left = (size - from.0 % size).min(end.bytes_since(from)).min(limit);
        let path = self.segment(from.0 / size);
        let mut bytes = vec![0; usize::try_from(left).unwrap_or_default()];
        let read = File::open(&path).and_then(|file| file.read_exact_at(&mut bytes, from.0 % size));
        read.map_err(|error| Error::io("read", &path, error))?;
        Ok(bytes)
    }

    /// Writes a piece of another's WAL that begins at `from`, durably. `have` is how far the WAL here is: the piece must begin before
    /// that, or right there, and be the same up to there.
    pub fn write(&self, from: Lsn, have: Lsn, bytes: &[u8]) -> Result<(), Error> {
        if from > have {
            return Err(Error::Refused(format!("write WAL from {from} on: what is here ends at {have}")));
        }
        let size = self.segment_size();
        let (mut at, mut rest) = (from.0, bytes);
        while !rest.is_empty() {
            let here = usize::try_from(size - at % size).unwrap_or(usize::MAX).min(rest.len());
            let (piece, later) = rest.split_at_checked(here).unwrap_or((rest, &[]));
            self.write_within(at, have, piece)?;
            (at, rest) = (at + here as u64, later);
        }
        Ok(())
    }

    /// One segment's part of a piece.
    fn write_within(&self, at: u64, have: Lsn, piece: &[u8]) -> Result<(), Error> {
        let (size, path) = (self.segment_size(), self.segment(at / self.segment_size()));
        let fail = |error| Error::io("write", &path, error);
        let known = usize::try_from(have.0.saturating_sub(at)).unwrap_or(usize::MAX).min(piece.len());
        let (same, new) = piece.split_at_checked(known).unwrap_or((piece, &[]));
        let file = match OpenOptions::new().read(true).write(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && same.is_empty() => {
                self.create(&path)?;
                OpenOptions::new().read(true).write(true).open(&path).map_err(fail)?
            }
            other => other.map_err(fail)?,
        };
        let mut ours = vec![0; same.len()];
        file.read_exact_at(&mut ours, at % size).map_err(|error| Error::io("read", &path, error))?;
        if ours != same {
            return Err(Error::Refused(format!(
                "write WAL from {} on: what is here up to {have} is not the same as what was sent",
                Lsn(at)
            )));
        }
        if new.is_empty() {
            return Ok(());
        }
        file.write_all_at(new, (at + same.len() as u64) % size).map_err(fail)?;
        file.sync_data().map_err(fail)
    }

    /// A segment full of zeros, which appears complete or not at all, and never in the place of one that PostgreSQL made meanwhile.
    fn create(&self, path: &Path) -> Result<(), Error> {
        let fail = |error| Error::io("create", path, error);
        let fresh = files::beside(path, ".baton-new");
        files::remove_if_there(&fresh)?;
        let mode = files::mode_in(&self.data_dir);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh).map_err(fail)?;
        files::give_to_owner_of_directory(&file, &fresh)?;
        let zeros = vec![0; PAGE as usize];
        for _ in 0..self.segment_size() / PAGE {
            file.write_all(&zeros).map_err(fail)?;
        }
        file.sync_all().map_err(fail)?;
        match fs::hard_link(&fresh, path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(fail(error)),
            Ok(()) | Err(_) => {}
        }
        files::remove_if_there(&fresh)?;
        files::sync_parent(path)
    }

    /// Whether valid records lead from `known`, where one ends, to `end`, read back from the files.
    pub fn is_whole(&self, known: Lsn, end: Lsn) -> Result<bool, Error> {
        Ok(self.end(known)? >= end)
    }

    fn segment(&self, number: u64) -> PathBuf {
        self.wal.dir.join(wal::segment_name(self.timeline(), number, self.segment_size()))
    }
}
