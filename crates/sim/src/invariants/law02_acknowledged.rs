//! Law 2: in synchronous or quorum mode, a commit acknowledged to a client is on every later primary.
//!
//! Guards against the election of a standby that was not waited for, and of one that was listed too early. A person who orders
//! a failover to an asynchronous standby, or switches the mode off, takes the promise back.

use crate::world::{NodeNo, World};
use types::Lsn;

/// At most so many acknowledged commits are remembered.
const KEPT: usize = 4000;

/// What clients were promised.
#[derive(Debug, Default)]
pub struct Promised {
    writes: Vec<(u32, Lsn)>,
    /// The node that a person named as the next leader, whatever it may lack.
    accepted: Option<NodeNo>,
}

impl World {
    /// A commit was acknowledged by this node.
    pub fn promised(&mut self, node: NodeNo, write: (u32, Lsn)) {
        let keys = &self.etcd.keys;
        let on = keys.synchronous.mode != ha::SyncMode::Off;
        let ours = keys.sync.as_ref().is_some_and(|key| key.is_led_by(&self.names[node]));
        let promised = &mut self.laws.promised;
        if on && ours && promised.writes.len() < KEPT {
            promised.writes.push(write);
        }
    }

    /// The mode is switched off: nothing is promised any more.
    pub fn promises_end(&mut self) {
        self.laws.promised.writes.clear();
    }

    /// A node goes for the lead; perhaps a person wanted it to, at any price.
    pub fn note_acceptance(&mut self, node: NodeNo) {
        let wish = self.nodes[node].agent.view.as_ref().and_then(|keys| keys.failover.as_ref());
        let named = wish
            .is_some_and(|wish| wish.leader.is_none() && wish.candidate.as_ref() == Some(&self.names[node]));
        self.laws.promised.accepted = named.then_some(node);
    }

    /// A node has become a primary: it has everything that was acknowledged.
    pub fn law_of_acknowledged(&mut self, node: NodeNo) {
        let Some(database) = self.nodes[node].postgres.disk.database() else {
            return;
        };
        self.laws.looked(2);
        let promised = &mut self.laws.promised;
        let before = promised.writes.len();
        promised.writes.retain(|write| database.wal.has(*write));
        let lost = before - promised.writes.len();
        if lost > 0 && promised.accepted != Some(node) {
            let what = format!("{} is a primary and lacks {lost} acknowledged commits", self.names[node]);
            self.laws.breaks(2, what);
        }
    }
}
