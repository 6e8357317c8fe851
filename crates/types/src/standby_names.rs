//! The value of `synchronous_standby_names`: whose confirmation a commit waits for.

use crate::NodeName;
use std::collections::BTreeSet;
use std::fmt;

/// Whose confirmation a commit waits for.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum StandbyNames {
    /// Nobody's: the empty value.
    #[default]
    Nobody,
    /// That of the first `count` of these that are connected.
    First { count: usize, names: BTreeSet<NodeName> },
    /// That of any `count` of these.
    Any { count: usize, names: BTreeSet<NodeName> },
    /// That of any standby at all, whatever its name.
    Everybody { any: bool },
    /// Something that a person wrote and that is none of the above.
    Other(String),
}

impl StandbyNames {
    /// Reads a value as PostgreSQL shows it.
    #[must_use]
    pub fn parse(text: &str) -> StandbyNames {
        let text = text.trim();
        if text.is_empty() {
            return StandbyNames::Nobody;
        }
        understand(text).unwrap_or_else(|| StandbyNames::Other(text.to_owned()))
    }
}

fn understand(text: &str) -> Option<StandbyNames> {
    let lower = text.to_ascii_lowercase();
    let (any, rest) = match (lower.strip_prefix("any "), lower.strip_prefix("first ")) {
        (Some(_), _) => (true, text.get(4..)?),
        (None, Some(_)) => (false, text.get(6..)?),
        (None, None) => (false, text),
    };
    let (count, listed) = match rest.trim().split_once('(') {
        Some((count, listed)) => (count.trim().parse().ok()?, listed.trim_end().strip_suffix(')')?),
        None if any => return None,
        None => (1, rest),
    };
    if listed.trim() == "*" {
        return (count == 1).then_some(StandbyNames::Everybody { any });
    }
    let names: Option<BTreeSet<NodeName>> = listed.split(',').map(|name| unquoted(name.trim())).collect();
    let names = names?;
    if count == 0 || count > names.len() {
        return None;
    }
    Some(if any { StandbyNames::Any { count, names } } else { StandbyNames::First { count, names } })
}

fn unquoted(name: &str) -> Option<NodeName> {
    let name = match name.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"')?.replace("\"\"", "\""),
        None if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$') => name.to_owned(),
        None => return None,
    };
    (!name.is_empty() && name != "*").then_some(NodeName(name))
}

impl fmt::Display for StandbyNames {
    /// As Patroni spells it: one name alone, several in parentheses without blanks, quoted unless plain.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StandbyNames::Nobody => Ok(()),
            StandbyNames::First { count: 1, names } if names.len() == 1 => f.write_str(&listed(names)),
            StandbyNames::First { count, names } => write!(f, "{count} ({})", listed(names)),
            StandbyNames::Any { count, names } => write!(f, "ANY {count} ({})", listed(names)),
            StandbyNames::Everybody { any: false } => f.write_str("*"),
            StandbyNames::Everybody { any: true } => f.write_str("ANY 1 (*)"),
            StandbyNames::Other(text) => f.write_str(text),
        }
    }
}

fn listed(names: &BTreeSet<NodeName>) -> String {
    names.iter().map(quoted).collect::<Vec<_>>().join(",")
}

fn quoted(name: &NodeName) -> String {
    let text = name.as_str();
    let mut chars = text.chars();
    let plain = chars.next().is_some_and(|c| c.is_ascii_lowercase() || c == '_')
        && chars.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '$')
        && !matches!(text, "any" | "first");
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::StandbyNames;
    use crate::NodeName;
    use std::collections::BTreeSet;

    fn names(list: &[&str]) -> BTreeSet<NodeName> {
        list.iter().map(|name| NodeName::from(*name)).collect()
    }

    #[test]
    fn values_are_spelled_as_the_contract_says() {
        let (first, any) = (
            |count, list: &[&str]| StandbyNames::First { count, names: names(list) },
            |count, list: &[&str]| StandbyNames::Any { count, names: names(list) },
        );
        for (value, text) in [
            (StandbyNames::Nobody, ""),
            (first(1, &["postgres-1"]), "\"postgres-1\""),
            (first(1, &["n1"]), "n1"),
            (first(2, &["b", "a"]), "2 (a,b)"),
            (any(1, &["postgres-2", "postgres-0"]), "ANY 1 (\"postgres-0\",\"postgres-2\")"),
            (any(1, &["n1"]), "ANY 1 (n1)"),
            (first(1, &["Any"]), "\"Any\""),
            (first(1, &["any"]), "\"any\""),
            (first(1, &["a\"b"]), "\"a\"\"b\""),
            (StandbyNames::Everybody { any: false }, "*"),
            (StandbyNames::Everybody { any: true }, "ANY 1 (*)"),
        ] {
            assert_eq!(value.to_string(), text);
            assert_eq!(StandbyNames::parse(text), value, "{text}");
        }
    }

    #[test]
    fn what_people_write_is_read_too_or_left_alone() {
        assert_eq!(
            StandbyNames::parse("FIRST 1 (a, b)"),
            StandbyNames::First { count: 1, names: names(&["a", "b"]) }
        );
        assert_eq!(StandbyNames::parse("a, b"), StandbyNames::First { count: 1, names: names(&["a", "b"]) });
        for odd in ["ANY 2 (*)", "2 (a,*)", "3 (a,b)", "0 (a)", "a-b", "\"a"] {
            assert_eq!(StandbyNames::parse(odd), StandbyNames::Other(odd.to_owned()));
        }
    }
}
