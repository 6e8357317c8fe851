//! What is wrong with the settings, where, and what to do.

use std::fmt;
use std::sync::Arc;

/// Where a setting was written.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Place {
    /// A file as named on the command line; line and column count from 1, a line of 0 means the whole file.
    File { name: Arc<str>, line: u32, column: u32 },
    /// An environment variable.
    Environment(Arc<str>),
    /// The dynamic configuration in etcd.
    Dynamic,
    /// Nobody wrote it: the built-in default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::File { name, line: 0, .. } => f.write_str(name),
            Place::File { name, line, column } => write!(f, "{name}:{line}:{column}"),
            Place::Environment(name) => f.write_str(name),
            Place::Dynamic => f.write_str("dynamic configuration"),
            Place::Default => f.write_str("default"),
        }
    }
}

/// One thing that is wrong. It never holds the value of a secret.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Problem {
    pub place: Place,
    /// The full key, such as `postgresql.data_dir`; empty where no key is meant.
    pub key: String,
    /// What is wrong, then what to do.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Everything that is wrong, one line each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Problems(pub Vec<Problem>);

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Errors and warnings while they are being collected.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) errors: Vec<Problem>,
    pub(crate) warnings: Vec<Problem>,
    /// A file could not be read to its end, so that a missing key says nothing.
    pub(crate) unread: bool,
    /// Keys that unknown ones were probably meant to be: they are mistyped, not missing.
    pub(crate) suggested: Vec<String>,
}

impl Findings {
    pub(crate) fn error(&mut self, place: &Place, key: &str, what: impl Into<String>) {
        self.errors.push(Problem { place: place.clone(), key: key.to_owned(), what: what.into() });
    }

    /// A required key is nowhere.
    pub(crate) fn missing(&mut self, place: &Place, key: &str, what: impl Into<String>) {
        if !self.unread && !self.suggested.iter().any(|meant| meant == key) {
            self.error(place, key, what);
        }
    }

    pub(crate) fn warn(&mut self, place: &Place, key: &str, what: impl Into<String>) {
        self.warnings.push(Problem { place: place.clone(), key: key.to_owned(), what: what.into() });
    }
}
