//! `baton/handover` and `baton/routers/<id>`: what leaders and routers say to each other.
//!
//! The leader announces that it is about to hand the lead over; each router lets the transactions of its sessions end,
//! begins no other, and says when none is left. And each says up to which term it knows the leaders, as soon as it has no session
//! of an older one: whoever leads next may wait for that before a promotion, and whoever led before, before its PostgreSQL comes up for reading.

use super::json;
use serde_json::{Map, Value};
use types::{NodeName, Term};

/// The leader is about to hand the lead over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Handover {
    pub term: Term,
    pub name: NodeName,
    /// As read: when the key was last changed. Not part of the value.
    pub mod_revision: i64,
}

impl Handover {
    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        map.insert("term".to_owned(), Value::from(self.term.0));
        map.insert("name".to_owned(), Value::from(self.name.as_str()));
        Value::Object(map).to_string()
    }

    /// Reads the value. Strict: only Baton writes it.
    pub fn parse(value: &str) -> Result<Handover, String> {
        let map = json::object(value)?;
        let term = map.get("term").and_then(Value::as_i64).ok_or("term is missing or no number")?;
        let name = map.get("name").and_then(json::text).ok_or("name is missing or no string")?;
        Ok(Handover { term: Term(term), name: NodeName(name), mod_revision: 0 })
    }
}

/// What a router says about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Router {
    /// The term in which it has no transaction left, after that term's handover was announced.
    pub quiet: Option<Term>,
    /// The newest term it knows of, since no session of an older one is left with it.
    pub term: Option<Term>,
    /// All terms up to this revision have ended for it: nobody led there, and no session of one of them is left.
    pub over: Option<Term>,
    /// It leads sessions that are to write to poolers, in which they outlive a restart of PostgreSQL.
    pub pooled: bool,
}

impl Router {
    /// The value as written.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut map = Map::new();
        let number = |term: Option<Term>| term.map_or(Value::Null, |term| Value::from(term.0));
        map.insert("quiet".to_owned(), number(self.quiet));
        map.insert("term".to_owned(), number(self.term));
        if let Some(over) = self.over {
            map.insert("over".to_owned(), Value::from(over.0));
        }
        if self.pooled {
            map.insert("pooled".to_owned(), Value::from(true));
        }
        Value::Object(map).to_string()
    }

    /// Reads the value. A router that says something else is not quiet, and knows no term.
    pub fn parse(value: &str) -> Result<Router, String> {
        let map = json::object(value)?;
        let term = |name: &str| map.get(name).and_then(Value::as_i64).map(Term);
        let pooled = map.get("pooled").and_then(Value::as_bool).unwrap_or_default();
        Ok(Router { quiet: term("quiet"), term: term("term"), over: term("over"), pooled })
    }
}

#[cfg(test)]
mod tests {
    use super::{Handover, Router};
    use types::Term;

    #[test]
    fn both_go_both_ways() {
        let text = r#"{"term":17,"name":"pg-1"}"#;
        assert_eq!(Handover::parse(text).unwrap().to_json(), text);
        for spoiled in ["", "{}", r#"{"term":"17","name":"pg-1"}"#, r#"{"term":17}"#] {
            assert!(Handover::parse(spoiled).is_err(), "{spoiled}");
        }
        for (quiet, term) in [(None, None), (Some(Term(17)), None), (None, Some(Term(17)))] {
            for (over, pooled) in [(None, false), (Some(Term(16)), true)] {
                let router = Router { quiet, term, over, pooled };
                assert_eq!(Router::parse(&router.to_json()), Ok(router));
            }
        }
        // As routers wrote it before they told the term.
        assert_eq!(
            Router::parse(r#"{"quiet":17}"#),
            Ok(Router { quiet: Some(Term(17)), ..Router::default() })
        );
        assert_eq!(Router::parse("{}"), Ok(Router::default()));
        assert!(Router::parse("x").is_err());
    }
}
