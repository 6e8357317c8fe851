//! Law 11: once faults stop and a majority of etcd and one healthy node are there, a writable primary exists within a bounded time,
//! and every member follows it.
//!
//! Guards against the failover that never comes, the replica that waits for ever, and the two members that wait for each other.

use crate::clock::{SECOND, Time};
use crate::event::Event;
use crate::postgres::Proc;
use crate::world::{NodeNo, World};

/// So long it must stay healthy.
const STEADY: Time = 4 * SECOND;

/// Since when the cluster is healthy.
#[derive(Debug, Default)]
pub struct Healing {
    since: Option<Time>,
}

impl World {
    /// Once a second: in the health phase, is everybody where he should be?
    pub fn inspect(&mut self) {
        self.queue.push(self.now + SECOND, Event::Inspect);
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
                if self.now - began > self.config.bound() {
                    let after = (self.now - began) / SECOND;
                    self.laws.breaks(11, format!("{after} s after the last fault: {ailment}"));
                }
            }
        }
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
