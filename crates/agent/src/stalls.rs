//! Standbys that confirm nothing although there is something to confirm: their connection may be there while they are not, or
//! their disk hangs.

use postgres::probe::Facts;
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Lsn, Moment};

/// How far each had come, and since when; by the process that sends to it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stalls {
    rows: BTreeMap<u32, (Lsn, Moment)>,
}

impl Stalls {
    /// Notes what a primary said when it was asked at this moment.
    pub(crate) fn note(&mut self, facts: &Facts, asked: Moment) {
        let all = facts.flush_lsn.unwrap_or_default();
        let rows = facts.replication.iter().map(|standby| {
            let flushed = standby.flush_lsn.unwrap_or_default();
            let before = self.rows.get(&standby.pid).filter(|(lsn, _)| flushed <= *lsn && flushed < all);
            (standby.pid, (flushed, before.map_or(asked, |(_, since)| *since)))
        });
        self.rows = rows.collect();
    }

    /// Since when the standby served by this process has confirmed nothing although it could have.
    pub(crate) fn since(&self, pid: u32, flushed: Lsn, all: Lsn) -> Option<Moment> {
        self.rows.get(&pid).filter(|_| flushed < all).map(|(_, since)| *since)
    }

    /// Those that had stalled for longer than `limit` when the primary was asked.
    pub(crate) fn longer_than(&self, limit: Duration, facts: &Facts, asked: Moment) -> Vec<String> {
        let all = facts.flush_lsn.unwrap_or_default();
        let stalled = facts.replication.iter().filter(|standby| {
            let since = self.since(standby.pid, standby.flush_lsn.unwrap_or_default(), all);
            // One that is being copied or catches up is not waited for.
            let streams = standby.state.as_deref() == Some("streaming");
            streams && since.is_some_and(|since| asked.since(since) >= limit)
        });
        stalled.map(|standby| standby.application_name.clone()).collect()
    }
}
