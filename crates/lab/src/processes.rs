//! The processes of this machine, as /proc shows them.
//!
//! A lab recognises what is its own by place, not by memory: every program of Baton runs from a copy under the lab's
//! directory, and every other process of a lab has its working directory there. So a postmaster or a guard, which outlive
//! the agent that started them, are found again, and nothing else on the machine can be mistaken for one of them.

use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The programs that a lab and its agents start; a shell or an editor that a person opened in the directory is not one
/// of them.
const PROGRAMS: [&str; 10] = [
    "etcd",
    "haproxy",
    "postgres",
    "initdb",
    "pg_basebackup",
    "pg_rewind",
    "pg_ctl",
    "pg_controldata",
    "pg_waldump",
    "pg_verifybackup",
];

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// The letter of its state: `R`, `S`, `T` for stopped, `Z` for a zombie.
    pub state: char,
    pub program: PathBuf,
    pub directory: PathBuf,
    pub command: String,
}

impl Process {
    /// Reads one process; `None` when it is gone, a zombie, or another user's.
    #[must_use]
    pub fn read(pid: i32) -> Option<Process> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(dir.join("stat")).ok()?;
        // The name in parentheses may hold anything; the fields follow its last parenthesis.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let program = fs::read_link(dir.join("exe")).ok()?;
        let directory = fs::read_link(dir.join("cwd")).ok()?;
        let command = fs::read(dir.join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
        Some(Process { pid, parent, state, program, directory, command })
    }

    /// The name of its program.
    #[must_use]
    pub fn program_name(&self) -> &str {
        let name = self.program.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        name.trim_end_matches(" (deleted)")
    }

    /// Whether it is a server process of PostgreSQL.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.program_name() == "postgres"
    }

    /// Whether it is a Patroni, which is a program in Python.
    #[must_use]
    pub fn is_patroni(&self) -> bool {
        self.program_name().starts_with("python")
    }

    /// Whether it is an agent, a guard or a router: their programs lie under `dir`.
    #[must_use]
    pub fn is_baton(&self, dir: &Path) -> bool {
        self.program.starts_with(dir)
    }
}

/// All processes that belong to the lab or node whose directory is `dir`.
#[must_use]
pub fn under(dir: &Path) -> Vec<Process> {
    all_pids()
        .into_iter()
        .filter_map(Process::read)
        .filter(|process| {
            let known = PROGRAMS.contains(&process.program_name()) || process.is_patroni();
            let ours = known && process.directory.starts_with(dir);
            ours || process.is_baton(dir)
        })
        .collect()
}

/// Whether there is such a process, not counting a zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    Process::read(pid).is_some_and(|process| process.state != 'Z')
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() > 1) {
        // The only other failure is a process of another user, which the final count would show.
        let _ = kill_process(pid, signal);
    }
}

/// Kills everything under `dir` at once, as a power cut would: stopped first, so that nobody starts a new process or
/// writes a farewell while the others go.
pub fn kill_under(dir: &Path) {
    let (mut shared, mut killed) = (BTreeSet::new(), BTreeSet::new());
    for _round in 0..100 {
        let processes = under(dir);
        if processes.is_empty() {
            break;
        }
        for process in &processes {
            signal(process.pid, Signal::STOP);
            if process.is_postgres() {
                shared.extend(mapped(process, "/dev/shm/PostgreSQL."));
                killed.insert(process.pid);
            }
        }
        for process in &processes {
            signal(process.pid, Signal::KILL);
        }
        pause();
    }
    // A killed PostgreSQL leaves its shared memory behind; when it is started again it makes a new one.
    for path in shared {
        let _ = fs::remove_file(path);
    }
    remove_segments(&killed);
}

/// Removes the System V segments that killed postmasters made and nobody uses any more.
fn remove_segments(killed: &BTreeSet<i32>) {
    let table = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    for line in table.lines().skip(1) {
        // key shmid perms size cpid lpid nattch …
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, id, _, _, creator, _, "0", ..] = fields.as_slice() else { continue };
        if creator.parse().is_ok_and(|creator| killed.contains(&creator)) {
            // What cannot be removed stays, as after any crash.
            let _ =
                Command::new("ipcrm").args(["-m", id]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// Removes the memory of the guards of the data directories under `dir`; it outlives agents and guards on purpose.
pub fn remove_guard_memory(dir: &Path) {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        let ours = entry.file_name().as_bytes().starts_with(b"baton-guard") && {
            let content = fs::read(entry.path()).unwrap_or_default();
            let inside = [dir.as_os_str().as_bytes(), b"/"].concat();
            content.windows(inside.len()).any(|window| window == inside)
        };
        if ours {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Waits a moment outside of any runtime: this module also runs while a lab is dropped.
fn pause() {
    let mut nothing: [rustix::event::PollFd<'_>; 0] = [];
    let wait = rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    let _ = rustix::event::poll(&mut nothing, Some(&wait));
}

/// Waits until nothing is left under `dir`, at most for `span`; returns what is.
#[must_use]
pub fn await_none_under(dir: &Path, span: Duration) -> Vec<Process> {
    let end = clock::now().after(span);
    loop {
        let left = under(dir);
        if left.is_empty() || clock::now() >= end {
            return left;
        }
        pause();
    }
}

fn all_pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The files that a process has mapped and whose names begin with `start`.
fn mapped(process: &Process, start: &str) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{}/maps", process.pid)).unwrap_or_default();
    let paths = maps.lines().filter_map(|line| line.get(line.find(start)?..));
    paths.map(|path| PathBuf::from(path.trim_end_matches(" (deleted)"))).collect()
}

#[cfg(test)]
mod tests {
    use super::{Process, under};
    use std::path::Path;

    #[test]
    fn this_process_is_read_and_belongs_to_its_directory() {
        let me = Process::read(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(me.program.is_absolute());
        assert!(!me.is_postgres());
        let here = under(me.program.parent().unwrap());
        assert!(here.iter().any(|process| process.pid == me.pid));
        assert!(under(Path::new("/nowhere")).is_empty());
    }
}
