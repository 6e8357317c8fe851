//! Law 8: old data are moved aside, never lost: no wipe without another complete copy, no rewind without keeping the divergent tail,
//! and nothing is started that a broken job left.
//!
//! Guards against the empty replica that is promoted, against the only copy that is wiped to make room for a new one, and against the
//! rewind that was cut off or came too early.

use crate::wal::Wal;
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

    /// Right before a directory becomes what `new` is: what the old one had beyond it is kept.
    pub fn law_of_tail(&mut self, node: NodeNo, new: &Wal) {
        self.laws.looked(8);
        let Some(old) = self.nodes[node].postgres.aside.as_ref().map(Wal::last_write) else {
            return;
        };
        if !new.has(old) && !self.nodes[node].tails.contains(&old) {
            let what = format!("{} gives up WAL up to {} that nobody else has", self.names[node], old.1);
            self.laws.breaks(8, what);
        }
    }

    /// After a rewind that is said to have ended well: nothing is left of what its source does not have.
    pub fn law_of_rewound(&mut self, node: NodeNo, source: Option<NodeNo>) {
        self.laws.looked(8);
        let source = source.and_then(|source| self.nodes[source].postgres.disk.database());
        let mine = self.nodes[node].postgres.disk.database();
        if mine.zip(source).is_some_and(|(mine, source)| !mine.wal.is_within(&source.wal)) {
            let what = format!("{} was rewound and still has what the new primary lacks", self.names[node]);
            self.laws.breaks(8, what);
        }
    }

    /// When PostgreSQL starts: the directory is whole.
    pub fn law_of_whole(&mut self, node: NodeNo) {
        self.laws.looked(8);
        if self.nodes[node].postgres.disk.database().is_some_and(|database| database.torn) {
            let what = format!("{} runs on a directory that a job left unfinished", self.names[node]);
            self.laws.breaks(8, what);
        }
    }
}
