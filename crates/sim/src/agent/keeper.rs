//! The keeper: renews the lease beside the turns, and everything that goes between an agent and etcd.

use crate::agent::Pending;
use crate::clock::{SECOND, Time, span};
use crate::config::Without;
use crate::etcd::{Keys, Leader, Reply, Request};
use crate::event::{Event, ForAgent};
use crate::net::Party;
use crate::note;
use crate::world::{Legacy, NodeNo, World};
use ha::{Authority, Rules};
use std::rc::Rc;
use types::Moment;

impl World {
    /// The keeper looks again then.
    pub fn keeper_at(&mut self, node: NodeNo, at: Time) {
        let token = self.token();
        self.nodes[node].agent.keeper = token;
        self.tell_agent(node, at, ForAgent::Keeper { token });
    }

    /// Asks etcd something; the answer or the timeout comes as an event.
    pub fn ask_etcd(&mut self, node: NodeNo, pending: Pending, request: Request, patience: Time) {
        let now = self.moment(node);
        let agent = &mut self.nodes[node].agent;
        let (id, life) = (agent.id(), agent.life);
        agent.pending.insert(id, (pending, now));
        if let Some(at) = self.arrival(Party::Node(node), Party::Etcd) {
            self.queue.push(at, Event::Request { from: Party::Node(node), life, id, request });
        }
        let patience = self.nodes[node].clock.stretch(patience);
        self.tell_agent(node, self.now + patience, ForAgent::Timeout { id });
    }

    /// How long a renewal may take.
    fn patience(&self, node: NodeNo) -> Time {
        span(self.nodes[node].agent.seen.rules.renew_every()).clamp(SECOND / 3, 2 * SECOND)
    }

    /// Renews the lease, or takes a new one.
    pub fn keeper_ticks(&mut self, node: NodeNo, token: u64) {
        let now = self.moment(node);
        let agent = &self.nodes[node].agent;
        if agent.keeper != token {
            return;
        }
        if now.since(agent.last_turn) > agent.seen.rules.ttl {
            self.keeper_at(node, self.now + SECOND);
            return;
        }
        let patience = self.patience(node);
        match agent.lease {
            Some(lease) => self.ask_etcd(node, Pending::Renew, Request::Renew { lease }, patience),
            None => self.ask_etcd(node, Pending::Grant, Request::Grant, patience),
        }
    }

    /// No answer came.
    pub fn agent_waited_in_vain(&mut self, node: NodeNo, id: u64) {
        let Some((pending, _)) = self.nodes[node].agent.pending.remove(&id) else {
            return;
        };
        match pending {
            Pending::Grant | Pending::Renew => {
                self.contact_lost(node);
                self.keeper_at(node, self.now + SECOND / 5);
            }
            Pending::Read => self.contact_lost(node),
            Pending::Act(action) => {
                note!(self, Some(node), "  no answer: {action:?}");
                self.act_failed(node, &action);
            }
            Pending::Publish(_) => self.nodes[node].agent.published = None,
            Pending::Failsafe => {}
        }
    }

    fn contact_lost(&mut self, node: NodeNo) {
        if !self.nodes[node].agent.lost {
            self.nodes[node].agent.lost = true;
            self.nodes[node].agent.stale = true;
            note!(self, Some(node), "etcd does not answer");
            self.turn_soon(node);
        }
    }

    /// etcd answered.
    pub fn agent_is_answered(&mut self, node: NodeNo, id: u64, reply: Reply) {
        let Some((pending, sent)) = self.nodes[node].agent.pending.remove(&id) else {
            return;
        };
        let now = self.moment(node);
        self.nodes[node].agent.heard = now;
        match (pending, reply) {
            (Pending::Grant, Reply::Granted(lease)) => {
                let agent = &mut self.nodes[node].agent;
                agent.lease = Some(lease);
                agent.stale = true;
                self.renewed(node, sent, now);
                self.read(node);
            }
            (Pending::Renew, Reply::Renewed { alive: false, .. }) => self.lease_is_lost(node),
            (Pending::Renew, Reply::Renewed { alive: true, leader, revision }) => {
                self.renewed(node, sent, now);
                self.check_leader(node, leader, revision);
                let agent = &self.nodes[node].agent;
                if agent.lost || agent.view.as_ref().is_none_or(|view| view.revision < revision) {
                    self.read(node);
                }
            }
            (Pending::Read, Reply::Read(keys)) => {
                self.nodes[node].agent.lost = false;
                self.nodes[node].agent.stale = true;
                self.agent_sees(node, keys);
                self.turn_soon(node);
            }
            (Pending::Act(action), Reply::Written { ok, revision }) => {
                self.act_answered(node, action, ok, revision)
            }
            (Pending::Publish(member), Reply::Written { ok: true, .. }) => {
                self.nodes[node].agent.published = Some((member, self.now));
            }
            (Pending::Publish(_), _) => self.nodes[node].agent.published = None,
            (Pending::Grant | Pending::Renew | Pending::Read | Pending::Act(_) | Pending::Failsafe, _) => {}
        }
    }

    fn read(&mut self, node: NodeNo) {
        let patience = self.patience(node);
        self.ask_etcd(node, Pending::Read, Request::Read, patience);
    }

    /// A renewal succeeded: the deadline moves, and the guard is told.
    fn renewed(&mut self, node: NodeNo, sent: Moment, now: Moment) {
        let counted = if self.config.without == Some(Without::SentTime) { now } else { sent };
        let host = &mut self.nodes[node];
        host.agent.renewed = host.agent.renewed.max(counted);
        let next = self.now
            + span(host.agent.seen.rules.renew_every())
                .saturating_sub(1000 * now.since(sent).as_millis() as Time);
        self.keeper_at(node, next.max(self.now + SECOND / 10));
        self.bequeath(node);
    }

    /// The end of the authority that the last renewal gives.
    pub fn deadline(&self, node: NodeNo) -> Moment {
        let agent = &self.nodes[node].agent;
        let ttl = agent.seen.rules.ttl;
        let end = agent.renewed.after(ttl);
        if self.config.without == Some(Without::SentTime) { end } else { end.before(Rules::margin(ttl)) }
    }

    /// Leaves lease and authority to the next agent.
    pub fn bequeath(&mut self, node: NodeNo) {
        let agent = &self.nodes[node].agent;
        self.nodes[node].legacy =
            agent.lease.map(|lease| Legacy { lease, sent: agent.renewed, authority: agent.seen.authority });
    }

    /// The renewal also read the leader key.
    fn check_leader(&mut self, node: NodeNo, leader: Option<Leader>, revision: i64) {
        let Authority::Held { term, .. } = self.nodes[node].agent.seen.authority else {
            return;
        };
        if revision < term.0 {
            return;
        }
        let lease = self.nodes[node].agent.lease;
        let ours = leader.is_some_and(|l| l.node == node && l.term == term && Some(l.lease) == lease);
        if ours {
            let extended = self.nodes[node].agent.extended.filter(|(of, _)| *of == term);
            let deadline = extended.map_or(self.deadline(node), |(_, until)| until.max(self.deadline(node)));
            self.nodes[node].agent.seen.authority = Authority::Held { term, deadline };
            if self.nodes[node].guard.armed.is_some() {
                self.arm_guard(node, deadline);
            }
            self.look_at_address(node);
        } else {
            note!(self, Some(node), "the leader key is no longer ours");
            self.nodes[node].agent.seen.authority = Authority::None;
            self.look_at_address(node);
            self.turn_soon(node);
        }
        self.bequeath(node);
    }

    fn lease_is_lost(&mut self, node: NodeNo) {
        note!(self, Some(node), "our lease is gone");
        let agent = &mut self.nodes[node].agent;
        agent.lease = None;
        agent.published = None;
        agent.seen.authority = Authority::None;
        agent.stale = true;
        self.nodes[node].legacy = None;
        self.look_at_address(node);
        self.keeper_at(node, self.now);
        self.turn_soon(node);
    }

    /// A newer state of the keys.
    pub fn agent_sees(&mut self, node: NodeNo, keys: Rc<Keys>) {
        let agent = &mut self.nodes[node].agent;
        if agent.view.as_ref().is_none_or(|view| view.revision < keys.revision) {
            agent.view = Some(keys);
            agent.stale = true;
            self.turn_soon(node);
        }
    }
}
