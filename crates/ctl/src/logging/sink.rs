//! Where lines go: standard error, or a file in `log.dir` with its `.1`, `.2`, … predecessors.

use settings::Log;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(super) enum Sink {
    Stderr,
    File(Rotating),
}

impl Sink {
    /// Opens what the settings ask for.
    pub(super) fn open(log: &Log, file: &str) -> Result<Sink, String> {
        match &log.dir {
            None => Ok(Sink::Stderr),
            Some(dir) => {
                let path = dir.join(file);
                let opened = Rotating::open(&path, log.file_size, log.file_num, log.mode);
                opened.map(Sink::File).map_err(|error| {
                    format!("failed to open {}: {error}; correct log.dir or its owner", path.display())
                })
            }
        }
    }

    pub(super) fn write(&mut self, line: &str) -> io::Result<()> {
        match self {
            Sink::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Sink::File(file) => file.write(line),
        }
    }
}

pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    written: u64,
    limit: u64,
    keep: u32,
    mode: Option<u32>,
}

impl Rotating {
    fn open(path: &Path, limit: u64, keep: u32, mode: Option<u32>) -> io::Result<Rotating> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        permit(&file, mode)?;
        let written = file.metadata()?.len();
        Ok(Rotating { path: path.to_owned(), file, written, limit: limit.max(1), keep, mode })
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        if self.keep > 0 && self.written > 0 && self.written + line.len() as u64 > self.limit {
            self.turn()?;
        }
        self.file.write_all(line.as_bytes())?;
        self.written += line.len() as u64;
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        let numbered = |number: u32| PathBuf::from(format!("{}.{number}", self.path.display()));
        for number in (1..self.keep).rev() {
            if numbered(number).exists() {
                std::fs::rename(numbered(number), numbered(number + 1))?;
            }
        }
        std::fs::rename(&self.path, numbered(1))?;
        self.file = OpenOptions::new().create(true).write(true).truncate(true).open(&self.path)?;
        permit(&self.file, self.mode)?;
        self.written = 0;
        Ok(())
    }
}

fn permit(file: &File, mode: Option<u32>) -> io::Result<()> {
    mode.map_or(Ok(()), |mode| file.set_permissions(Permissions::from_mode(mode)))
}

#[cfg(test)]
mod tests {
    use super::Rotating;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn files_are_turned_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Rotating::open(&dir.path().join("patroni.log"), 10, 2, Some(0o640)).unwrap();
        for line in ["first\n", "second\n", "third\n", "fourth\n"] {
            log.write(line).unwrap();
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(read("patroni.log"), "fourth\n");
        assert_eq!(read("patroni.log.1"), "third\n");
        assert_eq!(read("patroni.log.2"), "second\n");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
        let mode = std::fs::metadata(dir.path().join("patroni.log")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }
}
