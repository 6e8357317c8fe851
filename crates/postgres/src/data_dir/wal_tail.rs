//! Saving the end of the WAL before something overwrites it: the commits that only this node has.

use crate::control;
use crate::error::Error;
use crate::files;
use crate::wal;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::path::Path;
use types::{Lsn, Timeline};

/// What was kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tail {
    /// The number of files.
    pub files: usize,
    /// Their total size.
    pub bytes: u64,
}

/// Copies into the directory `into`, which is made if needed: every WAL segment of `timeline` or a later one that
/// holds bytes from `from` on, the timeline histories, and the control file. All copies are durable on return.
/// Segments that PostgreSQL only recycled for later use hold nothing and are left out.
pub fn keep_wal_tail(data_dir: &Path, from: Lsn, timeline: Timeline, into: &Path) -> Result<Tail, Error> {
    let segment_size = u64::from(control::read(data_dir)?.wal_segment_size);
    make_dir(into, data_dir)?;
    let mut tail = Tail::default();
    let wal_dir = data_dir.join("pg_wal");
    for entry in fs::read_dir(&wal_dir).map_err(|error| Error::io("list", &wal_dir, error))? {
        let entry = entry.map_err(|error| Error::io("list", &wal_dir, error))?;
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        let wanted = match Segment::parse(name, segment_size) {
            Some(segment) => {
                segment.timeline >= timeline
                    && segment.start.0.saturating_add(segment_size) > from.0
                    && segment.is_written(&path)?
            }
            None => name.ends_with(".history"),
        };
        if wanted {
            tail.add(copy(&path, &into.join(name))?);
        }
    }
    tail.add(copy(&data_dir.join("global/pg_control"), &into.join("pg_control"))?);
    files::sync_dir(into)?;
    files::sync_parent(into)?;
    Ok(tail)
}

/// How much [`keep_wal_tail`] would copy, at most.
pub(crate) fn wal_tail_bytes(data_dir: &Path, from: Lsn, timeline: Timeline) -> u64 {
    let Ok(control) = control::read(data_dir) else { return 0 };
    let segment_size = u64::from(control.wal_segment_size);
    let entries = fs::read_dir(data_dir.join("pg_wal")).into_iter().flatten().flatten();
    let segments = entries.filter_map(|entry| Segment::parse(entry.file_name().to_str()?, segment_size));
    let wanted = segments.filter(|segment| {
        segment.timeline >= timeline && segment.start.0.saturating_add(segment_size) > from.0
    });
    (wanted.count() as u64).saturating_mul(segment_size)
}

impl Tail {
    fn add(&mut self, bytes: u64) {
        self.files += 1;
        self.bytes += bytes;
    }
}

/// A WAL segment file by its name: 8 digits each of timeline, high and low segment number, perhaps `.partial`.
struct Segment {
    timeline: Timeline,
    start: Lsn,
}

impl Segment {
    fn parse(name: &str, segment_size: u64) -> Option<Segment> {
        let digits = name.strip_suffix(".partial").unwrap_or(name);
        if digits.len() != 24 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let number = |at: usize| u64::from_str_radix(digits.get(at..at + 8)?, 16).ok();
        let (timeline, high, low) = (number(0)?, number(8)?, number(16)?);
        let segments_of_high = 0x1_0000_0000u64.checked_div(segment_size)?;
        let start = high.checked_mul(segments_of_high)?.checked_add(low)?.checked_mul(segment_size)?;
        Some(Segment { timeline: Timeline(u32::try_from(timeline).ok()?), start: Lsn(start) })
    }

    /// Whether its first page is of this segment: PostgreSQL may only have recycled it for later use.
    fn is_written(&self, path: &Path) -> Result<bool, Error> {
        let written = File::open(path).and_then(|file| wal::is_written(&file, 0, self.start));
        written.map_err(|error| Error::io("read", path, error))
    }
}

fn make_dir(dir: &Path, data_dir: &Path) -> Result<(), Error> {
    let fail = |error| Error::io("create", dir, error);
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(fail)?,
    }
    if rustix::process::geteuid().is_root() {
        let owner = fs::metadata(data_dir).map_err(fail)?;
        chown(dir, Some(owner.uid()), Some(owner.gid())).map_err(fail)?;
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<u64, Error> {
    let fail = |error| Error::io("copy", from, error);
    let mut source = File::open(from).map_err(fail)?;
    let mut target =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to).map_err(fail)?;
    files::give_to_owner_of_directory(&target, to)?;
    let bytes = io::copy(&mut source, &mut target).map_err(fail)?;
    target.sync_all().map_err(fail)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::Segment;
    use types::{Lsn, Timeline};

    #[test]
    fn segment_names_are_positions() {
        let parse = |name, size| Segment::parse(name, size).map(|segment| (segment.timeline, segment.start));
        let mib = 1 << 20;
        assert_eq!(parse("000000020000000300000001", 16 * mib), Some((Timeline(2), Lsn(0x3_0100_0000))));
        assert_eq!(parse("00000001000000000000000A.partial", mib), Some((Timeline(1), Lsn(0xA0_0000))));
        assert_eq!(
            parse("0000000200000003000000FF", 64 * mib),
            Some((Timeline(2), Lsn(0x6_FC00_0000 + (12 << 32) - (0xC << 32))))
        );
        for other in ["00000002.history", "000000010000000000000002.00000028.backup", "archive_status", "x"] {
            assert_eq!(parse(other, 16 * mib), None, "{other}");
        }
        assert_eq!(parse("000000010000000000000001", 0), None);
    }
}
