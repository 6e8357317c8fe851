//! `baton/bgp/<name>`: how a member's BGP speaker stands with its neighbours. Written for people: no decision reads it.

use super::json;
use serde_json::{Map, Value};

/// A neighbour, as one member sees it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BgpNeighbor {
    pub address: String,
    pub asn: u32,
    /// As RFC 4271 has it, in words.
    pub state: String,
    /// Since when the session is up, or is not.
    pub since: String,
    /// The addresses that it was told.
    pub announced: Vec<String>,
    /// Why there is no session, or was none before.
    pub trouble: Option<String>,
}

impl BgpNeighbor {
    fn to_value(&self) -> Value {
        let mut map = Map::new();
        map.insert("address".to_owned(), Value::from(self.address.as_str()));
        map.insert("as".to_owned(), Value::from(self.asn));
        map.insert("state".to_owned(), Value::from(self.state.as_str()));
        map.insert("since".to_owned(), Value::from(self.since.as_str()));
        map.insert("announced".to_owned(), Value::from(self.announced.clone()));
        if let Some(trouble) = &self.trouble {
            map.insert("trouble".to_owned(), Value::from(trouble.as_str()));
        }
        Value::Object(map)
    }

    fn of(map: &Map<String, Value>) -> Option<BgpNeighbor> {
        let text = |name: &str| map.get(name).and_then(json::text);
        let announced = map.get("announced")?.as_array()?.iter().map(json::text).collect::<Option<_>>()?;
        Some(BgpNeighbor {
            address: text("address")?,
            asn: map.get("as").and_then(json::whole)?.try_into().ok()?,
            state: text("state")?,
            since: text("since")?,
            announced,
            trouble: text("trouble"),
        })
    }
}

/// The value as written.
pub(crate) fn bgp_json(neighbors: &[BgpNeighbor]) -> String {
    Value::Array(neighbors.iter().map(BgpNeighbor::to_value).collect()).to_string()
}

/// Reads the value.
pub(crate) fn parse_bgp(value: &str) -> Result<Vec<BgpNeighbor>, String> {
    json::rows(value, ("neighbour", "neighbours"), BgpNeighbor::of)
}

#[cfg(test)]
mod tests {
    use super::{bgp_json, parse_bgp};

    #[test]
    fn it_goes_both_ways() {
        let text = r#"[{"address":"10.0.0.1","as":4200000000,"state":"established","since":"2026-01-01T00:00:00Z","announced":["192.0.2.7"]},{"address":"fd00::1","as":65000,"state":"idle","since":"2026-01-01T00:00:00Z","announced":[],"trouble":"connect"}]"#;
        assert_eq!(bgp_json(&parse_bgp(text).unwrap()), text);
        for spoiled in ["", "{}", "[1]", r#"[{"address":"10.0.0.1"}]"#] {
            assert!(parse_bgp(spoiled).is_err(), "{spoiled}");
        }
    }
}
