//! `history`: where each timeline ended, and who led the next.

use super::{Format, listing};
use serde_json::{Value, json};

/// One earlier timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub timeline: u32,
    pub lsn: u64,
    pub reason: String,
    pub timestamp: Option<String>,
    pub new_leader: Option<String>,
}

const HEADINGS: [&str; 5] = ["TL", "LSN", "Reason", "Timestamp", "New Leader"];

/// Draws the rows.
pub(crate) fn history(rows: &[Row], format: Format) -> String {
    let cells: Vec<Vec<Value>> = rows
        .iter()
        .map(|row| {
            vec![
                json!(row.timeline),
                json!(row.lsn),
                json!(row.reason),
                json!(row.timestamp.as_deref().unwrap_or_default()),
                json!(row.new_leader.as_deref().unwrap_or_default()),
            ]
        })
        .collect();
    listing(&HEADINGS, 0..2, &cells, format)
}

#[cfg(test)]
mod tests {
    use super::{Format, Row, history};

    #[test]
    fn all_forms() {
        let rows = [
            Row {
                timeline: 1,
                lsn: 25_165_984,
                reason: "no recovery target specified".into(),
                timestamp: Some("2026-11-20T10:00:00.123456+00:00".into()),
                new_leader: Some("pg-2".into()),
            },
            Row {
                timeline: 2,
                lsn: 50_331_808,
                reason: "older row".into(),
                timestamp: None,
                new_leader: None,
            },
        ];
        let all =
            [Format::Pretty, Format::Tsv, Format::Json, Format::Yaml].map(|format| history(&rows, format));
        insta::assert_snapshot!("history", all.join("\n"));
    }
}
