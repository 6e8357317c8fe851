//! Which relations the tail touches, from what pg_waldump prints. Its text is no interface: what is not understood is
//! left out, and whatever goes wrong becomes a remark.

use super::{RELATIONS, Relations, Touched};
use crate::installation::Installation;
use crate::job::Lines;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::{Lsn, Timeline};

/// For the whole tail: a rejoin does not wait longer for this.
const WITHIN: Duration = Duration::from_secs(20);
/// So many relations are counted apart.
const COUNTED: usize = 100_000;

type Place = (u32, u32, u32);

#[derive(Default)]
struct Seen {
    records: BTreeMap<Place, u64>,
    last: Option<Lsn>,
    too_many: bool,
}

/// Asks pg_waldump about each span of the tail.
pub(super) async fn read(
    installation: &Installation,
    wal_dir: &Path,
    spans: &[(Timeline, Lsn, Lsn)],
    last_record: Lsn,
) -> Relations {
    let deadline = Instant::now() + WITHIN;
    let mut seen = Seen::default();
    let mut unread = None;
    for span in spans {
        let ended = timeout_at(deadline, dump(installation, wal_dir, *span, &mut seen)).await;
        unread = unread.or(match ended {
            Ok(Ok(())) => None,
            Ok(Err(why)) => Some(why),
            Err(_) => Some(format!("pg_waldump was ended after {WITHIN:?}")),
        });
    }
    if seen.last.is_none_or(|last| last < last_record) {
        unread = unread.or_else(|| Some("pg_waldump did not get to the end".to_owned()));
    }
    if seen.too_many {
        unread = unread.or_else(|| Some(format!("only {COUNTED} relations were counted apart")));
    }
    rank(seen.records, unread)
}

async fn dump(
    installation: &Installation,
    wal_dir: &Path,
    (timeline, from, to): (Timeline, Lsn, Lsn),
    seen: &mut Seen,
) -> Result<(), String> {
    let mut command = installation.command("pg_waldump");
    command.arg(format!("--path={}", wal_dir.display()));
    command.args([format!("--timeline={}", timeline.0), format!("--start={from}"), format!("--end={to}")]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("start pg_waldump: {error}"))?;
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("pg_waldump has no output".to_owned());
    };
    let mut complaint = String::new();
    let complain = async {
        let mut lines = Lines::new(stderr);
        while let Some(line) = lines.next().await {
            complaint = line;
        }
    };
    let read = async {
        let mut lines = Lines::new(stdout);
        while let Some(line) = lines.next().await {
            note(seen, &line);
        }
    };
    tokio::join!(complain, read);
    match child.wait().await {
        Ok(status) if status.success() => Ok(()),
        // At the very end of the WAL it complains that there is no further record.
        Ok(_) if seen.last.is_some_and(|last| last >= from) && complaint.contains("invalid record") => Ok(()),
        Ok(status) => Err(format!("pg_waldump failed ({status}): {}", complaint.trim())),
        Err(error) => Err(format!("wait for pg_waldump: {error}")),
    }
}

/// `rmgr: Heap  len (rec/tot): 59/59, tx: 745, lsn: 0/03000148, prev …, desc: INSERT …, blkref #0: rel 1663/5/16384 blk 0`
fn note(seen: &mut Seen, line: &str) {
    let Some((_, rest)) = line.split_once(", lsn: ") else { return };
    let Some(lsn) = rest.split(',').next().and_then(|word| word.trim().parse().ok()) else { return };
    seen.last = seen.last.max(Some(lsn));
    let of_a_transaction = line
        .split_once(" tx: ")
        .is_some_and(|(_, rest)| rest.trim_start().split(',').next().is_some_and(|word| word.trim() != "0"));
    // Images of pages that only hints changed are records of the log itself.
    if !of_a_transaction || line.starts_with("rmgr: XLOG") {
        return;
    }
    let places: BTreeSet<Place> = line.split("blkref #").skip(1).filter_map(place).collect();
    for place in places {
        let room = seen.records.len() < COUNTED || seen.records.contains_key(&place);
        seen.too_many |= !room;
        if room {
            *seen.records.entry(place).or_default() += 1;
        }
    }
}

/// `0: rel 1663/5/16384 fork fsm blk 2`
fn place(text: &str) -> Option<Place> {
    let (_, rest) = text.split_once(": rel ")?;
    let mut parts = rest.split_ascii_whitespace().next()?.split('/').map(str::parse);
    let place = (parts.next()?.ok()?, parts.next()?.ok()?, parts.next()?.ok()?);
    parts.next().is_none().then_some(place)
}

fn rank(records: BTreeMap<Place, u64>, unread: Option<String>) -> Relations {
    let touched = |((tablespace, database, filenode), records)| Touched {
        tablespace,
        database,
        filenode,
        name: None,
        records,
    };
    let mut touched: Vec<Touched> = records.into_iter().map(touched).collect();
    touched.sort_by_key(|touched| std::cmp::Reverse(touched.records));
    let more = touched.len().saturating_sub(RELATIONS) as u64;
    touched.truncate(RELATIONS);
    Relations { touched, more, unread }
}

#[cfg(test)]
mod tests {
    use super::{Seen, note, rank};
    use types::Lsn;

    #[test]
    fn records_are_counted_once_for_each_relation() {
        let mut seen = Seen::default();
        for line in [
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        745, lsn: 0/03000148, prev 0/03000110, desc: INSERT off 2 flags 0x00, blkref #0: rel 1663/5/16384 blk 0",
            "rmgr: Heap        len (rec/tot):     59/    59, tx:        745, lsn: 0/03000188, prev 0/03000148, desc: UPDATE off 2, blkref #0: rel 1663/5/16384 blk 1, blkref #1: rel 1663/5/16384 blk 0",
            "rmgr: Btree       len (rec/tot):     64/    64, tx:        745, lsn: 0/030001C8, prev 0/03000188, desc: INSERT_LEAF off 2, blkref #0: rel 1663/5/16390 blk 1 FPW",
            "rmgr: Heap2       len (rec/tot):     64/    64, tx:          0, lsn: 0/03000208, prev 0/030001C8, desc: PRUNE, blkref #0: rel 1663/5/1259 blk 1",
            "rmgr: XLOG        len (rec/tot):     49/  8201, tx:        746, lsn: 0/03000248, prev 0/03000208, desc: FPI_FOR_HINT , blkref #0: rel 1663/5/1247 fork fsm blk 2 FPW",
            "pg_waldump: first record is after 0/3000000",
            "rmgr: Heap, tx: 7, lsn: x, blkref #0: rel 1/2/3 blk 0",
            "rmgr: Heap        len (rec/tot): 59/59, tx: 747, lsn: 0/03000288, prev 0/0, desc: INSERT, blkref #0: rel 1/2 blk 0, blkref #1: rel 1/2/3/4 blk 1, blkref #2: rel",
        ] {
            note(&mut seen, line);
        }
        assert_eq!(seen.last, Some(Lsn(0x300_0288)));
        let ranked = rank(seen.records, None);
        let found: Vec<(u32, u64)> = ranked.touched.iter().map(|one| (one.filenode, one.records)).collect();
        assert_eq!(found, [(16384, 2), (16390, 1)]);
    }

    #[test]
    fn the_list_is_bounded_and_the_rest_is_counted() {
        let many = (0..150).map(|at| ((1663, 5, at), u64::from(at) + 1)).collect();
        let ranked = rank(many, None);
        assert_eq!((ranked.touched.len(), ranked.more, ranked.touched[0].records), (100, 50, 150));
    }
}
