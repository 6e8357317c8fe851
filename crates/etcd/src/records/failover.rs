//! `failover`: an order to switch over or fail over.

use super::json;
use serde_json::{Map, Value};
use types::NodeName;

/// An order to switch over (with a leader) or fail over (with a member alone).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Failover {
    pub leader: Option<NodeName>,
    /// The candidate.
    pub member: Option<NodeName>,
    /// ISO 8601 with a time zone, as it was written.
    pub scheduled_at: Option<String>,
    /// As read: when the key was last changed. Not part of the value.
    pub mod_revision: i64,
}

impl Failover {
    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let name = |name: &Option<NodeName>| name.as_ref().map(|name| name.0.clone());
        let fields = [
            ("leader", name(&self.leader)),
            ("member", name(&self.member)),
            ("scheduled_at", self.scheduled_at.clone()),
        ];
        let fields =
            fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
        Value::Object(fields.collect::<Map<_, _>>()).to_string()
    }

    /// Reads the value; `None` when it orders nothing. Old tools write `leader:candidate`.
    pub fn parse(value: &str) -> Result<Option<Failover>, String> {
        let value = value.trim();
        if value.is_empty() {
            return Ok(None);
        }
        let found = match legacy(value) {
            Some(found) => found,
            None => {
                let map = json::object(value)?;
                let field = |name: &str| match map.get(name) {
                    None | Some(Value::Null) => Ok(None),
                    Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
                    Some(other) => Err(format!("{name} is {}, not a string", json::kind(other))),
                };
                Failover {
                    leader: field("leader")?.map(NodeName),
                    member: field("member")?.map(NodeName),
                    scheduled_at: field("scheduled_at")?,
                    mod_revision: 0,
                }
            }
        };
        Ok(Some(found).filter(|found| *found != Failover::default()))
    }
}

fn legacy(value: &str) -> Option<Failover> {
    let (leader, member) = value.split_once(':')?;
    let plain = |text: &str| !text.contains(|c: char| c.is_whitespace() || "{}[]\",:".contains(c));
    let name = |text: &str| Some(text).filter(|text| !text.is_empty()).map(NodeName::from);
    let named = plain(leader) && plain(member);
    named.then(|| Failover { leader: name(leader), member: name(member), ..Failover::default() })
}

#[cfg(test)]
mod tests {
    use super::Failover;
    use types::NodeName;

    #[test]
    fn orders_go_both_ways() {
        for text in [
            r#"{"leader":"a","member":"b","scheduled_at":"2026-11-23T10:00:00+00:00"}"#,
            r#"{"leader":"a"}"#,
            r#"{"member":"b"}"#,
        ] {
            assert_eq!(Failover::parse(text).unwrap().unwrap().to_json(), text);
        }
        assert_eq!(Failover::default().to_json(), "{}");
    }

    #[test]
    fn nothing_ordered_and_nonsense_are_told_apart() {
        for empty in ["", "{}", r#"{"leader":null}"#, r#"{"other":1}"#, ":"] {
            assert_eq!(Failover::parse(empty), Ok(None), "{empty}");
        }
        for spoiled in [r#"{"leader": "#, "true", "[1]", r#"{"leader":1}"#, "some words: more", "\"a:b\""] {
            assert!(Failover::parse(spoiled).is_err(), "{spoiled}");
        }
        let legacy = Failover::parse("a:b").unwrap().unwrap();
        assert_eq!((legacy.leader, legacy.member), (Some(NodeName::from("a")), Some(NodeName::from("b"))));
        assert_eq!(Failover::parse(":b").unwrap().unwrap().leader, None);
    }
}
