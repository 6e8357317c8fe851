//! The environment: `PATRONI_…` variables become a tree that lies over the file.

use crate::kind::Kind;
use crate::nearest::nearest;
use crate::node::{Content, Key, Node};
use crate::problem::{Findings, Place, Problems};
use crate::table::{self, Row};
use crate::yaml;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The variable that holds a whole YAML document in place of a file.
pub const CONFIGURATION: &str = "PATRONI_CONFIGURATION";

/// Where environment variables come from, so that tests need not change the process's own.
pub trait Env {
    /// The value of a variable, if it is set and is text.
    fn get(&self, name: &str) -> Option<String>;
    /// The names of all variables.
    fn names(&self) -> Vec<String>;
}

/// The environment of this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn names(&self) -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }
}

impl Env for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned()
    }

    fn names(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// What the variables say, in the shape of the file. Unknown ones are passed over here: they are named where settings are read.
pub fn environment(env: &dyn Env) -> Result<serde_json::Value, Problems> {
    let mut findings = Findings::default();
    let tree = tree(env, &mut findings);
    if findings.errors.is_empty() { Ok(tree.to_json()) } else { Err(Problems(findings.errors)) }
}

/// The variables that are set, as a tree. An empty variable counts as not set.
pub(crate) fn tree(env: &dyn Env, findings: &mut Findings) -> Node {
    let mut root = Node::empty_map(Place::Default);
    for row in table::local() {
        let set =
            row.env.iter().find_map(|name| Some((*name, env.get(name).filter(|value| !value.is_empty())?)));
        if let Some((name, value)) = set {
            let place = Place::Environment(Arc::from(name));
            if let Some(node) = value_node(row, name, &place, value, findings) {
                insert(&mut root, row.key, &place, node);
            }
        }
    }
    report_strangers(env, findings);
    root
}

/// A value in the form its row wants: lists and mappings are YAML's flow style.
fn value_node(row: &Row, name: &str, place: &Place, value: String, findings: &mut Findings) -> Option<Node> {
    match row.kind {
        Kind::Text | Kind::Secret | Kind::Path | Kind::Address | Kind::Listen => {
            Some(Node::text(place.clone(), value, false))
        }
        Kind::Bool
        | Kind::Mode
        | Kind::Int(..)
        | Kind::Seconds(..)
        | Kind::Duration
        | Kind::Bytes(..)
        | Kind::Choice(_) => Some(Node::text(place.clone(), value, true)),
        Kind::Texts | Kind::Lines | Kind::Options | Kind::TextMap | Kind::Json | Kind::LogFormat => {
            let trimmed = value.trim();
            let flow = trimmed.starts_with(['[', '{']) || trimmed.starts_with("- ");
            if !flow && matches!(row.kind, Kind::Texts | Kind::Lines | Kind::LogFormat) {
                return Some(Node::text(place.clone(), value, false));
            }
            let node = yaml::parse(name, &value, findings)?;
            Some(moved(node, place))
        }
    }
}

/// The tree with one place everywhere: a line number inside a variable helps nobody.
fn moved(node: Node, place: &Place) -> Node {
    let content = match node.content {
        Content::List(items) => Content::List(items.into_iter().map(|item| moved(item, place)).collect()),
        Content::Map(entries) => Content::Map(
            entries
                .into_iter()
                .map(|(key, value)| (Key { place: place.clone(), ..key }, moved(value, place)))
                .collect(),
        ),
        scalar @ Content::Scalar { .. } => scalar,
    };
    Node { place: place.clone(), content }
}

fn insert(root: &mut Node, path: &str, place: &Place, value: Node) {
    let mut wrapped = value;
    for name in path.rsplit('.') {
        let key = Key { text: name.to_owned(), place: place.clone() };
        wrapped = Node { place: place.clone(), content: Content::Map(vec![(key, wrapped)]) };
    }
    root.overlay(wrapped);
}

/// Variables of sections that are refused are errors, as the sections are; unknown ones are named.
fn report_strangers(env: &dyn Env, findings: &mut Findings) {
    let known: Vec<&str> = table::local().flat_map(|row| row.env.iter().copied()).collect();
    for name in env.names() {
        if !name.starts_with("PATRONI_") || name == CONFIGURATION || known.contains(&name.as_str()) {
            continue;
        }
        let place = Place::Environment(Arc::from(name.as_str()));
        if let Some((_, section)) = table::REFUSED_ENV.iter().find(|(prefix, _)| name.starts_with(prefix)) {
            let why = table::local().find(|row| row.key == *section).map(|row| row.support);
            if let Some(table::Support::Refused(why)) = why {
                findings.error(&place, section, format!("{section} is refused: {why}"));
            }
            continue;
        }
        let what = match nearest(&name, known.iter().copied()) {
            Some(near) => format!("unknown environment variable: did you mean {near}?"),
            None => "unknown environment variable: it has no effect".to_owned(),
        };
        findings.warn(&place, "", what);
    }
}
