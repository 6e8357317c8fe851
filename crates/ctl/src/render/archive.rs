//! What the archive holds of each promotion: one row for each.

use super::{Empty, Format, cell_text, document, tsv};
use crate::table::{Column, Side, draw};
use etcd::ArchiveRow;
use serde_json::{Value, json};

const HEADINGS: [&str; 7] = ["TL", "Fork", "Archive", "Names", "Member", "At", "Why"];

/// Draws the rows; as a document the names are a list.
pub(crate) fn archive(rows: &[ArchiveRow], format: Format) -> String {
    let cells = |list: bool| -> Vec<Vec<Value>> { rows.iter().map(|row| cells(row, list)).collect() };
    match format {
        Format::Pretty => {
            let side = |at| if at < 2 { Side::Right } else { Side::Left };
            let columns: Vec<Column> = HEADINGS
                .iter()
                .enumerate()
                .map(|(at, heading)| Column { heading: (*heading).to_owned(), side: side(at) })
                .collect();
            let texts: Vec<Vec<String>> =
                cells(false).iter().map(|row| row.iter().map(cell_text).collect()).collect();
            draw(None, &columns, &texts)
        }
        Format::Tsv => tsv(&HEADINGS, &cells(false)),
        Format::Json | Format::Yaml => document(format, &HEADINGS, &cells(true), Empty::Kept),
    }
}

fn cells(row: &ArchiveRow, list: bool) -> Vec<Value> {
    vec![
        json!(row.timeline.0),
        json!(row.fork.to_string()),
        json!(row.found.as_str()),
        if list { json!(row.names) } else { json!(row.names.join("\n")) },
        json!(row.member.as_str()),
        json!(row.at),
        json!(row.why.as_deref().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::{Format, archive};
    use etcd::{ArchiveRow, Continuity};
    use types::{Lsn, NodeName, Timeline};

    #[test]
    fn all_forms() {
        let whole = ArchiveRow {
            timeline: Timeline(2),
            fork: Lsn(0x300_0060),
            member: NodeName::from("pg-2"),
            at: "2026-11-27T10:00:09Z".into(),
            found: Continuity::Complete,
            names: vec![],
            why: None,
        };
        let holes = ArchiveRow {
            timeline: Timeline(3),
            found: Continuity::Incomplete,
            names: vec!["000000020000000000000003".into(), "00000003.history".into()],
            ..whole.clone()
        };
        let unknown =
            ArchiveRow { found: Continuity::Unknown, why: Some("no answer".into()), ..whole.clone() };
        let rows = [whole, holes, unknown];
        let all = [Format::Pretty, Format::Json, Format::Yaml].map(|format| archive(&rows, format));
        insta::assert_snapshot!("archive", all.join("\n"));
    }
}
