//! What the other members answer when they are asked.

use std::collections::BTreeMap;
use types::{Lsn, Moment, NodeName, Timeline};

/// The answers to the last question put to the peers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Peers {
    /// When it was asked; `None` before the first time and while answers are awaited.
    pub asked: Option<Moment>,
    pub answers: BTreeMap<NodeName, PeerAnswer>,
}

/// What one peer answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum PeerAnswer {
    Silent,
    /// Its agent answers that its PostgreSQL does not run.
    Down,
    Said(PeerFacts),
}

/// What a peer says of itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PeerFacts {
    pub primary: bool,
    pub timeline: Option<Timeline>,
    pub lsn: Lsn,
    pub nofailover: bool,
    pub failover_priority: i64,
    /// How far it has replayed, when it says so.
    pub replayed: Option<Lsn>,
    /// It can be handed the last WAL of a crashed primary.
    pub takes_wal: bool,
    /// Its guard or watchdog cannot protect a lead.
    pub unprotected: bool,
    /// Its disk is full, hangs or fails.
    pub sick: bool,
    /// It leads on without etcd by the word of the others, or gave its word to one that does, or began less than a ttl ago.
    pub failsafe_active: bool,
}
