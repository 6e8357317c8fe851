//! What a setting holds: kinds of values and how text becomes one.

use crate::address;
use crate::log_format::LogFormat;
use crate::node::{Content, Node, Scalar};
use crate::secret::Secret;
use serde_json::Value as Json;
use std::time::Duration;

/// The kind of a setting's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Text,
    /// A text that is never shown.
    Secret,
    Bool,
    /// A whole number within these bounds.
    Int(i64, i64),
    /// Permissions of a file.
    Mode,
    /// Whole seconds within these bounds; `30`, `"30s"`, `5min`.
    Seconds(i64, i64),
    /// A time that may be less than a second; a number without a unit counts seconds.
    Duration,
    /// Bytes; `1048576`, `1MB`.
    Bytes(i64, i64),
    /// One of these words; a plain `on` or `off` counts as the word.
    Choice(&'static [&'static str]),
    Path,
    /// `host:port`.
    Address,
    /// `host:port` to listen on, where the host may be several with commas between them.
    Listen,
    /// A list of texts, or one text with commas between them.
    Texts,
    /// A list of lines, or one text with a line each.
    Lines,
    /// Options of a program: `name`, `name: value`, as a list of them or as a mapping.
    Options,
    /// A mapping from names to scalars.
    TextMap,
    /// Any mapping or list, kept as it is.
    Json,
    /// Python's format of log lines, or a list of its fields.
    LogFormat,
}

/// A value of one of these kinds.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Text(String),
    Secret(Secret),
    Bool(bool),
    Int(i64),
    Duration(Duration),
    Texts(Vec<String>),
    /// Names with values, in the order they were written.
    Pairs(Vec<(String, Option<String>)>),
    Json(Json),
}

impl Kind {
    /// What a value of this kind looks like, for error messages and the reference.
    #[must_use]
    pub fn expects(self) -> String {
        match self {
            Kind::Text => "a text".to_owned(),
            Kind::Secret => "a text (not shown, because it is secret)".to_owned(),
            Kind::Bool => "true or false".to_owned(),
            Kind::Int(low, high) => format!("a whole number{}", bounds(low, high)),
            Kind::Mode => "permissions of a file, such as 0644".to_owned(),
            Kind::Seconds(low, high) => {
                format!("seconds as a whole number{}, or a time like 5min", bounds(low, high))
            }
            Kind::Duration => "a time like 15s, 500ms or 2min".to_owned(),
            Kind::Bytes(low, high) => {
                format!("bytes as a whole number{}, or a size like 1MB", bounds(low, high))
            }
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Path => "a path".to_owned(),
            Kind::Address => "host:port, such as 10.0.0.1:8008".to_owned(),
            Kind::Listen => "addresses and port, such as 10.0.0.1:8008 or *:8008".to_owned(),
            Kind::Texts => "a list, or a text with commas".to_owned(),
            Kind::Lines => "a list with one line each".to_owned(),
            Kind::Options => "a list of options like [data-checksums, {encoding: UTF8}]".to_owned(),
            Kind::TextMap => "a mapping of names to values".to_owned(),
            Kind::Json => "a mapping or list".to_owned(),
            Kind::LogFormat => {
                "a format of Python's logging like \"%(asctime)s %(levelname)s: %(message)s\", or a list of its fields"
                    .to_owned()
            }
        }
    }

    /// The value that stands at `node`; `None` when it is not of this kind. A null is nothing, and not asked for here.
    pub(crate) fn read(self, node: &Node) -> Option<Value> {
        match self {
            Kind::Text | Kind::Path => node.raw().map(|text| Value::Text(text.to_owned())),
            Kind::Secret => node.raw().map(|text| Value::Secret(Secret::new(text))),
            Kind::Bool => bool_of(node).map(Value::Bool),
            Kind::Int(low, high) => int_of(node).filter(|n| (low..=high).contains(n)).map(Value::Int),
            Kind::Mode => int_of(node).filter(|mode| (0..=0o777).contains(mode)).map(Value::Int),
            Kind::Seconds(low, high) => {
                let whole = |n: &i64| (low..=high).contains(n);
                int_of(node).or_else(|| seconds(node.raw()?)).filter(whole).map(Value::Int)
            }
            Kind::Duration => duration(node.raw()?).map(Value::Duration),
            Kind::Bytes(low, high) => {
                let fits = |n: &i64| (low..=high).contains(n);
                int_of(node).or_else(|| bytes(node.raw()?)).filter(fits).map(Value::Int)
            }
            Kind::Choice(words) => choice(node, words).map(|word| Value::Text(word.to_owned())),
            Kind::Address => {
                let text = node.raw()?;
                address::split(text, None).map(|_| Value::Text(text.trim().to_owned()))
            }
            Kind::Listen => {
                let text = node.raw()?;
                address::split(text, Some(5432)).map(|_| Value::Text(text.trim().to_owned()))
            }
            Kind::Texts => texts(node, ',').map(Value::Texts),
            Kind::Lines => texts(node, '\n').map(Value::Texts),
            Kind::Options => options(node).map(Value::Pairs),
            Kind::TextMap => pairs(node).map(Value::Pairs),
            Kind::Json => json(node).map(Value::Json),
            Kind::LogFormat => {
                let given = match node.raw() {
                    Some(text) => Json::String(text.to_owned()),
                    None => node.to_json(),
                };
                LogFormat::read(&given).map(|_| Value::Json(given))
            }
        }
    }
}

fn bounds(low: i64, high: i64) -> String {
    match (low, high) {
        (i64::MIN, i64::MAX) => String::new(),
        (low, i64::MAX) => format!(" of at least {low}"),
        (i64::MIN, high) => format!(" of at most {high}"),
        (low, high) => format!(" from {low} to {high}"),
    }
}

/// A yes or no in the spellings that Patroni and PostgreSQL accept, quoted or not.
fn bool_of(node: &Node) -> Option<bool> {
    match node.scalar()? {
        Scalar::Bool(value) => Some(value),
        Scalar::Int(0) => Some(false),
        Scalar::Int(1) => Some(true),
        Scalar::Text(text) => match text.to_ascii_lowercase().as_str() {
            "on" | "true" | "yes" | "1" => Some(true),
            "off" | "false" | "no" | "0" => Some(false),
            _ => None,
        },
        Scalar::Null | Scalar::Int(_) | Scalar::Float(_) => None,
    }
}

/// A whole number, quoted or not.
fn int_of(node: &Node) -> Option<i64> {
    match node.scalar()? {
        Scalar::Int(value) => Some(value),
        Scalar::Text(text) => text.trim().parse().ok(),
        Scalar::Null | Scalar::Bool(_) | Scalar::Float(_) => None,
    }
}

fn choice(node: &Node, words: &'static [&'static str]) -> Option<&'static str> {
    let text = node.raw()?;
    let word = words.iter().find(|word| word.eq_ignore_ascii_case(text));
    // A YAML reader turns a plain `off` into false; the word was meant.
    let word = word.or_else(|| {
        let meant = if bool_of(node)? { "on" } else { "off" };
        words.iter().find(|word| **word == meant)
    });
    word.copied()
}

/// Splits a number with a unit; a number alone has the unit "".
fn number_and_unit(text: &str) -> Option<(f64, String)> {
    let text = text.trim();
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    Some((number, unit.trim().to_owned()))
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, unit) = number_and_unit(text)?;
    let factor = match unit.as_str() {
        "us" => 0.001,
        "ms" => 1.0,
        "" | "s" => 1000.0,
        "min" | "m" => 60_000.0,
        "h" => 3_600_000.0,
        "d" => 86_400_000.0,
        _ => return None,
    };
    Some(number * factor)
}

fn seconds(text: &str) -> Option<i64> {
    let millis = milliseconds(text)?;
    // PostgreSQL rounds to the unit of the setting as well; the cast saturates.
    Some((millis / 1000.0).round() as i64)
}

fn duration(text: &str) -> Option<Duration> {
    let millis = milliseconds(text)?;
    let longest = 86_400_000.0 * 3650.0;
    (0.0..=longest).contains(&millis).then(|| Duration::from_micros((millis * 1000.0).round() as u64))
}

fn bytes(text: &str) -> Option<i64> {
    let (number, unit) = number_and_unit(text)?;
    let factor: f64 = match unit.as_str() {
        "" | "B" => 1.0,
        "kB" | "KB" => 1024.0,
        "MB" => 1_048_576.0,
        "GB" => 1_073_741_824.0,
        "TB" => 1_099_511_627_776.0,
        _ => return None,
    };
    Some((number * factor).round() as i64)
}

fn texts(node: &Node, separator: char) -> Option<Vec<String>> {
    match &node.content {
        Content::List(items) => items.iter().map(|item| item.raw().map(str::to_owned)).collect(),
        Content::Scalar { .. } => {
            let parts = node.raw()?.split(separator);
            Some(parts.map(unquote).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        Content::Map(_) => None,
    }
}

/// `"host1:2379","host2:2379"` in an environment variable has its quotes inside the value.
fn unquote(part: &str) -> &str {
    part.trim().trim_matches(|c| c == '\'' || c == '"')
}

fn options(node: &Node) -> Option<Vec<(String, Option<String>)>> {
    match &node.content {
        Content::List(items) => {
            let mut all = Vec::new();
            for item in items {
                match &item.content {
                    Content::Map(_) => all.extend(pairs(item)?),
                    Content::Scalar { .. } => all.push((item.raw()?.to_owned(), None)),
                    Content::List(_) => return None,
                }
            }
            Some(all)
        }
        Content::Map(_) => pairs(node),
        Content::Scalar { .. } => None,
    }
}

fn pairs(node: &Node) -> Option<Vec<(String, Option<String>)>> {
    let Content::Map(entries) = &node.content else { return None };
    entries
        .iter()
        .map(|(key, value)| match &value.content {
            Content::Scalar { .. } => Some((key.text.clone(), value.raw().map(str::to_owned))),
            Content::List(_) | Content::Map(_) => None,
        })
        .collect()
}

fn json(node: &Node) -> Option<Json> {
    match &node.content {
        Content::Scalar { .. } => None,
        Content::List(_) | Content::Map(_) => Some(node.to_json()),
    }
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration, seconds};
    use std::time::Duration;

    #[test]
    fn units_are_postgresqls() {
        assert_eq!(seconds("30min"), Some(1800));
        assert_eq!(seconds("1500ms"), Some(2));
        assert_eq!(seconds("3 apples"), None);
        assert_eq!(duration("15s"), Some(Duration::from_secs(15)));
        assert_eq!(duration("0.5"), Some(Duration::from_millis(500)));
        assert_eq!(duration("-1s"), None);
        assert_eq!(bytes("1MB"), Some(1 << 20));
        assert_eq!(bytes("16mb"), None);
    }
}
