//! A tree against the table: each key known, each value of its kind, each setting built or said not to be.
//!
//! All problems are collected. A value that is wrong is left out, so that its default holds where work goes on.

use crate::kind::{Kind, Value};
use crate::nearest::nearest;
use crate::node::{Content, Node};
use crate::origin;
use crate::problem::{Findings, Place};
use crate::table::{self, Row, Scope, Support};
use crate::values::{Found, Values};

/// The longest list of known keys in a message.
const MAX_LISTED: usize = 16;

/// What generated configurations say where somebody has to decide.
const PLACEHOLDER: &str = "#FIXME";

/// One walk over a tree.
pub(crate) struct Check<'a> {
    pub(crate) values: &'a mut Values,
    pub(crate) findings: &'a mut Findings,
    /// What stands before each key in messages: `bootstrap.dcs.` for the dynamic table, when it comes from a file.
    pub(crate) prefix: &'static str,
    /// Names of sections that a file may add: custom bootstrap and replica methods.
    pub(crate) methods: &'a [String],
}

impl Check<'_> {
    /// Checks the whole document.
    pub(crate) fn document(&mut self, root: &Node) {
        match &root.content {
            Content::Map(entries) => {
                for (key, node) in entries {
                    self.walk(&key.text, &key.place, node);
                }
            }
            Content::Scalar { .. } if root.is_null() => {}
            Content::Scalar { .. } | Content::List(_) => {
                self.findings.error(
                    &root.place,
                    "",
                    "expected a mapping of settings at the top, like `scope: demo`",
                );
            }
        }
    }

    fn walk(&mut self, path: &str, key_place: &Place, node: &Node) {
        let row = self.values.row(path);
        let section = self.values.rows().iter().any(|row| is_below(path, row.key));
        match (row, section) {
            (Some(row), false) => self.leaf(path, key_place, node, row),
            (_, true) => self.section(path, node),
            (None, false) => self.unknown(path, key_place, node),
        }
    }

    fn section(&mut self, path: &str, node: &Node) {
        let shown = format!("{}{path}", self.prefix);
        match &node.content {
            Content::Map(entries) => {
                for (key, value) in entries {
                    self.walk(&format!("{path}.{}", key.text), &key.place, value);
                }
            }
            // Only sections with free names below may be lists.
            Content::List(items)
                if self.values.rows().iter().any(|row| row.key.starts_with(&format!("{path}.*"))) =>
            {
                for (number, item) in items.iter().enumerate() {
                    self.walk(&format!("{path}.{number}"), &item.place, item);
                }
            }
            Content::Scalar { .. } if node.is_null() => {}
            Content::Scalar { .. } | Content::List(_) => {
                let keys = self.children(path);
                let what = format!("{shown} is a section: indent its keys below it ({})", keys.join(", "));
                self.findings.error(&node.place, &shown, what);
            }
        }
    }

    fn leaf(&mut self, path: &str, key_place: &Place, node: &Node, row: &'static Row) {
        if node.is_null() {
            return;
        }
        let shown = format!("{}{path}", self.prefix);
        let without_bad = self.without_bad_entries(&shown, row, node);
        let node = without_bad.as_ref().unwrap_or(node);
        let Some(value) = row.kind.read(node) else {
            let what = format!("{shown} should be {}, {}", row.kind.expects(), but(&shown, row.kind, node));
            self.findings.error(&node.place, &shown, what);
            return;
        };
        if row.kind != Kind::Json || path != "bootstrap.dcs" {
            let mut origins = Vec::new();
            let at_key = Node { place: key_place.clone(), ..node.clone() };
            origin::of_node(&shown, row.kind, &at_key, &mut origins);
            self.values.origins.extend(origins);
        }
        self.support(&shown, key_place, &value, row);
        if node.raw() == Some(PLACEHOLDER) {
            self.findings.warn(&node.place, &shown, format!("{shown} still says {PLACEHOLDER}: fill it in"));
        }
        let by_alias = row.alias_of.is_some();
        let key = row.alias_of.unwrap_or(path);
        if let Some(before) = self.values.found.get(key) {
            let (old, new) = if by_alias { (shown.as_str(), key) } else { ("its old name", path) };
            let what = format!(
                "{old} has no effect because {}{new} is given as well: remove the old name",
                self.prefix
            );
            let place = if by_alias { key_place.clone() } else { before.place.clone() };
            self.findings.warn(&place, &shown, what);
            if by_alias || !before.by_alias {
                return;
            }
        }
        self.values.found.insert(key.to_owned(), Found { value, place: key_place.clone(), by_alias });
    }

    /// A mapping of names to scalars without the entries that are none, each of which is an error of its own: one bad
    /// parameter must not take the others along.
    fn without_bad_entries(&mut self, shown: &str, row: &Row, node: &Node) -> Option<Node> {
        let (Kind::TextMap, Content::Map(entries)) = (row.kind, &node.content) else { return None };
        let (good, bad): (Vec<_>, Vec<_>) =
            entries.iter().cloned().partition(|(_, value)| value.scalar().is_some());
        for (key, value) in &bad {
            let name = format!("{shown}.{}", key.text);
            let what = format!("{name} should be a single value, {}", but(&name, row.kind, value));
            self.findings.error(&value.place, &name, what);
        }
        Some(Node { place: node.place.clone(), content: Content::Map(good) })
    }

    fn support(&mut self, key: &str, place: &Place, value: &Value, row: &Row) {
        match row.support {
            Support::Full => {}
            Support::Ignored(why) => self.findings.warn(place, key, format!("{key} has no effect: {why}")),
            Support::Refused(why) => self.findings.error(place, key, format!("{key} is refused: {why}")),
            Support::Limited { fine, warned, why } => {
                for word in words(value) {
                    if fine.contains(&word) {
                        continue;
                    }
                    if warned.contains(&word) || warned.contains(&"*") {
                        self.findings.warn(place, key, format!("{key}: {word} has no effect: {why}"));
                    } else {
                        self.findings.error(place, key, format!("{key}: {word} is refused: {why}"));
                    }
                }
            }
        }
    }

    fn unknown(&mut self, path: &str, place: &Place, node: &Node) {
        let (parent, name) = path.rsplit_once('.').unwrap_or(("", path));
        let shown = format!("{}{path}", self.prefix);
        if matches!(parent, "postgresql" | "bootstrap") && self.is_method(name, node) {
            let at_key = Node { place: place.clone(), ..node.clone() };
            origin::of_node(&shown, Kind::Json, &at_key, &mut self.values.origins);
            return;
        }
        if self.is_dynamic() && of_a_node(path) {
            let what =
                format!("{shown} has no effect: it counts only in the file of each node, move it there");
            self.findings.warn(place, &shown, what);
            return;
        }
        let here = self.children(parent);
        // A key that is right elsewhere is a key in the wrong place, however near to others its name is.
        let misplaced = if parent.is_empty() && self.prefix.is_empty() { belongs(name) } else { None };
        if let Some(elsewhere) = misplaced {
            let what = format!("unknown key {shown:?}: it belongs to {elsewhere:?}, move it there");
            self.findings.error(place, &shown, what);
        } else if let Some(near) = nearest(name, here.iter().copied()) {
            let meant = if parent.is_empty() { near.to_owned() } else { format!("{parent}.{near}") };
            self.findings.suggested.push(meant);
            self.findings.error(place, &shown, format!("unknown key {shown:?}: did you mean {near:?}?"));
        } else {
            // Patroni takes no offence at keys of others (Pigsty keeps notes under `bootstrap.dcs`), and they are too
            // far from ours to be mistyped ones.
            let mut what = format!("unknown key {shown:?} has no effect: remove it");
            if here.len() <= MAX_LISTED && !here.is_empty() {
                what.push_str(&format!("; known here are {}", here.join(", ")));
            }
            self.findings.warn(place, &shown, what);
        }
    }

    /// Whether this is the section of a custom bootstrap or replica method.
    fn is_method(&mut self, name: &str, node: &Node) -> bool {
        let listed = self.methods.iter().any(|method| method == name);
        let looks_like =
            ["command", "keep_data", "no_params", "no_leader"].iter().any(|key| node.get(key).is_some());
        listed || looks_like
    }

    /// Whether this is the dynamic configuration, in etcd or in a file under `bootstrap.dcs`.
    fn is_dynamic(&self) -> bool {
        self.values.rows().iter().any(|row| row.scope == Scope::Dynamic)
    }

    /// The names that may stand right below `parent`.
    fn children(&self, parent: &str) -> Vec<&'static str> {
        let depth = if parent.is_empty() { 0 } else { parent.split('.').count() };
        let mut names: Vec<&'static str> = Vec::new();
        for row in self.values.rows() {
            if !parent.is_empty() && !is_below(parent, row.key) {
                continue;
            }
            if let Some(name) = row.key.split('.').nth(depth)
                && name != "*"
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        names
    }
}

/// Whether the row's key is deeper than `path` and matches it as far as `path` goes.
fn is_below(path: &str, pattern: &str) -> bool {
    let depth = path.split('.').count();
    let mut wanted = pattern.split('.');
    let head: Vec<&str> = wanted.by_ref().take(depth).collect();
    wanted.next().is_some() && table::matches(&head.join("."), path)
}

/// Whether a key is a setting of single nodes, or a section of them.
fn of_a_node(path: &str) -> bool {
    table::local()
        .any(|row| row.alias_of.is_none() && (table::matches(row.key, path) || is_below(path, row.key)))
}

/// Where a key that stands in a wrong section would be right.
fn belongs(name: &str) -> Option<String> {
    // Deeper keys have names that mean something else higher up: `username`, `postgres`.
    let last = |row: &&Row| row.key.split('.').count() <= 2 && row.key.rsplit('.').next() == Some(name);
    let dynamic = |row: &Row| format!("bootstrap.dcs.{}", row.key);
    // One that stands at the top of the dynamic configuration is meant before one of the same name in some section.
    let top = table::dynamic().find(|row| row.key == name).map(dynamic);
    let local = || table::local().find(last).map(|row| row.key.to_owned());
    top.or_else(local).or_else(|| table::dynamic().find(last).map(dynamic))
}

fn words(value: &Value) -> Vec<&str> {
    match value {
        Value::Text(text) => vec![text],
        Value::Texts(texts) => texts.iter().map(String::as_str).collect(),
        Value::Secret(_)
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Duration(_)
        | Value::Pairs(_)
        | Value::Json(_) => Vec::new(),
    }
}

/// What was found in place of a value of the right kind.
fn but(key: &str, kind: Kind, node: &Node) -> String {
    match &node.content {
        Content::List(_) => "but is a list".to_owned(),
        Content::Map(_) => "but is a mapping".to_owned(),
        Content::Scalar { text, .. } => {
            let start: String = text.chars().take(60).collect();
            match origin::shown(key, kind, text) {
                masked if masked == crate::secret::MASK => "but is something else".to_owned(),
                _ => format!("but is {start:?}"),
            }
        }
    }
}
