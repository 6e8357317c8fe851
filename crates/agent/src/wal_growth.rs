//! How much WAL this primary writes: the most that it wrote in any so long of the last minutes, which is what a loss is reckoned with.

use std::collections::VecDeque;
use std::time::Duration;
use types::{Lsn, Moment};

/// Positions that are nearer than this are not kept apart.
const APART: Duration = Duration::from_secs(1);
/// Of so much time positions are kept.
const KEPT: Duration = Duration::from_secs(600);
/// And no more than so many.
const MOST: usize = 620;

/// The positions that turns saw, the newest last.
#[derive(Default, Debug)]
pub(crate) struct WalGrowth {
    seen: VecDeque<(Moment, Lsn)>,
}

impl WalGrowth {
    /// A primary was seen there.
    pub(crate) fn note(&mut self, at: Moment, lsn: Lsn) {
        if self.seen.back().is_some_and(|(before, _)| at.since(*before) < APART) {
            return;
        }
        self.seen.push_back((at, lsn));
        while self.seen.len() > MOST || self.seen.front().is_some_and(|(first, _)| at.since(*first) > KEPT) {
            self.seen.pop_front();
        }
    }

    /// No primary runs here.
    pub(crate) fn forget(&mut self) {
        self.seen.clear();
    }

    /// The most that was written in any `span`, in bytes. Where it has not been looked at for so long, what it would come to.
    pub(crate) fn most_in(&self, span: Duration) -> u64 {
        let (Some((first, from)), Some((last, to))) = (self.seen.front(), self.seen.back()) else { return 0 };
        let whole = last.since(*first);
        if whole < span {
            let scaled = u128::from(to.bytes_since(*from)) * span.as_millis() / whole.as_millis().max(1);
            return u64::try_from(scaled).unwrap_or(u64::MAX);
        }
        let mut most = 0;
        let mut start = 0;
        for (at, lsn) in &self.seen {
            // From the last position that is a whole span ago: rather more than less.
            while self.seen.get(start + 1).is_some_and(|(next, _)| at.since(*next) >= span) {
                start += 1;
            }
            if let Some((_, before)) = self.seen.get(start) {
                most = most.max(lsn.bytes_since(*before));
            }
        }
        most
    }
}

#[cfg(test)]
mod tests {
    use super::WalGrowth;
    use std::time::Duration;
    use types::{Lsn, Moment};

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn the_most_of_any_span_counts_until_its_time_is_past() {
        let mut growth = WalGrowth::default();
        assert_eq!(growth.most_in(seconds(3)), 0);
        growth.note(Moment(0), Lsn(1000));
        assert_eq!(growth.most_in(seconds(3)), 0);
        growth.note(Moment(1000), Lsn(1100));
        assert_eq!(growth.most_in(seconds(3)), 300, "what it would come to");
        let mut lsn = 1100;
        for second in 2..=20_u64 {
            lsn += if second == 10 { 9000 } else { 100 };
            growth.note(Moment(second * 1000), Lsn(lsn));
        }
        assert_eq!(growth.most_in(seconds(3)), 9200);
        assert_eq!(growth.most_in(seconds(1)), 9000);
        growth.note(Moment(20_010), Lsn(lsn + 1_000_000));
        assert_eq!(growth.most_in(seconds(3)), 9200, "two looks in a moment say nothing");
        for second in 21..800_u64 {
            lsn += 100;
            growth.note(Moment(second * 1000), Lsn(lsn));
        }
        assert_eq!(growth.most_in(seconds(3)), 300);
        assert!(growth.seen.len() <= super::MOST);
        growth.forget();
        assert_eq!(growth.most_in(seconds(3)), 0);
    }
}
