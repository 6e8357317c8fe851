//! What people order.

use crate::clock::SECOND;
use crate::faults::{Kind, Undo};
use crate::note;
use crate::world::{NodeNo, World};
use ha::Order;

impl World {
    pub(super) fn order(&mut self, kind: Kind, node: NodeNo) {
        let leader = self.etcd.keys.leader.map(|leader| self.names[leader.node].clone());
        let candidate = self.names.get(self.rng.below(self.names.len() as u64) as usize).cloned();
        let named = self.rng.chance(600);
        match kind {
            Kind::Switchover if leader.is_some() => self.etcd.wish(leader, candidate.filter(|_| named)),
            Kind::PlannedSwitchover if leader.is_some() => {
                let wall = (self.now / 1000 + self.rng.between(1000, 60_000)) as i64;
                self.etcd.wish(leader, candidate.filter(|_| named));
                self.etcd.keys.planned = Some(wall);
            }
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
}
