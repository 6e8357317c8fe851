//! Before a switchover in failsafe mode: whoever takes over must know that nobody leads on without etcd.
//!
//! A member that has run for less than a ttl may have agreed to that in an earlier life, and takes no lead while no other member denies it
//! (`standing::failsafe`); the leader itself cannot once it has stopped. Where all are as young, as after an upgrade of all agents, the
//! cluster would be without a primary for the rest of that ttl. So the leader waits for it, and writes go on.

use crate::decision::Turn;
use crate::observation::Cluster;
use crate::peers::PeerAnswer;

pub(super) const WAITS: &str = "a switchover was asked for, and no other member knows yet that nobody leads on without etcd, as all have run for less \
     than a ttl: it waits for that, and writes go on";

/// Whether members answered, and none of them could deny that somebody leads on without etcd.
pub(super) fn is_lacking(turn: &Turn<'_>, cluster: &Cluster) -> bool {
    let listed = cluster.failsafe.iter().flatten().filter(|name| **name != turn.seen.me);
    let answers = listed.filter_map(|name| turn.seen.peers.answers.get(name));
    let mut active = answers.filter_map(|answer| match answer {
        PeerAnswer::Said(facts) => Some(facts.failsafe_active),
        PeerAnswer::Silent | PeerAnswer::Down => None,
    });
    turn.seen.rules.failsafe && active.next() == Some(true) && active.all(|active| active)
}
