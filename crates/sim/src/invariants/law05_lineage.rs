//! Law 5: a node with another system identifier, or on a timeline that is not an ancestor's continuation, never leads.
//!
//! Guards against the disk of another cluster that is put in, and against the stale primary that comes back and discards
//! everything that was written since it was replaced.

use crate::note;
use crate::wal::Wal;
use crate::world::{NodeNo, World};
use ha::Initialize;

/// What is known of the cluster's own data.
#[derive(Debug, Default)]
pub struct Lineage {
    /// The WAL of the last member that announced it accepts writes, as far as it has come.
    pub main: Option<(NodeNo, Wal)>,
    /// Since then: those that became primaries and were ended before anybody could hear of it. Nothing was lost with them.
    unheard: Vec<Wal>,
}

impl World {
    /// A node has just become a primary.
    pub fn became_primary(&mut self, node: NodeNo) {
        self.laws.looked(5);
        self.law_of_acknowledged(node);
        let Some(database) = self.nodes[node].postgres.disk.database() else {
            return;
        };
        let name = &self.names[node];
        let initialize = self.etcd.keys.initialize;
        if let Initialize::Done(cluster) = initialize
            && cluster != database.system_id
        {
            let what = format!(
                "{name} leads with system identifier {}, the cluster has {cluster}",
                database.system_id
            );
            self.laws.breaks(5, what);
            return;
        }
        let wal = database.wal.clone();
        let lineage = &mut self.laws.lineage;
        let Some((last, main)) = &lineage.main else {
            return;
        };
        let (last, common, end) = (*last, wal.common(main), main.end());
        // The newest branch is empty yet: where it begins must lie on the main line, or on one that nobody heard of.
        let began = wal.last_write().1;
        let continues = |line: &Wal| wal.common(line) >= began.min(line.end());
        let heir = continues(main) || lineage.unheard.iter().any(continues);
        lineage.unheard.push(wal.clone());
        note!(self, Some(node), "shares WAL up to {common} with the last primary, which ended at {end}");
        if !heir {
            let (name, last) = (&self.names[node], &self.names[last]);
            let what = format!("{name} leads from {began}, but its WAL left that of {last} at {common}");
            self.laws.breaks(5, what);
        }
    }

    /// The main line is that of the node which announced itself last.
    pub fn announced(&mut self, node: NodeNo) {
        if let Some(database) = self.nodes[node].postgres.disk.database() {
            self.laws.lineage.main = Some((node, database.wal.clone()));
            self.laws.lineage.unheard.clear();
        }
    }
}
