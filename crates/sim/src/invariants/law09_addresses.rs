//! Law 9: the virtual address, the route and routed sessions never belong to two nodes, nor to one whose deadline has passed.
//!
//! Guards against the address that outlives its lease, and against the session that is left on a replaced primary.

use crate::world::{NodeNo, World};
use types::Term;

impl World {
    /// After every event: one host at most has the address, and only while its right lasts. On a host that
    /// was suspended it may last until its agent looks, or for the rest of the lifetime, of which the kernel did not count the sleep.
    pub fn law_of_address(&mut self) {
        let mut first: Option<NodeNo> = None;
        for no in 0..self.nodes.len() {
            let node = &self.nodes[no];
            let Some(address) = node.address else { continue };
            self.laws.looked(9);
            if node.suspended.is_some() || address.slept {
                continue;
            }
            if node.clock.moment(self.now) > address.right {
                let what =
                    format!("{} has the virtual address after its deadline has passed", self.names[no]);
                self.laws.breaks(9, what);
                return;
            }
            if let Some(other) = first.replace(no) {
                let what = format!("{} and {} have the virtual address", self.names[other], self.names[no]);
                self.laws.breaks(9, what);
                return;
            }
        }
    }

    /// A node accepts a write that the router sent there for this term: nobody else holds a newer one.
    pub fn law_of_route(&mut self, node: NodeNo, term: Term) {
        self.laws.looked(9);
        if let Some(newer) = self.etcd.keys.leader.filter(|leader| leader.term > term && leader.node != node)
        {
            let what = format!(
                "{} accepts a routed write of term {term}, and {} holds term {}",
                self.names[node], self.names[newer.node], newer.term
            );
            self.laws.breaks(9, what);
        }
    }
}
