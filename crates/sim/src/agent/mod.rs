//! The agent of a node: the loop around `ha::decide`, as the contract of that crate asks for it.
//!
//! ```text
//!   events ──► turn: observe ─► decide ─► actions, one after the other ─► turn …
//!   keeper: renew the lease, hand its new deadline to the guard        (beside the turns)
//! ```
//! A frozen agent hears everything late, in the order in which it came; a dead one hears nothing.

mod act;
mod failsafe;
mod job;
mod keeper;
mod peers;
mod turn;

pub use job::Running as RunningJob;
pub use peers::Round;

use crate::clock::{SECOND, Time};
use crate::event::{Event, ForAgent};
use crate::known_bugs::Ghosts;
use crate::note;
use crate::vip::Word;
use crate::world::{NodeNo, World};
use ha::{
    Action, Authority, Data, Etcd, Failsafe, Job, LeaderHistory, Memory, Observation, Order, Peers, Postgres,
    Rules, Running,
};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use types::{Lsn, Moment, NodeName, Tags};

/// What a request was for.
#[derive(Clone, Debug)]
pub enum Pending {
    Grant,
    Renew,
    Read,
    Act(Action),
    Publish(ha::Member),
    Failsafe,
}

/// The agent.
#[derive(Debug)]
pub struct Agent {
    pub alive: bool,
    pub frozen: bool,
    /// It was ended by its own decision and is not started again by its supervisor.
    pub gone: Option<ha::ExitWhy>,
    pub life: u32,
    pub seen: Observation,
    pub memory: Memory,
    pub view: Option<Rc<crate::etcd::Keys>>,
    /// The view or our lease changed since the cluster was last put together.
    pub stale: bool,
    pub turn_at: Option<(Time, u64)>,
    /// The rest of the actions; `None` between two turns.
    pub acting: Option<VecDeque<Action>>,
    pub at_door: Option<(u64, Action)>,
    /// By request: what for, and when it was sent.
    pub pending: BTreeMap<u64, (Pending, Moment)>,
    next_id: u64,
    pub lease: Option<u64>,
    /// When the last successful renewal was sent.
    pub renewed: Moment,
    pub keeper: u64,
    pub heard: Moment,
    pub lost: bool,
    pub backlog: Vec<ForAgent>,
    pub orders: VecDeque<Order>,
    pub round: Option<Round>,
    /// The number of the last question whether we may lead on.
    pub failsafe_round: u64,
    /// The authority that all others gave.
    pub extended: Option<(types::Term, Moment)>,
    /// When `/failsafe` was last written, on which revision of it.
    pub failsafe_written: Option<(Time, i64)>,
    /// What the peers said in the last round, as they said it.
    pub told: BTreeMap<NodeName, ha::PeerFacts>,
    pub job: Option<RunningJob>,
    pub published: Option<(ha::Member, Time)>,
    pub last_turn: Moment,
    /// The second in which turns are counted, and how many there were.
    pub turns: (Time, u32),
    pub last_words: String,
    /// The duty that answered last.
    pub last_duty: &'static str,
    /// What the virtual address is held by.
    pub word: Word,
    pub slot_memory: ha::slots::Memory,
    pub slots_at: Time,
    /// Slots that were read from the primary and are not placed yet.
    pub copies: BTreeMap<String, Lsn>,
    /// Since when it says nothing about a lead that nobody holds.
    pub mute_since: Option<Time>,
    /// What a known bug may show: the standbys that were there, and PostgreSQL when it last answered as a primary.
    pub ghosts: Ghosts,
    pub ran: Option<Running>,
}

impl Agent {
    /// An agent that has not been started yet.
    #[must_use]
    pub fn new(me: NodeName, tags: Tags, rules: Rules) -> Agent {
        let seen = Observation {
            me,
            tags,
            rules,
            etcd: Etcd::Never { since: Moment(0) },
            authority: Authority::None,
            data: Data::Empty,
            postgres: Postgres::Stopped,
            replication: None,
            pace: ha::Pace::default(),
            job: Job::Idle,
            finished: None,
            guard: ha::Guard::Absent,
            watchdog: ha::Watchdog::Fine,
            signs: ha::Signs::default(),
            peers: Peers::default(),
            leader_history: LeaderHistory::Unknown,
            order: None,
            planned: None,
            failsafe: Failsafe::default(),
            vouched: None,
        };
        Agent {
            alive: false,
            frozen: false,
            gone: None,
            life: 0,
            seen,
            memory: Memory::default(),
            view: None,
            stale: false,
            turn_at: None,
            acting: None,
            at_door: None,
            pending: BTreeMap::new(),
            next_id: 0,
            lease: None,
            renewed: Moment(0),
            keeper: 0,
            heard: Moment(0),
            lost: false,
            backlog: Vec::new(),
            orders: VecDeque::new(),
            round: None,
            failsafe_round: 0,
            extended: None,
            failsafe_written: None,
            told: BTreeMap::new(),
            job: None,
            published: None,
            last_turn: Moment(0),
            turns: (0, 0),
            last_words: String::new(),
            last_duty: "",
            word: Word::default(),
            slot_memory: ha::slots::Memory::default(),
            slots_at: 0,
            copies: BTreeMap::new(),
            mute_since: None,
            ghosts: Ghosts::new(),
            ran: None,
        }
    }

    /// The number of the next request.
    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Whether it answers now.
    #[must_use]
    pub fn answers(&self) -> bool {
        self.alive && !self.frozen
    }
}

impl World {
    /// Something for the agent of a node.
    pub fn tell_agent(&mut self, node: NodeNo, at: Time, what: ForAgent) {
        let life = self.nodes[node].agent.life;
        self.queue.push(at, Event::Agent { node, life, what });
    }

    /// The agent hears something, at once or when it is thawed.
    pub fn agent_hears(&mut self, node: NodeNo, life: u32, what: ForAgent) {
        let agent = &mut self.nodes[node].agent;
        if !agent.alive || agent.life != life {
            return;
        }
        if agent.frozen {
            agent.backlog.push(what);
            return;
        }
        match what {
            ForAgent::Turn { token } => self.turn_is_due(node, token),
            ForAgent::Keeper { token } => self.keeper_ticks(node, token),
            ForAgent::Reply { id, reply } => self.agent_is_answered(node, id, reply),
            ForAgent::Timeout { id } => self.agent_waited_in_vain(node, id),
            ForAgent::Watch { keys } => self.agent_sees(node, keys),
            ForAgent::Door { token } => self.through_the_door(node, token),
            ForAgent::PeerSaid { round, peer, facts } => self.peer_said(node, round, peer, facts),
            ForAgent::PeersOver { round } => self.peers_over(node, round),
            ForAgent::FailsafeSaid { round, peer } => self.failsafe_said(node, round, peer),
            ForAgent::FailsafeOver { round } => self.failsafe_over(node, round),
            ForAgent::History { leader, history } => self.history_said(node, leader, history),
            ForAgent::JobDone { token, ok } => self.job_done(node, token, ok),
            ForAgent::Address { look } => self.address_tick(node, look),
            ForAgent::PostgresChanged => self.turn_soon(node),
            ForAgent::GuardReady => {
                self.nodes[node].guard.there = true;
                self.guard_sees_process(node);
                self.turn_soon(node);
            }
        }
    }

    /// The supervisor starts the agent then, unless it is told otherwise before.
    pub fn start_agent_at(&mut self, node: NodeNo, at: Time) {
        let token = self.token();
        self.nodes[node].supervisor = token;
        self.queue.push(at, Event::StartAgent { node, token });
    }

    /// The supervisor starts the agent.
    pub fn supervisor_starts(&mut self, node: NodeNo, token: u64) {
        if self.nodes[node].suspended.is_some() {
            self.queue.push(self.now + SECOND / 10, Event::StartAgent { node, token });
            return;
        }
        if self.nodes[node].supervisor == token && self.nodes[node].up && !self.nodes[node].agent.alive {
            self.agent_starts(node);
        }
    }

    fn agent_starts(&mut self, node: NodeNo) {
        let now = self.moment(node);
        let host = &mut self.nodes[node];
        let life = host.agent.life + 1;
        let rules = self.config.rules.clone();
        host.agent = Agent::new(self.names[node].clone(), host.tags.clone(), rules);
        let agent = &mut host.agent;
        agent.alive = true;
        agent.life = life;
        agent.heard = now;
        agent.last_turn = now;
        agent.seen.failsafe.began = now;
        agent.seen.etcd = Etcd::Never { since: now };
        let ttl = agent.seen.rules.ttl;
        let held = |legacy: &crate::world::Legacy| match legacy.authority {
            Authority::Held { deadline, .. } => now < legacy.sent.after(ttl).max(deadline),
            Authority::None => false,
        };
        if let Some(legacy) = host.legacy.filter(held) {
            if let (Authority::Held { term, .. }, Some((of, kept))) = (legacy.authority, &host.kept) {
                agent.seen.failsafe.kept = (term == *of).then(|| kept.clone());
            }
            agent.lease = Some(legacy.lease);
            agent.renewed = legacy.sent;
            agent.seen.authority = legacy.authority;
        }
        self.watches[node].1 = true;
        let at = self.now + self.rng.skewed(1_000, 200_000);
        note!(self, Some(node), "the agent starts (life {life})");
        self.tell_agent(node, at, ForAgent::GuardReady);
        self.keeper_at(node, self.now);
        // An address that an earlier life left is not its own before it knows more.
        self.look_at_address(node);
        self.turn_soon(node);
    }

    /// The agent and its children, but for the guard and PostgreSQL, are gone.
    pub fn agent_dies(&mut self, node: NodeNo) {
        let agent = &mut self.nodes[node].agent;
        if !agent.alive {
            return;
        }
        agent.alive = false;
        agent.frozen = false;
        agent.backlog.clear();
        self.job_is_cut(node);
        note!(self, Some(node), "the agent has died");
    }

    /// The agent goes on where it was stopped.
    pub fn agent_thaws(&mut self, node: NodeNo) {
        let agent = &mut self.nodes[node].agent;
        if !agent.alive || !agent.frozen {
            return;
        }
        agent.frozen = false;
        for (late, what) in std::mem::take(&mut agent.backlog).into_iter().enumerate() {
            self.tell_agent(node, self.now + 10 * late as Time, what);
        }
        note!(self, Some(node), "the agent is thawed");
    }
}
