//! Whether a sender still has the WAL that a standby needs: asked as the standby itself asks, by START_REPLICATION from there.
//!
//! ```text
//!   START_REPLICATION 0/3000000 TIMELINE 1 ─► CopyBoth ─► WAL, or a word that there is none yet      Sends
//!                                                     └─► "requested WAL segment … has already been removed" (58P01)   Removed
//!                                        └─► another refusal: an error, from which nothing follows
//! ```
//! No slot is used and nothing is confirmed, so nobody's commits and nobody's slot take notice of it.
//!
//! What a standby has in its own `pg_wal` it does not wait for: one that replays late, on purpose or not, needs the segment in which that ends.

use crate::archive::segment;
use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;
use types::{History, Lsn, Timeline};

/// `undefined_file`
const NO_SUCH_FILE: &str = "58P01";

/// What a sender answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    Sends,
    Removed,
}

/// Asks the server at `to` for the WAL of `timeline` from `start` on.
pub async fn ask(
    to: &ConnectTo,
    timeline: Timeline,
    start: Lsn,
    within: Duration,
) -> Result<Sender, SqlError> {
    let deadline = Instant::now() + within;
    let connection = Connection::open(to, Mode::Replication, &[], within).await?;
    let left = deadline.saturating_duration_since(Instant::now());
    let command = format!("START_REPLICATION PHYSICAL {start} TIMELINE {timeline}");
    match connection.begin_copy(&command, left).await {
        Ok(()) => Ok(Sender::Sends),
        Err(error) if error.sqlstate() == Some(NO_SUCH_FILE) => Ok(Sender::Removed),
        Err(error) => Err(error),
    }
}

/// The WAL that begins with the segment of a position, in a history.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Needed {
    /// Where the segment begins.
    pub start: Lsn,
    /// The timeline of the position.
    pub timeline: Timeline,
    /// The names that the segment may have: more than one where timelines fork in it. The oldest first.
    pub names: Vec<String>,
}

/// What a standby at `position` needs next, which follows this history.
#[must_use]
pub fn needed(history: &History, position: Lsn, segment_size: u32) -> Needed {
    let size = u64::from(segment_size.max(1));
    let number = position.0 / size;
    let after = |end: Lsn| history.lines.iter().filter(move |line| line.end <= end).count();
    let nth = |at: usize| history.lines.get(at).map_or(history.timeline, |line| line.timeline);
    // A position at a fork is the first of the new timeline.
    let at = after(position);
    let last = after(Lsn(number.saturating_add(1).saturating_mul(size).saturating_sub(1)));
    let first = history.lines.iter().filter(|line| line.end.0 / size < number).count();
    let start = Lsn(number.saturating_mul(size));
    let names = (first..=last).map(|at| segment(nth(at), start, segment_size)).collect();
    Needed { start, timeline: nth(at), names }
}

/// The last of the segments that lie in `data_dir` one after the other from `position` on: in it ends what this standby has, and from its
/// beginning on it asks for more.
#[must_use]
pub fn local_end(data_dir: &Path, history: &History, position: Lsn, segment_size: u32) -> Lsn {
    let mut end = position;
    if !is_there(data_dir, &needed(history, end, segment_size)) {
        return end;
    }
    loop {
        let start = needed(history, end, segment_size).start;
        let next = needed(history, Lsn(start.0.saturating_add(segment_size.into())), segment_size);
        if next.start <= start || !is_there(data_dir, &next) {
            return end;
        }
        end = next.start;
    }
}

/// Whether the segment lies there, and not an old one that waits under its name to be written to.
fn is_there(data_dir: &Path, segment: &Needed) -> bool {
    let begins = |name: &String| {
        let mut header = [0_u8; 16];
        let mut file = File::open(data_dir.join("pg_wal").join(name)).ok()?;
        file.read_exact(&mut header).ok()?;
        // Behind kind and timeline: the position of the page.
        header.last_chunk::<8>().copied().map(u64::from_le_bytes)
    };
    segment.names.iter().any(|name| begins(name) == Some(segment.start.0))
}

#[cfg(test)]
mod tests {
    use super::{local_end, needed};
    use types::{History, HistoryLine, Lsn, Timeline};

    const SIZE: u32 = 16 << 20;

    fn history(timeline: u32, forks: &[(u32, u64)]) -> History {
        let line = |(timeline, end): &(u32, u64)| HistoryLine {
            timeline: Timeline(*timeline),
            end: Lsn(*end),
            reason: String::new(),
        };
        History { timeline: Timeline(timeline), lines: forks.iter().map(line).collect() }
    }

    #[test]
    fn what_lies_here_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let wal = dir.path().join("pg_wal");
        std::fs::create_dir(&wal).unwrap();
        let put = |name: &str, address: u64| {
            let mut page = vec![0x10, 0xd1, 0, 0, 1, 0, 0, 0];
            page.extend(address.to_le_bytes());
            std::fs::write(wal.join(name), page).unwrap();
        };
        let forked = history(2, &[(1, 0x500_0060)]);
        let end = |position: u64| local_end(dir.path(), &forked, Lsn(position), SIZE);
        put("000000010000000000000004", 0x400_0000);
        assert_eq!(end(0x300_0028), Lsn(0x300_0028), "not even its own segment");
        put("000000010000000000000003", 0x300_0000);
        assert_eq!(end(0x300_0028), Lsn(0x400_0000));
        put("000000010000000000000005", 0x200_0000);
        assert_eq!(end(0x300_0028), Lsn(0x400_0000), "an old segment that waits under a new name");
        put("000000020000000000000005", 0x500_0000);
        assert_eq!(end(0x300_0028), Lsn(0x500_0000), "across a fork");
        assert_eq!(end(0x400_0000), Lsn(0x500_0000));
    }

    #[test]
    fn the_segment_of_a_position_and_its_names() {
        let forked = history(5, &[(1, 0x300_0060), (2, 0x300_0800), (4, 0x500_0000)]);
        for (position, timeline, names) in [
            (0x2ff_ffff, 1, &["000000010000000000000002"][..]),
            (
                0x300_0000,
                1,
                &["000000010000000000000003", "000000020000000000000003", "000000040000000000000003"],
            ),
            (
                0x300_0060,
                2,
                &["000000010000000000000003", "000000020000000000000003", "000000040000000000000003"],
            ),
            (0x400_0000, 4, &["000000040000000000000004"]),
            (0x4ff_ffff, 4, &["000000040000000000000004"]),
            (0x500_0000, 5, &["000000040000000000000005", "000000050000000000000005"]),
            (0x600_0000, 5, &["000000050000000000000006"]),
        ] {
            let found = needed(&forked, Lsn(position), SIZE);
            assert_eq!(found.start, Lsn(position / u64::from(SIZE) * u64::from(SIZE)));
            assert_eq!(
                (found.timeline.0, found.names.iter().map(String::as_str).collect::<Vec<_>>()),
                (timeline, names.to_vec()),
                "{position:x}"
            );
        }
        let plain = needed(&History::first(), Lsn(0x300_0028), SIZE);
        assert_eq!((plain.timeline, plain.names), (Timeline(1), vec!["000000010000000000000003".to_owned()]));
    }
}
