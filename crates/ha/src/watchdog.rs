//! The watchdog device, as far as a decision depends on it.

use crate::observation::Observation;

/// The watchdog device: it restarts a host that hangs as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Watchdog {
    /// It works, or nothing depends on it.
    #[default]
    Fine,
    /// It is required (`watchdog.mode: required`) and does not work: nothing may be a primary here.
    Failed,
}

impl Observation {
    /// Whether nothing may be a primary here, because the required watchdog does not work. In pause it is off, and who leads a standby
    /// cluster is no primary.
    #[must_use]
    pub fn unprotected(&self) -> bool {
        self.watchdog == Watchdog::Failed && !self.rules.pause && !self.rules.standby_cluster
    }
}
