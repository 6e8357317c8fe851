//! `slots` and `ignore_slots` of the dynamic configuration, as meant.
//!
//! An entry that cannot be understood is left out and named: a slot is not guessed at.

use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::{ClusterType, PermanentSlot, SlotKind, SlotMatcher, SlotWish, is_slot_name};

/// More permanent slots, or more matchers, are not taken.
const LIMIT: usize = 200;

/// The permanent slots; what is wrong with the others goes to `warnings`.
pub(crate) fn permanent(
    written: Option<Value>,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, PermanentSlot> {
    let mut slots = BTreeMap::new();
    let entries = match written {
        None | Some(Value::Null) => return slots,
        Some(Value::Object(entries)) => entries,
        Some(_) => {
            warnings.push("slots should be a mapping from the names of slots to what they are".to_owned());
            return slots;
        }
    };
    for (name, entry) in entries.iter().take(LIMIT) {
        if !is_slot_name(name) {
            warnings.push(format!(
                "slots.{name} is left out: the name of a slot has at most 63 characters, all of them lower-case letters, digits or _"
            ));
            continue;
        }
        match slot(entry) {
            Ok(slot) => drop(slots.insert(name.clone(), slot)),
            Err(why) => warnings.push(format!("slots.{name} is left out: {why}")),
        }
    }
    if entries.len() > LIMIT {
        warnings
            .push(format!("slots has {} entries; those after the first {LIMIT} are left out", entries.len()));
    }
    slots
}

/// Without a type it is logical where a database and a plugin are given, else physical.
fn slot(entry: &Value) -> Result<PermanentSlot, String> {
    let none = Map::new();
    let entry = match entry {
        Value::Null => &none,
        Value::Object(entry) => entry,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            return Err("it should be a mapping with type, database and plugin".to_owned());
        }
    };
    let text = |name: &str| entry.get(name).and_then(Value::as_str).map(str::to_owned);
    let (database, plugin) = (text("database"), text("plugin"));
    let kind = match entry.get("type").and_then(Value::as_str) {
        Some(kind) => kind_of(kind)?,
        None if entry.get("type").is_some_and(|kind| !kind.is_null()) => {
            return Err("type should be physical or logical".to_owned());
        }
        None if database.is_some() && plugin.is_some() => SlotKind::Logical,
        None => SlotKind::Physical,
    };
    let failover = match entry.get("failover") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(failover)) => *failover,
        Some(Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_)) => {
            return Err("failover should be true or false".to_owned());
        }
    };
    if failover && kind == SlotKind::Physical {
        return Err("failover is for logical slots; a physical one is on every member in any case".to_owned());
    }
    let wish = match (kind, database, plugin) {
        (SlotKind::Physical, _, _) => SlotWish::Physical,
        (SlotKind::Logical, Some(database), Some(plugin)) => SlotWish::Logical { database, plugin, failover },
        (SlotKind::Logical, _, _) => {
            return Err("a logical slot needs its database and its plugin".to_owned());
        }
    };
    let only_in = match text("cluster_type").as_deref() {
        None => None,
        Some("primary") => Some(ClusterType::Primary),
        Some("standby") => Some(ClusterType::Standby),
        Some(other) => return Err(format!("cluster_type {other:?} should be primary or standby")),
    };
    const KNOWN: [&str; 5] = ["type", "database", "plugin", "cluster_type", "failover"];
    if let Some(other) = entry.keys().find(|key| !KNOWN.contains(&key.as_str())) {
        return Err(format!("{other:?} is no setting of a slot; there are {}", KNOWN.join(", ")));
    }
    Ok(PermanentSlot { wish, only_in })
}

fn kind_of(text: &str) -> Result<SlotKind, String> {
    match text.to_ascii_lowercase().as_str() {
        "physical" => Ok(SlotKind::Physical),
        "logical" => Ok(SlotKind::Logical),
        other => Err(format!("type {other:?} should be physical or logical")),
    }
}

/// The matchers of slots that are never touched; what is wrong with the others goes to `warnings`.
pub(crate) fn matchers(written: Option<Value>, warnings: &mut Vec<String>) -> Vec<SlotMatcher> {
    let entries = match written {
        None | Some(Value::Null) => return Vec::new(),
        Some(Value::Array(entries)) => entries,
        Some(_) => {
            warnings.push("ignore_slots should be a list of mappings, and has no effect".to_owned());
            return Vec::new();
        }
    };
    let mut matchers = Vec::new();
    for (at, entry) in entries.iter().take(LIMIT).enumerate() {
        match matcher(entry) {
            Ok(matcher) => matchers.push(matcher),
            Err(why) => warnings.push(format!("ignore_slots[{at}] is left out: {why}")),
        }
    }
    if entries.len() > LIMIT {
        warnings.push(format!(
            "ignore_slots has {} entries; those after the first {LIMIT} are left out",
            entries.len()
        ));
    }
    matchers
}

/// A matcher that says nothing would match everything, and is none.
fn matcher(entry: &Value) -> Result<SlotMatcher, String> {
    let Value::Object(entry) = entry else {
        return Err("it should be a mapping with name, type, database or plugin".to_owned());
    };
    let mut matcher = SlotMatcher::default();
    for (name, value) in entry {
        let text = value.as_str().ok_or_else(|| format!("{name} should be a text"))?;
        match name.as_str() {
            "name" => matcher.name = Some(text.to_owned()),
            "type" => matcher.kind = Some(kind_of(text)?),
            "database" => matcher.database = Some(text.to_owned()),
            "plugin" => matcher.plugin = Some(text.to_owned()),
            other => return Err(format!("{other:?} is none of name, type, database, plugin")),
        }
    }
    if matcher == SlotMatcher::default() {
        return Err("it should say at least one of name, type, database, plugin".to_owned());
    }
    Ok(matcher)
}

#[cfg(test)]
mod tests {
    use super::{matchers, permanent};
    use serde_json::json;
    use types::{ClusterType, SlotKind, SlotMatcher, SlotWish};

    #[test]
    fn slots_are_read_in_all_spellings() {
        let mut warnings = Vec::new();
        let slots = permanent(
            Some(json!({
                "backup": null, "barman": {}, "b2": {"type": "physical", "cluster_type": "standby"},
                "cdc": {"type": "logical", "database": "shop", "plugin": "pgoutput", "cluster_type": "primary"},
                "short": {"database": "shop", "plugin": "wal2json"},
                "kept": {"database": "shop", "plugin": "pgoutput", "failover": true},
            })),
            &mut warnings,
        );
        assert_eq!(warnings, Vec::<String>::new());
        let wish = |name: &str| slots.get(name).map(|slot| slot.wish.clone());
        for physical in ["backup", "barman", "b2"] {
            assert_eq!(wish(physical), Some(SlotWish::Physical), "{physical}");
        }
        let logical = |plugin: &str, failover| {
            Some(SlotWish::Logical { database: "shop".into(), plugin: plugin.into(), failover })
        };
        assert_eq!((wish("cdc"), wish("short")), (logical("pgoutput", false), logical("wal2json", false)));
        assert_eq!(wish("kept"), logical("pgoutput", true));
        assert_eq!(slots.get("cdc").and_then(|slot| slot.only_in), Some(ClusterType::Primary));
        assert_eq!(slots.get("b2").and_then(|slot| slot.only_in), Some(ClusterType::Standby));
    }

    #[test]
    fn what_is_no_slot_is_left_out_and_named() {
        let mut warnings = Vec::new();
        let slots = permanent(
            Some(json!({
                "Bad-Name": {}, "half": {"type": "logical", "database": "x"}, "odd": {"type": "round"},
                "text": "physical", "typo": {"tpye": "physical"}, "where": {"cluster_type": "moon"}, "good": {},
                "two": {"failover": true}, "perhaps": {"database": "x", "plugin": "y", "failover": "perhaps"},
            })),
            &mut warnings,
        );
        assert_eq!(slots.keys().collect::<Vec<_>>(), ["good"]);
        insta::assert_snapshot!(warnings.join("\n"), @r#"
        slots.Bad-Name is left out: the name of a slot has at most 63 characters, all of them lower-case letters, digits or _
        slots.half is left out: a logical slot needs its database and its plugin
        slots.odd is left out: type "round" should be physical or logical
        slots.text is left out: it should be a mapping with type, database and plugin
        slots.typo is left out: "tpye" is no setting of a slot; there are type, database, plugin, cluster_type, failover
        slots.where is left out: cluster_type "moon" should be primary or standby
        slots.two is left out: failover is for logical slots; a physical one is on every member in any case
        slots.perhaps is left out: failover should be true or false
        "#);
        assert!(permanent(Some(json!(["a"])), &mut warnings).is_empty() && warnings.len() == 9);
        assert!(permanent(None, &mut warnings).is_empty() && warnings.len() == 9);
    }

    #[test]
    fn matchers_that_match_too_much_are_not_made_of_typing_errors() {
        let mut warnings = Vec::new();
        let matchers = matchers(
            Some(json!([
                {"name": "ext", "type": "logical", "database": "shop", "plugin": "pgoutput"},
                {"type": "physical"}, {"nmae": "x"}, "all", {"name": 5}, {},
            ])),
            &mut warnings,
        );
        let physical = SlotMatcher { kind: Some(SlotKind::Physical), ..SlotMatcher::default() };
        assert_eq!(matchers.get(1), Some(&physical));
        assert_eq!((matchers.len(), warnings.len()), (2, 4), "{warnings:?}");
    }
}
