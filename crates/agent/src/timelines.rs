//! Timeline numbers are never used twice.
//!
//! A standby that is promoted takes the first number after its own for which it finds no history file. It knows nothing of a leader
//! that took that number and is gone: two different timelines would bear one number, and a standby of the one could follow the other.
//! So the number is taken in etcd first, and the numbers in between are made known to PostgreSQL by files that hold no ancestor: such
//! a timeline is nobody's child, and no standby ever switches to it.

use etcd::Snapshot;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use types::Timeline;

const MARK: &str = "# taken by another member: skipped by baton\n";

/// The newest timeline that the cluster is known to have been on, or to have begun.
pub(crate) fn newest(snapshot: &Snapshot) -> Timeline {
    let ended = snapshot.history.iter().map(|row| Timeline(row.timeline.0.saturating_add(1))).max();
    let last = snapshot.last.as_ref().map(|last| last.timeline);
    ended.max(last).max(snapshot.claimed).unwrap_or(Timeline(1))
}

/// Makes PostgreSQL skip the numbers after `own` and before `next`.
pub(crate) fn skip_to(data_dir: &Path, own: Timeline, next: Timeline) -> std::io::Result<()> {
    for number in own.0.saturating_add(1)..next.0 {
        match fs::OpenOptions::new().write(true).create_new(true).open(path(data_dir, number)) {
            Ok(mut file) => {
                file.write_all(MARK.as_bytes())?;
                file.sync_all()?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    fs::File::open(data_dir.join("pg_wal"))?.sync_all()
}

/// Removes what `skip_to` made, for a member that follows: it must be able to fetch the real history of those timelines.
pub(crate) fn forget_skipped(data_dir: &Path) {
    let Ok(entries) = fs::read_dir(data_dir.join("pg_wal")) else { return };
    for entry in entries.flatten() {
        let history = entry.file_name().to_string_lossy().ends_with(".history");
        if history && fs::read_to_string(entry.path()).is_ok_and(|text| text == MARK) {
            // One that stays is found again the next time.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn path(data_dir: &Path, number: u32) -> PathBuf {
    data_dir.join(format!("pg_wal/{number:08X}.history"))
}

#[cfg(test)]
mod tests {
    use super::{forget_skipped, path, skip_to};
    use types::Timeline;

    #[test]
    fn numbers_in_between_are_taken_and_given_back() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("pg_wal")).unwrap();
        let real = "1\t0/3000000\tno recovery target specified\n";
        std::fs::write(path(dir.path(), 3), real).unwrap();
        skip_to(dir.path(), Timeline(1), Timeline(5)).unwrap();
        assert!(
            path(dir.path(), 2).exists() && path(dir.path(), 4).exists() && !path(dir.path(), 5).exists()
        );
        assert_eq!(
            std::fs::read_to_string(path(dir.path(), 3)).unwrap(),
            real,
            "a real history is left alone"
        );
        skip_to(dir.path(), Timeline(1), Timeline(2)).unwrap();
        forget_skipped(dir.path());
        assert!(
            !path(dir.path(), 2).exists() && path(dir.path(), 3).exists() && !path(dir.path(), 4).exists()
        );
    }
}
