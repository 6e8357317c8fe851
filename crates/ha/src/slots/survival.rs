//! What would become of the leader's slots if a certain member took over now.

use std::collections::BTreeMap;
use std::fmt;
use types::{Lsn, Slot, SlotKind};

/// A slot of the leader, as far as it is known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Promised {
    pub logical: bool,
    /// `slots` of the dynamic configuration names it.
    pub permanent: bool,
    /// PostgreSQL 17 and later keeps it on standbys by itself.
    pub failover: bool,
    /// Where its consumer is.
    pub position: Option<Lsn>,
}

/// What becomes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// Its consumer goes on.
    Survives,
    /// The consumer would miss what lies between: it finds the slot ahead of where it is.
    Ahead {
        here: Lsn,
        there: Lsn,
    },
    Missing,
    /// Copied too recently: old rows of the catalogs may be gone that it needs.
    NotReady,
    /// The WAL that it needs is gone, or PostgreSQL invalidated it.
    Lost,
    /// A leftover that PostgreSQL cannot copy the leader's over.
    InTheWay,
    /// Nobody asked for it to survive.
    NotPromised,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::Survives => f.write_str("survives"),
            Fate::Ahead { here, there } => write!(f, "is at {here} there and its consumer only at {there}: the changes between would be missed"),
            Fate::Missing => f.write_str("is not there yet: its consumer would have to start anew"),
            Fate::NotReady => f.write_str("was copied there too recently to be sure of: rows that it needs may be gone"),
            Fate::Lost => f.write_str("is invalid there (the WAL or rows that it needs are gone): its consumer would have to start anew"),
            Fate::InTheWay => f.write_str("is a leftover there, over which PostgreSQL cannot copy the leader's: its consumer would miss changes"),
            Fate::NotPromised => f.write_str("is neither permanent (slots) nor a failover slot: it ends with this leader"),
        }
    }
}

/// What becomes of each of the leader's slots on a member that has these; `unready` are copies that are not proven yet.
#[must_use]
pub fn fates(
    promised: &BTreeMap<String, Promised>,
    there: &[Slot],
    unready: &[String],
) -> BTreeMap<String, Fate> {
    let fate = |(name, slot): (&String, &Promised)| {
        let copy = there.iter().find(|copy| copy.name == *name);
        (name.clone(), fate(slot, copy, unready.contains(name)))
    };
    promised.iter().map(fate).collect()
}

fn fate(slot: &Promised, copy: Option<&Slot>, unready: bool) -> Fate {
    if !slot.permanent && !slot.failover {
        return Fate::NotPromised;
    }
    let Some(copy) = copy else { return Fate::Missing };
    if copy.is_lost() {
        return Fate::Lost;
    }
    let logical = slot.logical || copy.kind == SlotKind::Logical;
    if logical && slot.failover && !copy.synced {
        return Fate::InTheWay;
    }
    // PostgreSQL keeps a copy as a temporary one until it can be used.
    if unready || copy.temporary {
        return Fate::NotReady;
    }
    match (copy.position(), slot.position) {
        (Some(here), Some(there)) if logical && here > there => Fate::Ahead { here, there },
        (Some(_) | None, Some(_) | None) => Fate::Survives,
    }
}
