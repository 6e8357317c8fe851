//! The small records: `initialize`, `leader`, `config`, `failsafe`.

use super::json;
use serde_json::Value;
use std::collections::BTreeMap;
use types::{LeaseId, NodeName, SystemId, Term};

/// `initialize`: whether the cluster has been bootstrapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Initialize {
    /// Somebody is running initdb.
    Bootstrapping,
    /// The cluster has data with this identifier.
    System(SystemId),
}

impl Initialize {
    pub fn parse(value: &str) -> Result<Initialize, String> {
        if value.is_empty() {
            return Ok(Initialize::Bootstrapping);
        }
        value
            .parse()
            .map(Initialize::System)
            .map_err(|_| "expected a system identifier of at least 10 digits".into())
    }
}

/// `leader`: who holds the lead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Leader {
    pub name: NodeName,
    /// The lease on which the key hangs; 0 when it was put without one, so that it never expires.
    pub lease: LeaseId,
    pub term: Term,
    pub mod_revision: i64,
}

/// `config`: the dynamic configuration as given.
#[derive(Clone, PartialEq, Debug)]
pub struct ConfigKey {
    pub value: Value,
    pub mod_revision: i64,
}

impl ConfigKey {
    pub(crate) fn parse(value: &str, mod_revision: i64) -> Result<ConfigKey, String> {
        Ok(ConfigKey { value: Value::Object(json::object(value)?), mod_revision })
    }
}

pub(crate) fn failsafe_json(members: &BTreeMap<NodeName, String>) -> String {
    let members = members.iter().map(|(name, url)| (name.0.clone(), Value::from(url.as_str())));
    Value::Object(members.collect()).to_string()
}

pub(crate) fn parse_failsafe(value: &str) -> Result<BTreeMap<NodeName, String>, String> {
    let member = |(name, url): (&String, &Value)| {
        let text = json::text(url).ok_or_else(|| format!("{name} is {}, not a URL", json::kind(url)))?;
        Ok((NodeName(name.clone()), text))
    };
    json::object(value)?.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::{ConfigKey, Initialize, failsafe_json, parse_failsafe};
    use types::SystemId;

    #[test]
    fn initialize_is_empty_or_a_number() {
        assert_eq!(Initialize::parse(""), Ok(Initialize::Bootstrapping));
        let id = 7_391_234_567_890_123_456;
        assert_eq!(Initialize::parse(&id.to_string()), Ok(Initialize::System(SystemId(id))));
        for spoiled in ["x", "12", "{}"] {
            assert!(Initialize::parse(spoiled).is_err(), "{spoiled}");
        }
    }

    #[test]
    fn config_keeps_its_order() {
        let text = r#"{"ttl":30,"loop_wait":10,"postgresql":{"use_slots":true,"parameters":{"b":1,"a":2}}}"#;
        assert_eq!(ConfigKey::parse(text, 1).unwrap().value.to_string(), text);
        assert!(ConfigKey::parse("ttl: 30", 1).is_err());
    }

    #[test]
    fn failsafe_goes_both_ways() {
        let text = r#"{"a":"http://a/patroni","b":"http://b/patroni"}"#;
        assert_eq!(failsafe_json(&parse_failsafe(text).unwrap()), text);
        assert!(parse_failsafe(r#"{"a":1}"#).is_err());
    }
}
