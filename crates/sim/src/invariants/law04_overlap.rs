//! Law 4: the set that can acknowledge a commit overlaps every set that can win an election, also in the middle of a change.
//!
//! Guards against steps in the wrong order, and against one that is decided before the effect of another.

use crate::world::World;
use ha::sync_quorum::Promise;
use types::StandbyNames;

impl World {
    /// After every event: what `/sync` promises of the leader, and what its PostgreSQL waits for, fit.
    pub fn law_of_overlap(&mut self) {
        let keys = &self.etcd.keys;
        let (Some(leader), Some(key)) = (keys.leader, &keys.sync) else {
            return;
        };
        let (name, postgres) = (&self.names[leader.node], &self.nodes[leader.node].postgres);
        if !self.laws.promised.begun || !key.is_led_by(name) || !postgres.accepts_writes() {
            return;
        }
        let names = &postgres.names.effective;
        let ok = overlaps(&key.promise, names);
        let what =
            (!ok).then(|| format!("{name} waits for \"{names}\" and /sync promises {:?}", key.promise));
        self.laws.looked(4);
        if let Some(what) = what {
            self.laws.breaks(4, what);
        }
    }
}

/// By its meaning: no set that can acknowledge a commit is without a member of a set that can win an election.
fn overlaps(promise: &Promise, names: &StandbyNames) -> bool {
    let wins = promise.quorum + 1;
    if promise.voters.len() < wins {
        return true;
    }
    match names {
        StandbyNames::First { count, names } | StandbyNames::Any { count, names } => {
            names.len() < *count || promise.voters.union(names).count() < wins + count
        }
        StandbyNames::Nobody | StandbyNames::Everybody { .. } | StandbyNames::Other(_) => false,
    }
}
