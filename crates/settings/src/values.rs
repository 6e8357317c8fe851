//! The settings that were found, by key, with their places; a key that nobody wrote gives its default.

use crate::kind::Value;
use crate::node::Node;
use crate::origin::Origin;
use crate::problem::Place;
use crate::secret::Secret;
use crate::table::{self, Row};
use crate::yaml;
use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// A setting that somebody wrote.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) value: Value,
    pub(crate) place: Place,
    /// Whether it came by an old name, which yields to the current one.
    pub(crate) by_alias: bool,
}

/// Values of one of the two tables.
#[derive(Debug)]
pub(crate) struct Values {
    rows: Vec<&'static Row>,
    pub(crate) found: BTreeMap<String, Found>,
    pub(crate) origins: Vec<Origin>,
}

impl Values {
    pub(crate) fn new(rows: impl Iterator<Item = &'static Row>) -> Values {
        Values { rows: rows.collect(), found: BTreeMap::new(), origins: Vec::new() }
    }

    pub(crate) fn rows(&self) -> &[&'static Row] {
        &self.rows
    }

    pub(crate) fn row(&self, key: &str) -> Option<&'static Row> {
        self.rows.iter().copied().find(|row| table::matches(row.key, key))
    }

    /// What was written, else the default.
    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        if let Some(found) = self.found.get(key) {
            return Some(found.value.clone());
        }
        let row = self.row(key);
        debug_assert!(row.is_some(), "{key} is not in the table of settings");
        row.and_then(default_of)
    }

    pub(crate) fn place(&self, key: &str) -> Place {
        self.found.get(key).map_or(Place::Default, |found| found.place.clone())
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.get(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        self.text(key).map(PathBuf::from)
    }

    pub(crate) fn secret(&self, key: &str) -> Option<Secret> {
        match self.get(key)? {
            Value::Secret(secret) => Some(secret),
            _ => None,
        }
    }

    pub(crate) fn bool(&self, key: &str) -> Option<bool> {
        match self.get(key)? {
            Value::Bool(value) => Some(value),
            _ => None,
        }
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.bool(key).unwrap_or(false)
    }

    pub(crate) fn int(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }

    /// A number of the table's bounds as the type it is used in.
    pub(crate) fn number<T: TryFrom<i64> + Default>(&self, key: &str) -> T {
        self.int(key).and_then(|value| T::try_from(value).ok()).unwrap_or_default()
    }

    pub(crate) fn duration(&self, key: &str) -> Duration {
        match self.get(key) {
            Some(Value::Duration(value)) => value,
            _ => Duration::ZERO,
        }
    }

    pub(crate) fn texts(&self, key: &str) -> Option<Vec<String>> {
        match self.get(key)? {
            Value::Texts(texts) => Some(texts),
            _ => None,
        }
    }

    /// The list as written; a default does not count.
    pub(crate) fn written_texts(&self, key: &str) -> Option<Vec<String>> {
        match &self.found.get(key)?.value {
            Value::Texts(texts) => Some(texts.clone()),
            _ => None,
        }
    }

    /// Whether the table has this key, or keys below it.
    pub(crate) fn is_known(&self, key: &str) -> bool {
        self.rows.iter().any(|row| table::matches(row.key, key) || row.key.starts_with(&format!("{key}.")))
    }

    pub(crate) fn pairs(&self, key: &str) -> Vec<(String, Option<String>)> {
        match self.get(key) {
            Some(Value::Pairs(pairs)) => pairs,
            _ => Vec::new(),
        }
    }

    /// A mapping of names to texts; names without a value are left out.
    pub(crate) fn text_map(&self, key: &str) -> BTreeMap<String, String> {
        self.pairs(key).into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    pub(crate) fn json(&self, key: &str) -> Option<Json> {
        match self.get(key)? {
            Value::Json(value) => Some(value),
            _ => None,
        }
    }
}

/// The default of a row as a value.
pub(crate) fn default_of(row: &Row) -> Option<Value> {
    row.kind.read(&default_node(row)?)
}

fn default_node(row: &Row) -> Option<Node> {
    let mut findings = crate::problem::Findings::default();
    yaml::parse(row.key, row.default?, &mut findings)
}

#[cfg(test)]
mod tests {
    use super::default_of;
    use crate::table;

    #[test]
    fn every_default_is_a_value_of_its_kind() {
        for row in table::rows().filter(|row| row.default.is_some()) {
            assert!(
                default_of(row).is_some(),
                "{}: {:?} is not {}",
                row.key,
                row.default,
                row.kind.expects()
            );
        }
    }
}
