//! Finding the postmaster that already serves a data directory.
//!
//! `postmaster.pid` names it; the file can be stale and its process id somebody else's by now, therefore the process
//! must run a `postgres` in that very directory. Without the file, or with a stale one, the process table is searched: a postmaster
//! that was started a moment ago has not written its own yet.
//! Without a live postmaster the file can be in the way of the next one, and is removed.

use super::processes::{self, DirId, Process};
use super::{Postmaster, is_gone};
use crate::error::Error;
use crate::files;
use std::path::Path;

pub(super) fn adopt(data_dir: &Path) -> Result<Option<Postmaster>, Error> {
    let Some(dir) = DirId::of(data_dir)? else { return Ok(None) };
    match pid_file(data_dir)? {
        PidFile::Postmaster(pid) => {
            if let Some(process) = Process::read(pid)
                && let Some(postmaster) = open_if_ours(&process, dir, data_dir)?
            {
                return Ok(Some(postmaster));
            }
        }
        // A single-user server is nobody to adopt.
        PidFile::SingleUser => return Ok(None),
        PidFile::Missing => {}
    }
    for process in processes::servers_in(dir)? {
        if let Some(postmaster) = open_if_ours(&process, dir, data_dir)? {
            return Ok(Some(postmaster));
        }
    }
    Ok(None)
}

/// What the first line of `postmaster.pid` says.
enum PidFile {
    Missing,
    Postmaster(u32),
    SingleUser,
}

fn pid_file(data_dir: &Path) -> Result<PidFile, Error> {
    let Some(bytes) = files::read_if_there(&data_dir.join("postmaster.pid"))? else {
        return Ok(PidFile::Missing);
    };
    let text = String::from_utf8_lossy(&bytes);
    match text.lines().next().and_then(|line| line.trim().parse::<i64>().ok()) {
        Some(pid) if pid < 0 => Ok(PidFile::SingleUser),
        Some(pid) => Ok(u32::try_from(pid).map_or(PidFile::Missing, PidFile::Postmaster)),
        // Being written, or damaged: the process table knows.
        None => Ok(PidFile::Missing),
    }
}

/// Removes the lock files that a dead server left in `data_dir` if PostgreSQL would take them for a live one's: it only
/// asks whether a process with that id exists, and a dead postmaster that waits to be reaped does, as does a stranger
/// that has been given its id. The caller has made sure that no server works in the directory.
pub(super) fn remove_stale_locks(data_dir: &Path) -> Result<(), Error> {
    let path = data_dir.join("postmaster.pid");
    let Some(bytes) = files::read_if_there(&path)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let Some(pid) = lines.first().and_then(|line| line.parse::<i64>().ok()).map(i64::unsigned_abs) else {
        return Ok(());
    };
    if u32::try_from(pid).ok().and_then(Process::read).is_none() {
        return Ok(());
    }
    // Line 4 is the port, line 5 the first directory with a socket; its lock has the same process id.
    if let (Some(port), Some(dir)) = (lines.get(3), lines.get(4).filter(|dir| dir.starts_with('/'))) {
        let lock = Path::new(dir).join(format!(".s.PGSQL.{port}.lock"));
        let owner = files::read_if_there(&lock)?.unwrap_or_default();
        let owner = String::from_utf8_lossy(&owner).lines().next().and_then(|line| line.trim().parse().ok());
        if owner == Some(pid) {
            files::remove_if_there(&lock)?;
        }
    }
    files::remove_if_there(&path).map(|_| ())
}

fn open_if_ours(process: &Process, dir: DirId, data_dir: &Path) -> Result<Option<Postmaster>, Error> {
    let Some(pidfd) = process.open()? else { return Ok(None) };
    let ours = !process.is_dead() && process.works_in(dir) && process.is_postgres() && is_postmaster(process);
    // What was read is true of the process behind the handle if that has not ended meanwhile.
    if !ours || is_gone(&pidfd) {
        return Ok(None);
    }
    Postmaster::of(process, pidfd, data_dir).map(Some)
}

/// Its children write their duty over their command line, and a server for one user, such as initdb's, says so there.
fn is_postmaster(process: &Process) -> bool {
    let title = process.title();
    let alone = [" --single", " --boot", " --check"].iter().any(|mode| title.contains(mode));
    !title.is_empty() && !title.starts_with("postgres: ") && !alone
}
