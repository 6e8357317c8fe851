//! One disk, tried by a thread of its own.
//!
//! ```text
//!   ask ──directory──► thread: how much room, a nameless file, 8 kB, fsync ──► Found
//!    └── while it has not answered it is not asked again: since when it has not is what is found
//! ```
//! The file has no name (`O_TMPFILE`), so that neither PostgreSQL nor a backup ever sees it; where the file system knows no
//! such files it is called `pgsql_tmp.baton`, which base backups, pg_rewind and pgBackRest leave out, and is removed at once.

use crate::wake::{Cell, Wake};
use ha::Disk;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;
use types::Moment;

/// A write that takes longer is shown as one that has not ended.
const SLOW: Duration = Duration::from_secs(1);
const NAME: &str = "pgsql_tmp.baton";
const SIZE: usize = 8192;

/// What is known of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) disk: Disk,
    /// The WAL lies on another file system.
    pub(super) wal_apart: bool,
}

/// The way to the thread.
pub(super) struct DiskProbe {
    questions: SyncSender<Question>,
    state: Arc<Cell<State>>,
}

struct Question {
    directory: PathBuf,
    /// Less room than this is too little.
    room: u64,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Since when the thread is at work.
    busy: Option<Moment>,
    answered: Option<Moment>,
    disk: Disk,
    wal_apart: bool,
}

/// What came of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trial {
    Unknown,
    Fine,
    Low,
    Full,
    Failed,
}

impl DiskProbe {
    pub(super) fn start(name: &str, wake: Wake) -> std::io::Result<DiskProbe> {
        let (questions, receiver) = sync_channel(1);
        let state = Arc::new(Cell::new(State::default()));
        let shared = state.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || answer(&receiver, &shared, &wake))?;
        Ok(DiskProbe { questions, state })
    }

    /// Asks for a trial, unless one is under way or was a moment ago.
    pub(super) fn ask(&self, directory: &Path, room: u64, every: Duration) {
        let now = clock::now();
        self.state.with(|state| {
            let due = state.answered.is_none_or(|answered| now.since(answered) >= every);
            if state.busy.is_some() || !due {
                return;
            }
            let question = Question { directory: directory.to_owned(), room };
            if self.questions.try_send(question).is_ok() {
                state.busy = Some(now);
            }
        });
    }

    /// Nothing is known any more: there is another directory, or none.
    pub(super) fn forget(&self) {
        self.state.with(|state| {
            if state.busy.is_none() {
                *state = State::default();
            }
        });
    }

    pub(super) fn found(&self) -> Found {
        let state = self.state.get();
        let hangs = state.busy.filter(|since| clock::now().since(*since) >= SLOW);
        Found { disk: hangs.map_or(state.disk, |since| Disk::Hung { since }), wal_apart: state.wal_apart }
    }
}

fn answer(questions: &Receiver<Question>, state: &Cell<State>, wake: &Wake) {
    while let Ok(question) = questions.recv() {
        let apart = lies_apart(&question.directory);
        let trial = try_disk(&question.directory, question.room);
        let now = clock::now();
        let changed = state.with(|state| {
            let before = state.disk;
            let disk = follow(before, trial, now);
            *state = State { busy: None, answered: Some(now), disk, wal_apart: apart };
            before != disk
        });
        if changed {
            wake.wake();
        }
    }
}

/// What is found now; since when, if it was found before.
fn follow(before: Disk, trial: Trial, now: Moment) -> Disk {
    match (trial, before) {
        (Trial::Unknown, _) => Disk::Unknown,
        (Trial::Fine, _) => Disk::Fine,
        (Trial::Low, Disk::Low { since }) => Disk::Low { since },
        (Trial::Low, _) => Disk::Low { since: now },
        (Trial::Full, Disk::Full { since }) => Disk::Full { since },
        (Trial::Full, _) => Disk::Full { since: now },
        (Trial::Failed, Disk::Failed { since }) => Disk::Failed { since },
        (Trial::Failed, _) => Disk::Failed { since: now },
    }
}

/// Whether `pg_wal` in this directory is on another file system.
fn lies_apart(directory: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).map(|found| found.dev());
    matches!((device(directory), device(&directory.join("pg_wal"))), (Ok(here), Ok(there)) if here != there)
}

fn try_disk(directory: &Path, room: u64) -> Trial {
    match write(directory) {
        Ok(()) => match rustix::fs::statvfs(directory) {
            Ok(found) if found.f_bavail.saturating_mul(found.f_frsize) < room => Trial::Low,
            Ok(_) | Err(_) => Trial::Fine,
        },
        Err(Errno::NOSPC | Errno::DQUOT) => Trial::Full,
        Err(Errno::ROFS | Errno::IO | Errno::NXIO | Errno::NODEV | Errno::STALE | Errno::UCLEAN) => {
            Trial::Failed
        }
        // Not there, or not ours: nothing that a disk is to blame for.
        Err(_) => Trial::Unknown,
    }
}

/// A small write, forced to the disk, of which nothing is left.
fn write(directory: &Path) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let private = Mode::RUSR | Mode::WUSR;
    match rustix::fs::openat(CWD, directory, flags | OFlags::TMPFILE, private) {
        Ok(file) => fill(&file),
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
            let path = directory.join(NAME);
            let file = rustix::fs::openat(CWD, &path, flags | OFlags::CREATE | OFlags::TRUNC, private)?;
            let filled = fill(&file);
            // What cannot be removed is written over the next time.
            let _ = std::fs::remove_file(&path);
            filled
        }
        Err(error) => Err(error),
    }
}

fn fill(file: &OwnedFd) -> Result<(), Errno> {
    let page = [0xB5_u8; SIZE];
    let mut rest = page.as_slice();
    while !rest.is_empty() {
        let written = rustix::io::write(file, rest)?;
        rest = rest.get(written..).unwrap_or_default();
    }
    rustix::fs::fsync(file)
}

#[cfg(test)]
mod tests {
    use super::{DiskProbe, Trial, follow, lies_apart, try_disk};
    use crate::wake::Wake;
    use ha::Disk;
    use std::time::Duration;
    use types::Moment;

    #[test]
    fn a_trial_leaves_nothing_and_tells_room_from_none() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(try_disk(dir.path(), 1), Trial::Fine);
        assert_eq!(try_disk(dir.path(), u64::MAX), Trial::Low);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(try_disk(&dir.path().join("nowhere"), 1), Trial::Unknown);
        assert!(!lies_apart(dir.path()));
        std::os::unix::fs::symlink("/proc", dir.path().join("pg_wal")).unwrap();
        assert!(lies_apart(dir.path()));
    }

    #[test]
    fn since_when_outlasts_the_trials() {
        let full = follow(Disk::Fine, Trial::Full, Moment(5));
        assert_eq!(follow(full, Trial::Full, Moment(9)), Disk::Full { since: Moment(5) });
        assert_eq!(follow(full, Trial::Failed, Moment(9)), Disk::Failed { since: Moment(9) });
        assert_eq!(follow(full, Trial::Fine, Moment(9)), Disk::Fine);
        assert_eq!(follow(full, Trial::Unknown, Moment(9)), Disk::Unknown);
    }

    #[tokio::test]
    async fn it_is_asked_and_answers_beside_the_caller() {
        let (dir, wake) = (tempfile::tempdir().unwrap(), Wake::default());
        let probe = DiskProbe::start("disk", wake.clone()).unwrap();
        assert_eq!(probe.found().disk, Disk::Unknown);
        probe.ask(dir.path(), 1, Duration::from_secs(1));
        tokio::time::timeout(Duration::from_secs(30), wake.changed()).await.unwrap();
        assert_eq!(probe.found().disk, Disk::Fine);
        probe.forget();
        assert_eq!(probe.found().disk, Disk::Unknown);
    }
}
