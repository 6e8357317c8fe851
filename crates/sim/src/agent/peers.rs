//! The questions an agent puts to others, and what it answers.

use crate::clock::SECOND;
use crate::event::{Event, ForAgent};
use crate::net::Party;
use crate::postgres::Proc;
use crate::world::{NodeNo, World};
use ha::{LeaderHistory, PeerAnswer, PeerFacts, Peers, Upstream};
use std::collections::BTreeMap;
use types::{History, Lsn, Moment, NodeName};

/// A round of questions under way.
#[derive(Debug)]
pub struct Round {
    number: u64,
    asked: Moment,
    answers: BTreeMap<NodeName, PeerAnswer>,
}

impl World {
    /// Asks these nodes, all at once.
    pub fn ask_peers(&mut self, node: NodeNo, peers: Vec<NodeNo>) {
        let (round, asked, life) = (self.token(), self.moment(node), self.nodes[node].agent.life);
        let answers = peers.iter().map(|peer| (self.names[*peer].clone(), PeerAnswer::Silent)).collect();
        self.nodes[node].agent.round = Some(Round { number: round, asked, answers });
        for peer in peers {
            if let Some(at) = self.arrival(Party::Node(node), Party::Node(peer)) {
                self.queue.push(at, Event::PeerAsked { asker: node, life, round, peer });
            }
        }
        self.tell_agent(node, self.now + SECOND / 2, ForAgent::PeersOver { round });
    }

    /// A node is asked.
    pub fn peer_asked(&mut self, asker: NodeNo, life: u32, round: u64, peer: NodeNo) {
        if !self.nodes[peer].agent.answers() {
            return;
        }
        let facts = self.facts(peer);
        if let Some(at) = self.arrival(Party::Node(peer), Party::Node(asker)) {
            let what = ForAgent::PeerSaid { round, peer, facts };
            self.queue.push(at, Event::Agent { node: asker, life, what });
        }
    }

    fn facts(&self, node: NodeNo) -> PeerFacts {
        let host = &self.nodes[node];
        let runs = matches!(host.postgres.proc, Proc::Primary | Proc::Standby { .. });
        let database = host.postgres.disk.database().filter(|_| runs);
        PeerFacts {
            primary: host.postgres.proc == Proc::Primary,
            timeline: database.map(|database| database.wal.timeline()),
            lsn: database.map_or(Lsn(0), |database| database.wal.end()),
            nofailover: host.tags.nofailover(),
            failover_priority: host.tags.failover_priority(),
            replayed: database.map(|database| database.wal.end()),
            takes_wal: true,
            unprotected: !host.guard.there,
            sick: host.agent.seen.sick_disk(self.moment(node)).is_some(),
            failsafe_active: self.is_extended(node),
        }
    }

    /// Whether a node leads on without etcd or asks whether it may, or gave its word to another, or may have forgotten that it did.
    fn is_extended(&self, node: NodeNo) -> bool {
        let agent = &self.nodes[node].agent;
        let now = self.moment(node);
        let asking = agent.seen.failsafe.round.as_ref().is_some_and(|round| !round.over);
        let booted = agent.seen.rules.failsafe && now < agent.seen.failsafe.began.after(agent.seen.rules.ttl);
        booted || self.is_promised(node) || asking || agent.extended.is_some_and(|(_, until)| now < until)
    }

    /// A peer answered.
    pub fn peer_said(&mut self, node: NodeNo, number: u64, peer: NodeNo, facts: PeerFacts) {
        let name = self.names[peer].clone();
        let Some(round) = self.nodes[node].agent.round.as_mut().filter(|round| round.number == number) else {
            return;
        };
        round.answers.insert(name, PeerAnswer::Said(facts));
        if round.answers.values().all(|answer| *answer != PeerAnswer::Silent) {
            self.peers_over(node, number);
        }
    }

    /// All answers are in, or time is up.
    pub fn peers_over(&mut self, node: NodeNo, number: u64) {
        let agent = &mut self.nodes[node].agent;
        if let Some(round) = agent.round.take_if(|round| round.number == number) {
            agent.told.clear();
            for (name, answer) in &round.answers {
                if let PeerAnswer::Said(facts) = answer {
                    agent.told.insert(name.clone(), facts.clone());
                }
            }
            agent.seen.peers = Peers { asked: Some(round.asked), answers: round.answers };
            self.turn_soon(node);
        }
    }

    /// Asks the leader for its timeline history.
    pub fn ask_history(&mut self, node: NodeNo, leader: NodeNo) {
        let life = self.nodes[node].agent.life;
        if let Some(at) = self.arrival(Party::Node(node), Party::Node(leader)) {
            self.queue.push(at, Event::HistoryAsked { asker: node, life, leader });
        }
    }

    /// The leader's PostgreSQL is asked for its history.
    pub fn history_asked(&mut self, asker: NodeNo, life: u32, leader: NodeNo) {
        let postgres = &self.nodes[leader].postgres;
        let Some(history) = postgres.disk.database().filter(|_| postgres.serves()).map(|d| d.wal.history())
        else {
            return;
        };
        if let Some(at) = self.arrival(Party::Node(leader), Party::Node(asker)) {
            let what = ForAgent::History { leader, history };
            self.queue.push(at, Event::Agent { node: asker, life, what });
        }
    }

    /// The leader's history is known.
    pub fn history_said(&mut self, node: NodeNo, leader: NodeNo, history: History) {
        let of = Upstream::Member(self.names[leader].clone());
        let asked = self.moment(node);
        self.nodes[node].agent.seen.leader_history = LeaderHistory::Known { of, history, asked };
        self.turn_soon(node);
    }
}
