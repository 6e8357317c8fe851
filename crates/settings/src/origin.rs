//! Each setting with its value and where that came from, for `baton check`.

use crate::kind::Kind;
use crate::node::{Content, Node};
use crate::problem::Place;
use crate::secret::MASK;
use crate::table::Row;
use std::fmt;

/// A setting and where its value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Origin {
    /// The full key.
    pub key: String,
    /// The value as text; a secret is masked.
    pub value: String,
    pub origin: Place,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  ({})", self.key, self.value, self.origin)
    }
}

/// One origin for each scalar or list of scalars below `node`, so that each parameter of PostgreSQL has its own line.
pub(crate) fn of_node(key: &str, kind: Kind, node: &Node, origins: &mut Vec<Origin>) {
    let mut push = |key: &str, value: String, place: &Place| {
        origins.push(Origin { key: key.to_owned(), value, origin: place.clone() });
    };
    match &node.content {
        Content::Map(entries) => {
            for (name, value) in entries {
                of_node(
                    &format!("{key}.{}", name.text),
                    kind,
                    &Node { place: name.place.clone(), ..value.clone() },
                    origins,
                );
            }
        }
        Content::List(items) if items.iter().all(|item| item.scalar().is_some()) => {
            let items: Vec<&str> = items.iter().filter_map(Node::raw).collect();
            push(key, shown(key, kind, &format!("[{}]", items.join(", "))), &node.place);
        }
        Content::List(items) => {
            for (number, item) in items.iter().enumerate() {
                of_node(&format!("{key}.{number}"), kind, item, origins);
            }
        }
        Content::Scalar { .. } => push(key, shown(key, kind, node.raw().unwrap_or("null")), &node.place),
    }
}

/// The default of a row, when it has one.
pub(crate) fn of_default(row: &Row) -> Option<Origin> {
    let value = row.default?;
    Some(Origin { key: row.key.to_owned(), value: shown(row.key, row.kind, value), origin: Place::Default })
}

/// A value as it may be shown. What an operator names like a secret is taken for one, also where the table leaves
/// names free: custom parameters, connection strings, URLs with a password in them.
pub(crate) fn shown(key: &str, kind: Kind, value: &str) -> String {
    if kind == Kind::Secret || looks_secret(key) || holds_secret(value) {
        MASK.to_owned()
    } else {
        value.to_owned()
    }
}

fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let last = key.rsplit('.').next().unwrap_or(&key);
    let words = ["password", "passwd", "secret", "token", "passphrase", "authorization"];
    words.iter().any(|word| last.contains(word)) && !matches!(last, "password_encryption" | "server_tokens")
}

fn holds_secret(value: &str) -> bool {
    let lower = value.to_ascii_lowercase();
    let in_url = lower.split_once("://").is_some_and(|(_, rest)| {
        rest.split(['/', ' '])
            .next()
            .and_then(|netloc| netloc.rsplit_once('@'))
            .is_some_and(|(user, _)| user.contains(':'))
    });
    in_url || lower.contains("password=") || lower.contains("pgpassword") || lower.contains("-password")
}
