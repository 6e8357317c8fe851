//! Faults of hosts, disks and processes.

use crate::clock::SECOND;
use crate::event::ForAgent;
use crate::faults::{Kind, Undo};
use crate::note;
use crate::postgres::{Disk, DiskTrouble, FOREIGN, Proc};
use crate::world::{NodeNo, World};
use types::SystemId;

impl World {
    /// Nothing of this host moves: its clocks go on.
    pub(super) fn suspend_host(&mut self, node: NodeNo) {
        let now = self.moment(node);
        let host = &mut self.nodes[node];
        let agent = host.agent.answers();
        let postgres = host.postgres.proc != Proc::Stopped && host.postgres.hangs.is_none();
        self.chaos.froze[node] = (agent, postgres);
        host.suspended = Some(self.now);
        host.agent.frozen |= agent;
        if postgres {
            host.postgres.hangs = Some(now);
        }
        self.undo_after(SECOND / 5, 90 * SECOND, Undo::Wake(node));
    }

    /// The host goes on.
    pub(super) fn host_wakes(&mut self, node: NodeNo) {
        let Some(since) = self.nodes[node].suspended.take() else {
            return;
        };
        note!(self, Some(node), "the host goes on after {} ms", (self.now - since) / 1000);
        self.guard_wakes_first(node);
        self.address_wakes(node, self.now - since);
        let (agent, postgres) = std::mem::take(&mut self.chaos.froze[node]);
        if postgres {
            self.unhang(node);
        }
        if agent {
            self.agent_thaws(node);
        }
    }

    pub(super) fn sync_standby_dies(&mut self) {
        let voters = self.etcd.keys.sync.iter().flat_map(|key| key.promise.voters.iter());
        let voters: Vec<NodeNo> =
            voters.filter_map(|name| self.names.iter().position(|known| known == name)).collect();
        if let Some(node) = self.rng.pick(&voters).copied().filter(|node| self.nodes[*node].up) {
            self.node_dies(node);
            self.undo_after(SECOND, 90 * SECOND, Undo::Boot(node));
        }
    }

    pub(super) fn disk_fails(&mut self, kind: Kind, node: NodeNo) {
        let full = kind == Kind::DiskFull;
        let postgres = &mut self.nodes[node].postgres;
        postgres.trouble = if full { DiskTrouble::Full } else { DiskTrouble::Hangs };
        postgres.trouble_since = self.now;
        self.turn_soon(node);
        if full {
            self.job_dies(node);
        }
        self.undo_after(SECOND / 2, 90 * SECOND, Undo::DiskIsFine(node));
    }

    /// The disk is as it should be: what was killed while it waited for the disk ends now.
    pub(super) fn disk_is_fine(&mut self, node: NodeNo) {
        let before = std::mem::take(&mut self.nodes[node].postgres.trouble);
        if before == DiskTrouble::Hangs && self.nodes[node].suspended.is_none() {
            self.guard_wakes_first(node);
        }
        self.turn_soon(node);
    }

    /// A primary that must write and cannot panics.
    pub fn write_to_a_full_disk(&mut self, node: NodeNo) {
        let postgres = &self.nodes[node].postgres;
        if postgres.trouble == DiskTrouble::Full && postgres.proc == Proc::Primary && postgres.hangs.is_none()
        {
            note!(self, Some(node), "no space is left for WAL");
            self.postgres_dies(node);
        }
    }

    /// The guard is killed; its agent starts it again. The deadline is kept in memory that outlives it.
    pub(super) fn guard_dies(&mut self, node: NodeNo) {
        if self.nodes[node].agent.answers() && self.nodes[node].guard.there {
            self.nodes[node].guard.there = false;
            let at = self.now + self.rng.between(SECOND / 50, SECOND / 5);
            self.tell_agent(node, at, ForAgent::GuardReady);
            self.turn_soon(node);
        }
    }

    /// The host comes back with the disk of another cluster. What is lost with its own disk must be on healthy others: the laws
    /// promise nothing when nobody has the data.
    pub(super) fn foreign_disk(&mut self, node: NodeNo) {
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
}
