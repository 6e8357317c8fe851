//! Replication slots: which shall be on this PostgreSQL, and what is to be done about each.
//!
//! ```text
//!   Seen ──► wanted: name → Want ─┐
//!   slots there ──────────────────┼─► plan ─► Plan { drop, create, clear, advance, copy, retain, reports }
//!   Memory ───────────────────────┘
//! ```
//!
//! A slot that is promised to survive a failover is on every member that may be promoted. On the leader a slot moves with its
//! consumer; elsewhere it is moved to where `/status` says that it is on the leader, and never beyond what is replayed. So after a
//! promotion no consumer finds a slot that is ahead of it (law 10).
//!
//! Logical slots that are marked `failover` are PostgreSQL's own from version 17 on: the leader makes them so, standbys have them from it,
//! and their consumers get nothing before the standbys that may be promoted have it (`awaited`).
//!
//! Values in, values out: whoever carries the plan out does so beside the loop, and an order that fails is found again in the next round.

mod awaited;
mod plan;
mod ready;
mod survival;
mod wanted;

pub use plan::{Drop, DropWhy, Memory, Plan, Report, plan};
pub use ready::{Evidence, Readiness, readiness};
pub use survival::{Fate, Promised, fates};

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{Lsn, NodeName, PermanentSlot, Slot, SlotMatcher};

/// What a round of the slots is decided on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    pub me: NodeName,
    /// This member is never promoted: it keeps slots only for those that stream from it.
    pub nofailover: bool,
    pub post: Post,
    pub standby_cluster: bool,
    /// Nothing is dropped by itself.
    pub pause: bool,
    pub rules: Rules,
    /// All members, this one included or not.
    pub members: BTreeMap<NodeName, Tenant>,
    pub permanent: BTreeMap<String, PermanentSlot>,
    pub ignored: Vec<SlotMatcher>,
    /// The slots of this PostgreSQL.
    pub there: Vec<Slot>,
    /// Where each slot is on the leader: `/status.slots`.
    pub promised: BTreeMap<String, Lsn>,
    /// The slots of members that may come back: `/status.retain_slots`.
    pub retained: Vec<String>,
    /// In a synchronous mode the members that `/sync` names: nobody else is promoted by itself.
    pub voters: Option<BTreeSet<NodeName>>,
}

/// What this member is to the slots.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Post {
    /// It leads; consumers move its slots.
    Leads,
    /// It follows, and has replayed so far. With `slot_sync` PostgreSQL itself copies failover slots from the primary.
    Follows { leader: Option<NodeName>, replayed: Option<Lsn>, slot_sync: bool },
}

/// The settings that matter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rules {
    pub use_slots: bool,
    /// How long the slot of a member that is away is kept; zero keeps slots only for those that stream from here.
    pub ttl: Duration,
    /// A slot that nobody knows is dropped when it is seen unused for so long.
    pub grace: Duration,
    /// PostgreSQL keeps failover slots on standbys by itself (17 and later).
    pub failover_slots: bool,
    /// A standby that has not streamed for so long holds up no consumer of a failover slot.
    pub patience: Duration,
}

/// A member as a user of slots.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tenant {
    /// It takes WAL from the archive only.
    pub nostream: bool,
    /// Whom it streams from, if not from the leader.
    pub replicatefrom: Option<NodeName>,
    /// It is never promoted.
    pub nofailover: bool,
    /// How far it is.
    pub lsn: Option<Lsn>,
}
