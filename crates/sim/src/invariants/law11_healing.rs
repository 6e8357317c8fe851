//! Law 11: once faults stop and a majority of etcd and one healthy node are there, a writable primary exists within a bounded time,
//! and every member follows it; unless a person has to decide who may lead (see `must_wait`).
//!
//! Guards against the failover that never comes, the replica that waits for ever, and the two members that wait for each other.

use crate::clock::{SECOND, Time, span};
use crate::event::Event;
use crate::net::Trouble;
use crate::postgres::{DiskTrouble, Proc};
use crate::world::{NodeNo, World};
use types::{Lsn, StandbyNames};

/// So long it must stay healthy.
const STEADY: Time = 4 * SECOND;

/// Since when the cluster is healthy, and since when something goes on that a sound leader ends.
#[derive(Debug, Default)]
pub struct Healing {
    since: Option<Time>,
    unserved: Option<Time>,
    hung: Option<Time>,
    /// It ended with nobody who may lead without a person's word.
    pub waits: bool,
}

impl World {
    /// Once a second: in the health phase, is everybody where he should be?
    pub fn inspect(&mut self) {
        self.queue.push(self.now + SECOND, Event::Inspect);
        self.law_of_sound_leader();
        let Some(began) = self.healing else {
            return;
        };
        self.laws.looked(11);
        match self.ailment() {
            None => {
                let since = *self.laws.healing.since.get_or_insert(self.now);
                self.done = self.now - since >= STEADY;
            }
            Some(ailment) => {
                self.laws.healing.since = None;
                if self.now - began > self.config.bound() && self.must_wait() {
                    self.laws.healing.waits = true;
                    self.done = true;
                } else if self.now - began > self.config.bound() {
                    let after = (self.now - began) / SECOND;
                    self.laws.breaks(11, format!("{after} s after the last fault: {ailment}"));
                }
            }
        }
    }

    /// While faults go on: a leader in touch with etcd does not let commits wait for ever for a standby that is not there, and not for
    /// ever for a PostgreSQL that hangs.
    fn law_of_sound_leader(&mut self) {
        let leader = self.etcd.keys.leader.map(|leader| leader.node).filter(|node| self.is_sound(*node));
        let unserved = leader.filter(|node| self.waits_in_vain(*node));
        let hung = leader.filter(|node| self.hangs_needlessly(*node));
        let rules = &self.config.rules;
        let turns = span(rules.loop_wait * 4 + rules.retry_timeout * 2 + rules.ttl);
        let mut too_long = None;
        let healing = &mut self.laws.healing;
        healing.unserved = unserved.map(|_| healing.unserved.unwrap_or(self.now));
        healing.hung = hung.map(|_| healing.hung.unwrap_or(self.now));
        let patience = self.config.walsender_patience + turns + 5 * SECOND;
        if healing.unserved.is_some_and(|since| self.now - since > patience) {
            too_long = unserved.map(|node| (node, "lets commits wait for standbys that are not there"));
        }
        let patience = span(rules.unresponsive_limit() + rules.stop_budget() * 2) + turns + 5 * SECOND;
        if healing.hung.is_some_and(|since| self.now - since > patience) {
            too_long = hung.map(|node| (node, "leads with a PostgreSQL that hangs, and another could lead"));
        }
        if let Some((node, what)) = too_long {
            self.laws.breaks(11, format!("{} {what}", self.names[node]));
        }
    }

    /// Its agent works and talks to etcd, and nobody paused the cluster.
    fn is_sound(&self, node: NodeNo) -> bool {
        let Trouble { cut_up, cut_down, loss, slow } = self.net.etcd[node];
        let host = &self.nodes[node];
        host.agent.answers()
            && host.guard.there
            && host.agent.orders.is_empty()
            && host.postgres.trouble == DiskTrouble::None
            && self.chaos.deposed[node].is_none()
            && self.etcd.up
            && !self.etcd.keys.paused
            && !self.etcd.keys.follows_remote
            && self.etcd.keys.failover.is_none()
            && !cut_up
            && !cut_down
            && loss == 0
            && slow == 0
    }

    /// Fewer of the named standbys are connected than commits wait for, and nobody wanted it so.
    fn waits_in_vain(&self, node: NodeNo) -> bool {
        let host = &self.nodes[node];
        if !host.postgres.accepts_writes() || self.etcd.keys.synchronous.strict {
            return false;
        }
        match &host.postgres.names.effective {
            StandbyNames::First { count, names } | StandbyNames::Any { count, names } => {
                let there = self.followers(node).filter(|no| names.contains(&self.names[*no])).count();
                there < *count
            }
            StandbyNames::Nobody | StandbyNames::Everybody { .. } | StandbyNames::Other(_) => false,
        }
    }

    /// It hangs, and there is a standby that everybody can see to be fit.
    fn hangs_needlessly(&self, node: NodeNo) -> bool {
        let host = &self.nodes[node];
        let hangs = host.postgres.proc == Proc::Primary && host.postgres.hangs.is_some();
        let keys = &self.etcd.keys;
        let near = |lsn: Lsn| {
            keys.optime
                .is_none_or(|optime| optime.bytes_since(lsn) <= self.config.rules.maximum_lag_on_failover)
        };
        let listed = |no: &NodeNo| {
            let sync = keys.sync.as_ref().filter(|_| keys.synchronous.mode != ha::SyncMode::Off);
            sync.is_none_or(|key| key.lists(&self.names[*no]))
        };
        let fit = |no: &NodeNo| {
            let member = keys.members.get(no).map(|(member, _)| member);
            let sees = member.is_some_and(|member| member.running && member.lsn.is_some_and(near));
            *no != node && sees && self.is_sound(*no) && listed(no) && !self.nodes[*no].tags.nofailover()
        };
        hangs && (0..self.nodes.len()).any(|no| fit(&no))
    }

    fn ailment(&self) -> Option<String> {
        let Some(primary) = self.nodes.iter().position(|node| node.postgres.accepts_writes()) else {
            return Some("there is no primary".to_owned());
        };
        let name = &self.names[primary];
        if self.etcd.keys.leader.is_none_or(|leader| leader.node != primary) {
            return Some(format!("{name} is the primary and does not hold the lead"));
        }
        if self.routed() != Some(primary) {
            return Some(format!("{name} leads and the router does not send writes there"));
        }
        for (no, node) in self.nodes.iter().enumerate().filter(|(no, _)| *no != primary) {
            if !self.is_fed_by(no, primary) {
                let words = &node.agent.last_words;
                return Some(format!(
                    "{} does not follow {name}: {:?} {words}",
                    self.names[no], node.postgres.proc
                ));
            }
        }
        None
    }

    /// Whether what this standby gets comes from the primary: at once, or through others where its tags want that.
    fn is_fed_by(&self, no: NodeNo, primary: NodeNo) -> bool {
        let mut at = no;
        for _ in 0..self.nodes.len() {
            let Proc::Standby { upstream: Some(from), streaming: true, .. } = self.nodes[at].postgres.proc
            else {
                return false;
            };
            if from == primary {
                return true;
            }
            if self.nodes[at].tags.replicatefrom() != Some(self.names[from].as_str()) {
                return false;
            }
            at = from;
        }
        false
    }
}
