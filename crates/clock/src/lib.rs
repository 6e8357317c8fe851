//! The one place where Baton reads a clock. Everybody else is given the time, so that it can be imagined.

use rustix::time::{ClockId, clock_gettime};
use std::time::{Duration, SystemTime};
use types::Moment;

/// The moment now, on CLOCK_BOOTTIME.
#[must_use]
pub fn now() -> Moment {
    Moment(millis(ClockId::Boottime))
}

/// How long this host has been suspended since its boot, to a millisecond or two. The timers of the kernel do not count that time.
#[must_use]
pub fn suspended() -> Duration {
    let awake = millis(ClockId::Monotonic);
    Duration::from_millis(millis(ClockId::Boottime).saturating_sub(awake))
}

fn millis(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    let millis = u64::try_from(time.tv_nsec).unwrap_or_default() / 1_000_000;
    seconds * 1000 + millis
}

/// The wall clock, for texts that people read and for the schedules they wrote. Never for a decision.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall() -> SystemTime {
    SystemTime::now()
}
