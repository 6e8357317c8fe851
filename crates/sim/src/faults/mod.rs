//! The faults: when they begin, and what they do.
//!
//! ```text
//!   draw a kind and a node ──► strike ──► undo after a while ──► … ──► heal: all are taken back
//! ```

mod disks;
mod kind;
mod orders;
mod undo;

pub use kind::Kind;
pub use undo::Undo;

use crate::clock::{SECOND, Time};
use crate::etcd::Keys;
use crate::event::Event;
use crate::net::Trouble;
use crate::note;
use crate::world::{NodeNo, World};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The state of the chaos.
#[derive(Debug, Default)]
pub struct Chaos {
    /// By kind, how many there were.
    pub count: BTreeMap<Kind, u64>,
    /// By node: so many of its next starts fail.
    pub start_fails: [u32; 8],
    /// By node: so many of its next lives as a primary are short.
    pub crash_loops: [u32; 8],
    /// By node: it is frozen between the next look at the clock and the signal.
    pub freeze_at_door: [bool; 8],
    /// By node: its agent and its PostgreSQL stand still because the host does.
    froze: [(bool, bool); 8],
    /// By node: what the etcd member it talks to knows, which was deposed.
    pub deposed: [Option<Rc<Keys>>; 8],
    /// No etcd before this.
    pub etcd_until: Time,
    /// By pair, how often one began while the other lasted.
    pub pairs: BTreeMap<(Kind, Kind), u64>,
    /// What lasts, and until when.
    active: Vec<(Kind, Time)>,
    serial: u64,
}

/// A fault without an end of its own counts as lasting for so long: what it broke is being mended.
const MENDING: Time = 5 * SECOND;

impl Chaos {
    fn begins(&mut self, kind: Kind, now: Time) {
        *self.count.entry(kind).or_default() += 1;
        self.active.retain(|(_, until)| *until > now);
        for (other, _) in self.active.iter().filter(|(other, _)| *other != kind) {
            *self.pairs.entry((kind.min(*other), kind.max(*other))).or_default() += 1;
        }
        self.active.push((kind, now + MENDING));
    }

    /// The fault that began last lasts until then.
    fn lasts(&mut self, until: Time) {
        if let Some((_, last)) = self.active.last_mut() {
            *last = (*last).max(until);
        }
    }
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
        self.chaos.lasts(at);
        self.queue.push(at, Event::Undo { undo, serial });
    }

    /// Whether this would be two faults at once that nothing is built for: who ends the agent while its guard is being started
    /// again leaves nobody to hold the deadline.
    fn is_too_much(&self, kind: Kind, node: NodeNo) -> bool {
        let host = &self.nodes[node];
        let unguarded = host.agent.alive && !host.guard.there;
        let ends_agent =
            matches!(kind, Kind::AgentKill | Kind::AgentFreeze | Kind::HostSuspended | Kind::OrderShutdown);
        !host.up || host.suspended.is_some() || unguarded && ends_agent
    }

    fn strike(&mut self, kind: Kind, node: NodeNo) {
        if self.is_too_much(kind, node) {
            return;
        }
        self.chaos.begins(kind, self.now);
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
            Kind::HostSuspended => self.suspend_host(node),
            Kind::CrashLoop => {
                self.chaos.crash_loops[node] = self.rng.between(1, 6) as u32;
                self.postgres_dies(node);
            }
            Kind::SyncStandbyDies => self.sync_standby_dies(),
            Kind::DiskFull | Kind::DiskHangs => self.disk_fails(kind, node),
            Kind::JobDies => self.job_dies(node),
            Kind::GuardDies => self.guard_dies(node),
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
            | Kind::PlannedSwitchover
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
            | Kind::SlowPeers
            | Kind::SlowEtcd
            | Kind::LossyEtcd
            | Kind::EtcdOutage
            | Kind::EtcdGone
            | Kind::EtcdElection
            | Kind::EtcdDeposed
            | Kind::RouterCutOff
            | Kind::ClockDrift
            | Kind::WallClockStep => self.strike_network(kind, node),
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
            Kind::SlowPeers => {
                let (loss, slow) = (self.rng.between(0, 500), self.rng.skewed(SECOND / 50, 2 * SECOND));
                self.net.peers[node] = Trouble { loss, slow, ..Trouble::default() };
                self.undo_after(SECOND, 60 * SECOND, Undo::SmoothPeers(node));
            }
            Kind::EtcdOutage => self.etcd_goes(SECOND / 2, 60 * SECOND),
            Kind::EtcdGone => self.etcd_goes(60 * SECOND, 600 * SECOND),
            Kind::EtcdElection => self.etcd_goes(SECOND / 2, 3 * SECOND),
            Kind::EtcdDeposed => {
                self.chaos.deposed[node] = Some(Rc::new(self.etcd.keys.clone()));
                self.watches[node].1 = true;
                self.undo_after(SECOND, 60 * SECOND, Undo::EtcdKnows(node));
            }
            Kind::WallClockStep => {
                let step = self.rng.skewed(100, 3_600_000) as i64;
                let step = if self.rng.chance(500) { step } else { -step };
                self.nodes[node].wall += step;
                self.nodes[node].agent.stale = true;
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

    fn etcd_goes(&mut self, low: Time, high: Time) {
        let at = self.now + self.rng.skewed(low, high);
        self.chaos.lasts(at);
        self.etcd_is_gone(at);
    }

    /// Plans an outage of etcd.
    pub fn outage(&mut self, at: Time, lasts: Time) {
        self.queue.push(at, Event::EtcdGone { until: at + lasts });
    }

    /// Nobody reaches etcd before this.
    pub fn etcd_is_gone(&mut self, until: Time) {
        self.etcd.up = false;
        self.chaos.etcd_until = self.chaos.etcd_until.max(until);
        self.queue.push(until, Event::EtcdBack);
    }

    /// Stops the agent with SIGSTOP.
    pub fn freeze_agent(&mut self, node: NodeNo) {
        if self.nodes[node].agent.answers() && self.nodes[node].guard.there {
            self.nodes[node].agent.frozen = true;
            self.undo_after(SECOND / 5, 90 * SECOND, Undo::Thaw(node));
        }
    }

    fn cut_peers(&mut self, node: NodeNo, cut: bool) {
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.net.set_cut(node, other, cut);
        }
    }
}
