//! `slots` and `ignore_slots` of the dynamic configuration.

use serde_json::Value;
use std::collections::BTreeMap;

/// A replication slot that always exists.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PermanentSlot {
    pub kind: SlotKind,
    /// Whether it exists only while this is (or is not) a standby cluster; `None` is always.
    pub cluster_type: Option<ClusterType>,
}

/// `type`, with what it needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SlotKind {
    Physical,
    Logical { database: String, plugin: String },
}

/// `cluster_type`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClusterType {
    Primary,
    Standby,
}

/// One entry of `ignore_slots`: a slot that agrees with everything it says is never touched.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlotMatcher {
    pub name: Option<String>,
    /// `physical` or `logical`.
    pub slot_type: Option<String>,
    pub database: Option<String>,
    pub plugin: Option<String>,
}

/// The slots that can be understood; the others are named in `warnings`.
pub(crate) fn permanent(value: Option<Value>, warnings: &mut Vec<String>) -> BTreeMap<String, PermanentSlot> {
    let mut slots = BTreeMap::new();
    match value {
        None => {}
        Some(Value::Object(entries)) => {
            for (name, entry) in entries {
                match one(&entry) {
                    Ok(slot) => drop(slots.insert(name, slot)),
                    Err(why) => warnings.push(format!("slots.{name} has no effect: {why}")),
                }
            }
        }
        Some(_) => warnings.push("slots should be a mapping of names to slots, and has no effect".to_owned()),
    }
    slots
}

fn one(entry: &Value) -> Result<PermanentSlot, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let entry_is_empty = match entry {
        Value::Null => true,
        Value::Object(entry) => entry.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("write it as `name: {type: physical}`".to_owned());
        }
    };
    let (database, plugin) = (text("database"), text("plugin"));
    // Without a type, what a logical slot needs makes it one.
    let logical = match text("type").as_deref() {
        Some("logical") => true,
        Some("physical") => false,
        None => !entry_is_empty && database.is_some() && plugin.is_some(),
        Some(other) => return Err(format!("its type {other:?} should be physical or logical")),
    };
    let kind = match (logical, database, plugin) {
        (false, _, _) => SlotKind::Physical,
        (true, Some(database), Some(plugin)) => SlotKind::Logical { database, plugin },
        (true, _, _) => return Err("a logical slot needs its database and its plugin".to_owned()),
    };
    let cluster_type = match text("cluster_type").as_deref() {
        None => None,
        Some("primary") => Some(ClusterType::Primary),
        Some("standby") => Some(ClusterType::Standby),
        Some(other) => return Err(format!("its cluster_type {other:?} should be primary or standby")),
    };
    Ok(PermanentSlot { kind, cluster_type })
}

/// The matchers that can be understood; the others are named in `warnings`.
pub(crate) fn matchers(value: Option<Value>, warnings: &mut Vec<String>) -> Vec<SlotMatcher> {
    let mut matchers = Vec::new();
    match value {
        None => {}
        Some(Value::Array(entries)) => {
            for (number, entry) in entries.iter().enumerate() {
                match matcher(entry) {
                    Some(matcher) => matchers.push(matcher),
                    None => warnings.push(format!(
                        "ignore_slots.{number} has no effect: write it with at least one of name, type, database, plugin"
                    )),
                }
            }
        }
        Some(_) => warnings.push("ignore_slots should be a list of mappings, and has no effect".to_owned()),
    }
    matchers
}

/// A matcher that says nothing would match everything, and is none.
fn matcher(entry: &Value) -> Option<SlotMatcher> {
    let Value::Object(entry) = entry else { return None };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
    let matcher = SlotMatcher {
        name: text("name"),
        slot_type: text("type"),
        database: text("database"),
        plugin: text("plugin"),
    };
    (matcher != SlotMatcher::default()).then_some(matcher)
}

#[cfg(test)]
mod tests {
    use super::{ClusterType, PermanentSlot, SlotKind, matchers, permanent};
    use serde_json::json;

    #[test]
    fn slots_are_physical_unless_they_say_what_a_logical_one_needs() {
        let mut warnings = Vec::new();
        let given = json!({
            "a": null, "b": {}, "c": {"type": "physical", "cluster_type": "standby"},
            "d": {"database": "app", "plugin": "pgoutput"}, "e": {"type": "logical", "database": "app"}, "f": 5,
        });
        let slots = permanent(Some(given), &mut warnings);
        let physical = PermanentSlot { kind: SlotKind::Physical, cluster_type: None };
        assert_eq!((&slots["a"], &slots["b"]), (&physical, &physical));
        assert_eq!(slots["c"].cluster_type, Some(ClusterType::Standby));
        assert!(matches!(&slots["d"].kind, SlotKind::Logical { database, .. } if database == "app"));
        assert_eq!(slots.len(), 4);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn a_matcher_that_would_match_everything_is_none() {
        let mut warnings = Vec::new();
        let given = json!([{"type": "logical", "plugin": "wal2json"}, {}, "x"]);
        let found = matchers(Some(given), &mut warnings);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].slot_type.as_deref(), Some("logical"));
        assert_eq!(warnings.len(), 2);
    }
}
