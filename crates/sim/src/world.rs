//! The world: nodes, etcd, the network, a router and its clients, all moved by one queue of events.
//!
//! ```text
//!   chaos:  faults come and go ──► at its end every fault is taken back
//!   health: the cluster must heal within a bounded time ──► the run is over
//!   after every event: the laws
//! ```

use crate::agent::Agent;
use crate::clock::{Clock, SECOND, Time};
use crate::config::{Config, Twist, Without};
use crate::etcd::Etcd;
use crate::event::{Event, Queue};
use crate::faults::Chaos;
use crate::guard::Guard;
use crate::invariants::Laws;
use crate::net::{Net, Party};
use crate::postgres::Postgres;
use crate::rng::Rng;
use crate::router::Router;
use crate::slots::Slots;
use crate::trace::Trace;
use crate::vip::Address;
use ha::Authority;
use std::collections::BTreeSet;
use types::{Lsn, Moment, NodeName, Tags, Term};

/// A node by its number.
pub type NodeNo = usize;

/// What an agent leaves in shared memory for its successor.
#[derive(Clone, Copy, Debug)]
pub struct Legacy {
    pub lease: u64,
    /// When the last successful renewal was sent.
    pub sent: Moment,
    pub authority: Authority,
}

/// A host with its agent and its PostgreSQL.
#[derive(Debug)]
pub struct Node {
    pub up: bool,
    pub clock: Clock,
    pub postgres: Postgres,
    pub guard: Guard,
    pub legacy: Option<Legacy>,
    /// The copy of `/failsafe` on its disk, and its term.
    pub kept: Option<(Term, BTreeSet<NodeName>)>,
    pub agent: Agent,
    /// The virtual address, while it is on this host.
    pub address: Option<Address>,
    /// All processes of the host stand still since then.
    pub suspended: Option<Time>,
    /// By so many milliseconds the wall clock is ahead.
    pub wall: i64,
    /// The ends of diverged WAL that was kept before it was rewound or replaced.
    pub tails: Vec<(u32, Lsn)>,
    pub tags: Tags,
    /// Its agent is started again with this token; an older one is void.
    pub supervisor: u64,
}

/// Everything there is.
#[derive(Debug)]
pub struct World {
    pub now: Time,
    pub rng: Rng,
    pub queue: Queue,
    pub config: Config,
    pub names: Vec<NodeName>,
    pub nodes: Vec<Node>,
    pub etcd: Etcd,
    pub net: Net,
    pub router: Router,
    pub slots: Slots,
    pub chaos: Chaos,
    pub laws: Laws,
    pub trace: Trace,
    /// When the last watch event reaches each node, and whether its watch is broken.
    pub watches: Vec<(Time, bool)>,
    pub router_watch: Time,
    next_token: u64,
    next_branch: u32,
    /// The health phase has begun then.
    pub healing: Option<Time>,
    pub done: bool,
    pub events: u64,
}

/// Writes a line into the trace, if there is one.
#[macro_export]
macro_rules! note {
    ($world:expr, $node:expr, $($text:tt)*) => {
        if $world.trace.on() {
            let text = format!($($text)*);
            let who = $node;
            $world.note(who, &text);
        }
    };
}

impl World {
    /// The world of this seed.
    #[must_use]
    pub fn new(seed: u64, twist: Twist, trace: bool) -> World {
        let mut rng = Rng::new(seed);
        let config = Config::draw(&mut rng, twist);
        let names: Vec<NodeName> =
            ["a", "b", "c", "d", "e"].into_iter().take(config.nodes).map(NodeName::from).collect();
        let nodes = names
            .iter()
            .enumerate()
            .map(|(no, name)| {
                let drift = rng.below(2 * config.drift + 1) as i64 - config.drift as i64;
                let tags = config.tags(no, &mut rng);
                Node {
                    up: true,
                    clock: Clock::new(0, 1_000_000 + rng.below(1_000_000_000), drift),
                    postgres: Postgres::none(),
                    guard: Guard::default(),
                    legacy: None,
                    kept: None,
                    agent: Agent::new(name.clone(), tags.clone(), config.rules.clone()),
                    address: None,
                    suspended: None,
                    wall: 0,
                    tails: Vec::new(),
                    tags,
                    supervisor: 0,
                }
            })
            .collect::<Vec<_>>();
        let mut etcd = Etcd::new();
        etcd.blind = twist.without == Some(Without::Terms);
        etcd.keys.synchronous = config.synchronous.clone();
        let mut world = World {
            now: 0,
            queue: Queue::default(),
            net: Net::new(nodes.len()),
            router: Router::default(),
            slots: Slots::default(),
            chaos: Chaos::default(),
            laws: Laws::default(),
            trace: Trace::new(trace),
            watches: vec![(0, false); nodes.len()],
            router_watch: 0,
            next_token: 0,
            next_branch: 0,
            healing: None,
            done: false,
            events: 0,
            rng,
            config,
            names,
            nodes,
            etcd,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for node in 0..self.nodes.len() {
            let at = self.rng.below(2 * SECOND);
            self.start_agent_at(node, at);
        }
        self.queue.push(0, Event::Replicate);
        self.queue.push(SECOND, Event::Inspect);
        self.queue.push(SECOND, Event::Write);
        let first = self.config.calm + self.rng.below(self.config.fault_every);
        self.queue.push(first, Event::Fault);
    }

    /// Runs to the end or to the first broken law.
    pub fn run(&mut self) {
        while !self.done && self.laws.broken.is_none() {
            let Some((at, event)) = self.queue.pop() else {
                return;
            };
            self.now = self.now.max(at);
            self.events += 1;
            self.happens(event);
            if self.etcd.changed {
                self.etcd.changed = false;
                self.broadcast();
            }
            self.check_laws();
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Agent { node, life, what } => self.agent_hears(node, life, what),
            Event::Request { from, life, id, request } => self.etcd_hears(from, life, id, request),
            Event::LeaseEnds { lease } => self.lease_ends(lease),
            Event::EtcdGone { until } => self.etcd_is_gone(until),
            Event::EtcdBack => self.etcd_is_back(),
            Event::PeerAsked { asker, life, round, peer } => self.peer_asked(asker, life, round, peer),
            Event::FailsafeAsked { asker, life, round, peer } => {
                self.failsafe_asked(asker, life, round, peer)
            }
            Event::HistoryAsked { asker, life, leader } => self.history_asked(asker, life, leader),
            Event::Postgres { node, token } => self.postgres_steps(node, token),
            Event::Guard { node, deadline } => self.guard_looks(node, deadline),
            Event::Killed { node, token } => self.guard_killed(node, token),
            Event::AddressEnds { node, serial } => self.address_ends(node, serial),
            Event::Crash { node, starts } => self.crash_in_life(node, starts),
            Event::Replicate => self.replicate(),
            Event::RouterHears { keys } => self.router_hears(keys),
            Event::Write => self.client_writes(),
            Event::Names { node, life, shown } => self.names_are_taken_up(node, life, shown),
            Event::Fault => self.next_fault(),
            Event::Undo { undo, serial } => self.undo(undo, serial),
            Event::StartAgent { node, token } => self.supervisor_starts(node, token),
            Event::Inspect => self.inspect(),
        }
    }

    /// A number nobody had.
    pub fn token(&mut self) -> u64 {
        self.next_token += 1;
        self.next_token
    }

    /// A branch of WAL nobody wrote to.
    pub fn branch(&mut self) -> u32 {
        self.next_branch += 1;
        self.next_branch
    }

    /// What the clock of a node shows.
    #[must_use]
    pub fn moment(&self, node: NodeNo) -> Moment {
        self.nodes[node].clock.moment(self.now)
    }

    /// When a message arrives that is sent now; `None` when it is lost.
    pub fn arrival(&mut self, from: Party, to: Party) -> Option<Time> {
        self.net.send(from, to, &mut self.rng).map(|delay| self.now + delay)
    }

    /// Writes a line into the trace.
    pub fn note(&mut self, node: Option<NodeNo>, text: &str) {
        let who = node.and_then(|node| self.names.get(node)).map_or("-", NodeName::as_str);
        self.trace.line(self.now, who, text);
    }
}
