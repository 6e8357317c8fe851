//! Law 8: old data are moved aside, never lost: no wipe without another complete copy.
//!
//! Guards against the empty replica that is promoted, and against the only copy that is wiped to make room for a new one.

use crate::world::{NodeNo, World};
use ha::Work;

impl World {
    /// Right before a data directory makes room for a copy.
    pub fn law_of_wipe(&mut self, node: NodeNo) {
        self.laws.looked(8);
        let mine = self.nodes[node].postgres.disk.database();
        // What a bootstrap left that came too late is nobody's data.
        let Some(mine) = mine.filter(|database| !database.newborn).map(|database| database.system_id) else {
            return;
        };
        let others = self.nodes.iter().enumerate().filter(|(no, _)| *no != node);
        let mut copies = others.filter_map(|(_, other)| other.postgres.disk.database());
        if !self.nodes[node].postgres.disk.is_foreign() && !copies.any(|database| database.system_id == mine)
        {
            let what = format!("{} gives up the only complete copy", self.names[node]);
            self.laws.breaks(8, what);
        }
    }

    /// Right before a rewind: the directory is complete, and so is the one it is rewound to.
    pub fn law_of_rewind(&mut self, node: NodeNo, work: &Work) {
        self.law_of_wipe(node);
        if self.nodes[node].postgres.disk.database().is_none() {
            let what = format!("{} begins {work:?} in an incomplete directory", self.names[node]);
            self.laws.breaks(8, what);
        }
    }
}
