//! What an archive must hold around a promotion, so that a restore can go from before it to after it.
//!
//! ```text
//!   timeline 1   …─[  4  ]─[  5  ]─[  6 ┄┄           whole segments up to the fork: 1/4, 1/5; 1/6 never becomes whole
//!   timeline 2                      [  6  ]─[  7  ]   the first of the new one, 2/6, begins with what 1/6 had up to the fork
//!                                                     and 00000002.history
//! ```
//! PostgreSQL archives what is left of the old segment as `.partial`, which no restore asks for: it is not looked for here.

use crate::archive::segment;
use std::collections::BTreeSet;
use types::{History, Lsn};

/// The names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// The history file of the new timeline.
    pub history: String,
    /// Whole segments before the fork, oldest first.
    pub before: Vec<String>,
    /// The first segment of the new timeline.
    pub first: String,
    /// It is whole, and can be archived, when WAL has been written up to here.
    pub first_ends: Lsn,
}

/// What must be there of `history`'s newest timeline; of the segments before the fork at most `most`. `None` for a timeline that was
/// not forked.
#[must_use]
pub fn wanted(history: &History, segment_size: u32, most: u64) -> Option<Wanted> {
    let fork = history.lines.last()?.end;
    let size = u64::from(segment_size.max(1));
    let first = fork.0 / size;
    // The first segment of a cluster has the number 1.
    let oldest = first.saturating_sub(most).max(1);
    let named = |number: u64| {
        // Of several forks in one segment only the newest timeline makes it whole.
        let began = history.lines.iter().rposition(|line| line.end.0 / size <= number);
        let timeline = match began {
            None => history.lines.first().map_or(history.timeline, |line| line.timeline),
            Some(at) => history.lines.get(at + 1).map_or(history.timeline, |line| line.timeline),
        };
        segment(timeline, Lsn(number.saturating_mul(size)), segment_size)
    };
    Some(Wanted {
        history: format!("{:08X}.history", history.timeline.0),
        before: (oldest..first).map(named).collect(),
        first: named(first),
        first_ends: Lsn((first + 1).saturating_mul(size)),
    })
}

/// Which of `before`, oldest first, are holes. What is older than everything that was found is none: there the archive begins, or has
/// expired. Without anything found all of them are.
#[must_use]
pub fn holes(before: &[String], found: &BTreeSet<String>) -> Vec<String> {
    let begins = before.iter().position(|name| found.contains(name)).unwrap_or_default();
    before.iter().skip(begins).filter(|name| !found.contains(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::{holes, wanted};
    use std::collections::BTreeSet;
    use types::{History, HistoryLine, Lsn, Timeline};

    const MB: u32 = 1 << 20;

    fn history(timeline: u32, forks: &[(u32, u64)]) -> History {
        let line = |(timeline, end): &(u32, u64)| HistoryLine {
            timeline: Timeline(*timeline),
            end: Lsn(*end),
            reason: String::new(),
        };
        History { timeline: Timeline(timeline), lines: forks.iter().map(line).collect() }
    }

    fn shown(history: &History, size: u32, most: u64) -> String {
        let wanted = wanted(history, size, most).unwrap();
        format!(
            "{} | {} | {} to {}",
            wanted.before.join(" "),
            wanted.history,
            wanted.first,
            wanted.first_ends
        )
    }

    #[test]
    fn around_one_fork() {
        assert_eq!(
            shown(&history(2, &[(1, 0x0300_0060)]), 16 * MB, 16),
            "000000010000000000000001 000000010000000000000002 | 00000002.history | 000000020000000000000003 to 0/4000000"
        );
        assert_eq!(
            shown(&history(2, &[(1, 0x0300_0000)]), 16 * MB, 1),
            "000000010000000000000002 | 00000002.history | 000000020000000000000003 to 0/4000000",
            "a fork at the border belongs to the segment after it"
        );
        assert_eq!(
            shown(&history(2, &[(1, 0x02ff_ffff)]), 16 * MB, 1),
            "000000010000000000000001 | 00000002.history | 000000020000000000000002 to 0/3000000"
        );
        assert_eq!(
            shown(&history(2, &[(1, 0x0100_0060)]), 16 * MB, 16),
            " | 00000002.history | 000000020000000000000001 to 0/2000000",
            "nothing is older than the first segment"
        );
    }

    #[test]
    fn around_several_forks() {
        // Two forks in segment 3: it is never whole on 1 and 2. The number 4 was skipped.
        let forks = [(1, 0x0300_0060), (2, 0x0300_0800), (3, 0x0500_0010)];
        assert_eq!(
            shown(&history(5, &forks), 16 * MB, 4),
            "000000010000000000000001 000000010000000000000002 000000030000000000000003 000000030000000000000004 | \
             00000005.history | 000000050000000000000005 to 0/6000000"
        );
    }

    #[test]
    fn names_have_two_numbers_of_the_segment() {
        assert_eq!(
            shown(&history(0x1F, &[(0x1E, 0x1_0000_0000)]), 16 * MB, 2),
            "0000001E00000000000000FE 0000001E00000000000000FF | 0000001F.history | 0000001F0000000100000000 to 1/1000000"
        );
        assert_eq!(
            shown(&history(2, &[(1, 0x1_0000_0000)]), 1024 * MB, 1),
            "000000010000000000000003 | 00000002.history | 000000020000000100000000 to 1/40000000"
        );
        assert_eq!(wanted(&History::first(), 16 * MB, 4), None);
    }

    /// Against the definition, for every size, fork and number of timelines: a segment belongs to the newest timeline that began in
    /// it or before it, and the names lead to the first without a gap.
    #[test]
    fn every_case() {
        for size in [MB, 2 * MB, 16 * MB] {
            let positions: Vec<u64> = [1_u64, 2, 3, 5]
                .iter()
                .flat_map(|number| {
                    let start = number * u64::from(size);
                    [start, start + 1, start + u64::from(size) - 1]
                })
                .collect();
            for (at, one) in positions.iter().enumerate() {
                for two in &positions[at..] {
                    let history = history(3, &[(1, *one), (2, *two)]);
                    let (first, second) = (one / u64::from(size), two / u64::from(size));
                    let timeline = |number: u64| 1 + u32::from(number >= first) + u32::from(number >= second);
                    let name = |number: u64| format!("{:08X}{:08X}{number:08X}", timeline(number), 0);
                    for most in 0..7 {
                        let wanted = wanted(&history, size, most).unwrap();
                        let oldest = second.saturating_sub(most).max(1);
                        assert_eq!(wanted.before, (oldest..second).map(name).collect::<Vec<_>>());
                        assert_eq!(wanted.first, name(second));
                        assert!(wanted.first_ends.0 > *two && wanted.first_ends.0 - two <= u64::from(size));
                    }
                }
            }
        }
    }

    #[test]
    fn a_hole_has_something_older_before_it() {
        let before: Vec<String> = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        for bits in 0_u32..16 {
            let there = |at: usize| bits & (1 << at) != 0;
            let found: BTreeSet<String> =
                (0..4).filter(|at| there(*at)).map(|at| before[at].clone()).collect();
            let expected: Vec<String> = (0..4)
                .filter(|at| !there(*at) && (bits == 0 || (0..*at).any(there)))
                .map(|at| before[at].clone())
                .collect();
            assert_eq!(holes(&before, &found), expected, "{bits:04b}");
        }
    }
}
