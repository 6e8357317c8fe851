//! `baton/vip/<address>`: which member has a virtual address.
//!
//! For an address of the primary it only tells people: whose it is follows from the lead. For those of other roles the key is the claim: the
//! member that created it holds the address, as long as the lease lives on which it hangs.
//!
//! `baton/addresses`: who had which address, from when to when, for somebody who asks later.

use super::json;
use serde_json::{Map, Value};
use types::{LeaseId, NodeName, Term};

/// Who has an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressHolder {
    pub name: NodeName,
    /// Whose the address is: `primary`, `replica`, `sync` or `any`.
    pub role: String,
    /// As read: when the key was created. Every later holder has a larger one.
    pub term: Term,
    /// As read: the lease on which the key hangs.
    pub lease: Option<LeaseId>,
    /// As read: when the key was last changed.
    pub mod_revision: i64,
}

impl AddressHolder {
    /// What a member writes about itself.
    #[must_use]
    pub fn new(name: NodeName, role: &str) -> AddressHolder {
        AddressHolder { name, role: role.to_owned(), term: Term(0), lease: None, mod_revision: 0 }
    }

    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("name".to_owned(), Value::from(self.name.as_str()));
        map.insert("role".to_owned(), Value::from(self.role.as_str()));
        Value::Object(map).to_string()
    }

    /// Reads the value. Strict: only Baton writes it.
    pub fn parse(value: &str) -> Result<AddressHolder, String> {
        let map = json::object(value)?;
        let text = |name: &str| map.get(name).and_then(json::text);
        let name = text("name").ok_or("name is missing or no string")?;
        Ok(AddressHolder::new(NodeName(name), &text("role").ok_or("role is missing or no string")?))
    }
}

/// One stay of an address on a member.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AddressRow {
    pub address: String,
    pub role: String,
    pub member: NodeName,
    pub from: String,
    /// None while it is there, and for good when the member could not say when it ended.
    pub to: Option<String>,
}

impl AddressRow {
    /// As in the list.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let cells = [
            ("address", Value::from(self.address.as_str())),
            ("role", Value::from(self.role.as_str())),
            ("member", Value::from(self.member.as_str())),
            ("from", Value::from(self.from.as_str())),
            ("to", self.to.as_deref().map_or(Value::Null, Value::from)),
        ];
        Value::Object(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn of(map: &Map<String, Value>) -> Option<AddressRow> {
        let text = |name: &str| map.get(name).and_then(json::text);
        Some(AddressRow {
            address: text("address")?,
            role: text("role")?,
            member: NodeName(text("member")?),
            from: text("from")?,
            to: text("to"),
        })
    }
}

pub(crate) fn address_rows_json(rows: &[AddressRow]) -> String {
    Value::Array(rows.iter().map(AddressRow::to_value).collect()).to_string()
}

pub(crate) fn parse_address_rows(value: &str) -> Result<Vec<AddressRow>, String> {
    json::rows(value, ("stay", "stays"), AddressRow::of)
}

#[cfg(test)]
mod tests {
    use super::{AddressHolder, address_rows_json, parse_address_rows};

    #[test]
    fn it_goes_both_ways() {
        let text = r#"{"name":"pg-1","role":"replica"}"#;
        assert_eq!(AddressHolder::parse(text).unwrap().to_json(), text);
        for spoiled in ["", "{}", r#"{"name":"pg-1"}"#, r#"{"role":"any"}"#] {
            assert!(AddressHolder::parse(spoiled).is_err(), "{spoiled}");
        }
    }

    #[test]
    fn stays_go_both_ways() {
        let text = concat!(
            r#"[{"address":"10.0.0.9","role":"primary","member":"pg-1","from":"2026-11-27T10:00:00.000Z","to":"2026-11-27T11:00:00.000Z"},"#,
            r#"{"address":"10.0.0.9","role":"primary","member":"pg-2","from":"2026-11-27T11:00:01.000Z","to":null}]"#
        );
        let rows = parse_address_rows(text).unwrap();
        assert_eq!((rows.len(), rows[1].to.clone()), (2, None));
        let again: serde_json::Value = serde_json::from_str(&address_rows_json(&rows)).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert!(parse_address_rows(r#"[{"address":"10.0.0.9"}]"#).is_err());
    }
}
