//! `baton/writable`: who accepts writes, and since where. Traffic follows this, not the lock.

use super::json;
use serde_json::{Map, Value};
use types::{LeaseId, Lsn, NodeName, Term, Timeline};

/// Who accepts writes, and since where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Writable {
    pub term: Term,
    pub name: NodeName,
    pub timeline: Timeline,
    pub lsn: Lsn,
    /// A guard ends this primary at its deadline. In pause nothing does.
    pub guarded: bool,
    /// As read: the lease on which the key hangs. Not part of the value.
    pub lease: Option<LeaseId>,
}

impl Writable {
    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("term".to_owned(), Value::from(self.term.0));
        map.insert("name".to_owned(), Value::from(self.name.as_str()));
        map.insert("timeline".to_owned(), Value::from(self.timeline.0));
        map.insert("lsn".to_owned(), Value::from(self.lsn.0));
        map.insert("guarded".to_owned(), Value::from(self.guarded));
        Value::Object(map).to_string()
    }

    /// Reads the value. Strict: only Baton writes it.
    pub fn parse(value: &str) -> Result<Writable, String> {
        let map = json::object(value)?;
        let term = map.get("term").and_then(Value::as_i64).ok_or("term is missing or no number")?;
        let name = map.get("name").and_then(json::text).ok_or("name is missing or no string")?;
        let timeline =
            map.get("timeline").and_then(json::timeline).ok_or("timeline is missing or no number")?;
        let lsn = map.get("lsn").and_then(json::lsn).ok_or("lsn is missing or no number")?;
        let guarded =
            map.get("guarded").and_then(Value::as_bool).ok_or("guarded is missing or no boolean")?;
        Ok(Writable { term: Term(term), name: NodeName(name), timeline, lsn, guarded, lease: None })
    }
}

#[cfg(test)]
mod tests {
    use super::Writable;

    #[test]
    fn writable_goes_both_ways() {
        let text = r#"{"term":17,"name":"pg-1","timeline":3,"lsn":83886080,"guarded":true}"#;
        assert_eq!(Writable::parse(text).unwrap().to_json(), text);
        for spoiled in
            ["", "{}", r#"{"term":"17","name":"pg-1","timeline":3,"lsn":1}"#, r#"{"term":1,"name":"a"}"#]
        {
            assert!(Writable::parse(spoiled).is_err(), "{spoiled}");
        }
    }
}
