//! YAML as patronictl prints it: keys sorted, block style, lists under their key without indentation, strings quoted only
//! where they would be read as something else. `show-config`, the diff of `edit-config` and `-f yaml` are made of it.

use serde_json::Value;

/// `value` as a block of YAML, ending with a newline.
pub(crate) fn block(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => push_map(&mut out, map, 0, false),
        Value::Array(items) if !items.is_empty() => push_list(&mut out, items, 0),
        scalar => {
            out.push_str(&inline(scalar));
            out.push('\n');
        }
    }
    out
}

/// `value` on one line, as `{a: 1, b: [x, y]}`.
pub(crate) fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => scalar(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let mut pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{}: {}", scalar(key), inline(value))).collect();
            pairs.sort();
            format!("{{{}}}", pairs.join(", "))
        }
    }
}

fn push_map(out: &mut String, map: &serde_json::Map<String, Value>, indent: usize, first_inline: bool) {
    let mut keys: Vec<&String> = map.keys().collect();
    keys.sort();
    for (at, key) in keys.into_iter().enumerate() {
        if at > 0 || !first_inline {
            out.push_str(&" ".repeat(indent));
        }
        out.push_str(&scalar(key));
        out.push(':');
        match map.get(key) {
            Some(Value::Object(inner)) if !inner.is_empty() => {
                out.push('\n');
                push_map(out, inner, indent + 2, false);
            }
            Some(Value::Array(items)) if !items.is_empty() => {
                out.push('\n');
                push_list(out, items, indent);
            }
            Some(leaf) => {
                out.push(' ');
                out.push_str(&inline(leaf));
                out.push('\n');
            }
            None => out.push('\n'),
        }
    }
}

fn push_list(out: &mut String, items: &[Value], indent: usize) {
    for item in items {
        out.push_str(&" ".repeat(indent));
        out.push_str("- ");
        match item {
            Value::Object(map) if !map.is_empty() => push_map(out, map, indent + 2, true),
            leaf => {
                out.push_str(&inline(leaf));
                out.push('\n');
            }
        }
    }
}

fn scalar(text: &str) -> String {
    if text.chars().any(|c| c.is_control()) {
        return serde_json::to_string(text).unwrap_or_default();
    }
    if plain(text) { text.to_owned() } else { format!("'{}'", text.replace('\'', "''")) }
}

/// Whether the bare text is read back as this very string, by YAML 1.1 (Patroni) and 1.2 alike.
fn plain(text: &str) -> bool {
    let words = ["null", "~", "true", "false", "yes", "no", "on", "off", "y", "n", "=", "<<"];
    if text.is_empty() || text != text.trim() || words.contains(&text.to_ascii_lowercase().as_str()) {
        return false;
    }
    let starts_badly = text.starts_with(|c: char| "!&*|>%@`\"'#,[]{}".contains(c))
        || ((text.starts_with(['-', '?', ':'])) && text.chars().nth(1).is_none_or(|c| c == ' '))
        || text.starts_with("---")
        || text.starts_with("...");
    let breaks = text.contains(": ") || text.contains(" #") || text.ends_with(':');
    let flow = text.contains([',', '[', ']', '{', '}']) && text.contains(['[', ']', '{', '}']);
    !(starts_badly || breaks || flow || like_number_or_date(text))
}

fn like_number_or_date(text: &str) -> bool {
    let unsigned = text.trim_start_matches(['-', '+']);
    let digit_first = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let numeric = digit_first
        && unsigned.chars().all(|c| c.is_ascii_hexdigit() || "._:xoXOeE+-".contains(c))
        && (unsigned.replace('_', "").parse::<f64>().is_ok()
            || unsigned.starts_with("0x")
            || unsigned.starts_with("0o")
            || sexagesimal(unsigned));
    let bytes = text.as_bytes();
    let date = bytes.len() >= 10
        && bytes.iter().take(4).all(u8::is_ascii_digit)
        && bytes.get(4) == Some(&b'-')
        && bytes.get(7) == Some(&b'-');
    let special = matches!(unsigned.to_ascii_lowercase().as_str(), ".inf" | ".nan");
    numeric || date || special
}

/// `10:30` and `1:02:03.5` are numbers in YAML 1.1.
fn sexagesimal(text: &str) -> bool {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    let mut parts = whole.split(':');
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let first = parts.next().is_some_and(digits);
    let mut rest = parts.peekable();
    first
        && rest.peek().is_some()
        && rest.all(|part| digits(part) && part.parse::<u8>().is_ok_and(|part| part < 60))
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
    fn strings_that_would_be_something_else_are_quoted() {
        for (text, quoted) in [
            ("on", true),
            ("100", true),
            ("1.5", true),
            ("0x1f", true),
            ("10:30", true),
            ("2030-01-01T10:00:00+00:00", true),
            ("", true),
            ("a: b", true),
            ("*", true),
            ("- x", true),
            ("it's", false),
            ("128MB", false),
            ("0/4000060", false),
            ("md5", false),
            ("10.0.0.1:5432", false),
            ("a,b", false),
            ("/usr/bin/x %p", false),
            ("null", true),
        ] {
            assert_eq!(inline(&json!(text)).starts_with('\''), quoted, "{text}");
            let back = settings::to_json("text", &inline(&json!(text))).unwrap();
            assert_eq!(back, json!(text));
        }
    }

    #[test]
    fn inline_maps_are_sorted() {
        assert_eq!(
            inline(&json!({"replicatefrom": "pg-2", "nofailover": true})),
            "{nofailover: true, replicatefrom: pg-2}"
        );
    }
}
