//! Law 10: a slot that is promised to survive a failover is on the new primary, not ahead of its consumer.
//!
//! Guards against the slot that was never brought to the standbys, and against the one whose consumer misses changes unnoticed. A
//! standby that had no time to get it is not promised to have it; a physical slot that was made on a standby begins where that
//! standby was, and counts from the moment its user has come that far.

use crate::clock::SECOND;
use crate::slots::PERMANENT;
use crate::world::{NodeNo, World};
use types::Lsn;

impl World {
    /// A standby has been promoted.
    pub fn law_of_slots(&mut self, node: NodeNo) {
        if !self.config.slots {
            return;
        }
        let end = self.nodes[node].postgres.end().unwrap_or_default();
        let bound = self.slot_bound();
        for name in PERMANENT {
            self.laws.looked(10);
            let key = (node, name.to_owned());
            let Some(at) = self.nodes[node].postgres.slots.get(name).copied() else {
                let longest = self.slots.missing.get(&key).map_or(0, |missing| missing.longest);
                if longest > bound {
                    let what = format!(
                        "{} is promoted without slot {name}, which it could have had for {} s",
                        self.names[node],
                        longest / SECOND
                    );
                    self.laws.breaks(10, what);
                }
                continue;
            };
            let confirmed = self.slots.confirmed.get(name).copied().unwrap_or(Lsn(u64::MAX)).min(end);
            if at > confirmed && self.slots.ready.get(&key) == Some(&true) {
                let what = format!(
                    "{} is promoted with slot {name} at {at}, and its consumer has only what is before {confirmed}",
                    self.names[node]
                );
                self.laws.breaks(10, what);
            }
        }
        self.consumers_follow(node);
    }
}
