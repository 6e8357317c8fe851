//! The router and the clients behind it: traffic goes to the member that announced it accepts writes in the newest term. Their session is one in a
//! pooler where the nodes have one: it outlives a restart of PostgreSQL.

use crate::clock::{SECOND, Time, span};
use crate::etcd::Keys;
use crate::event::Event;
use crate::net::Party;
use crate::world::{NodeNo, World};
use std::rc::Rc;
use types::{Lsn, ROUTER_BELIEVES_AGENT, ROUTER_LEASE, Term};

/// At most so many acknowledged writes are remembered.
const WRITES_KEPT: usize = 4000;
/// So long the router believes what it last heard from etcd.
const PATIENCE: Time = 2 * SECOND;
/// At most so many clients wait; the others give up.
const WAITING_MOST: usize = 200;

/// What the router knows, and what its clients were told.
#[derive(Debug, Default)]
pub struct Router {
    keys: Option<Rc<Keys>>,
    /// The newest term it has heard of.
    newest: Option<Term>,
    /// Where it last heard that nobody leads.
    over: Option<Term>,
    /// When the leader's agent last said that its PostgreSQL accepts writes, and in which term.
    yes: Option<(Term, Time)>,
    /// The term whose holder was seen to begin to accept writes, or said it since: that it is in etcd may be left from before its PostgreSQL stopped.
    sure: Option<Term>,
    /// It hears from etcd again, and what it hears first has been so for a while.
    pub resumes: bool,
    /// The term whose holder says that it does not lead in it.
    denied: Option<Term>,
    /// Until when the agents do not answer the router.
    deaf_until: Time,
    pub acknowledged: u64,
    pub refused: u64,
    /// Acknowledged writes: the branch and the end of each.
    pub writes: Vec<(u32, Lsn)>,
    /// Commits that wait for synchronous standbys.
    pub waiting: Vec<Waiting>,
    /// Where a session is left open, and the term in which it was begun.
    session: Option<(NodeNo, Term)>,
    /// Since when etcd is out of reach.
    alone: Option<Time>,
}

/// A client that waits for its commit.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub node: NodeNo,
    /// The life of PostgreSQL in which it was written.
    pub starts: u32,
    pub write: (u32, Lsn),
}

impl Router {
    /// Where writes go.
    #[must_use]
    pub fn target(&self) -> Option<(&types::NodeName, Term)> {
        let keys = self.keys.as_ref()?;
        let leader = keys.leader?;
        let writable = keys.writable.as_ref()?;
        let member = keys.members.get(&leader.node).map(|(member, _)| member);
        if keys.follows_remote && member.is_some_and(|member| member.running && !member.primary) {
            return None;
        }
        let newest = self.newest.is_none_or(|newest| writable.term >= newest);
        (writable.term == leader.term && newest).then_some((&writable.name, writable.term))
    }
}

impl World {
    /// A commit is acknowledged.
    pub fn acknowledge(&mut self, node: NodeNo, write: (u32, Lsn)) {
        self.router.acknowledged += 1;
        if self.router.writes.len() < WRITES_KEPT {
            self.router.writes.push(write);
        }
        self.promised(node, write);
    }

    /// The router hears of a change.
    pub fn router_hears(&mut self, keys: Rc<Keys>) {
        if self.router.keys.as_ref().is_some_and(|known| known.revision >= keys.revision) {
            return;
        }
        let term = keys.leader.map(|leader| leader.term);
        self.router.newest = self.router.newest.max(term);
        let writable = |keys: &Keys| keys.writable.as_ref().map(|writable| writable.term);
        let before = self.router.keys.as_deref().and_then(writable);
        if self.router.keys.is_some() && before != writable(&keys) && !self.router.resumes {
            self.router.sure = writable(&keys);
        }
        self.router.resumes = false;
        if term.is_none() {
            self.router.over = Some(Term(keys.revision));
            self.router.session = None;
        }
        self.router.keys = Some(keys);
    }

    /// What the router says of itself: a session of an older term is not used any more as soon as it knows of a newer one. Its key outlives its
    /// being cut off for as long as its lease does.
    #[must_use]
    pub fn router_says(&self) -> Option<ha::Router> {
        self.router.keys.as_ref()?;
        if self.router.alone.is_some_and(|since| self.now > since + span(ROUTER_LEASE)) {
            return None;
        }
        Some(ha::Router {
            id: "router".to_owned(),
            quiet: None,
            term: self.router.newest,
            over: self.router.over,
            pooled: self.config.rules.pooler,
        })
    }

    /// The node that writes go to.
    #[must_use]
    pub fn routed(&self) -> Option<NodeNo> {
        let (name, _) = self.router.target()?;
        self.names.iter().position(|known| known == name)
    }

    /// Where a write goes, and in which term: a session that is open, while its term is in force, else a new one. Without etcd
    /// what was believed holds for a moment, and then only what the leader's agent confirms.
    fn route(&mut self) -> Option<(NodeNo, Term)> {
        let away = self.net.router_etcd || !self.etcd.up;
        let since = away.then(|| self.router.alone.unwrap_or(self.now));
        self.router.alone = since;
        let (name, term) = self.router.target().map(|(name, term)| (name.clone(), term))?;
        let newest = self.router.newest;
        let kept = self.router.session.filter(|(_, of)| newest.is_none_or(|newest| *of >= newest));
        let node = kept.map(|(node, _)| node).or(self.names.iter().position(|known| *known == name))?;
        self.router.session = None;
        let term = kept.map_or(term, |(_, of)| of);
        let patient = since.is_none_or(|since| self.now < since + PATIENCE);
        let reached = self.net.send(Party::Router, Party::Node(node), &mut self.rng).is_some();
        self.ask_agent(node, term, away || self.router.sure != Some(term));
        let believed = span(ROUTER_BELIEVES_AGENT);
        if since.is_some_and(|since| self.now >= since + believed) {
            self.router.sure = None;
        }
        let yes = self.router.yes.is_some_and(|(of, at)| of == term && self.now < at + believed);
        let sign = patient && self.router.sure == Some(term);
        let used = reached && self.router.denied != Some(term) && (yes || sign);
        self.router.session = used.then_some((node, term));
        self.router.session
    }

    /// The leader's agent tells the router when its lead is over, and is asked whether it goes on when etcd does not say so. For moments it may be
    /// silent although PostgreSQL is not.
    fn ask_agent(&mut self, node: NodeNo, term: Term, asks: bool) {
        if self.now >= self.router.deaf_until && self.rng.chance(10) {
            self.router.deaf_until = self.now + self.rng.between(0, 5 * SECOND);
        }
        let moment = self.moment(node);
        let agent = &mut self.nodes[node].agent;
        let linked = !self.net.router[node] && self.now >= self.router.deaf_until;
        if !linked || !agent.answers() {
            return;
        }
        if agent.seen.leads(moment) != Some(term) {
            self.router.denied = Some(term);
            self.router.sure = None;
        } else if asks || self.router.denied == Some(term) {
            self.router.denied = None;
            agent.seen.vouched = Some(moment);
            if self.nodes[node].postgres.accepts_writes() {
                self.router.yes = Some((term, self.now));
                self.router.sure = Some(term);
            }
        }
    }

    /// A client commits through the router.
    pub fn client_writes(&mut self) {
        let again = self.now + self.rng.between(self.config.write_every / 2, self.config.write_every * 2);
        self.queue.push(again, Event::Write);
        let size = self.rng.between(50, self.config.write_bytes);
        let route = self.route();
        if let Some((node, _)) = route {
            self.write_to_a_full_disk(node);
        }
        if let Some((node, term)) = route {
            self.law_of_poolers(node, term);
        }
        let Some((node, term)) = route.filter(|(node, _)| self.nodes[*node].postgres.accepts_writes()) else {
            self.router.refused += 1;
            return;
        };
        self.law_of_route(node, term);
        self.consume(node);
        let starts = self.nodes[node].postgres.starts;
        if let Some(database) = self.nodes[node].postgres.disk.database_mut() {
            database.wal.write(size);
            let write = database.wal.last_write();
            if self.router.waiting.len() < WAITING_MOST {
                self.router.waiting.push(Waiting { node, starts, write });
            }
            self.release_commits();
        }
    }
}
