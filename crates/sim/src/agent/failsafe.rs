//! Failsafe mode: a leader without etcd asks all others whether it may lead on, and what they answer.

use crate::agent::Pending;
use crate::clock::{SECOND, span};
use crate::config::Without;
use crate::etcd::{Request, Write};
use crate::event::{Event, ForAgent};
use crate::net::Party;
use crate::note;
use crate::postgres::Proc;
use crate::world::{NodeNo, World};
use ha::{Action, Authority, Contact, Etcd, FailsafePromise, FailsafeRound};
use std::collections::BTreeSet;
use types::{Moment, NodeName, Term};

impl World {
    /// Asks these nodes, all at once.
    pub fn ask_failsafe(&mut self, node: NodeNo, term: Term, peers: Vec<NodeNo>) {
        let (round, asked, life) = (self.token(), self.moment(node), self.nodes[node].agent.life);
        let agent = &mut self.nodes[node].agent;
        agent.failsafe_round = round;
        agent.seen.failsafe.round =
            Some(FailsafeRound { term, asked, over: false, accepted: BTreeSet::new() });
        for peer in peers {
            if let Some(at) = self.arrival(Party::Node(node), Party::Node(peer)) {
                self.queue.push(at, Event::FailsafeAsked { asker: node, life, round, peer });
            }
        }
        self.tell_agent(node, self.now + SECOND / 2, ForAgent::FailsafeOver { round });
    }

    /// A node is asked: it agrees when it neither leads nor takes the lead, and remembers it.
    pub fn failsafe_asked(&mut self, asker: NodeNo, life: u32, round: u64, peer: NodeNo) {
        let now = self.moment(peer);
        let caller = self.names[asker].clone();
        let host = &mut self.nodes[peer];
        let agent = &mut host.agent;
        let takes = |pending: &(Pending, Moment)| {
            matches!(pending.0, Pending::Act(Action::AcquireLeader | Action::AdoptLeader(_)))
        };
        let leads = agent.seen.authority != Authority::None || agent.pending.values().any(takes);
        let live = matches!(agent.seen.etcd, Etcd::Seen { contact: Contact::Live, .. });
        let replaced = live && agent.seen.other_leader().is_some_and(|leader| *leader != caller);
        let refuses = leads || replaced || host.postgres.proc == Proc::Primary || !agent.seen.rules.failsafe;
        if !agent.answers() || refuses {
            return;
        }
        if self.config.without != Some(Without::Promises) {
            let until = now.after(self.config.rules.ttl);
            agent.seen.failsafe.promise = Some(FailsafePromise { to: caller, until });
        }
        if let Some(at) = self.arrival(Party::Node(peer), Party::Node(asker)) {
            self.queue
                .push(at, Event::Agent { node: asker, life, what: ForAgent::FailsafeSaid { round, peer } });
        }
    }

    /// A node agreed.
    pub fn failsafe_said(&mut self, node: NodeNo, number: u64, peer: NodeNo) {
        let name = self.names[peer].clone();
        let agent = &mut self.nodes[node].agent;
        if agent.failsafe_round == number
            && let Some(round) = &mut agent.seen.failsafe.round
        {
            round.accepted.insert(name);
            self.turn_soon(node);
        }
    }

    /// Nobody is waited for any longer.
    pub fn failsafe_over(&mut self, node: NodeNo, number: u64) {
        let agent = &mut self.nodes[node].agent;
        if agent.failsafe_round == number
            && let Some(round) = &mut agent.seen.failsafe.round
        {
            round.over = true;
            self.turn_soon(node);
        }
    }

    /// All others agreed: the authority lasts longer, and the guard is told.
    pub fn extend_lead(&mut self, node: NodeNo, term: Term, until: Moment) -> bool {
        let agent = &mut self.nodes[node].agent;
        let Authority::Held { term: held, deadline } = agent.seen.authority else {
            return false;
        };
        if held != term {
            return false;
        }
        let deadline = deadline.max(until);
        agent.seen.authority = Authority::Held { term, deadline };
        agent.extended = Some((term, deadline));
        if self.nodes[node].guard.armed.is_some() {
            self.arm_guard(node, deadline);
        }
        self.bequeath(node);
        note!(self, Some(node), "all others agree: leads on until {deadline:?}");
        true
    }

    /// Whether a word given to another member forbids to lead now.
    pub fn is_promised(&self, node: NodeNo) -> bool {
        let promise = self.nodes[node].agent.seen.failsafe.promise.as_ref();
        promise.is_some_and(|promise| self.moment(node) < promise.until)
    }

    /// The leader lists all members in `/failsafe`.
    pub fn list_failsafe(&mut self, node: NodeNo) {
        let now = self.moment(node);
        let rest = span(self.config.rules.loop_wait);
        let agent = &self.nodes[node].agent;
        let (Some(term), Some(view)) = (agent.seen.leads(now), &agent.view) else {
            return;
        };
        let names: BTreeSet<NodeName> = view.members.keys().map(|no| self.names[*no].clone()).collect();
        // A write whose outcome is not known counts until a later one has made it void.
        let base = view.failsafe_modified;
        let seen = agent.failsafe_written.is_none_or(|(_, written)| base > written);
        let settled = seen && view.failsafe.as_ref() == Some(&names);
        let due = agent.failsafe_written.is_none_or(|(at, _)| self.now >= at + rest);
        if !agent.seen.rules.failsafe || agent.lost || !names.contains(&agent.seen.me) {
            return;
        }
        // What somebody else wrote before our term must have been seen.
        if view.revision < term.0 {
            return;
        }
        let before = view.failsafe.clone().unwrap_or_default();
        let host = &mut self.nodes[node];
        let agent = &mut host.agent;
        if settled {
            agent.seen.failsafe.listed.clear();
            host.kept = Some((term, names));
        } else if due {
            agent.failsafe_written = Some((self.now, base));
            agent.seen.failsafe.listed.extend(names.iter().cloned());
            host.kept = Some((term, agent.seen.failsafe.listed.union(&before).cloned().collect()));
            let write = Write::Failsafe { term, names, base };
            self.ask_etcd(node, Pending::Failsafe, Request::Write(write), SECOND);
        }
    }
}
