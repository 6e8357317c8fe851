//! What happens, and when. Events of the same moment happen in the order in which they were announced.

use crate::clock::Time;
use crate::etcd::{Keys, Reply, Request};
use crate::faults::Undo;
use crate::net::Party;
use crate::world::NodeNo;
use ha::PeerFacts;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::rc::Rc;
use types::{History, Moment};

/// Something that happens in the world.
#[derive(Debug)]
pub enum Event {
    /// Something for the agent of a node, in this life of it.
    Agent { node: NodeNo, life: u32, what: ForAgent },
    /// A request reaches etcd.
    Request { from: Party, life: u32, id: u64, request: Request },
    /// A lease of etcd may have run out.
    LeaseEnds { lease: u64 },
    /// Nobody can reach etcd before this.
    EtcdGone { until: Time },
    /// etcd has elected a leader again.
    EtcdBack,
    /// A question of a peer reaches a node.
    PeerAsked { asker: NodeNo, life: u32, round: u64, peer: NodeNo },
    /// A question whether its asker may lead on without etcd reaches a node; who agrees does not race for a ttl.
    FailsafeAsked { asker: NodeNo, life: u32, round: u64, peer: NodeNo },
    /// A question for the timeline history reaches a node.
    HistoryAsked { asker: NodeNo, life: u32, leader: NodeNo },
    /// PostgreSQL of a node has come as far as it was on its way to.
    Postgres { node: NodeNo, token: u64 },
    /// The guard of a node looks at its deadline.
    Guard { node: NodeNo, deadline: Moment },
    /// The guard's kill has taken effect.
    Killed { node: NodeNo, token: u64 },
    /// The lifetime of the virtual address of a node may be over.
    AddressEnds { node: NodeNo, serial: u64 },
    /// PostgreSQL of a node dies in this life of it.
    Crash { node: NodeNo, starts: u32 },
    /// All standbys take what their upstream has.
    Replicate,
    /// The router hears of a change.
    RouterHears { keys: Rc<Keys> },
    /// A client writes.
    Write,
    /// The processes of a primary take up new synchronous standbys, or the probe shows them.
    Names { node: NodeNo, life: u32, shown: bool },
    /// The next fault begins.
    Fault,
    /// A fault ends.
    Undo { undo: Undo, serial: u64 },
    /// The agent of a node is started by its supervisor.
    StartAgent { node: NodeNo, token: u64 },
    /// The members are looked at as a whole.
    Inspect,
}

/// What an agent is woken by.
#[derive(Debug)]
pub enum ForAgent {
    Turn {
        token: u64,
    },
    Keeper {
        token: u64,
    },
    Reply {
        id: u64,
        reply: Reply,
    },
    Timeout {
        id: u64,
    },
    Watch {
        keys: Rc<Keys>,
    },
    /// Between the look at the clock and the signal.
    Door {
        token: u64,
    },
    PeerSaid {
        round: u64,
        peer: NodeNo,
        facts: PeerFacts,
    },
    PeersOver {
        round: u64,
    },
    FailsafeSaid {
        round: u64,
        peer: NodeNo,
    },
    FailsafeOver {
        round: u64,
    },
    History {
        leader: NodeNo,
        history: History,
    },
    JobDone {
        token: u64,
        ok: bool,
    },
    /// PostgreSQL changed.
    PostgresChanged,
    GuardReady,
    /// The right to the virtual address is looked at.
    Address {
        look: u64,
    },
}

#[derive(Debug)]
struct Entry {
    at: Time,
    order: u64,
    event: Event,
}

impl PartialEq for Entry {
    fn eq(&self, other: &Entry) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Entry) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Entry) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What is still to happen.
#[derive(Default, Debug)]
pub struct Queue {
    heap: BinaryHeap<Reverse<Entry>>,
    count: u64,
}

impl Queue {
    /// This happens then.
    pub fn push(&mut self, at: Time, event: Event) {
        self.count += 1;
        self.heap.push(Reverse(Entry { at, order: self.count, event }));
    }

    /// What happens next.
    pub fn pop(&mut self) -> Option<(Time, Event)> {
        self.heap.pop().map(|Reverse(entry)| (entry.at, entry.event))
    }
}
