//! `history`: when each timeline ended, and who led the next one.

use super::json;
use serde_json::Value;
use types::{Lsn, Timeline};

/// When a timeline ended, and who led the next one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HistoryRow {
    pub timeline: Timeline,
    pub lsn: Lsn,
    pub reason: String,
    /// ISO 8601; older rows have none.
    pub timestamp: Option<String>,
    pub new_leader: Option<String>,
}

pub(crate) fn history_json(rows: &[HistoryRow]) -> String {
    let row = |row: &HistoryRow| {
        let mut cells =
            vec![Value::from(row.timeline.0), Value::from(row.lsn.0), Value::from(row.reason.as_str())];
        if let Some(timestamp) = &row.timestamp {
            cells.push(Value::from(timestamp.as_str()));
            cells.extend(row.new_leader.as_deref().map(Value::from));
        }
        Value::Array(cells)
    };
    Value::Array(rows.iter().map(row).collect()).to_string()
}

pub(crate) fn parse_history(value: &str) -> Result<Vec<HistoryRow>, String> {
    let rows = match serde_json::from_str(value) {
        Ok(Value::Array(rows)) => rows,
        Ok(other) => return Err(format!("expected a list of rows, found {}", json::kind(&other))),
        Err(error) => return Err(format!("not JSON: {error}")),
    };
    let row = |(number, row): (usize, &Value)| {
        parse_row(row).ok_or_else(|| format!("row {} is not [timeline, LSN, reason, …]", number + 1))
    };
    rows.iter().enumerate().map(row).collect()
}

fn parse_row(row: &Value) -> Option<HistoryRow> {
    let cells = row.as_array()?;
    Some(HistoryRow {
        timeline: json::timeline(cells.first()?)?,
        lsn: json::lsn(cells.get(1)?)?,
        reason: cells.get(2)?.as_str()?.to_owned(),
        timestamp: cells.get(3).and_then(json::text),
        new_leader: cells.get(4).and_then(json::text),
    })
}

#[cfg(test)]
mod tests {
    use super::{history_json, parse_history};

    #[test]
    fn rows_of_every_length_go_both_ways() {
        let text = concat!(
            r#"[[1,100,"no recovery target specified"],[2,200,"x","2026-11-23T10:00:00+00:00"],"#,
            r#"[3,300,"y","2026-11-23T11:00:00+00:00","pg-1"]]"#
        );
        assert_eq!(history_json(&parse_history(text).unwrap()), text);
        assert_eq!(history_json(&parse_history("[]").unwrap()), "[]");
    }

    #[test]
    fn a_spoiled_row_is_named() {
        let error = parse_history(r#"[[1,100,"x"],[2]]"#).unwrap_err();
        assert!(error.contains("row 2"), "{error}");
        for spoiled in ["", "{}", "[1]", r#"[["a",1,"x"]]"#] {
            assert!(parse_history(spoiled).is_err(), "{spoiled}");
        }
    }
}
