//! How long the two ways out of a crash take, as far as it is known: a restart here, and a failover.

use std::fmt;
use std::time::Duration;
use types::Lsn;

/// Replayed a second where nothing was measured yet. Rather too much than too little: in doubt PostgreSQL is restarted where it is.
const REDO_RATE: u64 = 64_000_000;
/// A start that has nothing to replay.
const START: Duration = Duration::from_millis(300);
/// A promotion where none was measured.
const PROMOTION: Duration = Duration::from_millis(500);
/// Asking the others, giving the key away and taking it.
const HAND_OVER: Duration = Duration::from_millis(500);
/// A failover moves the primary, which a restart does not: it must be faster by this much, and by half.
const MARGIN: Duration = Duration::from_secs(3);

/// What the files of a stopped PostgreSQL and earlier starts tell. Unknown is a value: then nothing is decided by numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Pace {
    /// About where the WAL ends.
    pub end: Option<Lsn>,
    /// About so many bytes the next start has to replay.
    pub to_replay: Option<u64>,
    /// Bytes a second, as measured when these data were last recovered.
    pub redo_rate: Option<u64>,
    /// What a promotion took, as measured.
    pub promotion: Option<Duration>,
}

/// What the two ways are expected to take.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Estimate {
    pub bytes: u64,
    pub rate: u64,
    /// The rate was measured, and not assumed.
    pub measured: bool,
    pub restart: Duration,
    pub failover: Duration,
}

impl Pace {
    /// What is to be expected; `None` where too little is known.
    #[must_use]
    pub fn estimate(&self) -> Option<Estimate> {
        let bytes = self.to_replay?;
        let rate = self.redo_rate.unwrap_or(REDO_RATE).max(1);
        Some(Estimate {
            bytes,
            rate,
            measured: self.redo_rate.is_some(),
            restart: START + replay(bytes, rate),
            failover: HAND_OVER + self.promotion.unwrap_or(PROMOTION),
        })
    }
}

impl Estimate {
    /// Whether another member would be back clearly sooner. `lag`: what that one has not replayed yet.
    #[must_use]
    pub fn is_clearly_slower(&self, lag: u64) -> bool {
        let failover = self.failover + replay(lag, self.rate);
        self.restart >= (failover * 2).max(failover + MARGIN)
    }
}

fn replay(bytes: u64, rate: u64) -> Duration {
    Duration::from_millis(bytes.saturating_mul(1000).checked_div(rate).unwrap_or(u64::MAX))
}

impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.measured { "measured" } else { "assumed" };
        let (bytes, rate) = (Bytes(self.bytes), Bytes(self.rate));
        write!(f, "about {} ({bytes} to replay at {rate}/s, {how})", Rough(self.restart))
    }
}

/// A duration that is only about right.
pub(crate) struct Rough(pub(crate) Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        if millis < 10_000 {
            return write!(f, "{}.{} s", millis / 1000, millis % 1000 / 100);
        }
        write!(f, "{} s", millis / 1000)
    }
}

/// An amount of WAL for people.
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return write!(f, "{} bytes", self.0),
            1_000..1_000_000 => (1_000, "kB"),
            1_000_000..1_000_000_000 => (1_000_000, "MB"),
            1_000_000_000.. => (1_000_000_000, "GB"),
        };
        let tenths = self.0 * 10 / unit;
        if tenths < 100 {
            write!(f, "{}.{} {name}", tenths / 10, tenths % 10)
        } else {
            write!(f, "{} {name}", self.0 / unit)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bytes, Pace};
    use std::time::Duration;

    #[test]
    fn a_failover_must_be_clearly_faster() {
        let pace = |to_replay, redo_rate| Pace { to_replay, redo_rate, ..Pace::default() };
        assert_eq!(pace(None, Some(1)).estimate(), None);
        let slower = |bytes: u64, rate| pace(Some(bytes), rate).estimate().unwrap().is_clearly_slower(0);
        assert!(!slower(200 << 20, None), "about as fast");
        assert!(slower(300 << 20, None));
        assert!(slower(40 << 20, Some(8 << 20)));
        let estimate = pace(Some(1_300_000_000), Some(32_000_000)).estimate().unwrap();
        assert_eq!(estimate.to_string(), "about 40 s (1.3 GB to replay at 32 MB/s, measured)");
        assert!(!estimate.is_clearly_slower(1_000_000_000), "the other has as much to replay");
        let slow = Pace { promotion: Some(Duration::from_secs(60)), ..pace(Some(1 << 30), None) };
        assert!(!slow.estimate().unwrap().is_clearly_slower(0));
        assert_eq!(Bytes(999).to_string(), "999 bytes");
        assert_eq!(Bytes(u64::MAX / 10).to_string(), "1844674407 GB");
    }
}
