//! A point on the clock that decisions use.

use std::fmt;
use std::time::Duration;

/// Milliseconds on CLOCK_BOOTTIME: monotonic, and it counts the time a host was suspended, so a lease that ran out
/// during a suspend is seen as run out. Comparable on one host only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `span` later.
    #[must_use]
    pub fn after(self, span: Duration) -> Moment {
        Moment(self.0.saturating_add(millis(span)))
    }

    /// The moment `span` earlier; the beginning of time at the earliest.
    #[must_use]
    pub fn before(self, span: Duration) -> Moment {
        Moment(self.0.saturating_sub(millis(span)))
    }

    /// The time from `earlier` to `self`; zero when `self` is not later.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The time from `self` until `later`; zero when that is past.
    #[must_use]
    pub fn until(self, later: Moment) -> Duration {
        later.since(self)
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / 1000, self.0 % 1000)
    }
}
