//! Law 12: every decision has a reason; every refusal to promote is explained.
//!
//! Guards against the failover that did not happen and nobody can say why.

use crate::world::{NodeNo, World};
use ha::Decision;

impl World {
    /// After every decision: there are words for it. The same words as in the last turn need no second look.
    pub fn law_of_reasons(&mut self, node: NodeNo, decision: &Decision) {
        self.laws.looked(12);
        if decision.reason.duty().is_empty()
            || (decision.reason.code().is_empty() && !decision.actions.is_empty())
        {
            let what = format!("{} decides without a reason", self.names[node]);
            self.laws.breaks(12, what);
        }
    }
}
