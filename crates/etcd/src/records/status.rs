//! `status`: how far the leader's WAL is, and which slots are to be kept.

use super::json;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::Lsn;

/// How far the leader's WAL is, and which slots are to be kept.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    pub optime: Lsn,
    /// Where each slot is; the leader's own, by its mapped name, included.
    pub slots: BTreeMap<String, Lsn>,
    /// Slots of members that are away and may come back.
    pub retain_slots: Vec<String>,
}

impl Status {
    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("optime".to_owned(), Value::from(self.optime.0));
        if !self.slots.is_empty() {
            let slots = self.slots.iter().map(|(slot, lsn)| (slot.clone(), Value::from(lsn.0)));
            map.insert("slots".to_owned(), Value::Object(slots.collect()));
        }
        if !self.retain_slots.is_empty() {
            map.insert("retain_slots".to_owned(), Value::from(self.retain_slots.clone()));
        }
        Value::Object(map).to_string()
    }

    /// Reads the value, or a bare number, as older agents wrote it.
    pub fn parse(value: &str) -> Result<Status, String> {
        if let Ok(optime) = value.trim().parse() {
            return Ok(Status { optime: Lsn(optime), ..Status::default() });
        }
        let map = json::object(value)?;
        let optime = map.get("optime").and_then(json::lsn).ok_or("optime is missing or no number")?;
        let slots = match map.get("slots").map(json::unwrapped) {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(Value::Object(slots)) => {
                slots.iter().filter_map(|(slot, lsn)| Some((slot.clone(), json::lsn(lsn)?))).collect()
            }
            Some(other) => return Err(format!("slots is {}, not an object", json::kind(&other))),
        };
        let retain_slots = match map.get("retain_slots").map(json::unwrapped) {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(slots)) => slots.iter().filter_map(json::text).collect(),
            Some(other) => return Err(format!("retain_slots is {}, not a list", json::kind(&other))),
        };
        Ok(Status { optime, slots, retain_slots })
    }
}

#[cfg(test)]
mod tests {
    use super::Status;
    use types::Lsn;

    #[test]
    fn status_goes_both_ways() {
        let full = r#"{"optime":67108960,"slots":{"a":67108960,"b":7},"retain_slots":["b","c"]}"#;
        assert_eq!(Status::parse(full).unwrap().to_json(), full);
        assert_eq!(Status { optime: Lsn(5), ..Status::default() }.to_json(), r#"{"optime":5}"#);
    }

    #[test]
    fn older_forms_are_read() {
        assert_eq!(Status::parse("42").unwrap().optime, Lsn(42));
        let quoted = r#"{"slots":"{\"a\":\"8\"}","optime":"42","retain_slots":"[\"a\"]"}"#;
        let status = Status::parse(quoted).unwrap();
        assert_eq!((status.optime, status.slots.get("a")), (Lsn(42), Some(&Lsn(8))));
        assert_eq!(status.retain_slots, ["a"]);
        for spoiled in ["", "-1", "{}", r#"{"optime":null}"#, r#"{"optime":1,"slots":[1]}"#, "\"x\""] {
            assert!(Status::parse(spoiled).is_err(), "{spoiled}");
        }
    }
}
