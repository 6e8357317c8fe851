//! Which directory a demo uses, and what is done about one that an earlier demo left behind.

use crate::processes;
use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Held locked by a living lab. A directory with a lock that nobody holds is what a killed lab left.
pub(crate) const LOCK: &str = "lab.lock";

/// `baton-demo` among the temporary files, or the next number when a demo is running there.
pub(super) fn claim_usual() -> Result<PathBuf> {
    let temporary = std::env::temp_dir();
    for number in 1..=20 {
        let name = if number == 1 { "baton-demo".to_owned() } else { format!("baton-demo-{number}") };
        let directory = temporary.join(name);
        if !directory.exists() || clear_leftover(&directory)? {
            return Ok(directory);
        }
    }
    bail!("find a directory for the demo: {}/baton-demo to baton-demo-20 are all in use", temporary.display())
}

/// The directory that the user wants, if it is free.
pub(super) fn claim(directory: &Path) -> Result<PathBuf> {
    let directory = std::path::absolute(directory).with_context(|| format!("use {}", directory.display()))?;
    if !directory.exists() || clear_leftover(&directory)? {
        return Ok(directory);
    }
    bail!(
        "use {}: it exists already, and not as the remains of a demo; name another one",
        directory.display()
    )
}

/// Removes a finished lab's directory.
pub(super) fn remove(base: &Path) -> Result<()> {
    if base.exists() {
        fs::remove_dir_all(base).with_context(|| format!("remove {}", base.display()))?;
    }
    Ok(())
}

/// Ends and removes what a killed lab left in `directory`; false when there is something else, or a living lab.
fn clear_leftover(directory: &Path) -> Result<bool> {
    let Ok(lock) = File::open(directory.join(LOCK)) else { return Ok(false) };
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(false);
    }
    processes::kill_under(directory);
    processes::remove_guard_memory(directory);
    fs::remove_dir_all(directory).with_context(|| format!("remove the old {}", directory.display()))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{LOCK, claim};
    use rustix::fs::{FlockOperation, flock};
    use std::fs::{self, File};

    #[test]
    fn only_the_remains_of_a_dead_lab_are_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let (lab, other) = (dir.path().join("lab"), dir.path().join("other"));
        fs::create_dir(&other).unwrap();
        assert!(claim(&other).is_err(), "a directory of somebody else");
        assert!(claim(&lab).is_ok() && !lab.exists());

        fs::create_dir(&lab).unwrap();
        let lock = File::create(lab.join(LOCK)).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        assert!(claim(&lab).is_err(), "a living lab");
        drop(lock);
        assert!(claim(&lab).is_ok() && !lab.exists());
    }
}
