//! Law 7: the agent's death, restart or upgrade does not restart PostgreSQL; only a passed deadline stops it.
//!
//! Guards against the upgrade of the agent that costs a failover, against the database that is stopped because its agent does not
//! recognise its own lease, and against the one that is demoted for an outage of etcd that is shorter than the lease.

use crate::postgres::{DiskTrouble, Proc};
use crate::world::{NodeNo, World};
use ha::Authority;
use std::time::Duration;

impl World {
    /// Right before PostgreSQL is told to stop: a primary whose lease is good is stopped only because somebody wants it.
    pub fn law_of_stop(&mut self, node: NodeNo) {
        self.laws.looked(7);
        let now = self.moment(node);
        let host = &self.nodes[node];
        let (agent, rules) = (&host.agent, &self.config.rules);
        let held = self.etcd.keys.leader.filter(|leader| leader.node == node);
        let agreed = rules.failsafe
            && agent
                .memory
                .failsafe_until
                .is_some_and(|until| now.until(until) > rules.stop_budget() + Duration::from_millis(50));
        let good = match agent.seen.authority {
            Authority::Held { term, deadline } => {
                held.is_some_and(|leader| leader.term == term)
                    && now.until(deadline) > rules.stop_budget() + Duration::from_millis(50)
            }
            Authority::None => false,
        };
        let wanted = agent.seen.order.is_some()
            || agent.memory.step_aside.is_some()
            || agent.memory.ordered.is_some()
            // It was sick when that was decided.
            || agent.memory.leaves_for.is_some()
            || self.etcd.keys.failover.is_some()
            || agent.seen.rules.standby_cluster;
        let alone = self.etcd.keys.leader.is_none_or(|leader| leader.node == node);
        // Whether etcd answers at the moment does not matter: the lease is good until its deadline.
        let kept = good || (agreed && alone);
        let well = host.postgres.hangs.is_none() && host.postgres.trouble == DiskTrouble::None;
        if kept && !wanted && well && host.postgres.proc == Proc::Primary {
            let what =
                format!("{} stops a primary whose lease is good: {}", self.names[node], agent.last_words);
            self.laws.breaks(7, what);
        }
    }
}
