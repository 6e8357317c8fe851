//! `query`: rows of any columns. Lines of tsv and the table show values as Python does, as patronictl has it.

use super::{Empty, Format, document};
use crate::cli::RowFormat;
use crate::sql::Rows;
use crate::table::{Column, Side, draw};
use serde_json::Value;

/// Draws them; a statement without rows gives nothing.
pub(crate) fn rows(found: &Rows, format: RowFormat, delimiter: &str) -> String {
    let names: Vec<&str> = found.columns.iter().map(String::as_str).collect();
    if names.is_empty() {
        return String::new();
    }
    let texts = || found.rows.iter().map(|row| row.iter().map(text).collect::<Vec<_>>());
    match format {
        RowFormat::Json => document(Format::Json, &names, &found.rows, Empty::Kept),
        RowFormat::Yaml => document(Format::Yaml, &names, &found.rows, Empty::Kept),
        RowFormat::Tsv => {
            let lines = texts().map(|cells| cells.join(delimiter) + "\n");
            std::iter::once(names.join(delimiter) + "\n").chain(lines).collect()
        }
        RowFormat::Pretty => {
            let columns: Vec<Column> =
                names.iter().map(|name| Column { heading: (*name).to_owned(), side: Side::Left }).collect();
            draw(None, &columns, &texts().collect::<Vec<_>>())
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => nested(other),
    }
}

fn nested(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'")),
        Value::Array(items) => format!("[{}]", items.iter().map(nested).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pair = |(key, value): (&String, &Value)| format!("'{key}': {}", nested(value));
            format!("{{{}}}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rows;
    use crate::cli::RowFormat;
    use crate::sql::Rows;
    use serde_json::json;

    #[test]
    fn all_forms() {
        let found = Rows {
            columns: vec!["a".into(), "b".into()],
            rows: vec![vec![json!(1), json!(null)], vec![json!(true), json!(["x", 2])]],
        };
        let all = [RowFormat::Tsv, RowFormat::Pretty, RowFormat::Json, RowFormat::Yaml]
            .map(|format| rows(&found, format, ";"));
        insta::assert_snapshot!(all.join(""), @r#"
        a;b
        1;None
        True;['x', 2]
        +------+----------+
        | a    | b        |
        +------+----------+
        | 1    | None     |
        | True | ['x', 2] |
        +------+----------+
        [{"a": 1, "b": null}, {"a": true, "b": ["x", 2]}]
        - a: 1
          b: null
        - a: true
          b:
          - x
          - 2
        "#);
        assert_eq!(rows(&Rows::default(), RowFormat::Json, "\t"), "");
    }
}
