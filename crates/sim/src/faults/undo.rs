//! How faults end, and how all of them are taken back.

use crate::clock::SECOND;
use crate::event::Event;
use crate::net::Trouble;
use crate::note;
use crate::postgres::{Disk, Proc};
use crate::world::{NodeNo, World};
use ha::Order;

/// How a fault ends.
#[derive(Clone, Copy, Debug)]
pub enum Undo {
    Boot(NodeNo),
    Wake(NodeNo),
    DiskIsFine(NodeNo),
    Unhang(NodeNo),
    Thaw(NodeNo),
    StartAgent(NodeNo),
    JoinEtcd(NodeNo),
    JoinPeers(NodeNo),
    JoinRouter(NodeNo),
    SmoothPeers(NodeNo),
    EtcdKnows(NodeNo),
    RouterToEtcd,
    Resume,
    PromoteCluster,
}

impl World {
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
            Undo::Wake(node) => self.host_wakes(node),
            Undo::DiskIsFine(node) => self.disk_is_fine(node),
            Undo::Unhang(node) if self.nodes[node].suspended.is_some() => self.chaos.froze[node].1 = true,
            Undo::Unhang(node) => self.unhang(node),
            Undo::Thaw(node) if self.nodes[node].suspended.is_some() => self.chaos.froze[node].0 = true,
            Undo::Thaw(node) => self.agent_thaws(node),
            Undo::StartAgent(node) => {
                if self.nodes[node].up && !self.nodes[node].agent.alive {
                    self.start_agent_at(node, self.now);
                }
            }
            Undo::JoinEtcd(node) => self.net.etcd[node] = Trouble::default(),
            Undo::JoinPeers(node) => self.cut_peers(node, false),
            Undo::JoinRouter(node) => self.net.router[node] = false,
            Undo::SmoothPeers(node) => self.net.peers[node] = Trouble::default(),
            Undo::EtcdKnows(node) => self.chaos.deposed[node] = None,
            Undo::RouterToEtcd => {
                self.net.router_etcd = false;
                self.router.resumes = true;
                self.etcd.changed = true;
            }
            Undo::Resume => self.etcd.set_paused(false),
            Undo::PromoteCluster => self.etcd.set_follows_remote(false),
        }
    }

    /// Its processes go on.
    pub(super) fn unhang(&mut self, node: NodeNo) {
        if self.nodes[node].postgres.hangs.take().is_none() {
            return;
        }
        if let (Proc::Stopping { .. }, 0) = (&self.nodes[node].postgres.proc, self.nodes[node].postgres.token)
        {
            let token = self.token();
            self.nodes[node].postgres.token = token;
            self.queue.push(self.now + SECOND / 50, Event::Postgres { node, token });
        }
        self.postgres_changed(node);
    }

    /// Every fault is taken back: from here the cluster must heal.
    pub(super) fn heal(&mut self) {
        note!(self, None, "ALL FAULTS ARE TAKEN BACK");
        self.net.heal();
        self.chaos.etcd_until = 0;
        self.chaos.deposed = Default::default();
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
        self.chaos.crash_loops[node] = 0;
        self.undo(Undo::Wake(node), 0);
        self.undo(Undo::DiskIsFine(node), 0);
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
