//! The postmaster: found, started, watched, signalled, killed.
//!
//!     start ──> detached process, reparented to init ──> Postmaster { pid, pidfd }
//!     adopt ──> postmaster.pid, /proc ───────────────┘      │ exited()   the pidfd becomes readable
//!                                                           │ signal()   through the pidfd: never another process
//!                                                           └ kill_all() stop it, kill its children, kill it
//!
//! The agent is not its parent: agents come and go, PostgreSQL stays. What is left of a postmaster that died (backends
//! that did not notice and hold the shared memory) is ended by `kill_leftovers` before the next start.

mod adopt;
mod kill;
mod processes;
mod spawn;
mod start;

pub use kill::{kill_leftovers, kill_leftovers_within, leftovers};
pub use start::{StartOptions, last_log_lines};

use crate::error::Error;
use crate::files;
use processes::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A running postmaster, or one that was.
#[derive(Debug)]
pub struct Postmaster {
    /// Its process id.
    pub pid: u32,
    /// When it was started, in clock ticks since boot: with the boot id, proof against reuse of the process id.
    pub start_ticks: u64,
    /// The boot that `start_ticks` counts from.
    pub boot_id: String,
    data_dir: PathBuf,
    pidfd: OwnedFd,
}

/// How to ask for the end.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stop {
    /// Wait until all clients have gone.
    Smart,
    /// Disconnect clients, roll back, write a shutdown checkpoint.
    Fast,
    /// End at once; the next start recovers from the WAL.
    Immediate,
}

/// What the kernel says about the postmaster at a moment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Look {
    /// `S` sleeps, `R` computes or waits for a processor, `D` sleeps uninterruptibly, `T` was stopped by a signal.
    pub state: char,
    /// The processor time it has used, in clock ticks.
    pub ticks: u64,
}

/// A process that the postmaster started.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Child {
    /// Its process id.
    pub pid: u32,
    /// What it shows as its command line, such as `postgres: checkpointer`.
    pub title: String,
}

impl Postmaster {
    /// The postmaster that serves `data_dir` now, whoever started it.
    pub fn adopt(data_dir: &Path) -> Result<Option<Postmaster>, Error> {
        adopt::adopt(data_dir)
    }

    /// The data directory it serves.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Its pidfd, for whoever wants to watch or kill it without us.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Whether it is still there.
    #[must_use]
    pub fn alive(&self) -> bool {
        !is_gone(&self.pidfd)
    }

    /// How it is; `None` when it is gone. Reads no disk.
    #[must_use]
    pub fn look(&self) -> Option<Look> {
        let (process, ticks) = Process::read_with_ticks(self.pid)?;
        (process.start_ticks == self.start_ticks).then_some(Look { state: process.state, ticks })
    }

    /// Waits until it is gone. Any number may wait.
    pub async fn exited(&self) {
        while self.alive() {
            match self.watch() {
                Ok(watch) => match watch.readable().await {
                    Ok(mut ready) => ready.clear_ready(),
                    Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
                },
                // Out of descriptors: look again and again rather than not at all.
                Err(_) => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
        // When the agent is process 1 of a container, orphans are its children and wait to be reaped.
        let _not_our_child =
            waitid(WaitId::PidFd(self.pidfd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }

    /// Asks it to stop. Success means that it was told, or is gone already.
    pub fn signal(&self, stop: Stop) -> Result<(), Error> {
        self.send(match stop {
            Stop::Smart => Signal::TERM,
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        })?;
        if stop == Stop::Fast { self.wake_children() } else { Ok(()) }
    }

    /// Tells it to read its configuration files again.
    pub fn reload(&self) -> Result<(), Error> {
        self.send(Signal::HUP)
    }

    /// Tells a standby to become a primary, and does not wait until it is one.
    pub fn promote(&self) -> Result<(), Error> {
        let request = self.data_dir.join("promote");
        files::remove_if_there(&request)?;
        files::write_new(&request, b"", files::mode_in(&self.data_dir))?;
        let told = if self.alive() { self.send(Signal::USR1) } else { Err(self.is_gone_error("promote")) };
        if told.is_err() {
            // A request left behind would promote the next standby that is started here.
            files::remove_if_there(&request)?;
        }
        told
    }

    /// The processes it started that still run.
    pub fn children(&self) -> Result<Vec<Child>, Error> {
        let all = processes::all()?;
        if !self.alive() {
            return Ok(Vec::new());
        }
        let children = all.into_iter().filter(|process| process.parent == self.pid && !process.is_dead());
        Ok(children.map(|process| Child { pid: process.pid, title: process.title() }).collect())
    }

    /// Each waiter needs a descriptor of its own: epoll accepts one only once.
    #[expect(deprecated, reason = "its successor is unsafe for types that are not an OwnedFd; ours is one")]
    fn watch(&self) -> std::io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::with_interest(self.pidfd.try_clone()?, Interest::READABLE)
    }

    fn send(&self, signal: Signal) -> Result<(), Error> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => {
                Err(Error::Io { what: format!("signal postmaster {}", self.pid), source: error.into() })
            }
        }
    }

    fn is_gone_error(&self, what: &str) -> Error {
        Error::Refused(format!("{what}: postmaster {} is gone; start PostgreSQL first", self.pid))
    }

    fn of(process: &Process, pidfd: OwnedFd, data_dir: &Path) -> Result<Postmaster, Error> {
        Ok(Postmaster {
            pid: process.pid,
            start_ticks: process.start_ticks,
            boot_id: processes::boot_id()?,
            data_dir: data_dir.to_owned(),
            pidfd,
        })
    }
}

/// Waits until the process with this id has ended; at once when there is none, or when it cannot be watched.
pub async fn ended(pid: u32) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::NONBLOCK) else { return };
    #[expect(deprecated, reason = "its successor is unsafe for types that are not an OwnedFd; ours is one")]
    let watch = AsyncFd::with_interest(pidfd, Interest::READABLE);
    if let Ok(watch) = watch {
        let _either_way = watch.readable().await;
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A pidfd is readable once its process has ended, reaped or not.
fn is_gone(pidfd: &OwnedFd) -> bool {
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&now)), Ok(ready) if ready > 0)
}

/// Ends what a dead server of `data_dir` left behind and removes its stale locks, so that another may work there. A live
/// postmaster is an error.
pub(crate) async fn clear_the_way(data_dir: &Path) -> Result<(), Error> {
    kill_leftovers(data_dir).await?;
    adopt::remove_stale_locks(data_dir)
}
