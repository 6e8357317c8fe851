//! `sync`: which standbys may be promoted without loss.

use super::json;
use serde_json::{Map, Value};
use types::NodeName;

/// Which standbys may be promoted without loss. Names compare without regard to case.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sync {
    pub leader: Option<NodeName>,
    /// How many of the standbys an election must see; 0 outside of the quorum mode.
    pub quorum: u32,
    pub sync_standby: Vec<NodeName>,
    /// As read: when the key was last changed. Not part of the value.
    pub mod_revision: i64,
}

impl Sync {
    /// The value as written; the standbys are sorted.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut names: Vec<&str> = self.sync_standby.iter().map(NodeName::as_str).collect();
        names.sort_unstable();
        let standbys = if names.is_empty() { Value::Null } else { Value::from(names.join(",")) };
        let leader = self.leader.as_ref().map_or(Value::Null, |leader| Value::from(leader.as_str()));
        let mut map = Map::new();
        map.insert("leader".to_owned(), leader);
        map.insert("quorum".to_owned(), Value::from(self.quorum));
        map.insert("sync_standby".to_owned(), standbys);
        Value::Object(map).to_string()
    }

    /// Reads the value. Strict: a standby that is overlooked here is a standby that could be promoted with a loss.
    pub fn parse(value: &str) -> Result<Sync, String> {
        let map = json::object(value)?;
        let leader = match map.get("leader") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) => {
                Some(name.as_str()).filter(|name| !name.is_empty()).map(NodeName::from)
            }
            Some(other) => return Err(format!("leader is {}, not a string", json::kind(other))),
        };
        let quorum = match map.get("quorum") {
            None | Some(Value::Null) => 0,
            Some(value) => json::whole(value)
                .and_then(|quorum| u32::try_from(quorum).ok())
                .ok_or_else(|| format!("quorum is {value}, not a small number"))?,
        };
        let sync_standby = match map.get("sync_standby") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::String(names)) => {
                names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(NodeName::from).collect()
            }
            Some(Value::Array(names)) => names
                .iter()
                .map(|name| {
                    json::text(name).map(NodeName).ok_or("sync_standby holds something else than names")
                })
                .collect::<Result<_, _>>()?,
            Some(other) => return Err(format!("sync_standby is {}, not a string", json::kind(other))),
        };
        Ok(Sync { leader, quorum, sync_standby, mod_revision: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::Sync;
    use types::NodeName;

    #[test]
    fn sync_goes_both_ways() {
        for text in [
            r#"{"leader":"a","quorum":1,"sync_standby":"b,c"}"#,
            r#"{"leader":"a","quorum":0,"sync_standby":null}"#,
            r#"{"leader":null,"quorum":0,"sync_standby":null}"#,
        ] {
            assert_eq!(Sync::parse(text).unwrap().to_json(), text);
        }
        let unsorted =
            Sync { sync_standby: vec![NodeName::from("c"), NodeName::from("b")], ..Sync::default() };
        assert!(unsorted.to_json().contains(r#""b,c""#));
    }

    #[test]
    fn doubtful_values_are_spoiled() {
        assert_eq!(Sync::parse(r#"{"leader":"a","sync_standby":"b"}"#).unwrap().quorum, 0);
        for spoiled in [
            "",
            "[]",
            r#"{"quorum":"x"}"#,
            r#"{"sync_standby":1}"#,
            r#"{"leader":{}}"#,
            r#"{"sync_standby":[1]}"#,
        ] {
            assert!(Sync::parse(spoiled).is_err(), "{spoiled}");
        }
    }
}
