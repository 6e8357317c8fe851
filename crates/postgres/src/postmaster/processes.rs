//! The process table, as /proc shows it.

use crate::error::Error;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// One line of the process table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) state: char,
    pub(super) start_ticks: u64,
}

/// A directory by what it is and not by how it is called: links and bind mounts do not confuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct DirId {
    device: u64,
    inode: u64,
}

impl DirId {
    /// `None` when there is no such directory.
    pub(super) fn of(path: &Path) -> Result<Option<DirId>, Error> {
        match fs::metadata(path) {
            Ok(metadata) => Ok(Some(DirId { device: metadata.dev(), inode: metadata.ino() })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("inspect", path, error)),
        }
    }
}

impl Process {
    /// The process with this id; `None` when there is none.
    pub(super) fn read(pid: u32) -> Option<Process> {
        Process::parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The same, with the processor time it has used.
    pub(super) fn read_with_ticks(pid: u32) -> Option<(Process, u64)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = stat.rsplit_once(") ")?;
        // Fields 14 and 15, of which the first two are gone.
        let mut fields = rest.split_ascii_whitespace().skip(11).map_while(|field| field.parse::<u64>().ok());
        let ticks = fields.next()?.saturating_add(fields.next()?);
        Some((Process::parse(pid, &stat)?, ticks))
    }

    /// Reads `/proc/<pid>/stat`. The second field is the program's name, which may hold anything.
    fn parse(pid: u32, stat: &str) -> Option<Process> {
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        // Field 22; two were before the name's end, and two have been taken.
        let start_ticks = fields.nth(17)?.parse().ok()?;
        Some(Process { pid, parent, state, start_ticks })
    }

    /// Whether it has ended and only waits to be reaped.
    pub(super) fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    /// Whether it runs PostgreSQL's server program, be it one that an upgrade has replaced on disk.
    pub(super) fn is_postgres(&self) -> bool {
        let Ok(exe) = fs::read_link(format!("/proc/{}/exe", self.pid)) else { return false };
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.strip_suffix(" (deleted)").unwrap_or(&name) == "postgres"
    }

    /// Whether `dir` is its working directory.
    pub(super) fn works_in(&self, dir: DirId) -> bool {
        matches!(DirId::of(Path::new(&format!("/proc/{}/cwd", self.pid))), Ok(Some(cwd)) if cwd == dir)
    }

    /// Its command line: the arguments, or what it wrote over them.
    pub(super) fn title(&self) -> String {
        let bytes = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" ").trim().to_owned()
    }

    /// A handle of this very process; `None` when it is gone.
    pub(super) fn open(&self) -> Result<Option<OwnedFd>, Error> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        let pidfd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => {
                return Err(Error::Io { what: format!("open process {}", self.pid), source: error.into() });
            }
        };
        // The handle is of whoever had the id when it was opened.
        let same = Process::read(self.pid).is_some_and(|now| now.start_ticks == self.start_ticks);
        Ok(same.then_some(pidfd))
    }
}

/// All processes that this one may see.
pub(super) fn all() -> Result<Vec<Process>, Error> {
    let entries = fs::read_dir("/proc").map_err(|error| Error::io("list", Path::new("/proc"), error))?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    Ok(pids.filter_map(Process::read).collect())
}

/// The server processes at work in `dir`, postmaster or not.
pub(super) fn servers_in(dir: DirId) -> Result<Vec<Process>, Error> {
    let mut found = all()?;
    found.retain(|process| !process.is_dead() && process.works_in(dir) && process.is_postgres());
    Ok(found)
}

/// The identity of this boot.
pub(super) fn boot_id() -> Result<String, Error> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::Process;

    #[test]
    fn a_program_may_be_called_anything() {
        let stat = "77 (a) b (c) S 1 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987654 1000 10 1844";
        let process = Process::parse(77, stat).unwrap();
        assert_eq!((process.parent, process.state, process.start_ticks), (1, 'S', 987_654));
        assert_eq!(Process::parse(1, "1 (x"), None);
        assert_eq!(Process::parse(1, "1 (x) S 1 2"), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let me = Process::read(std::process::id()).unwrap();
        assert!(super::all().unwrap().iter().any(|process| process.start_ticks == me.start_ticks));
        assert!(me.open().unwrap().is_some());
        assert!(!me.is_postgres() && !me.is_dead());
        let other = Process { start_ticks: me.start_ticks + 1, ..me };
        assert!(other.open().unwrap().is_none(), "another process with the same id");
    }
}
