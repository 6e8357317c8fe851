//! A program of PostgreSQL that works for a long time: its lines as they come, its end, its cancelling.
//!
//! ```text
//! start ─> lines ─> exit 0                 Ok
//!            │  └─> exit other             Failed, with its last words
//!            └───── cancelled or dropped   the whole process group is ended
//! ```
//!
//! The program gets a process group of its own, because pg_basebackup forks. Its messages come through a pipe: when
//! the agent dies, the program dies of the next message that it writes.

use crate::error::Error;
use crate::installation::Installation;
use rustix::process::{Pid, PidfdFlags, Signal};
use std::collections::VecDeque;
use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use types::Moment;

/// How much of a program's last words is kept.
const LAST_WORDS: usize = 15;
/// A longer line is cut.
const LINE_LIMIT: usize = 4096;
/// How long a program may take to end when it is asked to.
const GRACE: Duration = Duration::from_secs(3);
/// How long its helpers may outlive it.
const STRAGGLERS: Duration = Duration::from_secs(5);

/// How far a long copy has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    pub done_bytes: u64,
    /// An estimate, made at the beginning; `None` while there is none.
    pub total_bytes: Option<u64>,
    /// Bytes a second since the beginning.
    pub rate: u64,
}

/// Turns lines such as `  23145/24567 kB (94%), 0/1 tablespace (…)` into progress.
pub(crate) struct Meter {
    began: Moment,
}

impl Meter {
    pub(crate) fn new() -> Meter {
        Meter { began: clock::now() }
    }

    /// The progress that the line tells; `None` when it is a message.
    pub(crate) fn read(&self, line: &str) -> Option<Progress> {
        let (amount, _) = line.trim_start().split_once(" kB ")?;
        let (done, total) = match amount.split_once('/') {
            Some((done, total)) => (done, Some(total.trim().parse::<u64>().ok()?)),
            None => (amount, None),
        };
        let done_bytes = done.trim().parse::<u64>().ok()?.saturating_mul(1024);
        let millis = u64::try_from(clock::now().since(self.began).as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u64::try_from(u128::from(done_bytes) * 1000 / u128::from(millis)).unwrap_or(u64::MAX);
        Some(Progress { done_bytes, total_bytes: total.map(|total| total.saturating_mul(1024)), rate })
    }
}

/// Why a program did not do its work.
pub(crate) enum JobError {
    Cancelled,
    Failed { how: String, last_words: String },
    System(Error),
}

/// Runs `command` to its end. `on_line` gets each line and says whether it was progress, which is not kept as last
/// words.
pub(crate) async fn run(
    mut command: Command,
    cancel: &CancellationToken,
    mut on_line: impl FnMut(&str) -> bool,
) -> Result<(), JobError> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let program = Path::new(command.as_std().get_program()).to_owned();
    let mut child = command.spawn().map_err(|error| JobError::System(Error::io("start", &program, error)))?;
    let mut group = Group::of(&child);
    let mut words = LastWords::default();
    let mut stderr = child.stderr.take().map(Lines::new);
    let status = loop {
        let line = async {
            match &mut stderr {
                Some(lines) => lines.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = line => match line {
                Some(line) => if !on_line(&line) { words.add(line) },
                None => stderr = None,
            },
            status = child.wait() => break status,
            () = cancel.cancelled() => {
                group.end(&mut child).await;
                return Err(JobError::Cancelled);
            }
        }
    };
    let status = status.map_err(|error| JobError::System(Error::io("wait for", &program, error)))?;
    if let Some(mut lines) = stderr {
        let drain = async {
            while let Some(line) = lines.next().await {
                if !on_line(&line) {
                    words.add(line);
                }
            }
        };
        if timeout(STRAGGLERS, drain).await.is_ok() {
            group.disarm();
        }
    } else {
        group.disarm();
    }
    judge(status, &words)
}

fn judge(status: ExitStatus, words: &LastWords) -> Result<(), JobError> {
    if status.success() {
        return Ok(());
    }
    Err(JobError::Failed { how: status.to_string(), last_words: words.text() })
}

#[derive(Default)]
struct LastWords(VecDeque<String>);

impl LastWords {
    fn add(&mut self, line: String) {
        if line.trim().is_empty() {
            return;
        }
        if self.0.len() == LAST_WORDS {
            self.0.pop_front();
        }
        tracing::debug!(target: "postgres::job", "{line}");
        self.0.push_back(line);
    }

    fn text(&self) -> String {
        self.0.iter().map(|line| line.trim()).collect::<Vec<_>>().join("; ")
    }
}

/// Splits at line feeds and at carriage returns, and never holds more than one line.
pub(crate) struct Lines<R> {
    input: R,
    buffer: Vec<u8>,
    chunk: VecDeque<u8>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(crate) fn new(input: R) -> Lines<R> {
        Lines { input, buffer: Vec::new(), chunk: VecDeque::new() }
    }

    /// Safe to drop half-way: what was read stays in the buffers.
    pub(crate) async fn next(&mut self) -> Option<String> {
        loop {
            while let Some(byte) = self.chunk.pop_front() {
                if byte == b'\n' || byte == b'\r' {
                    return Some(self.take());
                }
                if self.buffer.len() < LINE_LIMIT {
                    self.buffer.push(byte);
                }
            }
            let mut bytes = [0; 1024];
            match self.input.read(&mut bytes).await {
                Ok(0) | Err(_) if self.buffer.is_empty() => return None,
                Ok(0) | Err(_) => return Some(self.take()),
                Ok(count) => self.chunk.extend(bytes.iter().take(count)),
            }
        }
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.buffer)).into_owned()
    }
}

/// The program and its children, ended when this is dropped.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Group {
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Group { leader }
    }

    fn disarm(&mut self) {
        self.leader = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.leader {
            // It fails when all are gone, which is what is wanted.
            let _ = rustix::process::kill_process_group(leader, signal);
        }
    }

    async fn gone(&self) {
        while self.leader.is_some_and(|leader| rustix::process::test_kill_process_group(leader).is_ok()) {
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn end(&mut self, child: &mut Child) {
        self.signal(Signal::TERM);
        let ended = timeout(GRACE, child.wait()).await.is_ok();
        self.signal(Signal::KILL);
        if !ended {
            // Killed, so this is short; a process in uninterruptible sleep is left to the kernel.
            let _ = timeout(GRACE, child.wait()).await;
        }
        // Its children were killed; the kernel, and whoever inherits them, take a moment.
        let _ = timeout(GRACE, self.gone()).await;
        self.disarm();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Ends what an agent that died left behind: processes of `program` that work with exactly this argument.
pub(crate) async fn end_leftovers(
    installation: &Installation,
    program: &str,
    argument: &str,
) -> Result<(), Error> {
    let program = installation.bin_dir.join(program);
    let deadline = Instant::now() + STRAGGLERS;
    loop {
        let found = working_with(&program, argument);
        if found.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Error::Timeout {
                what: format!("end the {} of an earlier agent (process {found:?})", program.display()),
                within: STRAGGLERS,
            });
        }
        for pid in found {
            tracing::warn!(pid, program = %program.display(), "ending what an earlier agent left behind");
            kill_if(pid, &program, argument);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn working_with(program: &Path, argument: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| is_it(*pid, program, argument)).collect()
}

fn is_it(pid: i32, program: &Path, argument: &str) -> bool {
    let Ok(command_line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let mut words = command_line.split(|byte| *byte == 0);
    words.next() == Some(program.as_os_str().as_encoded_bytes())
        && words.any(|word| word == argument.as_bytes())
}

/// Looks again after the pidfd is held, so that a process id used anew is never hit.
fn kill_if(pid: i32, program: &Path, argument: &str) {
    let Some(id) = Pid::from_raw(pid) else { return };
    let Ok(process) = rustix::process::pidfd_open(id, PidfdFlags::empty()) else { return };
    if is_it(pid, program, argument) {
        // It fails when the process is gone, which is what is wanted.
        let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::Meter;

    #[test]
    fn progress_lines_are_told_from_messages() {
        let meter = Meter::new();
        let read = |line| meter.read(line).map(|progress| (progress.done_bytes, progress.total_bytes));
        assert_eq!(
            read("  2048/4096 kB (50%), 0/1 tablespace (/data/base/1/2)"),
            Some((2 << 20, Some(4 << 20)))
        );
        assert_eq!(read("  1024 kB (100%), 1/1 tablespace"), Some((1 << 20, None)));
        assert_eq!(read("  5/10 kB (50%) copied"), Some((5120, Some(10240))));
        assert_eq!(read("pg_basebackup: checkpoint completed"), None);
        assert_eq!(read("pg_rewind: need to copy 51 MB (total source directory size is 70 MB)"), None);
        assert_eq!(read("99999999999999999999/1 kB (1%)"), None);
    }
}
