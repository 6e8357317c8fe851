//! Law 6: paused, nothing is started, stopped, promoted or demoted by itself.
//!
//! Guards against the pause that is not one: people pause a cluster to work on PostgreSQL or etcd by hand.

use crate::world::{NodeNo, World};
use ha::{Action, Decision, Memory};

impl World {
    /// After every decision: in pause, nothing is done to PostgreSQL that nobody asked for.
    pub fn law_of_pause(&mut self, node: NodeNo, before: &Memory, decision: &Decision) {
        let seen = &self.nodes[node].agent.seen;
        if !seen.rules.pause {
            return;
        }
        self.laws.looked(6);
        let wished = seen.cluster().is_some_and(|cluster| cluster.failover.is_some());
        let begun = before.step_aside.is_some()
            || before.promoting.is_some()
            || before.ordered.is_some()
            || before.returning;
        if seen.order.is_some() || wished || begun {
            return;
        }
        let touches = |action: &&Action| {
            matches!(
                action,
                Action::StartPrimary
                    | Action::StartStandby(_)
                    | Action::Stop(_)
                    | Action::Promote(_)
                    | Action::Begin(_)
            )
        };
        if let Some(action) = decision.actions.iter().find(touches) {
            let what = format!("{} is paused and does {action:?}: {}", self.names[node], decision.reason);
            self.laws.breaks(6, what);
        }
    }
}
