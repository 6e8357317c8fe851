//! A timeline history file: where each earlier timeline ended.

use crate::{Lsn, Timeline};
use std::fmt;

/// The ancestors of a timeline, oldest first.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct History {
    /// The timeline whose ancestors these are.
    pub timeline: Timeline,
    /// One line for each ancestor, in increasing order.
    pub lines: Vec<HistoryLine>,
}

/// One ancestor: it ends at `end`, where the next one begins.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HistoryLine {
    /// The ancestor.
    pub timeline: Timeline,
    /// The first position that no longer belongs to it.
    pub end: Lsn,
    /// PostgreSQL's text, such as `no recovery target specified`.
    pub reason: String,
}

/// A line of the file could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseHistoryError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl fmt::Display for ParseHistoryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parse timeline history, line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for ParseHistoryError {}

impl History {
    /// The history of the first timeline: no ancestors.
    #[must_use]
    pub fn first() -> History {
        History { timeline: Timeline(1), lines: Vec::new() }
    }

    /// Reads the content of `0000000N.history` of `timeline`.
    pub fn parse(timeline: Timeline, content: &str) -> Result<History, ParseHistoryError> {
        let mut lines: Vec<HistoryLine> = Vec::new();
        for (number, line) in content.lines().enumerate() {
            let fail = |what| ParseHistoryError { line: number + 1, what };
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let mut words = text.splitn(3, |c: char| c.is_ascii_whitespace());
            let ancestor = words.next().and_then(|word| word.parse().ok());
            let ancestor = Timeline(ancestor.ok_or(fail("expected a timeline number"))?);
            let end = words.next().and_then(|word| word.parse().ok()).ok_or(fail("expected an LSN"))?;
            if ancestor >= timeline || lines.last().is_some_and(|last| last.timeline >= ancestor) {
                return Err(fail("timelines must increase"));
            }
            let reason = words.next().unwrap_or_default().trim().to_owned();
            lines.push(HistoryLine { timeline: ancestor, end, reason });
        }
        Ok(History { timeline, lines })
    }

    /// Where `ancestor` ended; `None` when it is not an ancestor of this timeline.
    #[must_use]
    pub fn end_of(&self, ancestor: Timeline) -> Option<Lsn> {
        self.lines.iter().find(|line| line.timeline == ancestor).map(|line| line.end)
    }

    /// Whether WAL of `timeline` up to `lsn` is part of this history.
    #[must_use]
    pub fn contains(&self, timeline: Timeline, lsn: Lsn) -> bool {
        timeline == self.timeline || self.end_of(timeline).is_some_and(|end| lsn <= end)
    }
}

#[cfg(test)]
mod tests {
    use super::{History, ParseHistoryError};
    use crate::{Lsn, Timeline};

    const THIRD: &str = "1\t0/3000060\tno recovery target specified\n\n2\t0/5000000\tbefore 2000-01-01\n";

    #[test]
    fn ancestors_are_read() {
        let history = History::parse(Timeline(3), THIRD).unwrap();
        assert_eq!(history.end_of(Timeline(1)), Some(Lsn(0x300_0060)));
        assert_eq!(history.end_of(Timeline(3)), None);
        assert!(history.contains(Timeline(1), Lsn(0x300_0060)));
        assert!(!history.contains(Timeline(1), Lsn(0x300_0061)));
        assert!(history.contains(Timeline(3), Lsn(u64::MAX)));
        assert!(!history.contains(Timeline(4), Lsn(0)));
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = History::parse(Timeline(3), "1\t0/1\tx\nfoo\n").unwrap_err();
        assert_eq!(error, ParseHistoryError { line: 2, what: "expected a timeline number" });
        assert!(History::parse(Timeline(3), "2 0/5 x\n1 0/6 y").is_err());
        assert!(History::parse(Timeline(2), "2 0/5 x").is_err());
    }
}
