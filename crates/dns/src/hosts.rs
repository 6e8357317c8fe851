//! The names as a hosts file, for dnsmasq and `/etc/hosts`-like readers.
//!
//! ```text
//!   zone ──► text ──► .NAME.new, on disk ──► NAME, in one step
//! ```
//! dnsmasq with `hostsdir` hears of the renaming and reads the file anew; it passes over names that begin with a dot, so it never reads half
//! a file.

use crate::zone::Zone;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What stands in it.
#[must_use]
pub fn text(zone: &Zone) -> String {
    let mut text = String::from("# Written by baton. Changes are lost.\n");
    for (ip, name) in zone.hosts() {
        text.push_str(&format!("{ip} {name}\n"));
    }
    text
}

/// Puts it there. Whether it has changed.
pub(crate) fn write(path: &Path, text: &str) -> io::Result<bool> {
    if fs::read(path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut hidden = std::ffi::OsString::from(".");
    hidden.push(name);
    hidden.push(".new");
    let fresh = path.with_file_name(hidden);
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::{text, write};
    use crate::zone::tests::{facts, zone};
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_replaced_as_a_whole_and_only_when_it_changes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pg");
        let first = text(&zone(&facts()));
        assert!(first.contains("\n10.0.0.1 primary.c1.pg.test\n"));
        assert!(write(&path, &first).unwrap());
        let inode = fs::metadata(&path).unwrap().ino();
        assert!(!write(&path, &first).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert!(write(&path, "# other\n").unwrap());
        assert_ne!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
    }
}
