//! Reading JSON leniently, where others wrote it, and strictly where a misreading would be dangerous.

use serde_json::{Map, Value};
use types::{Lsn, Timeline};

/// The text as a JSON object, or what is wrong with it.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(other) => Err(format!("expected a JSON object, found {}", kind(&other))),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}

/// The text as a list of `what`, each row read by `of`. A row that cannot be understood spoils the list: only Baton writes it.
pub(super) fn rows<T>(
    text: &str,
    (one, many): (&str, &str),
    of: impl Fn(&Map<String, Value>) -> Option<T>,
) -> Result<Vec<T>, String> {
    let rows = match serde_json::from_str(text) {
        Ok(Value::Array(rows)) => rows,
        Ok(other) => return Err(format!("expected a list of {many}, found {}", kind(&other))),
        Err(error) => return Err(format!("not JSON: {error}")),
    };
    let row = |(number, row): (usize, &Value)| {
        row.as_object().and_then(&of).ok_or_else(|| format!("row {} tells of no {one}", number + 1))
    };
    rows.iter().enumerate().map(row).collect()
}

/// A whole number, also one written as a string.
pub(super) fn whole(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(super) fn lsn(value: &Value) -> Option<Lsn> {
    whole(value).map(Lsn)
}

pub(super) fn timeline(value: &Value) -> Option<Timeline> {
    whole(value).and_then(|number| u32::try_from(number).ok()).map(Timeline)
}

/// A non-empty string.
pub(super) fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A value that was put into JSON as a string of JSON is taken out of it.
pub(super) fn unwrapped(value: &Value) -> Value {
    match value {
        Value::String(inner) => serde_json::from_str(inner).unwrap_or_else(|_| value.clone()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.clone(),
    }
}

/// What a value is, in the words of a message.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
