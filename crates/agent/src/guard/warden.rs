//! The agent's side of the guard: starts it, arms it, and reads what an earlier agent left.

use super::memory::{PATH_MAX, Shared};
use ha::Guard;
use rustix::thread::futex;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use types::{LeaseId, Moment, Term};

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error("open the guard's memory {path}: {source}; check that /dev/shm is writable for this user")]
    Memory { path: PathBuf, source: rustix::io::Errno },
    #[error("guard a data directory whose path is longer than {PATH_MAX} bytes: {path}")]
    PathTooLong { path: PathBuf },
    #[error("start the guard: {0}")]
    Start(#[from] std::io::Error),
}

/// What an earlier agent on this data directory left behind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resumed {
    pub lease: LeaseId,
    pub ttl_seconds: u32,
    pub term: Option<Term>,
    /// The end of its authority, while the guard holds that.
    pub deadline: Option<Moment>,
}

/// The agent's hold on the guard.
pub struct Warden {
    shared: Shared,
    path: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Warden {
    /// Opens the memory for this data directory; starts nothing yet.
    pub fn open(data_dir: &Path) -> Result<Warden, GuardError> {
        let canonical = canonical(data_dir)?;
        let bytes = canonical.as_os_str().as_bytes();
        if bytes.len() >= PATH_MAX {
            return Err(GuardError::PathTooLong { path: canonical });
        }
        let path = Shared::path(&canonical);
        let shared =
            Shared::open(&path).map_err(|source| GuardError::Memory { path: path.clone(), source })?;
        let board = shared.board();
        board.set_data_dir(bytes);
        board.agent.store(std::process::id(), Ordering::Release);
        board.dismissed.store(0, Ordering::Release);
        Ok(Warden { shared, path, child: Mutex::new(None) })
    }

    /// The file of the memory, for whoever starts a guard by hand.
    #[must_use]
    pub fn memory(&self) -> &Path {
        &self.path
    }

    /// The lease, and the term if a primary was being guarded, that an earlier agent held when it ended without a word.
    #[must_use]
    pub fn resumed(&self) -> Option<Resumed> {
        let board = self.shared.board();
        let lease = LeaseId(board.lease.load(Ordering::Acquire));
        let term = Term(board.term.load(Ordering::Acquire));
        let ttl_seconds = board.ttl.load(Ordering::Acquire);
        let armed = board.armed.load(Ordering::Acquire) == 1;
        let deadline = armed.then(|| Moment(board.deadline.load(Ordering::Acquire)));
        let term = (term.0 != 0).then_some(term);
        (lease.0 != 0).then_some(Resumed { lease, ttl_seconds, term, deadline })
    }

    /// Makes sure that a guard lives.
    pub fn ensure(&self) -> Result<(), GuardError> {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(started) = child.as_mut()
            && started.try_wait()?.is_some()
        {
            *child = None;
        }
        if Shared::guarded(&self.path) || child.is_some() {
            return Ok(());
        }
        let mut command = Command::new("/proc/self/exe");
        command.arg("guard").arg(&self.path).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null());
        *child = Some(command.spawn()?);
        Ok(())
    }

    /// How the guard is.
    #[must_use]
    pub fn state(&self) -> Guard {
        if !Shared::guarded(&self.path) {
            return Guard::Absent;
        }
        let armed = self.shared.board().armed.load(Ordering::Acquire) == 1;
        if armed { Guard::Armed } else { Guard::Disarmed }
    }

    /// Hands the deadline of a term to the guard. Whether a guard is there to take it.
    #[must_use]
    pub fn arm(&self, term: Term, deadline: Moment) -> bool {
        let board = self.shared.board();
        board.deadline.store(deadline.0, Ordering::Release);
        board.term.store(term.0, Ordering::Release);
        board.armed.store(1, Ordering::Release);
        let _ = futex::wake(&board.armed, futex::Flags::empty(), 1);
        Shared::guarded(&self.path)
    }

    /// Moves the deadline of an armed guard; back, too, when a lease with a shorter time took the place of the old one.
    pub fn move_deadline(&self, deadline: Moment) {
        self.shared.board().deadline.store(deadline.0, Ordering::Release);
    }

    /// Takes the deadline away.
    pub fn disarm(&self) {
        let board = self.shared.board();
        board.armed.store(0, Ordering::Release);
        let _ = futex::wake(&board.armed, futex::Flags::empty(), 1);
    }

    /// Notes the lease, and the term if we lead, for an agent that is started after this one ended without a word.
    pub fn note(&self, lease: Option<LeaseId>, ttl_seconds: u32, term: Option<Term>) {
        let board = self.shared.board();
        board.lease.store(lease.map_or(0, |lease| lease.0), Ordering::Release);
        board.ttl.store(ttl_seconds, Ordering::Release);
        board.term.store(term.map_or(0, |term| term.0), Ordering::Release);
    }

    /// When the guard last killed PostgreSQL.
    #[must_use]
    pub fn fired(&self) -> Option<Moment> {
        let fired = self.shared.board().fired.load(Ordering::Acquire);
        (fired != 0).then_some(Moment(fired))
    }

    /// Since when the guard kills processes that do not end.
    #[must_use]
    pub fn firing(&self) -> Option<Moment> {
        let firing = self.shared.board().firing.load(Ordering::Acquire);
        (firing != 0).then_some(Moment(firing))
    }

    /// The postmaster of the data directory: the guard need not look for its children.
    pub fn serves(&self, postmaster: Option<u32>) {
        self.shared.board().postmaster.store(postmaster.unwrap_or(0), Ordering::Release);
    }

    /// Ends the guard: PostgreSQL is stopped, or is meant to run without one.
    pub fn dismiss(&self) {
        let board = self.shared.board();
        board.agent.store(0, Ordering::Release);
        board.dismissed.store(1, Ordering::Release);
        self.note(None, 0, None);
        self.disarm();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The path that PostgreSQL's processes will have as their working directory, also before the directory exists.
fn canonical(data_dir: &Path) -> std::io::Result<PathBuf> {
    if let Ok(path) = std::fs::canonicalize(data_dir) {
        return Ok(path);
    }
    let absolute = std::path::absolute(data_dir)?;
    match (absolute.parent().map(std::fs::canonicalize), absolute.file_name()) {
        (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
        _ => Ok(absolute),
    }
}
