//! YAML as patronictl prints it: keys sorted, block style, lists under their key without indentation, strings quoted only
//! where they would be read as something else. `show-config`, the diff of `edit-config` and `-f yaml` are made of it.
//!
//!     value ─▶ block: one line a leaf ─▶ scalar: plain, 'single' (may have several lines) or "double" (escapes)
//!                                         folded at a space once the line is longer than WIDTH

use crate::yaml_text::{double, plain, printable, single_is_possible};
use serde_json::Value;

/// A line is folded at the first space behind this column.
const WIDTH: usize = 200;

/// `value` as a block of YAML, ending with a newline.
pub(crate) fn block(value: &Value) -> String {
    let mut out = Out::default();
    match value {
        Value::Object(map) if !map.is_empty() => out.map(map, 0, true),
        Value::Array(items) if !items.is_empty() => out.list(items, 0, true),
        leaf => out.leaf(leaf, 0),
    }
    out.text
}

/// `value` on one line, as `{a: 1, b: [x, y]}`.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => float(number),
        Value::String(text) => match (
            plain(text) && !text.contains([',', '?', '[', ']', '{', '}']) && !text.contains(':'),
            text.contains('\n'),
            single_is_possible(text),
        ) {
            (true, _, _) => text.clone(),
            (false, false, true) => format!("'{}'", text.replace('\'', "''")),
            (false, _, _) => double(text),
        },
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pair = |key: &&String| {
                let value = map.get(*key).map(inline).unwrap_or_default();
                format!("{}: {value}", inline(&Value::from(key.as_str())))
            };
            format!("{{{}}}", keys.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A number in the digits of Python: an exponent has a sign and two digits.
fn float(number: &serde_json::Number) -> String {
    let text = number.to_string();
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let mantissa = if mantissa.contains('.') { mantissa.to_owned() } else { format!("{mantissa}.0") };
    match exponent.strip_prefix('-') {
        Some(digits) => format!("{mantissa}e-{digits:0>2}"),
        None => format!("{mantissa}e+{:0>2}", exponent.trim_start_matches('+')),
    }
}

/// What is written so far, and where the last line ends.
#[derive(Default)]
struct Out {
    text: String,
    column: usize,
}

impl Out {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
        self.column += text.chars().count();
    }

    fn line(&mut self) {
        self.text.push('\n');
        self.column = 0;
    }

    fn indent(&mut self, indent: usize) {
        self.push(&" ".repeat(indent));
    }

    /// `fresh`: at the beginning of a line; else behind the dash of a list.
    fn map(&mut self, map: &serde_json::Map<String, Value>, indent: usize, fresh: bool) {
        let mut keys: Vec<&String> = map.keys().collect();
        keys.sort();
        for (at, key) in keys.into_iter().enumerate() {
            if fresh || at > 0 {
                self.indent(indent);
            }
            self.scalar(key, indent, false);
            self.push(":");
            match map.get(key) {
                Some(Value::Object(inner)) if !inner.is_empty() => {
                    self.line();
                    self.map(inner, indent + 2, true);
                }
                Some(Value::Array(items)) if !items.is_empty() => {
                    self.line();
                    self.list(items, indent, true);
                }
                Some(leaf) => {
                    self.push(" ");
                    self.leaf(leaf, indent + 2);
                }
                None => self.line(),
            }
        }
    }

    fn list(&mut self, items: &[Value], indent: usize, fresh: bool) {
        for (at, item) in items.iter().enumerate() {
            if fresh || at > 0 {
                self.indent(indent);
            }
            self.push("- ");
            match item {
                Value::Object(map) if !map.is_empty() => self.map(map, indent + 2, false),
                Value::Array(items) if !items.is_empty() => self.list(items, indent + 2, false),
                leaf => self.leaf(leaf, indent + 2),
            }
        }
    }

    fn leaf(&mut self, leaf: &Value, indent: usize) {
        match leaf {
            Value::String(text) => self.scalar(text, indent, true),
            other => self.push(&inline(other)),
        }
        self.line();
    }

    /// Lines after the first begin at `indent`; keys stay on one.
    fn scalar(&mut self, text: &str, indent: usize, fold: bool) {
        if plain(text) {
            return self.words(text, text, indent, fold, false);
        }
        if !printable(text) || !single_is_possible(text) || (!fold && text.contains('\n')) {
            return self.push(&double(text));
        }
        self.push("'");
        self.words(&text.replace('\'', "''"), text, indent, fold, true);
        self.push("'");
    }

    /// Words and the breaks between them: n newlines are written as n + 1, a space where the line is full as one.
    fn words(&mut self, written: &str, text: &str, indent: usize, fold: bool, quoted: bool) {
        let mut rest = written;
        while !rest.is_empty() {
            let kind = rest.chars().next().filter(|c| matches!(c, ' ' | '\n'));
            let other = |c: char| match kind {
                Some(kind) => c != kind,
                None => matches!(c, ' ' | '\n'),
            };
            let (run, after) = rest.split_at(rest.find(other).unwrap_or(rest.len()));
            match kind {
                Some('\n') => {
                    for _ in 0..=run.len() {
                        self.line();
                    }
                    self.indent(indent);
                }
                Some(_) => {
                    // Spaces at either end must stay beside the quotes.
                    let inside = !quoted || (rest.len() < written.len() && !after.is_empty());
                    if run.len() == 1 && self.column > WIDTH && fold && inside && !text.is_empty() {
                        self.line();
                        self.indent(indent);
                    } else {
                        self.push(run);
                    }
                }
                None => self.push(run),
            }
            rest = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{block, inline};
    use serde_json::json;

    #[test]
    fn blocks_are_sorted_and_lists_hang_under_their_key() {
        let config = json!({
            "ttl": 30, "postgresql": {"use_pg_rewind": true, "pg_hba": ["host all all 0.0.0.0/0 md5", "local all all trust"],
            "parameters": {"wal_keep_size": "128MB", "log_line_prefix": "%m [%p]: ", "max_connections": 100}},
            "slots": {}, "ignore_slots": [{"name": "x", "type": "logical"}], "nothing": null
        });
        insta::assert_snapshot!(block(&config), @r"
        ignore_slots:
        - name: x
          type: logical
        nothing: null
        postgresql:
          parameters:
            log_line_prefix: '%m [%p]: '
            max_connections: 100
            wal_keep_size: 128MB
          pg_hba:
          - host all all 0.0.0.0/0 md5
          - local all all trust
          use_pg_rewind: true
        slots: {}
        ttl: 30
        ");
    }

    #[test]
    fn what_is_written_is_read_back() {
        let long = format!("{} it's 'quoted' ", "word ".repeat(60));
        let values = json!({
            "long": long, "plain": "word ".repeat(60).trim(), "lines": "one\ntwo\n\nthree", "tab": "a\tb", "list": [[1, [2]], []],
            "breaks": "one \ntwo", "ends": "one\n", "empty": "", "deep": {"list": [{"a": {"b": [1]}}]}, "unicode": "ünï"
        });
        let back = settings::to_json("text", &block(&values)).unwrap();
        assert_eq!(back, values, "{}", block(&values));
    }

    #[test]
    fn inline_maps_are_sorted() {
        assert_eq!(
            inline(&json!({"replicatefrom": "pg-2", "nofailover": true, "t": "true"})),
            "{nofailover: true, replicatefrom: pg-2, t: 'true'}"
        );
    }

    #[test]
    fn numbers_are_python_s() {
        assert_eq!(inline(&json!([1.5, 1e10, 1e20, 1e-7])), "[1.5, 10000000000.0, 1.0e+20, 1.0e-07]");
    }
}
