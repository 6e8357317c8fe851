//! etcd's side of every connection: requests in, replies and watch events out.

use crate::clock::span;
use crate::config::Without;
use crate::etcd::{Keys, Reply, Request, Write};
use crate::event::{Event, ForAgent};
use crate::net::Party;
use crate::note;
use crate::world::{NodeNo, World};
use std::rc::Rc;

impl World {
    /// A request reaches etcd.
    pub fn etcd_hears(&mut self, from: Party, life: u32, id: u64, request: Request) {
        let Party::Node(node) = from else {
            return;
        };
        if !self.etcd.up {
            return;
        }
        if let Some(stale) = self.chaos.deposed[node].clone() {
            self.deposed_answers(node, life, id, &request, &stale);
            return;
        }
        let reply = match request {
            Request::Grant => {
                let ttl = span(self.config.rules.ttl);
                let lease = self.etcd.grant(self.now, ttl);
                self.queue.push(self.now + ttl, Event::LeaseEnds { lease });
                Reply::Granted(lease)
            }
            Request::Renew { lease } => Reply::Renewed {
                alive: self.etcd.keep_alive(self.now, lease),
                leader: self.etcd.keys.leader,
                revision: self.etcd.keys.revision,
            },
            Request::Read => {
                self.watches[node].1 = false;
                Reply::Read(Rc::new(self.etcd.keys.clone()))
            }
            Request::Write(write) => {
                let before = self.etcd.keys.leader;
                let reply = self.etcd.write(node, &write);
                if before != self.etcd.keys.leader {
                    note!(self, None, "the leader key: {:?} -> {:?}", before, self.etcd.keys.leader);
                }
                if let Reply::Written { ok: true, .. } = &reply {
                    self.written(node, &write);
                }
                reply
            }
        };
        if let Some(at) = self.arrival(Party::Etcd, from) {
            self.queue.push(at, Event::Agent { node, life, what: ForAgent::Reply { id, reply } });
        }
    }

    /// A member of etcd that was deposed answers keep-alives from what it remembers. A renewal is that and a read that needs the
    /// others, which does not come back; only who leaves the read out is content.
    fn deposed_answers(&mut self, node: NodeNo, life: u32, id: u64, request: &Request, stale: &Keys) {
        let Request::Renew { .. } = request else {
            return;
        };
        let content = self.config.without == Some(Without::ProvenRenewals);
        if let Some(at) = self.arrival(Party::Etcd, Party::Node(node)).filter(|_| content) {
            let (leader, revision) = (stale.leader, stale.revision);
            let reply = Reply::Renewed { alive: true, leader, revision };
            self.queue.push(at, Event::Agent { node, life, what: ForAgent::Reply { id, reply } });
        }
    }

    /// A transaction that the laws want to know of.
    fn written(&mut self, node: NodeNo, write: &Write) {
        match write {
            Write::Acquire { .. } => self.note_acceptance(node),
            Write::PutSync { .. } => self.promises_begin(node),
            Write::Announce { .. } => self.announced(node),
            Write::Claim { .. } => self.nodes[node].postgres.claimed = self.etcd.keys.claimed,
            _ => {}
        }
    }

    /// A lease may have run out.
    pub fn lease_ends(&mut self, lease: u64) {
        let before = self.etcd.keys.leader;
        if let Some(again) = self.etcd.expire(self.now, lease) {
            self.queue.push(again.max(self.now + 1000), Event::LeaseEnds { lease });
        }
        if before != self.etcd.keys.leader {
            note!(self, None, "the leader's lease has run out: {before:?}");
        }
    }

    /// etcd has a leader again.
    pub fn etcd_is_back(&mut self) {
        if !self.etcd.up && self.now >= self.chaos.etcd_until {
            self.etcd.up = true;
            self.etcd.restart_leases(self.now);
            note!(self, None, "etcd is back");
        }
    }

    /// Tells every watch; a watch that loses an event is broken until its agent reads again.
    pub fn broadcast(&mut self) {
        let keys = Rc::new(self.etcd.keys.clone());
        for node in 0..self.nodes.len() {
            let (last, broken) = self.watches[node];
            if broken || !self.nodes[node].agent.alive || self.chaos.deposed[node].is_some() {
                self.watches[node].1 = true;
                continue;
            }
            match self.arrival(Party::Etcd, Party::Node(node)) {
                Some(at) => {
                    let at = at.max(last + 1);
                    self.watches[node].0 = at;
                    self.tell_agent(node, at, ForAgent::Watch { keys: Rc::clone(&keys) });
                }
                None => self.watches[node].1 = true,
            }
        }
        if let Some(at) = self.arrival(Party::Etcd, Party::Router) {
            self.router_watch = at.max(self.router_watch + 1);
            self.queue.push(self.router_watch, Event::RouterHears { keys });
        }
    }
}
