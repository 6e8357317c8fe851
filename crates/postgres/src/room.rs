//! Room on the disk: whether there is enough before something begins, and what to say when it ran out on the way.

use crate::error::Error;
use crate::files;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Left to others who write on the same disk.
const RESERVE: u64 = 32 << 20;

/// Whether `needed` bytes can be written beside `data_dir`; in words what is missing, and what to do. A disk that does
/// not say how full it is stops nobody.
pub(crate) fn check(data_dir: &Path, work: &str, needed: u64) -> Result<(), String> {
    let needed = needed.saturating_add(RESERVE);
    match free(files::parent(data_dir)) {
        Some(free) if free < needed => Err(format!(
            "there is no room for {work}: it needs {} MB beside {}, and {} MB are free; nothing was changed. Make room: {}",
            needed >> 20,
            data_dir.display(),
            free >> 20,
            advice(data_dir)
        )),
        Some(_) | None => Ok(()),
    }
}

/// What a program's last words mean when the disk was full; empty when it was not.
pub(crate) fn remark(data_dir: &Path, words: &str) -> String {
    if !is_full(words) {
        return String::new();
    }
    format!(". The disk is full; it is tried again. Make room: {}", advice(data_dir))
}

/// Whether these words tell of a full disk.
pub(crate) fn is_full(words: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|full| words.contains(full))
}

/// Whether the disk was full.
pub(crate) fn was_full(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. }
        if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn advice(data_dir: &Path) -> String {
    format!(
        "remove directories named {}.kept-* that nobody needs any more, or enlarge the disk",
        data_dir.display()
    )
}

fn free(dir: &Path) -> Option<u64> {
    let found: Result<_, Errno> = rustix::fs::statvfs(dir);
    found.ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// The size of everything in `dir`, links not followed; what cannot be read counts as nothing.
pub(crate) fn size(dir: &Path) -> u64 {
    let mut total = 0_u64;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => open.push(entry.path()),
                // A file with holes, or on a disk that compresses, takes less than its length.
                Ok(found) => {
                    total = total.saturating_add(found.len().min(found.blocks().saturating_mul(512)));
                }
                Err(_) => {}
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::{check, is_full, remark};
    use std::path::Path;

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let data_dir = Path::new("/tmp/data");
        assert_eq!(check(data_dir, "a copy", 0), Ok(()));
        let why = check(data_dir, "a copy", u64::MAX).unwrap_err();
        assert!(why.contains("no room for a copy") && why.contains("/tmp/data.kept-*"), "{why}");
        assert!(is_full("pg_rewind: error: could not write file \"x\": No space left on device"));
        assert_eq!(remark(data_dir, "connection refused"), "");
        assert!(remark(data_dir, "No space left on device").contains("tried again"));
    }
}
