//! `baton/vip/<address>`: which member has a virtual address.
//!
//! For an address of the primary it only tells people: whose it is follows from the lead. For those of other roles the key is the claim: the
//! member that created it holds the address, as long as the lease lives on which it hangs.

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

#[cfg(test)]
mod tests {
    use super::AddressHolder;

    #[test]
    fn it_goes_both_ways() {
        let text = r#"{"name":"pg-1","role":"replica"}"#;
        assert_eq!(AddressHolder::parse(text).unwrap().to_json(), text);
        for spoiled in ["", "{}", r#"{"name":"pg-1"}"#, r#"{"role":"any"}"#] {
            assert!(AddressHolder::parse(spoiled).is_err(), "{spoiled}");
        }
    }
}
