//! When an address that was just taken is announced. Pure.
//!
//! ```text
//!   taken ┬ 5 at once, 10 ms apart ── 3 after 1 s ── 3 after 5 s ── 1 every 60 s
//! ```
//! One frame would do on a good network; the others are for a switch that drops, a host that was busy, and a cache that was filled with
//! somebody else's answer in between.

use std::time::Duration;
use types::Moment;

const GAP: u64 = 10;
const BURSTS: [(u64, u64); 3] = [(0, 5), (1_000, 3), (5_000, 3)];
const REFRESH: u64 = 60_000;

/// How many announcements are done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    since: Moment,
    done: u64,
}

impl Plan {
    /// The plan of an address that was taken now.
    #[must_use]
    pub(crate) fn from(now: Moment) -> Plan {
        Plan { since: now, done: 0 }
    }

    /// When the next announcement is due.
    #[must_use]
    pub(crate) fn next(&self) -> Moment {
        let mut before = 0;
        for (start, count) in BURSTS {
            if self.done < before + count {
                return self.at(start + (self.done - before) * GAP);
            }
            before += count;
        }
        self.at((self.done - before + 1) * REFRESH)
    }

    /// One is done. What was missed while nobody looked is not made up for, but for the last.
    pub(crate) fn done(&mut self, now: Moment) {
        self.done += 1;
        while self.next() < now && self.after_next() <= now {
            self.done += 1;
        }
    }

    fn after_next(&self) -> Moment {
        Plan { done: self.done + 1, ..*self }.next()
    }

    fn at(&self, offset: u64) -> Moment {
        self.since.after(Duration::from_millis(offset))
    }
}

#[cfg(test)]
mod tests {
    use super::Plan;
    use types::Moment;

    #[test]
    fn bursts_then_now_and_then() {
        let mut plan = Plan::from(Moment(0));
        let mut times = Vec::new();
        for _ in 0..13 {
            let due = plan.next();
            times.push(due.0);
            plan.done(due);
        }
        assert_eq!(times, [0, 10, 20, 30, 40, 1000, 1010, 1020, 5000, 5010, 5020, 60_000, 120_000]);
    }

    #[test]
    fn a_sleep_is_not_made_up_for_with_a_storm() {
        let mut plan = Plan::from(Moment(0));
        plan.done(Moment(0));
        plan.done(Moment(300_000));
        assert_eq!(plan.next(), Moment(300_000), "the last that was missed");
        plan.done(Moment(300_000));
        assert_eq!(plan.next(), Moment(360_000));
    }
}
