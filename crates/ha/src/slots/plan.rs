//! What is to be done about each slot.

use super::awaited::awaited;
use super::wanted::{Want, is_failover, wanted};
use super::{Post, Seen};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, Slot, SlotKind, SlotWish, slot_name};

/// What is to be done, in this order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    pub drop: Vec<Drop>,
    pub create: Vec<(String, SlotWish)>,
    /// Physical slots that nobody uses here, to let go of the dead rows that they hold.
    pub clear: Vec<String>,
    /// Physical slots, to be moved so far.
    pub advance: Vec<(String, Lsn)>,
    /// Logical slots and their databases, to be moved so far.
    pub advance_logical: Vec<(String, String, Lsn)>,
    /// Logical slots of the leader that PostgreSQL shall keep on standbys from now on.
    pub mark: Vec<String>,
    /// Standbys, by their slots, that must have everything before a consumer of a failover slot gets it. `None`: nobody asked for that.
    pub awaited: Option<Vec<String>>,
    /// Logical slots that the leader has and this standby has not.
    pub copy: Vec<(String, SlotWish)>,
    /// For `/status.retain_slots`.
    pub retain: Vec<String>,
    pub reports: Vec<Report>,
}

/// A slot to be dropped, unless it is in use by then.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Drop {
    pub name: String,
    pub why: DropWhy,
}

/// Why a slot is dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum DropWhy {
    Unknown,
    MemberAway,
    WrongKind,
    Lost,
    HoldsNothing,
    AheadOfLeader,
    BlocksSlotSync,
}

impl fmt::Display for DropWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DropWhy::Unknown => "nobody uses it, and neither a member nor slots or ignore_slots of the configuration knows it",
            DropWhy::MemberAway => "its member has been away for longer than member_slots_ttl",
            DropWhy::WrongKind => "its type, database or plugin is not the configured one; it is made anew",
            DropWhy::Lost => "the WAL it needs is gone; it is made anew",
            DropWhy::HoldsNothing => "it keeps no WAL; it is made anew",
            DropWhy::AheadOfLeader => "it is ahead of the leader's, as a former leader's can be: after a promotion its consumer would miss changes; it is copied anew",
            DropWhy::BlocksSlotSync => {
                "PostgreSQL cannot copy the primary's slot of this name over it: it is left over from when this member led, or was copied before slots were marked failover"
            }
        })
    }
}

/// Something that people should know.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Report {
    /// The consumer of this logical slot must start anew: making the slot anew would hide the gap from it.
    LostOnLeader {
        slot: String,
    },
    NamedLikeMember {
        slot: String,
        member: NodeName,
    },
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::LostOnLeader { slot } => write!(
                f,
                "the WAL that logical slot {slot} needs is gone: its consumer misses changes and must start anew; then drop the slot, and it is made again"
            ),
            Report::NamedLikeMember { slot, member } => write!(
                f,
                "logical slot {slot} cannot be kept: the physical slot of member {member} has this name; give one of them another"
            ),
        }
    }
}

/// What is remembered from round to round.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Memory {
    /// While leading: when the member of each slot was last there.
    last_seen: BTreeMap<String, Moment>,
    /// Since when a slot was seen that nobody knows.
    unknown_since: BTreeMap<String, Moment>,
    /// Since when a logical slot here is ahead of the leader's. A fresh copy is ahead of `/status` for a moment.
    ahead_since: BTreeMap<String, Moment>,
    /// While leading: since when the slot of a member is seen unused.
    pub(super) idle_since: BTreeMap<String, Moment>,
}

/// So many times the time of grace a slot may be ahead.
const AHEAD_TOLERATED: u32 = 3;

/// One round.
#[must_use]
pub fn plan(seen: &Seen, memory: &Memory, now: Moment) -> (Plan, Memory) {
    let mut memory = memory.clone();
    let absent = absent(seen, &mut memory, now);
    let (wants, conflicts) = wanted(seen, &absent);
    let awaited = awaited(seen, &mut memory, now);
    let mut plan = Plan { retain: retain(seen, &memory, now), awaited, ..Plan::default() };
    plan.reports =
        conflicts.into_iter().map(|(slot, member)| Report::NamedLikeMember { slot, member }).collect();
    memory.unknown_since.retain(|name, _| seen.there.iter().any(|slot| slot.name == *name));
    memory.ahead_since.retain(|name, _| seen.there.iter().any(|slot| slot.name == *name));
    for slot in seen.there.iter().filter(|slot| !slot.temporary && !is_left_alone(seen, slot)) {
        match wants.get(&slot.name) {
            Some(want) => {
                memory.unknown_since.remove(&slot.name);
                let ahead = is_ahead(seen, slot, want, &mut memory, now);
                look_after(seen, slot, want, ahead, &mut plan);
            }
            None => reject(seen, slot, &mut memory, now, &mut plan),
        }
    }
    for (name, want) in wants.iter().filter(|(name, _)| !seen.there.iter().any(|slot| slot.name == **name)) {
        match (&want.wish, &seen.post) {
            (SlotWish::Logical { .. }, Post::Follows { .. }) if !seen.pause => {
                plan.copy.push((name.clone(), want.wish.clone()));
            }
            (SlotWish::Logical { .. }, Post::Follows { .. }) => {}
            (SlotWish::Physical, Post::Follows { .. }) | (_, Post::Leads) if want.make => {
                plan.create.push((name.clone(), want.wish.clone()));
            }
            (SlotWish::Physical | SlotWish::Logical { .. }, Post::Follows { .. } | Post::Leads) => {}
        }
    }
    (plan, memory)
}

/// The slots of members that are away and may come back.
fn absent(seen: &Seen, memory: &mut Memory, now: Moment) -> BTreeSet<String> {
    let streams = seen.members.iter().filter(|(_, tenant)| !tenant.nostream);
    let present: BTreeSet<String> = streams.map(|(name, _)| slot_name(name)).collect();
    match &seen.post {
        Post::Follows { .. } => {
            memory.last_seen.clear();
            seen.retained.iter().filter(|name| !present.contains(*name)).cloned().collect()
        }
        Post::Leads => {
            // A new leader gives everybody its predecessor waited for the whole time again.
            for name in seen.retained.iter().filter(|name| seen.there.iter().any(|slot| slot.name == **name))
            {
                memory.last_seen.entry(name.clone()).or_insert(now);
            }
            for name in &present {
                memory.last_seen.insert(name.clone(), now);
            }
            let ttl = seen.rules.ttl;
            // One whose time has passed is remembered until its slot is gone, so that the reason can be told.
            memory
                .last_seen
                .retain(|name, at| now.since(*at) <= ttl || seen.there.iter().any(|slot| slot.name == *name));
            let kept = memory.last_seen.iter().filter(|(_, at)| now.since(**at) <= ttl);
            kept.map(|(name, _)| name).filter(|name| !present.contains(*name)).cloned().collect()
        }
    }
}

/// The slots that the members who follow keep too, so that whoever leads next goes on waiting for their owners: ours as well, when it
/// is we who are gone.
fn retain(seen: &Seen, memory: &Memory, now: Moment) -> Vec<String> {
    match &seen.post {
        Post::Leads if !seen.rules.ttl.is_zero() => {
            let kept = memory.last_seen.iter().filter(|(_, at)| now.since(**at) <= seen.rules.ttl);
            kept.map(|(name, _)| name).cloned().collect()
        }
        Post::Leads | Post::Follows { .. } => Vec::new(),
    }
}

fn is_left_alone(seen: &Seen, slot: &Slot) -> bool {
    if seen.ignored.iter().any(|matcher| matcher.matches(slot)) {
        return true;
    }
    match &seen.post {
        Post::Leads => slot.failover && !is_failover(seen, &slot.name),
        Post::Follows { .. } => slot.synced,
    }
}

/// A slot that shall be here.
fn look_after(seen: &Seen, slot: &Slot, want: &Want, ahead: bool, plan: &mut Plan) {
    let drop = |why| Drop { name: slot.name.clone(), why };
    let slot_sync = matches!(&seen.post, Post::Follows { slot_sync: true, .. });
    if slot.active {
        return;
    }
    if seen.pause {
        advance(seen, slot, want, plan);
    } else if slot_sync && slot.failover {
        plan.drop.push(drop(DropWhy::BlocksSlotSync));
    } else if !want.wish.is_met_by(slot) {
        plan.drop.push(drop(DropWhy::WrongKind));
    } else if slot.is_lost() {
        match (&seen.post, slot.kind) {
            (Post::Leads, SlotKind::Logical) => {
                plan.reports.push(Report::LostOnLeader { slot: slot.name.clone() });
            }
            (Post::Leads, SlotKind::Physical) | (Post::Follows { .. }, _) => {
                plan.drop.push(drop(DropWhy::Lost))
            }
        }
    } else if slot.kind == SlotKind::Physical && slot.restart_lsn.is_none() {
        plan.drop.push(drop(DropWhy::HoldsNothing));
    } else if ahead {
        plan.drop.push(drop(DropWhy::AheadOfLeader));
    } else {
        // The slot of an absent member keeps what it has: its WAL is worth more.
        if slot.kind == SlotKind::Physical && slot.holds_xmin && !want.used_here && want.make {
            plan.clear.push(slot.name.clone());
        }
        if want.wish.is_failover() && !slot.failover && seen.post == Post::Leads {
            plan.mark.push(slot.name.clone());
        }
        advance(seen, slot, want, plan);
    }
}

/// Whether a copy of a logical slot has been ahead of the original for too long.
fn is_ahead(seen: &Seen, slot: &Slot, want: &Want, memory: &mut Memory, now: Moment) -> bool {
    let ahead = match (&seen.post, want.to, slot.position()) {
        (Post::Follows { .. }, Some(to), Some(at)) => slot.kind == SlotKind::Logical && at > to,
        (Post::Follows { .. } | Post::Leads, _, _) => false,
    };
    if !ahead {
        memory.ahead_since.remove(&slot.name);
        return false;
    }
    let since = *memory.ahead_since.entry(slot.name.clone()).or_insert(now);
    now.since(since) > seen.rules.grace * AHEAD_TOLERATED
}

fn advance(seen: &Seen, slot: &Slot, want: &Want, plan: &mut Plan) {
    let (Some(to), Some(at)) = (want.to, slot.position()) else { return };
    let to = match &seen.post {
        Post::Leads => to,
        Post::Follows { replayed: Some(replayed), .. } => to.min(*replayed),
        Post::Follows { replayed: None, .. } => return,
    };
    if want.used_here || to <= at || !want.wish.is_met_by(slot) || slot.is_lost() {
        return;
    }
    match &want.wish {
        SlotWish::Physical => plan.advance.push((slot.name.clone(), to)),
        SlotWish::Logical { database, .. } => {
            plan.advance_logical.push((database.clone(), slot.name.clone(), to));
        }
    }
}

/// A slot that nobody wants here.
fn reject(seen: &Seen, slot: &Slot, memory: &mut Memory, now: Moment, plan: &mut Plan) {
    let since = *memory.unknown_since.entry(slot.name.clone()).or_insert(now);
    if slot.active {
        memory.unknown_since.insert(slot.name.clone(), now);
        return;
    }
    let of_member = seen.members.keys().any(|member| slot_name(member) == slot.name);
    let (why, grace) = match &seen.post {
        Post::Follows { slot_sync: true, .. } if slot.failover || is_failover(seen, &slot.name) => {
            (DropWhy::BlocksSlotSync, seen.rules.grace)
        }
        Post::Follows { .. } if slot.failover => return,
        Post::Leads if !of_member && memory.last_seen.contains_key(&slot.name) && seen.rules.use_slots => {
            (DropWhy::MemberAway, Duration::ZERO)
        }
        // Without use_slots nobody but their owners knows which slots are needed.
        Post::Leads | Post::Follows { .. } if seen.rules.use_slots || of_member => {
            (DropWhy::Unknown, seen.rules.grace)
        }
        Post::Leads | Post::Follows { .. } => return,
    };
    if !seen.pause && now.since(since) >= grace {
        plan.drop.push(Drop { name: slot.name.clone(), why });
    }
}
