//! A small disk for the WAL of one node, which can be filled. Needs root.
//!
//! ```text
//!   <base>/n1/wal-disk/       a file system in memory, of limited size
//!             ├── wal/        where pg_wal of n1 points
//!             └── ballast     as large as there is room
//! ```

use crate::account::Account;
use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The disk. Dropped, it is taken away with all that is on it.
#[derive(Debug)]
pub(crate) struct WalDisk {
    at: PathBuf,
}

impl WalDisk {
    /// Makes one of so many megabytes in the directory of a node.
    pub(crate) fn create(node: &Path, megabytes: u32, account: &Account) -> Result<WalDisk> {
        let at = node.join("wal-disk");
        fs::create_dir(&at).with_context(|| format!("create {}", at.display()))?;
        run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m,mode=0700"), "baton-lab"], &at)?;
        let disk = WalDisk { at };
        account.own(&disk.at)?;
        Ok(disk)
    }

    /// Where the WAL of this node is to be.
    pub(crate) fn wal_dir(node: &Path) -> PathBuf {
        // Not the disk itself: whoever moves the WAL aside renames its directory.
        node.join("wal-disk").join("wal")
    }

    /// Leaves no room on it.
    pub(crate) fn fill(&self) -> Result<()> {
        let path = self.ballast();
        let mut file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        let block = [0_u8; 65536];
        loop {
            match file.write(&block) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error).with_context(|| format!("write {}", path.display())),
            }
        }
    }

    /// Gives the room back.
    pub(crate) fn clear(&self) -> Result<()> {
        match fs::remove_file(self.ballast()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.ballast().display()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Writes beside it what was on it, for whoever reads the remains of a lab.
    pub(crate) fn list(&self) -> Result<()> {
        let output = Command::new("ls").arg("-lR").arg(&self.at).output().context("run ls")?;
        let path = self.at.with_extension("txt");
        fs::write(&path, output.stdout).with_context(|| format!("write {}", path.display()))
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for WalDisk {
    fn drop(&mut self) {
        // A file that somebody still holds open keeps nobody from taking it out of sight.
        let _ = Command::new("umount").arg("-l").arg(&self.at).stderr(Stdio::null()).status();
    }
}

fn run(program: &str, words: &[&str], at: &Path) -> Result<()> {
    let output =
        Command::new(program).args(words).arg(at).output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        bail!("{program} {}: {}", at.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
