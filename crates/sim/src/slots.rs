//! Replication slots: one physical and one logical slot that shall survive a failover, their consumers, and what each member does
//! about its slots by `ha::slots`.
//!
//! ```text
//!   consumer ──moves──► slot on the primary ──► /status.slots ──► standbys move theirs after it, never beyond what they have
//!                             └──copied──► placed when the standby is started again
//! ```

use crate::clock::{SECOND, Time, span};
use crate::known_bugs::KnownBug;
use crate::net::Trouble;
use crate::note;
use crate::postgres::Proc;
use crate::world::{NodeNo, World};
use ha::Order;
use ha::slots::{Post, Seen, Tenant, plan};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Lsn, NodeName, PermanentSlot, Slot, SlotKind, SlotWish};

/// The slots that shall survive.
pub const PERMANENT: [&str; 2] = ["cdc", "keep"];

/// What is known of their consumers, and of how the standbys do.
#[derive(Debug, Default)]
pub struct Slots {
    /// By slot: what its consumer has for sure.
    pub confirmed: BTreeMap<String, Lsn>,
    /// By node and slot that is not there.
    pub missing: BTreeMap<(NodeNo, String), Missing>,
    /// By node and slot: it was seen there, and not ahead of its consumer.
    pub ready: BTreeMap<(NodeNo, String), bool>,
}

/// A slot that is not where it could be.
#[derive(Clone, Copy, Debug, Default)]
pub struct Missing {
    /// Since when nothing is in the way.
    since: Option<Time>,
    /// For how long nothing was, at the longest.
    pub longest: Time,
}

fn wish(name: &str) -> SlotWish {
    if name == "cdc" {
        SlotWish::Logical { database: "shop".to_owned(), plugin: "pgoutput".to_owned(), failover: false }
    } else {
        SlotWish::Physical
    }
}

fn there(name: &str, at: Lsn) -> Slot {
    let mut slot = Slot { restart_lsn: Some(at), ..Slot::physical(name) };
    if let SlotWish::Logical { database, plugin, failover: _ } = wish(name) {
        slot.kind = SlotKind::Logical;
        slot.confirmed_flush_lsn = Some(at);
        slot.database = Some(database);
        slot.plugin = Some(plugin);
    }
    slot
}

impl World {
    /// One round of an agent, once in `loop_wait`.
    pub fn look_after_slots(&mut self, node: NodeNo) {
        if !self.config.slots || self.now < self.nodes[node].agent.slots_at {
            return;
        }
        let rest = span(self.config.rules.loop_wait);
        self.nodes[node].agent.slots_at = self.now + rest;
        let now = self.moment(node);
        let Some(seen) = self.slots_seen(node) else {
            return;
        };
        let (todo, memory) = plan(&seen, &self.nodes[node].agent.slot_memory, now);
        self.nodes[node].agent.slot_memory = memory;
        let leads = seen.post == Post::Leads;
        let bug = self.config.bug.filter(|_| !leads);
        let end = self.nodes[node].postgres.end().unwrap_or_default();
        let slots = &mut self.nodes[node].postgres.slots;
        for drop in todo.drop {
            slots.remove(&drop.name);
        }
        for (name, _) in todo.create.into_iter().filter(|_| bug != Some(KnownBug::SlotLeftBehind)) {
            slots.insert(name.clone(), end);
            if leads && PERMANENT.contains(&name.as_str()) {
                // Made anew: its consumer starts anew, too.
                self.slots.confirmed.insert(name, end);
            }
        }
        let logical = todo.advance_logical.into_iter().map(|(_, name, to)| (name, to));
        for (name, to) in todo.advance.into_iter().chain(logical) {
            let to = if bug == Some(KnownBug::SlotGap) { end } else { to };
            slots.insert(name, to);
        }
        if bug != Some(KnownBug::SlotLeftBehind) {
            self.copy_slots(node, todo.copy.into_iter().map(|(name, _)| name));
        }
    }

    fn slots_seen(&self, node: NodeNo) -> Option<Seen> {
        let host = &self.nodes[node];
        let keys = host.agent.view.as_ref()?;
        let leads = host.agent.seen.leads(self.moment(node)).is_some();
        let seen = &host.agent.seen;
        let post = match &host.postgres.proc {
            Proc::Primary if leads => Post::Leads,
            Proc::Standby { promoting: false, .. } if !leads => Post::Follows {
                leader: seen.other_leader().cloned(),
                replayed: host.postgres.end(),
                slot_sync: false,
            },
            Proc::Stopped
            | Proc::Starting { .. }
            | Proc::Stopping { .. }
            | Proc::Primary
            | Proc::Standby { .. } => return None,
        };
        if host.postgres.hangs.is_some() || seen.rules.standby_cluster {
            return None;
        }
        let of_this_term = keys.leader.is_some_and(|leader| keys.slots_modified > leader.term.0);
        let tenant = |(no, (member, _)): (&NodeNo, &(ha::Member, u64))| {
            let tenant = Tenant {
                nostream: false,
                replicatefrom: member.replicatefrom.clone(),
                nofailover: member.nofailover,
                lsn: member.lsn,
            };
            (self.names[*no].clone(), tenant)
        };
        let permanent =
            PERMANENT.map(|name| (name.to_owned(), PermanentSlot { wish: wish(name), only_in: None }));
        Some(Seen {
            me: seen.me.clone(),
            nofailover: host.tags.nofailover(),
            post,
            standby_cluster: false,
            pause: seen.rules.pause,
            rules: ha::slots::Rules {
                use_slots: true,
                ttl: Duration::from_secs(1800),
                grace: seen.rules.loop_wait,
                // Of a version that has none.
                failover_slots: false,
                patience: seen.rules.ttl,
            },
            members: keys.members.iter().map(tenant).collect::<BTreeMap<NodeName, Tenant>>(),
            permanent: permanent.into(),
            ignored: Vec::new(),
            there: host.postgres.slots.iter().map(|(name, at)| there(name, *at)).collect(),
            promised: if of_this_term { keys.slots.clone() } else { BTreeMap::new() },
            retained: Vec::new(),
            voters: None,
        })
    }

    /// Reads slots from the primary; they are placed when PostgreSQL is started again.
    fn copy_slots(&mut self, node: NodeNo, names: impl Iterator<Item = String>) {
        let leader = self.nodes[node].agent.view.as_ref().and_then(|keys| keys.leader).map(|l| l.node);
        let Some(leader) = leader.filter(|from| {
            *from != node && self.net.joined(node, *from) && self.nodes[*from].postgres.accepts_writes()
        }) else {
            return;
        };
        for name in names {
            if let Some(at) = self.nodes[leader].postgres.slots.get(&name).copied() {
                self.nodes[node].agent.copies.insert(name, at);
            }
        }
        let agent = &mut self.nodes[node].agent;
        if !agent.copies.is_empty() && agent.orders.is_empty() {
            agent.orders.push_back(Order::LoadSlots);
            self.turn_soon(node);
        }
    }

    /// A stopped standby gets the copies, as far as it has the WAL that they speak of.
    pub fn place_copies(&mut self, node: NodeNo) {
        let copies = std::mem::take(&mut self.nodes[node].agent.copies);
        let postgres = &mut self.nodes[node].postgres;
        let end = postgres.end().unwrap_or_default();
        for (name, at) in copies.into_iter().filter(|(_, at)| *at <= end) {
            postgres.slots.entry(name).or_insert(at);
        }
    }

    /// The consumers of a primary take what there is, now and then.
    pub fn consume(&mut self, node: NodeNo) {
        if !self.config.slots || !self.rng.chance(300) {
            return;
        }
        let end = self.nodes[node].postgres.end().unwrap_or_default();
        for name in PERMANENT {
            let Some(at) = self.nodes[node].postgres.slots.get(name).copied() else { continue };
            let before = self.slots.confirmed.get(name).copied().unwrap_or(at).max(at);
            let to = Lsn(before.0 + self.rng.below(end.0.saturating_sub(before.0) + 1));
            self.slots.confirmed.insert(name.to_owned(), to);
            self.nodes[node].postgres.slots.insert(name.to_owned(), to);
        }
    }

    /// With every round of replication: which standbys lack a slot although nothing is in the way.
    pub fn watch_slots(&mut self) {
        if !self.config.slots {
            return;
        }
        let primary = self.etcd.keys.leader.map(|leader| leader.node);
        let primary = primary.filter(|node| self.nodes[*node].postgres.accepts_writes());
        for node in 0..self.nodes.len() {
            for name in PERMANENT {
                let at = self.nodes[node].postgres.slots.get(name).copied();
                // As long as its consumer never came, nobody knows what is behind it.
                let confirmed = self.slots.confirmed.get(name).copied();
                let key = (node, name.to_owned());
                if at.zip(confirmed).is_some_and(|(at, confirmed)| at <= confirmed) {
                    self.slots.ready.insert(key.clone(), true);
                } else if at.is_none() {
                    self.slots.ready.remove(&key);
                }
                let free =
                    at.is_none() && primary.is_some_and(|primary| self.could_keep(node, primary, name));
                if at.is_some() || self.nodes[node].postgres.disk.database().is_none() {
                    self.slots.missing.remove(&key);
                } else {
                    let missing = self.slots.missing.entry(key).or_default();
                    missing.since = free.then(|| missing.since.unwrap_or(self.now));
                    missing.longest = missing.longest.max(missing.since.map_or(0, |since| self.now - since));
                }
            }
        }
    }

    fn could_keep(&self, node: NodeNo, primary: NodeNo, name: &str) -> bool {
        let (host, keys) = (&self.nodes[node], &self.etcd.keys);
        let leader = &self.nodes[primary];
        let sound = |no: NodeNo| {
            let Trouble { cut_up, cut_down, loss, slow } = self.net.etcd[no];
            self.nodes[no].agent.answers() && !cut_up && !cut_down && loss == 0 && slow == 0
        };
        let fed = matches!(host.postgres.proc, Proc::Standby { streaming: true, promoting: false, upstream: Some(from) } if from == primary);
        node != primary
            && fed
            && self.etcd.up
            && !keys.paused
            && !keys.follows_remote
            && sound(node)
            && sound(primary)
            && host.postgres.hangs.is_none()
            && !host.tags.nofailover()
            && leader.postgres.slots.contains_key(name)
            && self.net.joined(node, primary)
            && host.postgres.lags_until <= self.now
            && host.agent.orders.front().is_none_or(|order| *order == Order::LoadSlots)
            && leader.agent.orders.is_empty()
    }

    /// How long a slot may be missing.
    #[must_use]
    pub fn slot_bound(&self) -> Time {
        6 * span(self.config.rules.loop_wait) + 2 * span(self.config.rules.retry_timeout) + 10 * SECOND
    }

    /// A new primary: what it does not have is lost to its consumers as well.
    pub fn consumers_follow(&mut self, node: NodeNo) {
        let Some(end) = self.nodes[node].postgres.end() else {
            return;
        };
        for (name, confirmed) in &mut self.slots.confirmed {
            // One that was made here too late, and was not promised: its consumer has to begin where it is.
            let at = self.nodes[node].postgres.slots.get(name).copied();
            *confirmed = at.unwrap_or_default().max((*confirmed).min(end));
        }
        let confirmed = self.slots.confirmed.clone();
        for ((no, name), ready) in &mut self.slots.ready {
            let at = self.nodes[*no].postgres.slots.get(name);
            *ready &= at.zip(confirmed.get(name)).is_some_and(|(at, confirmed)| at <= confirmed);
        }
        note!(self, Some(node), "the slots here: {:?}", self.nodes[node].postgres.slots);
    }
}
