//! Which slots shall be on this PostgreSQL.

use super::{Post, Seen};
use std::collections::{BTreeMap, BTreeSet};
use types::{ClusterType, Lsn, NodeName, PermanentSlot, SlotWish, Tags, slot_name};

/// A slot that shall be here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Want {
    pub wish: SlotWish,
    /// Its consumer is expected here and moves it; else it is moved to `to`.
    pub used_here: bool,
    pub to: Option<Lsn>,
    /// It is made when it is missing; the slot of an absent member is only kept.
    pub make: bool,
}

/// All slots that shall be here, by name; and the permanent ones that cannot be, with the member whose name is in the way.
pub(super) fn wanted(
    seen: &Seen,
    absent: &BTreeSet<String>,
) -> (BTreeMap<String, Want>, Vec<(String, NodeName)>) {
    let mut wants = BTreeMap::new();
    let mut conflicts = Vec::new();
    if !seen.rules.use_slots {
        return (wants, conflicts);
    }
    let own = slot_name(&seen.me);
    members(seen, &mut wants);
    let ours = |name: &String, slot: &PermanentSlot| *name != own && is_kept_here(seen, slot);
    for (name, slot) in seen.permanent.iter().filter(|(name, slot)| ours(name, slot)) {
        if is_postgresqls(seen, slot) {
            continue;
        }
        let logical = slot.wish != SlotWish::Physical;
        let member = seen.members.keys().find(|member| slot_name(member) == *name);
        match member {
            Some(member) if logical => conflicts.push((name.clone(), member.clone())),
            Some(_) | None => {
                wants.entry(name.clone()).or_insert_with(|| permanent(seen, name, slot));
            }
        }
    }
    for name in absent.iter().filter(|name| **name != own && keeps_for_others(seen)) {
        let want = Want { make: matches!(seen.post, Post::Follows { .. }), ..elsewhere(seen, name, None) };
        wants.entry(name.clone()).or_insert(want);
    }
    (wants, conflicts)
}

/// Whether this member may be promoted and therefore keeps the slots that the leader has.
fn keeps_for_others(seen: &Seen) -> bool {
    !seen.nofailover && !seen.rules.ttl.is_zero()
}

fn members(seen: &Seen, wants: &mut BTreeMap<String, Want>) {
    let mut by_name: BTreeMap<String, Vec<&NodeName>> = BTreeMap::new();
    for name in seen.members.keys().filter(|name| **name != seen.me) {
        by_name.entry(slot_name(name)).or_default().push(name);
    }
    let own = slot_name(&seen.me);
    for (slot, names) in by_name.into_iter().filter(|(slot, _)| *slot != own) {
        let tenants = || names.iter().filter_map(|name| Some((*name, seen.members.get(*name)?)));
        if tenants().all(|(_, tenant)| tenant.nostream) {
            continue;
        }
        if tenants().any(|(name, _)| streams_from(seen, name) == Some(&seen.me)) {
            let want = Want { wish: SlotWish::Physical, used_here: true, to: None, make: true };
            wants.insert(slot, want);
        } else if keeps_for_others(seen) {
            let behind = tenants().filter_map(|(_, tenant)| tenant.lsn).min();
            wants.insert(slot.clone(), elsewhere(seen, &slot, behind));
        }
    }
}

/// The member from which `name` is to stream: the one its tag names while that one is there, else the leader.
pub(super) fn streams_from<'a>(seen: &'a Seen, name: &NodeName) -> Option<&'a NodeName> {
    let tagged = seen.members.get(name).and_then(|tenant| tenant.replicatefrom.as_ref());
    match tagged.filter(|parent| *parent != name).and_then(|parent| seen.members.get_key_value(parent)) {
        Some((parent, _)) => Some(parent),
        None => match &seen.post {
            Post::Leads => Some(&seen.me),
            Post::Follows { leader, .. } => leader.as_ref(),
        },
    }
}

/// A physical slot whose user streams from another member: moved after it, so that it is near when its user comes.
fn elsewhere(seen: &Seen, name: &str, user: Option<Lsn>) -> Want {
    let to = match &seen.post {
        Post::Leads => user,
        Post::Follows { .. } => seen.promised.get(name).copied(),
    };
    Want { wish: SlotWish::Physical, used_here: false, to, make: true }
}

fn permanent(seen: &Seen, name: &str, slot: &PermanentSlot) -> Want {
    let (used_here, to) = match &seen.post {
        Post::Leads => (true, None),
        Post::Follows { .. } => (false, seen.promised.get(name).copied()),
    };
    Want { wish: made(seen, &slot.wish), used_here, to, make: true }
}

/// As it is made here: a version that does not know of failover slots makes an ordinary one.
fn made(seen: &Seen, wish: &SlotWish) -> SlotWish {
    match wish {
        SlotWish::Physical => SlotWish::Physical,
        SlotWish::Logical { database, plugin, failover } => SlotWish::Logical {
            database: database.clone(),
            plugin: plugin.clone(),
            failover: *failover && seen.rules.failover_slots,
        },
    }
}

/// Whether PostgreSQL itself brings this slot to the standby.
fn is_postgresqls(seen: &Seen, slot: &PermanentSlot) -> bool {
    let follows = matches!(seen.post, Post::Follows { .. });
    follows && seen.rules.failover_slots && slot.wish.is_failover()
}

/// Whether a permanent slot of this name is one that PostgreSQL keeps on standbys.
pub(super) fn is_failover(seen: &Seen, name: &str) -> bool {
    let wished = seen.permanent.get(name).is_some_and(|slot| slot.wish.is_failover());
    wished && seen.rules.use_slots && seen.rules.failover_slots && !seen.standby_cluster
}

fn is_kept_here(seen: &Seen, slot: &PermanentSlot) -> bool {
    let kind = if seen.standby_cluster { ClusterType::Standby } else { ClusterType::Primary };
    let logical = slot.wish != SlotWish::Physical;
    let impossible = logical && (seen.standby_cluster || is_fed_by_archive(seen));
    !seen.nofailover && !impossible && slot.only_in.is_none_or(|only| only == kind)
}

/// Whether this standby, or one above it, takes WAL from the archive: then the primary does not hear which rows it still needs, and a
/// copy of a logical slot would be of no use.
fn is_fed_by_archive(seen: &Seen) -> bool {
    let leader = match &seen.post {
        Post::Leads => return false,
        Post::Follows { leader, .. } => leader.as_ref(),
    };
    let mut at = &seen.me;
    for _ in 0..=seen.members.len() {
        match seen.members.get(at) {
            Some(_) if Some(at) == leader => return false,
            Some(tenant) if tenant.nostream => return true,
            Some(_) | None => {}
        }
        match streams_from(seen, at) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
    false
}

/// What the tags of a member say about its slot.
impl super::Tenant {
    #[must_use]
    pub fn of(tags: &Tags, lsn: Option<Lsn>) -> super::Tenant {
        super::Tenant {
            nostream: tags.nostream(),
            replicatefrom: tags.replicatefrom().map(NodeName::from),
            nofailover: tags.nofailover(),
            lsn,
        }
    }
}
