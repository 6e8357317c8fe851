//! The write-ahead log of one data directory, as a path in the tree of all that was ever written.
//!
//! ```text
//!   branch 1 ──────100──────────130 ┄ a: (1,130)
//!                   └─ branch 2 ─── b: (1,100)(2,117)
//! ```
//! Every start of a primary and every promotion opens a branch. PostgreSQL itself sees timelines only, and two branches can
//! carry the same timeline number: that is how data get mixed up, and why the world keeps both.

use types::{History, HistoryLine, Lsn, Timeline};

/// Everything from the end of the part before up to `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    pub branch: u32,
    pub timeline: Timeline,
    pub end: Lsn,
}

/// A path: never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wal {
    first: Part,
    rest: Vec<Part>,
}

impl Wal {
    /// What initdb leaves behind.
    #[must_use]
    pub fn born(branch: u32) -> Wal {
        Wal { first: Part { branch, timeline: Timeline(1), end: Lsn(0x100_0000) }, rest: Vec::new() }
    }

    fn last(&self) -> &Part {
        self.rest.last().unwrap_or(&self.first)
    }

    /// The timeline at the end.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.last().timeline
    }

    /// The end.
    #[must_use]
    pub fn end(&self) -> Lsn {
        self.last().end
    }

    fn parts(&self) -> impl Iterator<Item = &Part> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// The branch and the end of what was written last.
    #[must_use]
    pub fn last_write(&self) -> (u32, Lsn) {
        (self.last().branch, self.last().end)
    }

    /// Whether the write on this branch that ends there is part of this.
    #[must_use]
    pub fn has(&self, (branch, end): (u32, Lsn)) -> bool {
        self.parts().any(|part| part.branch == branch && end <= part.end)
    }

    /// Writes so many bytes.
    pub fn write(&mut self, bytes: u64) {
        let last = self.rest.last_mut().unwrap_or(&mut self.first);
        last.end = Lsn(last.end.0 + bytes);
    }

    /// A primary starts to write here, on this timeline.
    pub fn fork(&mut self, branch: u32, timeline: Timeline) {
        let end = self.end();
        self.rest.push(Part { branch, timeline, end });
    }

    /// Up to where both are the same.
    #[must_use]
    pub fn common(&self, other: &Wal) -> Lsn {
        let mut end = Lsn(0);
        for (mine, theirs) in self.parts().zip(other.parts()) {
            if mine.branch != theirs.branch {
                return end;
            }
            end = mine.end.min(theirs.end);
            if mine.end != theirs.end {
                return end;
            }
        }
        end
    }

    /// Whether `other` contains all of this.
    #[must_use]
    pub fn is_within(&self, other: &Wal) -> bool {
        self.common(other) == self.end()
    }

    /// Whether `other` contains the record that ends at `lsn` here.
    #[must_use]
    pub fn shares(&self, other: &Wal, lsn: Lsn) -> bool {
        self.common(other) >= lsn
    }

    /// Takes over what `other`, which contains all of this, has up to `limit`.
    pub fn advance(&mut self, other: &Wal, limit: Lsn) {
        if limit >= other.end() {
            self.clone_from(other);
        }
        if limit <= self.end() {
            return;
        }
        let mut before = other.first.end;
        let mut first = other.first;
        first.end = first.end.min(limit);
        let mut rest = Vec::with_capacity(other.rest.len());
        for part in &other.rest {
            if before >= limit {
                break;
            }
            before = part.end;
            rest.push(Part { end: part.end.min(limit), ..*part });
        }
        *self = Wal { first, rest };
    }

    /// The timeline history that PostgreSQL would show.
    #[must_use]
    pub fn history(&self) -> History {
        let mut lines: Vec<HistoryLine> = Vec::new();
        let mut before: Option<Part> = None;
        for part in self.parts() {
            if let Some(before) = before.filter(|before| before.timeline != part.timeline) {
                lines.push(HistoryLine { timeline: before.timeline, end: before.end, reason: String::new() });
            }
            before = Some(*part);
        }
        History { timeline: self.timeline(), lines }
    }
}

#[cfg(test)]
mod tests {
    use super::Wal;
    use types::{Lsn, Timeline};

    fn story() -> (Wal, Wal) {
        let mut a = Wal::born(1);
        a.write(100);
        let mut b = a.clone();
        a.write(30);
        b.fork(2, Timeline(2));
        b.write(17);
        (a, b)
    }

    #[test]
    fn paths_that_part_share_their_beginning() {
        let (a, b) = story();
        let fork = Lsn(0x100_0000 + 100);
        assert_eq!(a.common(&b), fork);
        assert_eq!(b.common(&a), fork);
        assert!(!a.is_within(&b) && !b.is_within(&a));
        assert_eq!(b.history().end_of(Timeline(1)), Some(fork));
    }

    #[test]
    fn a_standby_takes_over_what_its_leader_has() {
        let (a, b) = story();
        let mut c = Wal::born(1);
        assert!(c.is_within(&a) && c.is_within(&b));
        c.advance(&b, Lsn(0x100_0000 + 40));
        assert_eq!((c.end(), c.timeline()), (Lsn(0x100_0000 + 40), Timeline(1)));
        c.advance(&b, Lsn(0x100_0000 + 100));
        assert_eq!(c.timeline(), Timeline(1));
        assert!(c.is_within(&b));
        c.advance(&b, Lsn(u64::MAX));
        assert_eq!(c, b);
    }
}
