//! Whether the agent itself is given the processor in time: on a host that is starved, or was suspended, what does not answer may be
//! late as well, and not dead.

use super::Signs;
use std::time::Duration;
use types::Moment;

/// The rest between two looks.
const PACE: Duration = Duration::from_millis(100);
/// Later than this, and silence does not count before it.
const LATE: Duration = Duration::from_millis(500);
/// It is said again when it comes back after so long.
const QUIET: Duration = Duration::from_secs(60);

/// What was seen of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Late {
    /// When the agent was late last.
    pub(super) last: Option<Moment>,
    pub(super) worst: Duration,
    pub(super) times: u64,
}

impl Signs {
    pub(super) async fn watch_lateness(&self) {
        loop {
            let began = clock::now();
            tokio::time::sleep(PACE).await;
            let now = clock::now();
            let by = now.since(began).saturating_sub(PACE);
            if by >= LATE {
                self.note_lateness(by, now);
            }
        }
    }

    fn note_lateness(&self, by: Duration, now: Moment) {
        let last = self.inner.late.with(|late| {
            let last = late.last;
            *late = Late { last: Some(now), worst: late.worst.max(by), times: late.times.saturating_add(1) };
            last
        });
        let millis = by.as_millis() as u64;
        let ttl = self.inner.rules.with(|rules| rules.ttl);
        if last.is_some_and(|last| now.since(last) < QUIET) && by < ttl / 2 {
            return;
        }
        // Half of the lease's time, and the lead is in danger.
        if by >= ttl / 2 {
            tracing::warn!(
                millis,
                "the agent was not given the processor for so long: this host has too little of it or of memory, or was suspended; a lease is lost by that"
            );
        } else {
            tracing::info!(millis, "the agent was not given the processor for so long");
        }
    }
}
