//! Law 3: a node promotes only while it holds the current term, its guard is armed and its deadline is ahead.
//!
//! Guards against the candidate that won, fell asleep, and promotes when the lead has long been somebody else's; and against a
//! winner that did not listen to a peer with more data (a standby six days behind was once made the primary that way).

use crate::world::{NodeNo, World};
use ha::{Action, Authority, Decision, PeerFacts};
use types::Term;

impl World {
    /// Right before the signal to promote, or the start of a primary.
    pub fn law_of_door(&mut self, node: NodeNo, promotes: Option<Term>) {
        self.laws.looked(3);
        let now = self.moment(node);
        let host = &self.nodes[node];
        let name = &self.names[node];
        let (term, deadline) = match host.agent.seen.authority {
            Authority::Held { term, deadline } => (term, deadline),
            Authority::None => {
                self.laws.breaks(3, format!("{name} starts to write without any authority"));
                return;
            }
        };
        let held = self.etcd.keys.leader;
        // All others agreed to wait: then the key may be gone, but never another's.
        let agreed = held.is_none() && host.agent.memory.failsafe_until.is_some_and(|until| now < until);
        let what = if promotes.is_some_and(|wanted| wanted != term) {
            format!("{name} promotes in another term than it holds")
        } else if now >= deadline {
            format!("{name} starts to write after its deadline: {deadline:?}, and it is {now:?}")
        } else if host.guard.armed.is_none() {
            format!("{name} starts to write without an armed guard")
        } else if !agreed && held.is_none_or(|leader| leader.term != term || leader.node != node) {
            format!("{name} starts to write in term {term}, but the leader key is {held:?}")
        } else {
            return;
        };
        self.laws.breaks(3, what);
    }

    /// After every decision: who was told that the cluster follows a remote one does not begin to write.
    pub fn law_of_standby_cluster(&mut self, node: NodeNo, decision: &Decision) {
        let writes = |action: &Action| matches!(action, Action::Promote(_) | Action::StartPrimary);
        if self.nodes[node].agent.seen.rules.standby_cluster && decision.actions.iter().any(writes) {
            let what = format!("{} begins to write in a standby cluster", self.names[node]);
            self.laws.breaks(3, what);
        }
    }

    /// Right before the leader key is taken: nobody who answered on the same timeline had more.
    pub fn law_of_race(&mut self, node: NodeNo) {
        self.laws.looked(3);
        let agent = &self.nodes[node].agent;
        let ha::Postgres::Running(ha::Running::Standby { timeline, lsn, .. }) = &agent.seen.postgres else {
            return;
        };
        let Some(cluster) = agent.seen.cluster().filter(|cluster| cluster.failover.is_none()) else {
            return;
        };
        let end = cluster.history.get(timeline).copied();
        let ahead = |facts: &PeerFacts| {
            let sound = end.is_none_or(|end| facts.lsn <= end);
            facts.timeline == Some(*timeline)
                && facts.lsn > *lsn
                && sound
                && !facts.nofailover
                && !facts.unprotected
                && !facts.sick
        };
        // One that may not lead in synchronous mode can only be ahead by what was never acknowledged.
        let on = agent.seen.rules.synchronous.mode != ha::SyncMode::Off;
        let sync = cluster.sync.as_ref().filter(|key| on && key.leader.is_some());
        let counts = |name: &types::NodeName| {
            cluster.members.contains_key(name)
                && sync.is_none_or(|key| key.lists(name) || key.is_led_by(name))
        };
        let passed_over = agent.told.iter().find(|(name, facts)| counts(name) && ahead(facts));
        if let Some((peer, facts)) = passed_over {
            let what = format!(
                "{} takes the lead at {lsn} although {peer} said that it has {}",
                self.names[node], facts.lsn
            );
            self.laws.breaks(3, what);
        }
    }
}
