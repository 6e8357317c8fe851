//! Ending PostgreSQL without asking it.

use super::Postmaster;
use super::processes::{self, DirId, Process};
use crate::error::Error;
use rustix::process::{Signal, pidfd_send_signal};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// The most often that the process table is read in one go; each time more children have turned up.
const ROUNDS: usize = 50;
/// How long the kernel may take to end killed processes; one in the middle of slow storage takes its time.
const PATIENCE: Duration = Duration::from_secs(10);

impl Postmaster {
    /// Kills it and everything it started, at once and without waiting: it is stopped first so that it starts nothing
    /// new, and goes last. On return no process of this server can execute another instruction of its program, except
    /// one that the kernel holds in a system call, which ends there. Answers with how many were killed.
    pub fn kill_all(&self) -> Result<usize, Error> {
        self.send(Signal::STOP)?;
        let mut killed = BTreeSet::new();
        for _ in 0..ROUNDS {
            let all = processes::all()?;
            if !self.alive() {
                break;
            }
            let stopped =
                all.iter().any(|process| process.pid == self.pid && matches!(process.state, 'T' | 't'));
            let before = killed.len();
            for process in descendants(self.pid, &all) {
                if !killed.contains(&(process.pid, process.start_ticks)) && kill(&process)? {
                    killed.insert((process.pid, process.start_ticks));
                }
            }
            if stopped && killed.len() == before {
                break;
            }
        }
        self.send(Signal::KILL)?;
        // Children that had lost their parent before, and those of a postmaster that was dead already.
        if let Some(dir) = DirId::of(self.data_dir())? {
            for process in processes::servers_in(dir)? {
                if process.pid != self.pid && kill(&process)? {
                    killed.insert((process.pid, process.start_ticks));
                }
            }
        }
        Ok(killed.len() + 1)
    }

    /// Lets children go on that somebody has stopped: a stopped process hears of no clean end, and the server would wait for it. All
    /// of them are told: one that is only about to stop does not look like it yet, and others do not mind.
    pub(super) fn wake_children(&self) -> Result<(), Error> {
        for process in processes::all()?.into_iter().filter(|process| process.parent == self.pid) {
            if let Some(pidfd) = process.open()? {
                // Gone in between: nothing to wake.
                let _ = pidfd_send_signal(&pidfd, Signal::CONT);
            }
        }
        Ok(())
    }

    /// Waits until it and all server processes of its data directory are gone; `false` when that takes longer than
    /// `within`.
    pub async fn all_gone(&self, within: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + within;
        if timeout(within, self.exited()).await.is_err() {
            return Ok(false);
        }
        let Some(dir) = DirId::of(self.data_dir())? else { return Ok(true) };
        while !processes::servers_in(dir)?.is_empty() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            sleep(Duration::from_millis(5)).await;
        }
        Ok(true)
    }
}

/// Kills the server processes that a dead postmaster of `data_dir` left behind, and waits until they are gone.
/// Answers with how many there were. A live postmaster is an error: stop that one.
pub async fn kill_leftovers(data_dir: &Path) -> Result<usize, Error> {
    kill_leftovers_within(data_dir, PATIENCE).await
}

/// The server processes of `data_dir` that there are although no postmaster serves it.
pub fn leftovers(data_dir: &Path) -> Result<usize, Error> {
    if Postmaster::adopt(data_dir)?.is_some() {
        return Ok(0);
    }
    let Some(dir) = DirId::of(data_dir)? else { return Ok(0) };
    Ok(processes::servers_in(dir)?.len())
}

/// The same with another patience: processes in the middle of a call to a disk that does not answer cannot be ended.
pub async fn kill_leftovers_within(data_dir: &Path, within: Duration) -> Result<usize, Error> {
    if let Some(postmaster) = Postmaster::adopt(data_dir)? {
        return Err(Error::AlreadyRunning { pid: postmaster.pid });
    }
    let Some(dir) = DirId::of(data_dir)? else { return Ok(0) };
    let deadline = Instant::now() + within;
    let mut killed = BTreeSet::new();
    loop {
        let left = processes::servers_in(dir)?;
        if left.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() >= deadline {
            let pids: Vec<String> = left.iter().map(|process| process.pid.to_string()).collect();
            let what =
                format!("end the leftover server processes {} of {}", pids.join(", "), data_dir.display());
            return Err(Error::Timeout { what, within });
        }
        for process in left {
            if kill(&process)? {
                killed.insert((process.pid, process.start_ticks));
            }
        }
        sleep(Duration::from_millis(5)).await;
    }
}

/// Kills this very process; `false` when it is gone already.
fn kill(process: &Process) -> Result<bool, Error> {
    let Some(pidfd) = process.open()? else { return Ok(false) };
    match pidfd_send_signal(&pidfd, Signal::KILL) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(Error::Io { what: format!("kill process {}", process.pid), source: error.into() }),
    }
}

/// The children of `root`, their children, and so on, as far as they live.
fn descendants(root: u32, all: &[Process]) -> Vec<Process> {
    let mut family = BTreeSet::from([root]);
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for process in all {
            if family.contains(&process.parent) && family.insert(process.pid) && !process.is_dead() {
                found.push(*process);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Process, descendants};

    #[test]
    fn the_family_is_found_in_any_order() {
        let process = |pid, parent, state| Process { pid, parent, state, start_ticks: 0 };
        let all = [
            process(4, 3, 'S'),
            process(3, 2, 'R'),
            process(2, 1, 'S'),
            process(5, 2, 'Z'),
            process(6, 9, 'S'),
        ];
        let found: Vec<u32> = descendants(2, &all).iter().map(|process| process.pid).collect();
        assert_eq!(found, [3, 4]);
        assert_eq!(descendants(7, &all), []);
    }
}
