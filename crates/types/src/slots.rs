//! Replication slots: the ones that are there, and the ones that people ask for.

use crate::Lsn;

/// What a slot is for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum SlotKind {
    Physical,
    Logical,
}

/// A replication slot of a running PostgreSQL.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Slot {
    pub name: String,
    pub kind: SlotKind,
    pub active: bool,
    pub temporary: bool,
    pub restart_lsn: Option<Lsn>,
    /// Logical: what the subscriber has confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// `reserved`, `extended`, `unreserved`, `lost`
    pub wal_status: Option<String>,
    /// It holds back the removal of dead rows.
    pub holds_xmin: bool,
    /// Logical: the oldest transaction whose catalog rows it needs.
    pub catalog_xmin: Option<u32>,
    /// PostgreSQL 17 and later: it is kept on standbys by PostgreSQL itself.
    pub failover: bool,
    /// PostgreSQL 17 and later: it is such a copy.
    pub synced: bool,
}

impl Slot {
    /// A physical slot of this name that nobody uses and that holds nothing yet.
    #[must_use]
    pub fn physical(name: &str) -> Slot {
        Slot {
            name: name.to_owned(),
            kind: SlotKind::Physical,
            active: false,
            temporary: false,
            restart_lsn: None,
            confirmed_flush_lsn: None,
            plugin: None,
            database: None,
            wal_status: None,
            holds_xmin: false,
            catalog_xmin: None,
            failover: false,
            synced: false,
        }
    }

    /// The WAL it needed is gone, or it was invalidated for another reason: it can never be used again.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.wal_status.as_deref() == Some("lost")
    }

    /// How far its consumer is: what the leader publishes in `/status`.
    #[must_use]
    pub fn position(&self) -> Option<Lsn> {
        match self.kind {
            SlotKind::Physical => self.restart_lsn,
            SlotKind::Logical => self.confirmed_flush_lsn,
        }
    }
}

/// What a slot shall be.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum SlotWish {
    Physical,
    /// With `failover`, PostgreSQL 17 and later keeps it on standbys by itself; older ones have it copied as any other.
    Logical {
        database: String,
        plugin: String,
        failover: bool,
    },
}

impl SlotWish {
    /// Whether it is a logical one that PostgreSQL itself shall keep on standbys.
    #[must_use]
    pub fn is_failover(&self) -> bool {
        match self {
            SlotWish::Physical => false,
            SlotWish::Logical { failover, .. } => *failover,
        }
    }

    /// Whether `slot` is what was asked for; whether PostgreSQL keeps it on standbys can be changed later.
    #[must_use]
    pub fn is_met_by(&self, slot: &Slot) -> bool {
        match self {
            SlotWish::Physical => slot.kind == SlotKind::Physical,
            SlotWish::Logical { database, plugin, failover: _ } => {
                slot.kind == SlotKind::Logical
                    && slot.database.as_ref() == Some(database)
                    && slot.plugin.as_ref() == Some(plugin)
            }
        }
    }
}

/// In which clusters a permanent slot exists, where two clusters share one configuration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ClusterType {
    Primary,
    Standby,
}

/// A slot that always exists: an entry of `slots`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PermanentSlot {
    pub wish: SlotWish,
    /// `None`: in both.
    pub only_in: Option<ClusterType>,
}

/// Slots that are never touched: an entry of `ignore_slots`. What is not given matches anything.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SlotMatcher {
    pub name: Option<String>,
    pub kind: Option<SlotKind>,
    pub database: Option<String>,
    pub plugin: Option<String>,
}

impl SlotMatcher {
    /// Whether everything that is given is so.
    #[must_use]
    pub fn matches(&self, slot: &Slot) -> bool {
        self.name.as_ref().is_none_or(|name| *name == slot.name)
            && self.kind.is_none_or(|kind| kind == slot.kind)
            && (self.database.is_none() || self.database == slot.database)
            && (self.plugin.is_none() || self.plugin == slot.plugin)
    }
}

/// Whether PostgreSQL takes it for the name of a slot.
#[must_use]
pub fn is_slot_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::{Slot, SlotKind, SlotMatcher, SlotWish, is_slot_name};

    fn logical(name: &str, database: &str, plugin: &str) -> Slot {
        Slot {
            kind: SlotKind::Logical,
            database: Some(database.to_owned()),
            plugin: Some(plugin.to_owned()),
            ..Slot::physical(name)
        }
    }

    #[test]
    fn a_matcher_asks_only_for_what_it_says() {
        let cdc = logical("cdc", "shop", "pgoutput");
        let matcher = |name: Option<&str>, kind, database: Option<&str>| SlotMatcher {
            name: name.map(str::to_owned),
            kind,
            database: database.map(str::to_owned),
            plugin: None,
        };
        assert!(matcher(None, Some(SlotKind::Logical), Some("shop")).matches(&cdc));
        assert!(matcher(Some("cdc"), None, None).matches(&cdc));
        assert!(!matcher(Some("cdc"), Some(SlotKind::Physical), None).matches(&cdc));
        assert!(!matcher(None, None, Some("other")).matches(&cdc));
        assert!(!matcher(None, None, Some("shop")).matches(&Slot::physical("cdc")));
    }

    #[test]
    fn a_wish_is_met_by_the_same_database_and_plugin_only() {
        let wish = SlotWish::Logical { database: "shop".into(), plugin: "pgoutput".into(), failover: true };
        assert!(wish.is_met_by(&logical("cdc", "shop", "pgoutput")));
        for other in
            [logical("cdc", "shop", "wal2json"), logical("cdc", "x", "pgoutput"), Slot::physical("cdc")]
        {
            assert!(!wish.is_met_by(&other), "{other:?}");
        }
        assert!(SlotWish::Physical.is_met_by(&Slot::physical("a")));
    }

    #[test]
    fn names_are_postgresqls() {
        assert!(is_slot_name("node_1"));
        for bad in ["", "Node", "a-b", "a.b", "ä", &"x".repeat(64)] {
            assert!(!is_slot_name(bad), "{bad}");
        }
    }
}
