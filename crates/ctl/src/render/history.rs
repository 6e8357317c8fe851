//! `history`: where each timeline ended, and who led the next.

use super::{Empty, Format, cell_text, document, tsv};
use crate::table::{Column, Side, draw};
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
    match format {
        Format::Pretty => {
            let side = |at| if at < 2 { Side::Right } else { Side::Left };
            let columns: Vec<Column> = HEADINGS
                .iter()
                .enumerate()
                .map(|(at, heading)| Column { heading: (*heading).to_owned(), side: side(at) })
                .collect();
            let texts: Vec<Vec<String>> =
                cells.iter().map(|row| row.iter().map(cell_text).collect()).collect();
            draw(None, &columns, &texts)
        }
        Format::Tsv => tsv(&HEADINGS, &cells),
        Format::Json | Format::Yaml => document(format, &HEADINGS, &cells, Empty::Kept),
    }
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
