//! What an event changes of what a member sees.

use super::{Event, What};
use crate::failsafe::FailsafeRound;
use crate::memory::Memory;
use crate::observation::{
    Authority, Cluster, Contact, Data, Etcd, Failover, LeaderKey, Observation, Postgres, Running,
};
use crate::peers::PeerAnswer;
use crate::plans::Due;
use std::collections::BTreeSet;
use types::{Moment, NodeName};

/// The imagined moment.
pub(super) struct Scene {
    pub seen: Observation,
    pub memory: Memory,
    pub at: Moment,
    /// A leader that has no word of all others without etcd: it ends, if not in this turn then before its lease.
    pub without_word: bool,
}

/// `None`: this member is not there any more.
pub(super) fn scene(seen: &Observation, memory: &Memory, event: &Event, now: Moment) -> Option<Scene> {
    let mut scene = Scene { seen: seen.clone(), memory: memory.clone(), at: now, without_word: false };
    scene.seen.finished = None;
    scene.memory.race = None;
    let me = seen.me.clone();
    let mine = event.member.as_ref() == Some(&me);
    match (event.what, &event.member) {
        (What::Dies, _) if mine => return None,
        (What::Dies | What::Unplugged, Some(member)) if !mine => scene.vanish(member),
        (What::Unplugged, Some(_)) => {
            scene.seen.peers.answers.clear();
            scene.lose_etcd(now, &BTreeSet::new());
        }
        (What::PostgresCrashes, Some(_)) if mine => scene.crash(),
        (What::PostgresCrashes, Some(member)) => scene.give_away(member),
        (What::Switchover, to) => scene.switch(to.clone(), now),
        (What::EtcdAway, _) => {
            let heard = seen.peers.answers.iter().filter(|(_, answer)| **answer != PeerAnswer::Silent);
            let heard = heard.map(|(name, _)| name.clone()).collect();
            scene.lose_etcd(now, &heard);
        }
        (What::Dies | What::Unplugged | What::PostgresCrashes, _) => {}
    }
    Some(scene)
}

impl Scene {
    fn cluster(&mut self) -> Option<&mut Cluster> {
        match &mut self.seen.etcd {
            Etcd::Never { .. } => None,
            Etcd::Seen { cluster, .. } => Some(cluster),
        }
    }

    fn leads(&self, member: &NodeName) -> bool {
        let leader = self.seen.cluster().map(|cluster| &cluster.leader);
        matches!(leader, Some(LeaderKey::Held { name, .. }) if name == member)
    }

    /// Nobody holds the leader key any more.
    fn free(&mut self) {
        if let Some(cluster) = self.cluster() {
            cluster.leader = LeaderKey::Free;
            cluster.writable = None;
        }
        if let Postgres::Running(Running::Standby { streaming, .. }) = &mut self.seen.postgres {
            *streaming = false;
        }
    }

    /// Another member is gone; its keys go with its lease.
    fn vanish(&mut self, member: &NodeName) {
        self.seen.peers.answers.insert(member.clone(), PeerAnswer::Silent);
        if let Some(replication) = &mut self.seen.replication {
            replication.standbys.retain(|standby| standby.name != *member);
        }
        let led = self.leads(member);
        if let Some(cluster) = self.cluster() {
            cluster.members.remove(member);
        }
        if led {
            self.free();
            self.at = self.at.after(self.seen.rules.ttl);
        }
    }

    /// Our PostgreSQL has crashed.
    fn crash(&mut self) {
        self.seen.postgres = Postgres::Stopped;
        self.seen.replication = None;
        if let Data::Present(control) = &mut self.seen.data {
            control.clean = false;
        }
        self.memory.expected_stop = false;
        self.memory.stopping = None;
        self.memory.start = Default::default();
    }

    /// Another member's PostgreSQL has crashed, and it gives the lead back.
    fn give_away(&mut self, member: &NodeName) {
        if self.leads(member) {
            self.seen.peers.answers.insert(member.clone(), PeerAnswer::Down);
            if let Some(key) = self.cluster().and_then(|cluster| cluster.members.get_mut(member)) {
                key.running = false;
                key.primary = false;
            }
            self.free();
        }
    }

    /// A person orders a switchover. Whoever leads has asked the candidates; for everybody else the lead is free already.
    fn switch(&mut self, candidate: Option<NodeName>, now: Moment) {
        let leader = match self.seen.cluster().map(|cluster| &cluster.leader) {
            Some(LeaderKey::Held { name, .. }) => Some(name.clone()),
            Some(LeaderKey::Free | LeaderKey::Spoiled { .. }) | None => None,
        };
        let revision = self.seen.cluster().map_or(0, |cluster| cluster.revision);
        let me = self.seen.me.clone();
        if let Some(cluster) = self.cluster() {
            cluster.failover = Some(Failover { leader: leader.clone(), candidate, due: Due::Now, revision });
        }
        self.seen.peers.asked = Some(now);
        self.memory.asked_for = Some((revision, now.before(self.seen.rules.peer_patience())));
        self.memory.asked_last = Some(now);
        if let Some(leader) = leader.filter(|leader| *leader != me) {
            self.give_away(&leader);
        }
    }

    /// etcd does not answer this member any more. A leader asks all others in time; `heard` would agree.
    fn lose_etcd(&mut self, now: Moment, heard: &BTreeSet<NodeName>) {
        if let Etcd::Seen { contact, .. } = &mut self.seen.etcd {
            *contact = Contact::Lost { since: now };
        }
        let Authority::Held { term, deadline } = self.seen.authority else { return };
        let listed = self.seen.cluster().and_then(|cluster| cluster.failsafe.clone()).unwrap_or_default();
        let may_ask = self.seen.rules.failsafe && listed.contains(&self.seen.me);
        let others: BTreeSet<NodeName> = listed.into_iter().filter(|name| *name != self.seen.me).collect();
        let agreed = may_ask && others.is_subset(heard);
        self.without_word = !agreed;
        if !may_ask {
            // It ends when its authority is about to.
            self.at = deadline.before(self.seen.rules.stop_budget()).max(now);
            return;
        }
        let asked = deadline.before(self.seen.rules.failsafe_ahead()).max(now);
        let accepted = others.intersection(heard).cloned().collect();
        self.seen.failsafe.round = Some(FailsafeRound { term, asked, over: true, accepted });
        self.memory.failsafe_asked = Some(asked);
        self.at = if agreed { asked } else { asked.after(self.seen.rules.race_pause()) };
    }
}
