//! The tags of a member: what an operator wants to be different about it.

use std::collections::BTreeMap;

/// A tag's value, kept as it was written: the string `"1"` and the number 1 are published differently.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TagValue {
    Bool(bool),
    Int(i64),
    Text(String),
}

impl TagValue {
    /// The value as a yes or no, for the built-in tags that are one; `None` when it is neither.
    #[must_use]
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            TagValue::Bool(value) => Some(*value),
            TagValue::Int(value) => Some(*value != 0),
            TagValue::Text(text) => match text.to_ascii_lowercase().as_str() {
                "on" | "true" | "yes" | "1" => Some(true),
                "off" | "false" | "no" | "0" => Some(false),
                _ => None,
            },
        }
    }

    /// The value as a whole number; `None` when it is none.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            TagValue::Bool(_) => None,
            TagValue::Int(value) => Some(*value),
            TagValue::Text(text) => text.trim().parse().ok(),
        }
    }
}

/// All tags of a member, by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tags(pub BTreeMap<String, TagValue>);

impl Tags {
    fn flag(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(TagValue::as_bool)
    }

    /// Whether this member never leads: `nofailover: true`, or without that tag a `failover_priority` of 0 or less.
    #[must_use]
    pub fn nofailover(&self) -> bool {
        self.flag("nofailover").unwrap_or_else(|| self.priority("failover_priority").is_some_and(|p| p <= 0))
    }

    /// Among equally fresh candidates the one with the larger priority leads; 1 unless said.
    #[must_use]
    pub fn failover_priority(&self) -> i64 {
        match self.flag("nofailover") {
            Some(true) => 0,
            Some(false) => self.priority("failover_priority").filter(|p| *p > 0).unwrap_or(1),
            None => self.priority("failover_priority").unwrap_or(1),
        }
    }

    /// Whether this member is never a synchronous standby: `nosync: true`, or a `sync_priority` of 0 or less.
    #[must_use]
    pub fn nosync(&self) -> bool {
        self.flag("nosync").unwrap_or_else(|| self.priority("sync_priority").is_some_and(|p| p <= 0))
    }

    /// Among the standbys that could be synchronous the one with the larger priority is; 1 unless said.
    #[must_use]
    pub fn sync_priority(&self) -> i64 {
        match self.flag("nosync") {
            Some(true) => 0,
            Some(false) => self.priority("sync_priority").filter(|p| *p > 0).unwrap_or(1),
            None => self.priority("sync_priority").unwrap_or(1),
        }
    }

    /// These tags as a synchronous standby publishes them before it goes: the leader must not count on it any more.
    #[must_use]
    pub fn without_sync(&self) -> Tags {
        let mut tags = self.clone();
        tags.0.insert("nosync".to_owned(), TagValue::Bool(true));
        tags.0.insert("sync_priority".to_owned(), TagValue::Int(0));
        tags
    }

    /// Whether routers keep reads away from this member.
    #[must_use]
    pub fn noloadbalance(&self) -> bool {
        self.flag("noloadbalance").unwrap_or(false)
    }

    /// Whether others may clone from this member.
    #[must_use]
    pub fn clonefrom(&self) -> bool {
        self.flag("clonefrom").unwrap_or(false)
    }

    /// Whether this member takes WAL from the archive only.
    #[must_use]
    pub fn nostream(&self) -> bool {
        self.flag("nostream").unwrap_or(false)
    }

    /// The member this one replicates from instead of the leader.
    #[must_use]
    pub fn replicatefrom(&self) -> Option<&str> {
        match self.0.get("replicatefrom") {
            Some(TagValue::Text(name)) if !name.is_empty() => Some(name),
            _ => None,
        }
    }

    /// The tags as the member key and the REST API show them: a built-in one that says no is left out, unless a priority
    /// beside it makes its no a statement.
    #[must_use]
    pub fn published(&self) -> Tags {
        let shown = |name: &str, value: &TagValue| {
            let priority = match name {
                "nofailover" => Some("failover_priority"),
                "nosync" => Some("sync_priority"),
                "noloadbalance" | "clonefrom" | "nostream" => None,
                _ => return true,
            };
            value.as_bool() != Some(false) || priority.is_some_and(|priority| self.0.contains_key(priority))
        };
        let kept = self.0.iter().filter(|(name, value)| shown(name, value));
        Tags(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    fn priority(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(TagValue::as_int)
    }
}

#[cfg(test)]
mod tests {
    use super::{TagValue, Tags};

    fn tags(pairs: &[(&str, TagValue)]) -> Tags {
        Tags(pairs.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect())
    }

    #[test]
    fn a_no_is_published_only_where_it_says_something() {
        let no = TagValue::Bool(false);
        let plain = tags(&[("nofailover", no.clone()), ("clonefrom", no.clone()), ("mine", no.clone())]);
        assert_eq!(plain.published(), tags(&[("mine", no.clone())]));
        let ranked = tags(&[("nofailover", no), ("failover_priority", TagValue::Int(2))]);
        assert_eq!(ranked.published(), ranked);
    }

    #[test]
    fn nofailover_wins_over_priority() {
        let both = tags(&[("nofailover", TagValue::Bool(true)), ("failover_priority", TagValue::Int(1))]);
        assert!(both.nofailover());
        assert_eq!(both.failover_priority(), 0);
        let twin = tags(&[("nofailover", TagValue::Bool(false)), ("failover_priority", TagValue::Int(0))]);
        assert!(!twin.nofailover());
        assert_eq!(twin.failover_priority(), 1);
        assert!(tags(&[("failover_priority", TagValue::Text("0".into()))]).nofailover());
        assert_eq!(Tags::default().failover_priority(), 1);
    }

    #[test]
    fn who_leaves_the_synchronous_standbys_says_so() {
        let preferred = tags(&[("sync_priority", TagValue::Int(5)), ("clonefrom", TagValue::Bool(true))]);
        assert_eq!((preferred.sync_priority(), preferred.nosync()), (5, false));
        let gone = preferred.without_sync();
        assert_eq!((gone.sync_priority(), gone.nosync(), gone.clonefrom()), (0, true, true));
        assert_eq!(Tags::default().sync_priority(), 1);
    }
}
