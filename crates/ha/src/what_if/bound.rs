//! How much a failover may lose, at most.
//!
//! ```text
//!   standby ├── what it may lack: maximum_lag_on_failover ──┤ /status ├── written since, seen by nobody ──┤ end of the leader
//! ```
//! The setting is compared with the position that the leader last published in etcd. What the leader wrote, and acknowledged,
//! after that position was read is lost on top of it: what it writes in as much time as nothing is published.

use crate::observation::Observation;
use crate::rules::Rules;
use crate::standing;
use std::time::Duration;

/// A position that is published was read at most so long before the turn that publishes it.
const PROBED_EVERY: Duration = Duration::from_secs(1);

/// The bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LossBound {
    /// Only members lead by themselves that have every acknowledged commit, or nobody writes.
    Nothing,
    /// `allowed` by the setting, and `unseen` written in the `span` in which nothing was published.
    Bytes { allowed: u64, unseen: u64, span: Duration },
}

impl LossBound {
    /// The bytes of WAL, in all.
    #[must_use]
    pub fn bytes(self) -> u64 {
        match self {
            LossBound::Nothing => 0,
            LossBound::Bytes { allowed, unseen, .. } => allowed.saturating_add(unseen),
        }
    }
}

/// The bound for a primary of which `written` tells how much it writes in a time. One that is `cut_off` acknowledges commits for up to
/// a ttl after the last position that it could publish.
#[must_use]
pub fn loss_bound(seen: &Observation, written: impl Fn(Duration) -> u64, cut_off: bool) -> LossBound {
    let synchronous = seen.cluster().and_then(|cluster| standing::synchronous(seen, cluster)).is_some();
    if synchronous || seen.rules.standby_cluster {
        return LossBound::Nothing;
    }
    let allowed = seen.rules.maximum_lag_on_failover;
    let span = unpublished(&seen.rules, cut_off);
    LossBound::Bytes { allowed, unseen: written(span), span }
}

/// For how long a leader writes, at most, without a position of it in etcd: from one publication to the next, the age of what is
/// published, and the time that a leader which reaches nobody goes on.
fn unpublished(rules: &Rules, cut_off: bool) -> Duration {
    let published = rules.loop_wait * 2 + PROBED_EVERY;
    if cut_off { published + rules.ttl } else { published }
}
