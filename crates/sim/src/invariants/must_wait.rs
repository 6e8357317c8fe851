//! When it is right that nobody leads: whoever could would lack what the cluster has acknowledged, or more than the operator allows.
//!
//! ```text
//!   the disks that are left ── none fit by what etcd knows of the cluster ──► a person decides, and until then nobody leads
//! ```
//! It is judged by what is on the disks, not by what the agents say: an agent that refuses for a wrong reason still breaks law 11.

use crate::world::{NodeNo, World};
use ha::{SyncKey, SyncMode};
use types::{Lsn, Timeline};

impl World {
    /// Whether no disk that is left may lead without a person's word.
    pub(super) fn must_wait(&self) -> bool {
        let keys = &self.etcd.keys;
        !keys.follows_remote && !(0..self.nodes.len()).any(|no| self.may_lead(no))
    }

    fn may_lead(&self, no: NodeNo) -> bool {
        let keys = &self.etcd.keys;
        let Some((timeline, lsn)) = self.on_the_line(no) else { return false };
        if self.nodes[no].tags.nofailover() {
            return false;
        }
        let key = keys.sync.as_ref().filter(|key| key.leader.is_some());
        if let Some(key) = key.filter(|_| keys.synchronous.mode != SyncMode::Off) {
            return key.is_led_by(&self.names[no]) || self.is_elected(key, no, (timeline, lsn));
        }
        let newest = keys.history.keys().next_back().map(|last| Timeline(last.0 + 1));
        let newest = newest.max(keys.last.as_ref().map(|last| last.timeline));
        let current = !self.config.rules.check_timeline || newest.is_none_or(|newest| timeline >= newest);
        let lag = keys.optime.map_or(0, |optime| optime.bytes_since(lsn));
        current && lag <= self.config.rules.maximum_lag_on_failover
    }

    /// The end of a disk of this cluster that lies on the way the cluster went.
    fn on_the_line(&self, no: NodeNo) -> Option<(Timeline, Lsn)> {
        let disk = &self.nodes[no].postgres.disk;
        let wal = disk
            .database()
            .filter(|database| !disk.is_foreign() && !database.torn)
            .map(|database| &database.wal)?;
        let (timeline, lsn) = (wal.timeline(), wal.end());
        let keys = &self.etcd.keys;
        let on = match keys.history.get(&timeline) {
            Some(end) => lsn <= *end,
            None => keys.last.as_ref().is_none_or(|last| timeline >= last.timeline),
        };
        on.then_some((timeline, lsn))
    }

    /// Whether enough of those that `/sync` names are not ahead of it.
    fn is_elected(&self, key: &SyncKey, no: NodeNo, mine: (Timeline, Lsn)) -> bool {
        let listed = key.lists(&self.names[no]);
        let behind = |voter: NodeNo| {
            let votes = voter != no && key.lists(&self.names[voter]);
            votes && self.on_the_line(voter).is_some_and(|theirs| theirs <= mine)
        };
        let votes = (0..self.nodes.len()).filter(|voter| behind(*voter)).count() + usize::from(listed);
        let quorum = self.etcd.keys.synchronous.mode == SyncMode::Quorum;
        (listed || quorum) && votes > key.promise.quorum
    }
}
