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
    /// How many there were.
    pub count: u64,
    /// The node that a person named as the next leader, whatever it may lack, until it has led or another leads.
    accepted: Option<NodeNo>,
    /// `/sync` was written since commits waited for nobody: from then on it counts.
    pub(super) begun: bool,
}

impl World {
    /// A commit was acknowledged by this node.
    pub fn promised(&mut self, node: NodeNo, write: (u32, Lsn)) {
        let ours = self.etcd.keys.sync.as_ref().is_some_and(|key| key.is_led_by(&self.names[node]));
        let promised = &mut self.laws.promised;
        if !promised.begun || !ours {
            return;
        }
        promised.count += 1;
        if promised.writes.len() < KEPT {
            promised.writes.push(write);
        }
    }

    /// A leader wrote `/sync`: with the mode on, that is a promise. Of one that a person named, whatever it may lack, it says from now on
    /// that it has everything.
    pub fn promises_begin(&mut self, node: NodeNo) {
        if self.laws.promised.accepted == Some(node)
            && let Some(database) = self.nodes[node].postgres.disk.database()
        {
            self.laws.promised.writes.retain(|write| database.wal.has(*write));
        }
        let keys = &self.etcd.keys;
        self.laws.promised.begun |= keys.synchronous.mode != ha::SyncMode::Off && !keys.follows_remote;
    }

    /// The mode is switched off, or the cluster follows a remote one: nothing is promised any more, and what `/sync` says is of the
    /// past until a leader writes it again.
    pub fn promises_end(&mut self) {
        self.laws.promised.writes.clear();
        self.laws.promised.begun = false;
    }

    /// A node took the lead; perhaps a person wanted it to, at any price.
    pub fn note_acceptance(&mut self, node: NodeNo) {
        let wish = self.nodes[node].agent.view.as_ref().and_then(|keys| keys.failover.as_ref());
        let named = wish
            .is_some_and(|wish| wish.leader.is_none() && wish.candidate.as_ref() == Some(&self.names[node]));
        let before = self.laws.promised.accepted == Some(node);
        self.laws.promised.accepted = (named || before).then_some(node);
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
        let accepted = promised.accepted.take_if(|accepted| *accepted == node).is_some();
        if lost > 0 && !accepted {
            let what = format!("{} is a primary and lacks {lost} acknowledged commits", self.names[node]);
            self.laws.breaks(2, what);
        }
    }
}
