//! The faults: what they are, when they begin, and how they end.

use crate::clock::{SECOND, Time};
use crate::event::Event;
use crate::net::Trouble;
use crate::note;
use crate::postgres::{Disk, FOREIGN, Proc};
use crate::world::{NodeNo, World};
use ha::Order;
use std::collections::BTreeMap;
use types::SystemId;

/// What can go wrong, and what people order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    NodeCrash,
    PostgresCrash,
    PostgresHangs,
    StartFails,
    ReplicaLags,
    AgentKill,
    AgentFreeze,
    FreezeAtDoor,
    NodeCutOff,
    CutFromEtcd,
    CutFromPeers,
    HalfCutFromEtcd,
    SlowEtcd,
    LossyEtcd,
    EtcdOutage,
    EtcdElection,
    RouterCutOff,
    ClockDrift,
    ForeignDisk,
    Switchover,
    Failover,
    Pause,
    SyncMode,
    OrderRestart,
    OrderReinitialize,
    OrderShutdown,
    /// The cluster is told to follow a remote one, which is not there, and later to stand on its own again.
    StandbyCluster,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 27] = [
        Kind::NodeCrash,
        Kind::PostgresCrash,
        Kind::PostgresHangs,
        Kind::StartFails,
        Kind::ReplicaLags,
        Kind::AgentKill,
        Kind::AgentFreeze,
        Kind::FreezeAtDoor,
        Kind::NodeCutOff,
        Kind::CutFromEtcd,
        Kind::CutFromPeers,
        Kind::HalfCutFromEtcd,
        Kind::SlowEtcd,
        Kind::LossyEtcd,
        Kind::EtcdOutage,
        Kind::EtcdElection,
        Kind::RouterCutOff,
        Kind::ClockDrift,
        Kind::ForeignDisk,
        Kind::Switchover,
        Kind::Failover,
        Kind::Pause,
        Kind::SyncMode,
        Kind::OrderRestart,
        Kind::OrderReinitialize,
        Kind::OrderShutdown,
        Kind::StandbyCluster,
    ];
}

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    Boot(NodeNo),
    Unhang(NodeNo),
    Thaw(NodeNo),
    StartAgent(NodeNo),
    JoinEtcd(NodeNo),
    JoinPeers(NodeNo),
    JoinRouter(NodeNo),
    RouterToEtcd,
    Resume,
    PromoteCluster,
}

/// The state of the chaos.
#[derive(Debug, Default)]
pub struct Chaos {
    /// By kind, how many there were.
    pub count: BTreeMap<Kind, u64>,
    /// By node: so many of its next starts fail.
    pub start_fails: [u32; 8],
    /// By node: it is frozen between the next look at the clock and the signal.
    pub freeze_at_door: [bool; 8],
    serial: u64,
}

impl World {
    /// The next fault begins, and the one after it is planned.
    pub fn next_fault(&mut self) {
        if self.healing.is_some() {
            return;
        }
        if self.now >= self.config.chaos {
            self.heal();
            return;
        }
        let rest = self.rng.between(SECOND / 10, self.config.fault_every);
        self.queue.push(self.now + rest, Event::Fault);
        if let Some(kind) = self.rng.pick(&self.config.faults).copied() {
            let node = self.rng.below(self.nodes.len() as u64) as NodeNo;
            // Leaders are where it hurts: every other fault looks for one.
            let leader = self.etcd.keys.leader.map(|leader| leader.node).filter(|_| self.rng.chance(500));
            self.strike(kind, leader.unwrap_or(node));
        }
    }

    /// The fault ends after about this long.
    fn undo_after(&mut self, low: Time, high: Time, undo: Undo) {
        self.chaos.serial += 1;
        let serial = self.chaos.serial;
        let at = self.now + self.rng.skewed(low, high);
        self.queue.push(at, Event::Undo { undo, serial });
    }

    fn strike(&mut self, kind: Kind, node: NodeNo) {
        if !self.nodes[node].up {
            return;
        }
        *self.chaos.count.entry(kind).or_default() += 1;
        note!(self, Some(node), "FAULT {kind:?}");
        match kind {
            Kind::NodeCrash => {
                self.node_dies(node);
                self.undo_after(SECOND, 90 * SECOND, Undo::Boot(node));
            }
            Kind::ForeignDisk => self.foreign_disk(node),
            Kind::PostgresCrash => self.postgres_dies(node),
            Kind::PostgresHangs => {
                self.nodes[node].postgres.hangs = Some(self.moment(node));
                self.postgres_changed(node);
                self.undo_after(SECOND, 90 * SECOND, Undo::Unhang(node));
            }
            Kind::StartFails => self.chaos.start_fails[node] = self.rng.between(1, 4) as u32,
            Kind::ReplicaLags => {
                self.nodes[node].postgres.lags_until = self.now + self.rng.skewed(SECOND, 60 * SECOND);
            }
            Kind::AgentKill => {
                self.agent_dies(node);
                self.undo_after(SECOND / 5, 60 * SECOND, Undo::StartAgent(node));
            }
            Kind::AgentFreeze => self.freeze_agent(node),
            Kind::FreezeAtDoor => self.chaos.freeze_at_door[node] = true,
            Kind::Switchover
            | Kind::Failover
            | Kind::Pause
            | Kind::SyncMode
            | Kind::OrderRestart
            | Kind::OrderReinitialize
            | Kind::OrderShutdown
            | Kind::StandbyCluster => {
                self.order(kind, node);
            }
            Kind::NodeCutOff
            | Kind::CutFromEtcd
            | Kind::CutFromPeers
            | Kind::HalfCutFromEtcd
            | Kind::SlowEtcd
            | Kind::LossyEtcd
            | Kind::EtcdOutage
            | Kind::EtcdElection
            | Kind::RouterCutOff
            | Kind::ClockDrift => self.strike_network(kind, node),
        }
    }

    fn strike_network(&mut self, kind: Kind, node: NodeNo) {
        let cut = Trouble { cut_up: true, cut_down: true, ..Trouble::default() };
        match kind {
            Kind::NodeCutOff => {
                self.net.etcd[node] = cut;
                self.cut_peers(node, true);
                self.net.router[node] = true;
                self.undo_after(SECOND / 2, 90 * SECOND, Undo::JoinEtcd(node));
                self.undo_after(SECOND / 2, 90 * SECOND, Undo::JoinPeers(node));
                self.undo_after(SECOND / 2, 90 * SECOND, Undo::JoinRouter(node));
            }
            Kind::CutFromEtcd => {
                self.net.etcd[node] = cut;
                self.undo_after(SECOND / 2, 90 * SECOND, Undo::JoinEtcd(node));
            }
            Kind::CutFromPeers => {
                self.cut_peers(node, true);
                self.undo_after(SECOND / 2, 90 * SECOND, Undo::JoinPeers(node));
            }
            Kind::HalfCutFromEtcd => {
                let up = self.rng.chance(500);
                self.net.etcd[node] = Trouble { cut_up: up, cut_down: !up, ..Trouble::default() };
                self.undo_after(SECOND / 2, 60 * SECOND, Undo::JoinEtcd(node));
            }
            Kind::SlowEtcd => {
                self.net.etcd[node].slow = self.rng.skewed(SECOND / 20, 8 * SECOND);
                self.undo_after(SECOND, 60 * SECOND, Undo::JoinEtcd(node));
            }
            Kind::LossyEtcd => {
                self.net.etcd[node].loss = self.rng.between(50, 700);
                self.undo_after(SECOND, 60 * SECOND, Undo::JoinEtcd(node));
            }
            Kind::EtcdOutage | Kind::EtcdElection => {
                let longest = if kind == Kind::EtcdOutage { 60 * SECOND } else { 3 * SECOND };
                self.etcd.up = false;
                let at = self.now + self.rng.skewed(SECOND / 2, longest);
                self.queue.push(at, Event::EtcdBack);
            }
            Kind::RouterCutOff => {
                self.net.router_etcd = true;
                self.undo_after(SECOND, 60 * SECOND, Undo::RouterToEtcd);
            }
            _ => {
                let drift = self.config.drift;
                let drift = self.rng.below(2 * drift + 1) as i64 - drift as i64;
                self.nodes[node].clock.set_drift(self.now, drift);
            }
        }
    }

    /// Stops the agent with SIGSTOP.
    pub fn freeze_agent(&mut self, node: NodeNo) {
        if self.nodes[node].agent.answers() {
            self.nodes[node].agent.frozen = true;
            self.undo_after(SECOND / 5, 90 * SECOND, Undo::Thaw(node));
        }
    }

    fn cut_peers(&mut self, node: NodeNo, cut: bool) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.net.set_cut(node, other, cut);
        }
    }

    /// The host comes back with the disk of another cluster. What is lost with its own disk must be on healthy others: the laws
    /// promise nothing when nobody has the data.
    fn foreign_disk(&mut self, node: NodeNo) {
        let leader = self.etcd.keys.leader.map(|leader| leader.node);
        let well = |no: &NodeNo| {
            let host = &self.nodes[*no];
            let fed = matches!(host.postgres.proc, Proc::Standby { streaming: true, .. });
            *no != node
                && !host.postgres.disk.is_foreign()
                && (host.postgres.accepts_writes() || (fed && !host.tags.nofailover()))
        };
        // A disk that is lost for good takes acknowledged commits along.
        let synchronous = self.etcd.keys.synchronous.mode != ha::SyncMode::Off;
        if synchronous || leader == Some(node) || (0..self.nodes.len()).filter(well).count() < 2 {
            return;
        }
        self.node_dies(node);
        let branch = self.branch();
        let standby = self.rng.chance(300);
        if let Disk::Present(database) = &mut self.nodes[node].postgres.disk {
            database.system_id = SystemId(FOREIGN + u64::from(branch));
            database.standby = standby;
            database.clean = true;
        }
        self.undo_after(SECOND, 30 * SECOND, Undo::Boot(node));
    }

    fn order(&mut self, kind: Kind, node: NodeNo) {
        let leader = self.etcd.keys.leader.map(|leader| self.names[leader.node].clone());
        let candidate = self.names.get(self.rng.below(self.names.len() as u64) as usize).cloned();
        let named = self.rng.chance(600);
        match kind {
            Kind::Switchover if leader.is_some() => self.etcd.wish(leader, candidate.filter(|_| named)),
            Kind::Failover => self.etcd.wish(None, candidate),
            Kind::Pause => {
                self.etcd.set_paused(true);
                self.undo_after(SECOND, 60 * SECOND, Undo::Resume);
            }
            Kind::StandbyCluster => {
                self.etcd.set_follows_remote(true);
                self.promises_end();
                self.undo_after(SECOND, 60 * SECOND, Undo::PromoteCluster);
            }
            Kind::SyncMode => {
                let next = self.config.flip(&mut self.rng);
                if next.mode == ha::SyncMode::Off {
                    self.promises_end();
                }
                note!(self, None, "the synchronous mode: {next:?}");
                self.etcd.set_synchronous(next);
            }
            Kind::OrderRestart => self.order_agent(node, Order::Restart { within: None }),
            Kind::OrderReinitialize => self.order_agent(node, Order::Reinitialize { from_leader: named }),
            Kind::OrderShutdown => {
                self.order_agent(node, Order::Shutdown);
                self.undo_after(10 * SECOND, 90 * SECOND, Undo::StartAgent(node));
            }
            _ => {}
        }
    }

    fn order_agent(&mut self, node: NodeNo, order: Order) {
        let agent = &mut self.nodes[node].agent;
        if agent.answers() && agent.orders.len() < 2 {
            agent.orders.push_back(order);
            self.turn_soon(node);
        }
    }

    /// A fault ends.
    pub fn undo(&mut self, undo: Undo, _serial: u64) {
        note!(self, None, "over: {undo:?}");
        match undo {
            Undo::Boot(node) => {
                if !self.nodes[node].up {
                    self.nodes[node].up = true;
                    let at = self.now + self.rng.skewed(SECOND / 10, 3 * SECOND);
                    self.start_agent_at(node, at);
                }
            }
            Undo::Unhang(node) => {
                if self.nodes[node].postgres.hangs.take().is_some() {
                    if let (Proc::Stopping { .. }, 0) =
                        (&self.nodes[node].postgres.proc, self.nodes[node].postgres.token)
                    {
                        let token = self.token();
                        self.nodes[node].postgres.token = token;
                        self.queue.push(self.now + SECOND / 50, Event::Postgres { node, token });
                    }
                    self.postgres_changed(node);
                }
            }
            Undo::Thaw(node) => self.agent_thaws(node),
            Undo::StartAgent(node) => {
                if self.nodes[node].up && !self.nodes[node].agent.alive {
                    self.start_agent_at(node, self.now);
                }
            }
            Undo::JoinEtcd(node) => self.net.etcd[node] = Trouble::default(),
            Undo::JoinPeers(node) => self.cut_peers(node, false),
            Undo::JoinRouter(node) => self.net.router[node] = false,
            Undo::RouterToEtcd => {
                self.net.router_etcd = false;
                self.etcd.changed = true;
            }
            Undo::Resume => self.etcd.set_paused(false),
            Undo::PromoteCluster => self.etcd.set_follows_remote(false),
        }
    }

    /// Every fault is taken back: from here the cluster must heal.
    fn heal(&mut self) {
        note!(self, None, "ALL FAULTS ARE TAKEN BACK");
        self.net.heal();
        self.etcd_is_back();
        self.undo(Undo::RouterToEtcd, 0);
        self.etcd.set_paused(false);
        self.etcd.set_follows_remote(false);
        self.healing = Some(self.now);
        for node in 0..self.nodes.len() {
            self.repair(node);
        }
    }

    fn repair(&mut self, node: NodeNo) {
        let now = self.now;
        self.nodes[node].clock.set_drift(now, 0);
        self.nodes[node].postgres.lags_until = 0;
        self.undo(Undo::Unhang(node), 0);
        self.undo(Undo::Thaw(node), 0);
        if self.nodes[node].postgres.disk.is_foreign() {
            // A person takes the foreign disk out again.
            self.node_dies(node);
            self.nodes[node].postgres.disk = Disk::Empty;
        }
        let orders = &mut self.nodes[node].agent.orders;
        orders.retain(|order| *order != Order::Shutdown);
        self.undo(Undo::Boot(node), 0);
        self.undo(Undo::StartAgent(node), 0);
    }
}
