//! When an address that was just taken is announced. Pure.
//!
//! ```text
//!   taken ┬ 5 at once, 10 ms apart ── 3 after 1 s ── 3 after 5 s ── 1 every minute, or as often as is wanted
//! ```
//! One frame would do on a good network; the others are for a switch that drops, a host that was busy, and a cache that was filled with
//! somebody else's answer in between.

use std::time::Duration;
use types::Moment;

const GAP: u64 = 10;
const BURSTS: [(u64, u64); 3] = [(0, 5), (1_000, 3), (5_000, 3)];
/// From here on there are only refreshes.
const OVER: u64 = 5_000 + 3 * GAP;

/// How many announcements are done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    since: Moment,
    /// In milliseconds.
    refresh: u64,
    done: u64,
}

impl Plan {
    /// The plan of an address that was taken now.
    #[must_use]
    pub(crate) fn from(now: Moment, refresh: Duration) -> Plan {
        let refresh = u64::try_from(refresh.as_millis()).unwrap_or(u64::MAX).max(1);
        Plan { since: now, refresh, done: 0 }
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
        // In its own pace from the beginning, but for those that the bursts make needless.
        self.at((OVER / self.refresh + 1 + self.done - before).saturating_mul(self.refresh))
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
    use std::time::Duration;
    use types::Moment;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn refreshes_in_quick_succession_begin_after_the_bursts() {
        for (refresh, expected) in
            [(1_000, [6_000, 7_000]), (2_500, [7_500, 10_000]), (7_000, [7_000, 14_000])]
        {
            let mut plan = Plan::from(Moment(0), Duration::from_millis(refresh));
            for _ in 0..11 {
                plan.done(plan.next());
            }
            let first = plan.next();
            plan.done(first);
            assert_eq!([first.0, plan.next().0], expected, "every {refresh} ms");
        }
    }

    #[test]
    fn bursts_then_now_and_then() {
        let mut plan = Plan::from(Moment(0), MINUTE);
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
        let mut plan = Plan::from(Moment(0), MINUTE);
        plan.done(Moment(0));
        plan.done(Moment(300_000));
        assert_eq!(plan.next(), Moment(300_000), "the last that was missed");
        plan.done(Moment(300_000));
        assert_eq!(plan.next(), Moment(360_000));
    }
}
