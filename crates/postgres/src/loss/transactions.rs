//! Which transactions the tail ends, from the records of the transaction manager.
//!
//! ```text
//!   header │ 255 length │ time [│ flags │ database │ subtransactions │ relations │ statistics │ messages │ two-phase xid]
//! ```

use super::{LISTED, Transactions};
use crate::wal::{Record, Wal};
use jiff::{SignedDuration, Timestamp};
use types::Lsn;

/// Microseconds from 1970 to PostgreSQL's own epoch, 2000.
const EPOCH: i64 = 946_684_800_000_000;
const HAS_FLAGS: u8 = 0x80;

/// Reads from `fork` on; what cannot be read is said.
pub(super) fn read(wal: &Wal, fork: Lsn, end: Lsn, major: u32) -> Transactions {
    let mut found = Transactions::default();
    match wal.walk_with(fork, |record| note(&mut found, record, major)) {
        Ok(walked) if walked.end >= end => {}
        Ok(walked) => {
            found.unread = Some(format!("after {} nothing can be read: {}", walked.end, walked.because));
        }
        Err(error) => found.unread = Some(error.to_string()),
    }
    found
}

fn note(found: &mut Transactions, record: &Record, major: u32) {
    if !record.is_of_transactions() {
        return;
    }
    let data = data(&record.body);
    match record.info & 0x70 {
        // COMMIT
        0x00 => committed(found, data, Some(record.xid)),
        // PREPARE
        0x10 => {
            found.prepared += 1;
            list(&mut found.prepared_xids, record.xid);
        }
        // COMMIT PREPARED: by a session that need not have a transaction of its own.
        0x30 => {
            let xid = prepared_xid(data, record.info, major);
            no_longer_prepared(found, xid);
            committed(found, data, xid);
        }
        // ABORT PREPARED
        0x40 => no_longer_prepared(found, prepared_xid(data, record.info, major)),
        _ => {}
    }
}

fn committed(found: &mut Transactions, data: &[u8], xid: Option<u32>) {
    found.commits += 1;
    if let Some(xid) = xid {
        list(&mut found.xids, xid);
    }
    if let Some(at) = data.first_chunk().map(|bytes| i64::from_ne_bytes(*bytes)).and_then(time) {
        found.first_commit.get_or_insert_with(|| at.clone());
        found.last_commit = Some(at);
    }
}

/// It was prepared in the tail, or before it.
fn no_longer_prepared(found: &mut Transactions, xid: Option<u32>) {
    let at = xid.and_then(|xid| found.prepared_xids.iter().position(|prepared| *prepared == xid));
    if let Some(at) = at {
        found.prepared_xids.remove(at);
        found.prepared -= 1;
    }
}

fn list(xids: &mut Vec<u32>, xid: u32) {
    if xids.len() < LISTED {
        xids.push(xid);
    }
}

fn time(micros: i64) -> Option<String> {
    let since = SignedDuration::from_micros(micros.checked_add(EPOCH)?);
    Timestamp::from_duration(since).ok().map(|at| at.to_string())
}

/// The record's own data, after what may stand before them: where it was replicated from, and a top transaction.
fn data(body: &[u8]) -> &[u8] {
    let skip = |count: usize| body.get(count..).unwrap_or_default();
    match body {
        [255, _, rest @ ..] | [254, _, _, _, _, rest @ ..] => rest,
        [253, ..] => data(skip(3)),
        [252, ..] => data(skip(5)),
        _ => &[],
    }
}

/// The transaction that was prepared earlier; `None` when the record is not as we know it.
fn prepared_xid(data: &[u8], info: u8, major: u32) -> Option<u32> {
    if info & HAS_FLAGS == 0 {
        return None;
    }
    let number = |at: usize| data.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let flags = number(8)?;
    let mut at = 12_usize;
    if flags & 0x01 != 0 {
        at += 8;
    }
    let statistics = if major >= 18 { 16 } else { 12 };
    for (flag, size) in [(0x02, 4), (0x04, 12), (0x100, statistics), (0x08, 16)] {
        if flags & flag != 0 {
            let count = usize::try_from(number(at)?).ok()?;
            at = at.checked_add(4)?.checked_add(count.checked_mul(size)?)?;
        }
    }
    (flags & 0x10 != 0).then(|| number(at)).flatten()
}

#[cfg(test)]
mod tests {
    use super::{data, prepared_xid, time};

    #[test]
    fn the_data_of_a_record_are_found_behind_what_may_precede_them() {
        for before in [&[255, 3][..], &[254, 3, 0, 0, 0], &[253, 1, 0, 255, 3], &[252, 9, 0, 0, 0, 255, 3]] {
            let record = [before, &[7, 8, 9]].concat();
            assert_eq!(data(&record), [7, 8, 9], "{before:?}");
        }
        for odd in [&[][..], &[255], &[253, 1], &[0, 1, 2]] {
            assert!(data(odd).is_empty(), "{odd:?}");
        }
    }

    #[test]
    fn the_number_of_a_prepared_transaction_stands_behind_lists_of_any_length() {
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        let time = [0, 0];
        let plain = words(&[&time[..], &[0x10, 745]].concat());
        assert_eq!(prepared_xid(&plain, 0xB0, 15), Some(745));
        assert_eq!(prepared_xid(&plain, 0x30, 15), None);
        let lists = [0x10 | 0x01 | 0x02 | 0x08, 5, 1663, 2, 746, 747, 1, 1, 2, 3, 4, 745];
        assert_eq!(prepared_xid(&words(&[&time[..], &lists].concat()), 0xB0, 15), Some(745));
        let dropped = [0x10 | 0x100, 1, 1, 2, 3, 745];
        assert_eq!(prepared_xid(&words(&[&time[..], &dropped].concat()), 0xB0, 17), Some(745));
        let longer = [0x10 | 0x100, 1, 1, 2, 3, 4, 745];
        assert_eq!(prepared_xid(&words(&[&time[..], &longer].concat()), 0xB0, 18), Some(745));
        let absurd = [0x10 | 0x02, u32::MAX];
        assert_eq!(prepared_xid(&words(&[&time[..], &absurd].concat()), 0xB0, 15), None);
    }

    #[test]
    fn times_are_those_of_the_world() {
        assert_eq!(time(0).as_deref(), Some("2000-01-01T00:00:00Z"));
        assert_eq!(time(1_500_000).as_deref(), Some("2000-01-01T00:00:01.5Z"));
        assert_eq!(time(i64::MAX), None);
    }
}
