//! Law 13: a session that is to write and is in a pooler never finds itself on a standby.
//!
//! Guards against an old primary that comes up for reading while a router still leads sessions to the pooler beside it.

use crate::world::{NodeNo, World};
use types::Term;

impl World {
    /// The router leads a session of this term to the pooler of that node.
    pub fn law_of_poolers(&mut self, node: NodeNo, term: Term) {
        if !self.config.rules.pooler {
            return;
        }
        self.laws.looked(13);
        if self.nodes[node].postgres.is_read_only() {
            let what =
                format!("a session of term {term} is led to the pooler of {}, a standby", self.names[node]);
            self.laws.breaks(13, what);
        }
    }
}
