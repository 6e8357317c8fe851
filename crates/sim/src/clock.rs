//! Time in the world, and the clocks of its hosts, which run a little too fast or too slow.

use std::time::Duration;
use types::Moment;

/// True time in microseconds since the world began. No host can read it.
pub type Time = u64;

/// One second of it.
pub const SECOND: Time = 1_000_000;

/// A span as true time.
#[must_use]
pub fn span(duration: Duration) -> Time {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX / 4)
}

/// CLOCK_BOOTTIME of one host.
#[derive(Clone, Debug)]
pub struct Clock {
    anchor: Time,
    shown: u64,
    /// How many microseconds a million true ones count for.
    rate: u64,
}

impl Clock {
    /// A clock that shows `shown` microseconds now and gains or loses `drift` parts in a million.
    #[must_use]
    pub fn new(now: Time, shown: u64, drift: i64) -> Clock {
        Clock { anchor: now, shown, rate: rate(drift) }
    }

    /// From now on it drifts differently; what it shows does not jump.
    pub fn set_drift(&mut self, now: Time, drift: i64) {
        self.shown = self.micros(now);
        self.anchor = now;
        self.rate = rate(drift);
    }

    fn micros(&self, now: Time) -> u64 {
        self.shown + now.saturating_sub(self.anchor) * self.rate / 1_000_000
    }

    /// What it shows.
    #[must_use]
    pub fn moment(&self, now: Time) -> Moment {
        Moment(self.micros(now) / 1000)
    }

    /// The first true time at which it shows this moment, as long as its drift stays the same.
    #[must_use]
    pub fn when(&self, moment: Moment) -> Time {
        let ahead = moment.0.saturating_mul(1000).saturating_sub(self.shown);
        self.anchor + ahead.saturating_mul(1_000_000).div_ceil(self.rate)
    }

    /// How long this host's `span` takes in true time.
    #[must_use]
    pub fn stretch(&self, span: Time) -> Time {
        span.saturating_mul(1_000_000) / self.rate
    }
}

fn rate(drift: i64) -> u64 {
    1_000_000_u64.saturating_add_signed(drift)
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use types::Moment;

    #[test]
    fn a_moment_is_shown_when_it_is_said_to_be() {
        for drift in [-5000, 0, 1, 5000] {
            let clock = Clock::new(7, 1_234_567, drift);
            for moment in [1235, 1300, 99_999] {
                let at = clock.when(Moment(moment));
                assert!(clock.moment(at) >= Moment(moment), "{drift} {moment}");
                assert!(at == 7 || clock.moment(at - 2) < Moment(moment), "{drift} {moment}");
            }
        }
    }
}
