//! Law 12: every decision has a reason; every refusal to promote is explained.
//!
//! Guards against the failover that did not happen and nobody can say why.

use crate::clock::{SECOND, Time};
use crate::world::{NodeNo, World};
use ha::{Contact, Decision, Etcd, LeaderKey, Postgres, Running};

/// So long a lead may be free without a word.
const MUTE: Time = 5 * SECOND;

impl World {
    /// After every decision: there are words for it. The same words as in the last turn need no second look.
    pub fn law_of_reasons(&mut self, node: NodeNo, decision: &Decision) {
        self.laws.looked(12);
        self.law_of_refusals(node, decision);
        if decision.reason.duty().is_empty()
            || (decision.reason.code().is_empty() && !decision.actions.is_empty())
        {
            let what = format!("{} decides without a reason", self.names[node]);
            self.laws.breaks(12, what);
        }
    }

    /// A standby that sees that nobody leads either takes part in the race or says what speaks against it.
    fn law_of_refusals(&mut self, node: NodeNo, decision: &Decision) {
        let agent = &mut self.nodes[node].agent;
        let live = matches!(agent.seen.etcd, Etcd::Seen { contact: Contact::Live, .. });
        let free = agent.seen.cluster().is_some_and(|cluster| cluster.leader == LeaderKey::Free);
        let standby = matches!(agent.seen.postgres, Postgres::Running(Running::Standby { .. }));
        if !(live && free && standby && decision.reason.duty() == "follow") {
            agent.mute_since = None;
            return;
        }
        let since = *agent.mute_since.get_or_insert(self.now);
        if self.now - since > MUTE {
            let what = format!(
                "nobody leads, and {} has not said for {} s why it does not: {}",
                self.names[node],
                (self.now - since) / SECOND,
                decision.reason
            );
            self.laws.breaks(12, what);
        }
    }
}
