//! A YAML document as written: a tree in which every key and value knows its place.

use crate::problem::Place;
use serde_json::{Map, Number, Value};

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) content: Content,
}

/// What stands there.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The text, and whether it was written without quotes, so that it may mean a number, a yes or no, or nothing.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// The key of a mapping and its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// A scalar as YAML 1.1 understands it, which is what Patroni's files are written for: `on` is a yes.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
}

impl Node {
    pub(crate) fn text(place: Place, text: impl Into<String>, plain: bool) -> Node {
        Node { place, content: Content::Scalar { text: text.into(), plain } }
    }

    pub(crate) fn empty_map(place: Place) -> Node {
        Node { place, content: Content::Map(Vec::new()) }
    }

    /// The scalar that stands here; `None` for a list or a mapping.
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Scalar { text, plain: true } => Some(resolve(text)),
            Content::Scalar { text, plain: false } => Some(Scalar::Text(text)),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The text of a scalar as it was written, except that nothing (`null`, `~`, an empty value) is `None`.
    pub(crate) fn raw(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } if self.scalar() != Some(Scalar::Null) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.scalar() == Some(Scalar::Null)
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    pub(crate) fn entry(&self, key: &str) -> Option<&(Key, Node)> {
        match &self.content {
            Content::Map(entries) => entries.iter().find(|(k, _)| k.text == key),
            Content::Scalar { .. } | Content::List(_) => None,
        }
    }

    /// The tree as JSON, with the types that YAML 1.1 gives to plain scalars.
    pub(crate) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar { .. } => match self.scalar() {
                Some(Scalar::Bool(value)) => Value::Bool(value),
                Some(Scalar::Int(value)) => Value::from(value),
                Some(Scalar::Float(value)) => Number::from_f64(value).map_or(Value::Null, Value::Number),
                Some(Scalar::Text(text)) => Value::String(text.to_owned()),
                Some(Scalar::Null) | None => Value::Null,
            },
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Content::Map(entries) => Value::Object(
                entries.iter().map(|(k, v)| (k.text.clone(), v.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// A tree from JSON, all of it at one place.
    pub(crate) fn from_json(value: &Value, place: &Place) -> Node {
        let content = match value {
            Value::Null => Content::Scalar { text: "null".to_owned(), plain: true },
            Value::Bool(_) | Value::Number(_) => Content::Scalar { text: value.to_string(), plain: true },
            Value::String(text) => Content::Scalar { text: text.clone(), plain: false },
            Value::Array(items) => {
                Content::List(items.iter().map(|item| Node::from_json(item, place)).collect())
            }
            Value::Object(entries) => Content::Map(
                entries
                    .iter()
                    .map(|(text, value)| {
                        let key = Key { text: text.clone(), place: place.clone() };
                        (key, Node::from_json(value, place))
                    })
                    .collect(),
            ),
        };
        Node { place: place.clone(), content }
    }

    /// Lays `over` on `self`: mappings are merged key by key, a null removes the key, anything else replaces.
    pub(crate) fn overlay(&mut self, over: Node) {
        match (&mut self.content, over.content) {
            (Content::Map(below), Content::Map(above)) => {
                for (key, value) in above {
                    let at = below.iter().position(|(k, _)| k.text == key.text);
                    match at.and_then(|at| below.get_mut(at)) {
                        None => below.push((key, value)),
                        Some(_) if value.is_null() => below.retain(|(k, _)| k.text != key.text),
                        Some(entry) => {
                            entry.0 = key;
                            entry.1.overlay(value);
                        }
                    }
                }
            }
            (content, over_content) => {
                *content = over_content;
                self.place = over.place;
            }
        }
    }
}

/// What a plain scalar means.
pub(crate) fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => return Scalar::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        _ => {}
    }
    if let Some(value) = integer(text) {
        return Scalar::Int(value);
    }
    let looks_like_float =
        text.contains('.') && text.chars().all(|c| c.is_ascii_digit() || "+-.eE_".contains(c));
    if looks_like_float && let Ok(value) = text.replace('_', "").parse::<f64>() {
        return Scalar::Float(value);
    }
    Scalar::Text(text)
}

fn integer(text: &str) -> Option<i64> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let clean = digits.replace('_', "");
    let value = if let Some(hex) = clean.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(octal) = clean.strip_prefix("0o") {
        i64::from_str_radix(octal, 8)
    } else if let Some(binary) = clean.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if clean.len() > 1 && clean.starts_with('0') {
        i64::from_str_radix(&clean, 8)
    } else {
        clean.parse()
    };
    value.ok().map(|value| if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::{Scalar, resolve};

    #[test]
    fn plain_scalars_mean_what_patroni_takes_them_for() {
        for (text, meant) in [
            ("on", Scalar::Bool(true)),
            ("Off", Scalar::Bool(false)),
            ("oN", Scalar::Text("oN")),
            ("", Scalar::Null),
            ("~", Scalar::Null),
            ("42", Scalar::Int(42)),
            ("-1", Scalar::Int(-1)),
            ("1_000", Scalar::Int(1000)),
            ("0644", Scalar::Int(0o644)),
            ("0x10", Scalar::Int(16)),
            ("089", Scalar::Text("089")),
            ("1.5", Scalar::Float(1.5)),
            ("10.0.0.1", Scalar::Text("10.0.0.1")),
            ("1e3", Scalar::Text("1e3")),
            ("10:30", Scalar::Text("10:30")),
            ("99999999999999999999", Scalar::Text("99999999999999999999")),
        ] {
            assert_eq!(resolve(text), meant, "{text}");
        }
    }
}
