//! How far replicas are behind, in bytes and in time, from positions alone: no clock of another host is asked.
//!
//! The time is how long ago the leader was where the replica is now. A replica that is left out for its lag comes back
//! when it has caught up to half of the limit, so that it does not come and go.

use crate::config::LagLimit;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;
use types::{Lsn, Moment, NodeName};

/// Positions of the leader that are kept: some minutes of them.
const KEPT: usize = 1000;

/// Where the leader was when, and where each replica is.
#[derive(Default, Debug)]
pub(crate) struct Positions {
    leader: VecDeque<(Moment, Lsn)>,
    replayed: BTreeMap<NodeName, Lsn>,
}

/// How far a replica is behind; what is not known is `None`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lag {
    pub(crate) bytes: Option<u64>,
    pub(crate) time: Option<Duration>,
}

impl Positions {
    /// The leader was seen there. Positions only grow in one term.
    pub(crate) fn leader(&mut self, at: Moment, lsn: Lsn) {
        if self.leader.back().is_none_or(|(_, last)| *last < lsn) {
            self.leader.push_back((at, lsn));
            if self.leader.len() > KEPT {
                self.leader.pop_front();
            }
        }
    }

    /// A replica was seen there.
    pub(crate) fn replica(&mut self, name: &NodeName, lsn: Lsn) {
        let known = self.replayed.entry(name.clone()).or_insert(lsn);
        *known = (*known).max(lsn);
    }

    /// Only these members are remembered.
    pub(crate) fn retain(&mut self, keep: impl Fn(&NodeName) -> bool) {
        self.replayed.retain(|name, _| keep(name));
    }

    pub(crate) fn lag(&self, name: &NodeName, now: Moment) -> Lag {
        let Some((at, (_, head))) = self.replayed.get(name).zip(self.leader.back()) else {
            return Lag::default();
        };
        let passed = self.leader.iter().find(|(_, lsn)| lsn > at);
        let time = passed.map_or(Duration::ZERO, |(when, _)| now.since(*when));
        Lag { bytes: Some(head.bytes_since(*at)), time: Some(time) }
    }
}

impl fmt::Display for Lag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.bytes, self.time) {
            (Some(bytes), Some(time)) => write!(f, "{bytes} bytes, {:.1} s", time.as_secs_f64()),
            (Some(bytes), None) => write!(f, "{bytes} bytes"),
            (None, Some(time)) => write!(f, "{:.1} s", time.as_secs_f64()),
            (None, None) => write!(f, "its position is not known"),
        }
    }
}

impl Lag {
    /// Whether a replica is left out, given whether it `was` before. What is not known is no reason to leave one out; and when nothing is, as
    /// in the first moments of a term, none to take it back.
    pub(crate) fn too_far(self, limit: LagLimit, was: bool) -> bool {
        let divisor = if was { 2 } else { 1 };
        let bytes = self.bytes.zip(limit.bytes).map(|(lag, most)| lag > most / u64::from(divisor));
        let time = self.time.zip(limit.time).map(|(lag, most)| lag > most / divisor);
        match (bytes, time) {
            (None, None) => was && limit != LagLimit::default(),
            (bytes, time) => bytes == Some(true) || time == Some(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Lag, Positions};
    use crate::config::LagLimit;
    use std::time::Duration;
    use types::{Lsn, Moment, NodeName};

    fn at(seconds: u64) -> Moment {
        Moment(seconds * 1000)
    }

    #[test]
    fn the_time_is_since_the_leader_was_there() {
        let a = NodeName::from("a");
        let mut positions = Positions::default();
        assert_eq!(positions.lag(&a, at(1)), Lag::default());
        positions.leader(at(10), Lsn(100));
        positions.replica(&a, Lsn(100));
        let even = Lag { bytes: Some(0), time: Some(Duration::ZERO) };
        assert_eq!(positions.lag(&a, at(500)), even, "an idle primary leaves nobody behind");
        positions.leader(at(501), Lsn(150));
        positions.leader(at(502), Lsn(150));
        positions.leader(at(503), Lsn(200));
        assert_eq!(positions.lag(&a, at(504)), Lag { bytes: Some(100), time: Some(Duration::from_secs(3)) });
        positions.replica(&a, Lsn(160));
        positions.replica(&a, Lsn(120));
        assert_eq!(positions.lag(&a, at(504)), Lag { bytes: Some(40), time: Some(Duration::from_secs(1)) });
        positions.replica(&a, Lsn(210));
        assert_eq!(positions.lag(&a, at(505)), even, "it may be seen later than the leader");
    }

    #[test]
    fn a_laggard_comes_back_at_half_of_the_limit() {
        let limit = LagLimit { bytes: Some(100), time: Some(Duration::from_secs(10)) };
        let lag = |bytes, seconds| Lag { bytes: Some(bytes), time: Some(Duration::from_secs(seconds)) };
        for (lag, was, out) in [
            (lag(100, 10), false, false),
            (lag(101, 0), false, true),
            (lag(0, 11), false, true),
            (lag(51, 0), true, true),
            (lag(0, 6), true, true),
            (lag(50, 5), true, false),
            (Lag::default(), true, true),
            (Lag::default(), false, false),
            (Lag { bytes: Some(50), time: None }, true, false),
            (Lag { bytes: None, time: Some(Duration::from_secs(6)) }, true, true),
        ] {
            assert_eq!(lag.too_far(limit, was), out, "{lag:?} {was}");
        }
        for was in [false, true] {
            assert!(!lag(1 << 40, 1 << 20).too_far(LagLimit::default(), was));
            assert!(!Lag::default().too_far(LagLimit::default(), was), "the limit was taken away");
        }
    }
}
