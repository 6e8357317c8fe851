//! Law 1: two nodes never accept writes at the same time.
//!
//! Guards against the split brain: a primary whose agent is frozen, dead or cut off, and a promoted standby beside it.

use crate::world::World;

impl World {
    /// After every event: at most one PostgreSQL accepts writes. One that holds the disk of another cluster is not of this one.
    pub fn law_of_one_writer(&mut self) {
        self.laws.looked(1);
        let mut writers =
            self.nodes.iter().zip(&self.names).filter(|(node, _)| node.postgres.accepts_writes());
        if let (Some((_, first)), Some((_, second))) = (writers.next(), writers.next()) {
            let what = format!("{first} and {second} accept writes at the same time");
            self.laws.breaks(1, what);
        }
    }
}
