//! Names and numbers that identify something.

use std::fmt;
use std::str::FromStr;

/// The name of a member, as in `name:` of its configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(pub String);

impl NodeName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeName {
    fn from(name: &str) -> NodeName {
        NodeName(name.to_owned())
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A PostgreSQL timeline; the first one is 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Timeline(pub u32);

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The create revision of the leader key: every later holder of the lead has a larger one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Term(pub i64);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The id of an etcd lease; never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// PostgreSQL's database system identifier: two directories with the same one descend from one initdb.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SystemId(pub u64);

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The text was not a system identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseSystemIdError(String);

impl fmt::Display for ParseSystemIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parse system identifier {:?}: expected a decimal number of at least 10 digits", self.0)
    }
}

impl std::error::Error for ParseSystemIdError {}

impl FromStr for SystemId {
    type Err = ParseSystemIdError;

    fn from_str(text: &str) -> Result<SystemId, ParseSystemIdError> {
        let digits = text.trim();
        if digits.len() < 10 {
            return Err(ParseSystemIdError(text.to_owned()));
        }
        digits.parse().map(SystemId).map_err(|_| ParseSystemIdError(text.to_owned()))
    }
}

/// The replication slot of a member: its name in lower case, `-` and `.` as `_`, anything else that a slot name may
/// not hold as `uNNNN` (the code point in hexadecimal), at most 63 characters. Patroni maps names the same way, so
/// in a mixed cluster both sides look for the same slot.
#[must_use]
pub fn slot_name(member: &NodeName) -> String {
    let mut slot = String::new();
    for c in member.as_str().to_lowercase().chars() {
        match c {
            'a'..='z' | '0'..='9' | '_' => slot.push(c),
            '-' | '.' => slot.push('_'),
            other => slot.push_str(&format!("u{:04x}", u32::from(other))),
        }
    }
    slot.truncate(63);
    slot
}

#[cfg(test)]
mod tests {
    use super::{NodeName, SystemId, slot_name};

    #[test]
    fn slots_are_mapped_as_the_contract_says() {
        let slot = |name: &str| slot_name(&NodeName::from(name));
        assert_eq!(slot("pg-meta-1"), "pg_meta_1");
        assert_eq!(slot("PG.Meta"), "pg_meta");
        assert_eq!(slot("nöde"), "nu00f6de");
        assert_eq!(slot(&"x".repeat(80)).len(), 63);
    }

    #[test]
    fn system_identifiers_are_long_numbers() {
        assert_eq!("7391234567890123456".parse(), Ok(SystemId(7_391_234_567_890_123_456)));
        for bad in ["", "123", "abcdefghijkl", "73912345678901234567890"] {
            assert!(bad.parse::<SystemId>().is_err(), "{bad}");
        }
    }
}
