//! Reads the write-ahead log of a stopped PostgreSQL, record by record, to know where it really ends.
//!
//! ```text
//! checkpoint ─> record ─> record ─> … ─> the first thing that is not a record: that is the end
//! ```
//!
//! The rules are those of PostgreSQL's own recovery: a record counts when its length is possible, it points back to
//! the record before it, its pages carry their own address, and its checksum is right. Record and page headers have
//! had one layout since PostgreSQL 9.5. The control file cannot answer this: it knows the last checkpoint only.

use crate::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use types::{History, Lsn, Timeline};

/// The page size that all packages are built with.
pub(crate) const PAGE: u64 = 8192;
const PAGE_HEADER: u64 = 24;
/// The first page of a segment also names the system and the sizes.
const LONG_PAGE_HEADER: u64 = 40;
const RECORD_HEADER: usize = 24;
/// The number of the transaction manager, whose records say what was committed.
const TRANSACTIONS: u8 = 1;
/// Of a longer record of it only the beginning is kept: it names very many subtransactions or dropped tables.
const BODY_LIMIT: usize = 256 << 10;
/// `XLogRecordMaxSize`
const RECORD_LIMIT: u32 = 1020 << 20;
/// Longest timeline history file that is read.
const HISTORY_LIMIT: u64 = 1 << 20;

const FIRST_IS_CONTRECORD: u16 = 0x01;
const LONG_HEADER: u16 = 0x02;
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x08;

/// Where to read.
#[derive(Clone, Debug)]
pub(crate) struct Wal {
    pub(crate) dir: PathBuf,
    pub(crate) segment_size: u32,
    /// The timeline to follow and its ancestors.
    pub(crate) history: History,
}

/// What was found between the start and the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walked {
    /// The first position after the last valid record.
    pub(crate) end: Lsn,
    /// Where the last valid record begins; `None` when there was none.
    pub(crate) last_record: Option<Lsn>,
    pub(crate) last_is_shutdown: bool,
    /// Transactions committed in these records.
    pub(crate) commits: u64,
    /// Why the next record is none.
    pub(crate) because: &'static str,
}

/// The history of `timeline` as this data directory knows it.
pub(crate) fn local_history(dir: &Path, timeline: Timeline) -> Result<History, Error> {
    if timeline.0 <= 1 {
        return Ok(History::first());
    }
    let path = dir.join(format!("{:08X}.history", timeline.0));
    let length = std::fs::metadata(&path).map_err(|error| Error::io("read", &path, error))?.len();
    if length > HISTORY_LIMIT {
        let source = io::Error::other(format!("it has {length} bytes, more than any timeline history"));
        return Err(Error::io("read", &path, source));
    }
    let content = std::fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
    History::parse(timeline, &content)
        .map_err(|error| Error::io("read", &path, io::Error::new(io::ErrorKind::InvalidData, error)))
}

impl Wal {
    /// Walks from `start`, where a record begins, to the end.
    pub(crate) fn walk(&self, start: Lsn) -> Result<Walked, Error> {
        self.walk_with(start, |_| {})
    }

    /// The same, with a look at each record.
    pub(crate) fn walk_with(&self, start: Lsn, mut look: impl FnMut(&Record)) -> Result<Walked, Error> {
        let mut pages = Pages::new(self);
        let mut walked = Walked {
            end: start,
            last_record: None,
            last_is_shutdown: false,
            commits: 0,
            because: "nothing was read",
        };
        let mut at = start.0;
        let mut previous = None;
        loop {
            match read_record(&mut pages, at, previous)? {
                Step::End(because) => return Ok(Walked { because, ..walked }),
                Step::Overwritten(page) => at = page,
                Step::Record(record) => {
                    look(&record);
                    walked.end = Lsn(record.end);
                    walked.last_record = Some(Lsn(record.start));
                    walked.last_is_shutdown = record.is_shutdown_checkpoint();
                    walked.commits += u64::from(record.is_commit());
                    previous = Some(record.start);
                    at = record.end;
                }
            }
        }
    }
}

impl Wal {
    /// About where the WAL ends: the end of the last page that was written, of all from `start` on. It costs a few reads, however
    /// much WAL there is, and is wrong by a segment at most, after a switch to the next one.
    pub(crate) fn reach(&self, start: Lsn) -> Result<Lsn, Error> {
        let mut pages = Pages::new(self);
        let size = pages.segment_size();
        let first = start.0 / size;
        let segment = last_in_a_row(first, u64::MAX / size, |number| {
            Ok(number == first || pages.load(number * size)?.is_ok())
        })?;
        let page = (segment * size).max(start.0) / PAGE;
        let last = ((segment + 1) * size / PAGE).saturating_sub(1);
        let page = last_in_a_row(page, last, |number| Ok(pages.load(number * PAGE)?.is_ok()))?;
        Ok(Lsn((page + 1) * PAGE))
    }
}

/// The last number from `first` up to `limit` for which `holds`, when it holds up to there and not beyond.
fn last_in_a_row(
    first: u64,
    limit: u64,
    mut holds: impl FnMut(u64) -> Result<bool, Error>,
) -> Result<u64, Error> {
    let (mut known, mut step) = (first, 1);
    while known + step <= limit && holds(known + step)? {
        known += step;
        step *= 2;
    }
    while step > 1 {
        let half = step / 2;
        if known + half <= limit && holds(known + half)? {
            known += half;
            step -= half;
        } else {
            step = half;
        }
    }
    Ok(known)
}

enum Step {
    Record(Record),
    /// A record that a crash cut off; what follows was written at this page by the server's next life.
    Overwritten(u64),
    End(&'static str),
}

pub(crate) struct Record {
    start: u64,
    end: u64,
    pub(crate) info: u8,
    manager: u8,
    /// The transaction that wrote it; 0: none.
    pub(crate) xid: u32,
    /// What follows the header, of records of the transaction manager.
    pub(crate) body: Vec<u8>,
}

impl Record {
    fn is_shutdown_checkpoint(&self) -> bool {
        self.manager == 0 && self.info & 0xF0 == 0x00
    }

    pub(crate) fn is_of_transactions(&self) -> bool {
        self.manager == TRANSACTIONS
    }

    fn is_switch(&self) -> bool {
        self.manager == 0 && self.info & 0xF0 == 0x40
    }

    /// COMMIT or COMMIT PREPARED of the transaction manager.
    fn is_commit(&self) -> bool {
        self.is_of_transactions() && matches!(self.info & 0x70, 0x00 | 0x30)
    }
}

fn read_record(pages: &mut Pages<'_>, at: u64, previous: Option<u64>) -> Result<Step, Error> {
    let mut page_at = at - at % PAGE;
    if let Err(because) = pages.load(page_at)? {
        return Ok(Step::End(because));
    }
    let mut offset = at % PAGE;
    if offset == 0 {
        if pages.flags() & FIRST_IS_CONTRECORD != 0 {
            return Ok(Step::End("the page begins in the middle of a record"));
        }
        offset = pages.header_size();
    }
    let start = page_at + offset;
    let length = u32::from_ne_bytes(array(pages.bytes(offset, 4)));
    if length < RECORD_HEADER as u32 || length > RECORD_LIMIT {
        return Ok(Step::End("no record has such a length"));
    }
    let mut header = [0_u8; RECORD_HEADER];
    let mut filled = 0;
    let mut checksum = 0;
    let mut kept = Vec::new();
    let mut remaining = u64::from(length);
    loop {
        let chunk = pages.bytes(offset, remaining.min(PAGE - offset));
        let split = chunk.len().min(RECORD_HEADER - filled);
        let (head, body) = chunk.split_at_checked(split).unwrap_or((chunk, &[]));
        for (to, from) in header.iter_mut().skip(filled).zip(head) {
            *to = *from;
        }
        filled += head.len();
        checksum = crc32c::crc32c_append(checksum, body);
        if header.get(17) == Some(&TRANSACTIONS) {
            kept.extend(body.iter().take(BODY_LIMIT - kept.len().min(BODY_LIMIT)));
        }
        remaining -= chunk.len() as u64;
        offset += chunk.len() as u64;
        if remaining == 0 {
            break;
        }
        page_at += PAGE;
        if let Err(because) = pages.load(page_at)? {
            return Ok(Step::End(because));
        }
        if pages.flags() & FIRST_IS_OVERWRITE_CONTRECORD != 0 {
            return Ok(Step::Overwritten(page_at));
        }
        if pages.flags() & FIRST_IS_CONTRECORD == 0 || u64::from(pages.remaining_length()) != remaining {
            return Ok(Step::End("the next page does not continue the record"));
        }
        offset = pages.header_size();
    }
    let part = |from: usize, to: usize| header.get(from..to).unwrap_or_default();
    if previous.is_some_and(|previous| previous != u64::from_ne_bytes(array(part(8, 16)))) {
        return Ok(Step::End("the record does not follow the one before"));
    }
    if crc32c::crc32c_append(checksum, part(0, 20)) != u32::from_ne_bytes(array(part(20, 24))) {
        return Ok(Step::End("the checksum of the record is wrong"));
    }
    let [info, manager] = array(part(16, 18));
    let xid = u32::from_ne_bytes(array(part(4, 8)));
    let end = page_at + offset.next_multiple_of(8);
    let mut record = Record { start, end, info, manager, xid, body: kept };
    if record.is_switch() {
        record.end = record.end.next_multiple_of(pages.segment_size());
    }
    Ok(Step::Record(record))
}

/// The first bytes of a slice that is known to be long enough; zeros where it is not.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.first_chunk().copied().unwrap_or([0; N])
}

/// One page of the log at a time, checked when it is loaded.
struct Pages<'a> {
    wal: &'a Wal,
    segment: Option<(u64, File)>,
    loaded: Option<u64>,
    page: Box<[u8]>,
}

impl<'a> Pages<'a> {
    fn new(wal: &'a Wal) -> Pages<'a> {
        Pages { wal, segment: None, loaded: None, page: vec![0; PAGE as usize].into_boxed_slice() }
    }

    fn segment_size(&self) -> u64 {
        u64::from(self.wal.segment_size).max(PAGE)
    }

    fn bytes(&self, offset: u64, count: u64) -> &[u8] {
        let (from, to) = (offset as usize, (offset + count) as usize);
        self.page.get(from..to).unwrap_or_default()
    }

    fn flags(&self) -> u16 {
        u16::from_ne_bytes(array(self.bytes(2, 2)))
    }

    fn remaining_length(&self) -> u32 {
        u32::from_ne_bytes(array(self.bytes(16, 4)))
    }

    fn header_size(&self) -> u64 {
        if self.flags() & LONG_HEADER != 0 { LONG_PAGE_HEADER } else { PAGE_HEADER }
    }

    /// Makes the page at `at` the current one; the inner error says why there is none.
    fn load(&mut self, at: u64) -> Result<Result<(), &'static str>, Error> {
        if self.loaded == Some(at) {
            return Ok(Ok(()));
        }
        self.loaded = None;
        let (number, within) = (at / self.segment_size(), at % self.segment_size());
        if self.segment.as_ref().is_none_or(|(open, _)| *open != number) {
            match self.open(number)? {
                Some(file) => self.segment = Some((number, file)),
                None => return Ok(Err("there is no such segment file")),
            }
        }
        let Some((_, file)) = &self.segment else { return Ok(Err("there is no such segment file")) };
        match file.read_exact_at(&mut self.page, within) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(Err("the segment file is too short"));
            }
            Err(error) => return Err(Error::io("read", &self.wal.dir, error)),
        }
        let flags = self.flags();
        let address = u64::from_ne_bytes(array(self.bytes(8, 8)));
        let timeline = u32::from_ne_bytes(array(self.bytes(4, 4)));
        if address != at {
            return Ok(Err("the page was written for another position"));
        }
        if timeline > self.wal.history.timeline.0 || flags & !0x0F != 0 {
            return Ok(Err("the header of the page is not valid"));
        }
        if (within == 0) != (flags & LONG_HEADER != 0) {
            return Ok(Err("the header of the page has the wrong size"));
        }
        self.loaded = Some(at);
        Ok(Ok(()))
    }

    /// The file of a segment: of the newest timeline that has one, since a timeline begins with a copy of the segment
    /// in which its ancestor ended.
    fn open(&self, number: u64) -> Result<Option<File>, Error> {
        for path in segment_paths(&self.wal.dir, &self.wal.history, number, self.segment_size()) {
            match File::open(&path) {
                Ok(file) => return Ok(Some(file)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io("open", &path, error)),
            }
        }
        Ok(None)
    }
}

/// Where a segment may be: of the timeline itself, then of its ancestors as far as they belong to its history, the nearest first.
pub(crate) fn segment_paths(
    dir: &Path,
    history: &History,
    number: u64,
    segment_size: u64,
) -> impl Iterator<Item = PathBuf> {
    let ancestors = history.lines.iter().rev().filter(move |line| number <= line.end.0 / segment_size);
    let timelines = std::iter::once(history.timeline).chain(ancestors.map(|line| line.timeline));
    timelines.map(move |timeline| dir.join(segment_name(timeline, number, segment_size)))
}

/// Whether the page there is written: it then carries its own address, after the magic number, the flags and the timeline. A recycled file
/// still has the pages of an older one.
pub(crate) fn is_written(file: &File, within: u64, page: Lsn) -> io::Result<bool> {
    let mut address = [0; 8];
    match file.read_exact_at(&mut address, within + 8) {
        Ok(()) => Ok(u64::from_ne_bytes(address) == page.0),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

pub(crate) fn segment_name(timeline: Timeline, number: u64, segment_size: u64) -> String {
    let per_id = 0x1_0000_0000 / segment_size;
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_id, number % per_id)
}

#[cfg(test)]
mod tests {
    use super::{last_in_a_row, segment_name, segment_paths};
    use std::path::Path;
    use types::{History, Timeline};

    #[test]
    fn the_last_of_a_row_is_found_in_a_few_steps() {
        for last in [5, 6, 7, 12, 1000, 1_000_000] {
            let mut asked = 0;
            let found = last_in_a_row(5, 1_000_000, |number| {
                asked += 1;
                Ok(number <= last)
            });
            assert_eq!(found.ok(), Some(last));
            assert!(asked < 45, "{asked} questions for {last}");
        }
    }

    #[test]
    fn segments_are_named_as_postgresql_names_them() {
        assert_eq!(segment_name(Timeline(1), 3, 16 << 20), "000000010000000000000003");
        assert_eq!(segment_name(Timeline(18), 0x1_02, 16 << 20), "000000120000000100000002");
        assert_eq!(segment_name(Timeline(1), 5, 1 << 30), "000000010000000100000001");
    }

    /// What an ancestor has after its end is no part of the history: it may have gone on by itself.
    #[test]
    fn a_segment_is_looked_for_where_the_history_has_it() {
        let history = History::parse(Timeline(3), "1\t0/2100000\tx\n2\t0/3100000\tx\n").unwrap();
        let names = |number| {
            let paths = segment_paths(Path::new("/"), &history, number, 16 << 20);
            paths.map(|path| path.display().to_string()[1..9].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names(2), ["00000003", "00000002", "00000001"]);
        assert_eq!(names(3), ["00000003", "00000002"]);
        assert_eq!(names(4), ["00000003"]);
    }
}
