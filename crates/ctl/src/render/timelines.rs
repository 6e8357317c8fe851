//! `timelines`: the line from the oldest to the newest, and what stands beside it.
//!
//!     ●  2  pg-2 since 2026-11-27T10:00:00+00:00, from 1 at 0/3000060 (no recovery target specified)
//!     │       full backup 20261127-113000F, 0/3000088 to 0/3000180, 2026-11-27T11:30:10Z
//!     │       pg-3 Replica, streaming, at 0/4000060
//!     ├─╴ pg-2 went on alone …
//!     ●  3  …

use super::{Empty, Format, document, tsv};
use crate::backups::Backup;
use crate::timelines::{Branch, Here, Tree};
use etcd::{ArchiveRow, Continuity, Loss};
use serde_json::{Value, json};

const HEADINGS: [&str; 12] = [
    "TL", "Line", "From", "Fork", "Since", "Leader", "Reason", "Until", "Members", "Backups", "Lost",
    "Archive",
];

/// Draws the tree; as a document each timeline is a row, with lists in it.
pub(crate) fn timelines(tree: &Tree, format: Format) -> String {
    match format {
        Format::Pretty => drawn(tree),
        Format::Tsv => {
            let names = |cells: &[Value], key: &str| -> Value {
                let names: Vec<&str> = cells.iter().filter_map(|cell| cell[key].as_str()).collect();
                json!(names.join(","))
            };
            let flat = |branch: &Branch| {
                let mut cells = cells(branch);
                for (at, key) in [(8, "name"), (9, "label"), (10, "member")] {
                    if let Some(Value::Array(list)) = cells.get(at).cloned() {
                        cells[at] = names(&list, key);
                    }
                }
                if let (Some(row), Some(cell)) = (&branch.archive, cells.last_mut()) {
                    *cell = json!(row.found.as_str());
                }
                cells
            };
            tsv(&HEADINGS, &tree.branches.iter().map(flat).collect::<Vec<_>>())
        }
        Format::Json | Format::Yaml => {
            let rows: Vec<Vec<Value>> = tree.branches.iter().map(cells).collect();
            document(format, &HEADINGS, &rows, Empty::Left)
        }
    }
}

fn cells(branch: &Branch) -> Vec<Value> {
    let lsn = |lsn: Option<types::Lsn>| lsn.map(|lsn| lsn.to_string());
    let member = |here: &Here| {
        json!({
            "name": here.name, "role": here.role, "state": here.state, "lsn": lsn(here.at), "beyond_fork": here.beyond,
        })
    };
    let backup = |backup: &Backup| {
        json!({
            "label": backup.label, "type": backup.kind, "start": lsn(backup.start), "stop": lsn(backup.stop),
            "finished": backup.finished, "damaged": backup.damaged,
        })
    };
    vec![
        json!(branch.timeline),
        json!(if branch.ancestor { "main" } else { "beside" }),
        json!(branch.from.map(|(timeline, _)| timeline)),
        json!(lsn(branch.from.map(|(_, lsn)| lsn))),
        json!(branch.since),
        json!(branch.leader),
        json!(branch.reason),
        json!(lsn(branch.until)),
        branch.members.iter().map(member).collect(),
        branch.backups.iter().map(backup).collect(),
        branch.lost.iter().map(Loss::to_value).collect(),
        branch.archive.as_ref().map_or(Value::Null, ArchiveRow::to_value),
    ]
}

fn drawn(tree: &Tree) -> String {
    let mut out = format!("Timelines of cluster {}\n\n", tree.cluster);
    let width = tree.branches.iter().map(|branch| branch.timeline.to_string().len()).max().unwrap_or(1);
    let newest = tree.branches.iter().rposition(|branch| branch.ancestor);
    for (at, branch) in tree.branches.iter().enumerate() {
        let below = if newest.is_some_and(|newest| at < newest) { "│" } else { " " };
        let dot = if branch.ancestor { "●" } else { "○" };
        let stem = match (branch.ancestor, below) {
            (true, _) => dot.to_owned(),
            (false, "│") => format!("├─╴{dot}"),
            (false, _) => format!("  {dot}"),
        };
        out.push_str(&format!("{stem}  {:>width$}  {}\n", branch.timeline, title(branch)));
        let archive = branch.archive.as_ref().map(archive);
        for line in archive
            .into_iter()
            .chain(branch.backups.iter().map(backup))
            .chain(branch.members.iter().map(member))
        {
            out.push_str(&format!("{below}  {:width$}    {line}\n", ""));
        }
        for loss in &branch.lost {
            let fork = if below == "│" { "├─╴ " } else { "└─╴ " };
            out.push_str(&format!("{fork}{}\n", lost(loss)));
        }
    }
    for remark in &tree.remarks {
        out.push_str(&format!("\n{remark}\n"));
    }
    out
}

fn title(branch: &Branch) -> String {
    if !branch.ancestor {
        return "a timeline that the cluster did not follow; where it began is not known here".to_owned();
    }
    let leader = branch.leader.as_deref().map(|leader| format!("{leader} "));
    let since = branch.since.as_deref().map(|since| format!("since {since}"));
    let began = match (branch.from, &branch.reason) {
        (None, _) => Some("the oldest that is known".to_owned()),
        (Some((from, fork)), Some(reason)) => Some(format!("from {from} at {fork} ({reason})")),
        (Some((from, fork)), None) => Some(format!("from {from} at {fork}")),
    };
    let ended = branch.until.map_or_else(|| "goes on".to_owned(), |until| format!("until {until}"));
    let who = format!("{}{}", leader.unwrap_or_default(), since.unwrap_or_default());
    let parts: Vec<String> = [Some(who.trim().to_owned()), began, Some(ended)]
        .into_iter()
        .flatten()
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(", ")
}

fn member(here: &Here) -> String {
    let at = here.at.map(|at| format!(", at {at}")).unwrap_or_default();
    let beyond = here
        .beyond
        .map(|bytes| format!(": {bytes} bytes beyond the fork, which the cluster does not have"))
        .unwrap_or_default();
    format!("{} {}, {}{at}{beyond}", here.name, here.role, here.state)
}

fn backup(backup: &Backup) -> String {
    let range = match (backup.start, backup.stop) {
        (Some(start), Some(stop)) => format!(", {start} to {stop}"),
        (Some(_) | None, _) => String::new(),
    };
    let finished = backup.finished.as_deref().map(|at| format!(", {at}")).unwrap_or_default();
    let damaged = if backup.damaged { ": pgBackRest found errors in it" } else { "" };
    format!("{} backup {}{range}{finished}{damaged}", backup.kind, backup.label)
}

fn archive(row: &ArchiveRow) -> String {
    let names = row.names.join(", ");
    match row.found {
        Continuity::Complete => "archive: holds everything across this fork".to_owned(),
        Continuity::Waits => format!("archive: complete so far, waits for {names}"),
        Continuity::Incomplete => format!("archive: LACKS {names}"),
        Continuity::Unknown => {
            format!("archive: not known, {}", row.why.as_deref().unwrap_or("it gave no answer"))
        }
    }
}

fn lost(loss: &Loss) -> String {
    let at_least = if loss.complete { "" } else { "at least " };
    let prepared = if loss.prepared > 0 { format!(" and {} prepared", loss.prepared) } else { String::new() };
    format!(
        "{} went on alone from {} to {}: {at_least}{} transactions{prepared}, {} bytes, undone and kept in {}",
        loss.member, loss.fork, loss.end, loss.commits, loss.bytes, loss.kept
    )
}

#[cfg(test)]
mod tests {
    use super::{Format, timelines};
    use crate::snapshot::cluster;
    use crate::timelines::tests::{snapshot, whole};
    use crate::timelines::tree;
    use etcd::Snapshot;
    use types::{NodeName, Timeline};

    #[test]
    fn all_forms() {
        let all = [Format::Pretty, Format::Tsv, Format::Json, Format::Yaml]
            .map(|format| timelines(&whole(), format));
        insta::assert_snapshot!("timelines", all.join("\n"));
    }

    #[test]
    fn beside_the_line_and_alone() {
        let mut snapshot = snapshot();
        snapshot.members.get_mut(&NodeName::from("pg-3")).unwrap().timeline = Some(Timeline(3));
        snapshot.members.get_mut(&NodeName::from("pg-2")).unwrap().timeline = Some(Timeline(6));
        let beside = timelines(&tree(&cluster("demo", &snapshot), &snapshot, Vec::new()), Format::Pretty);
        let nothing = Snapshot::default();
        let alone = timelines(&tree(&cluster("new", &nothing), &nothing, Vec::new()), Format::Pretty);
        insta::assert_snapshot!("timelines-beside", beside + "\n" + &alone);
    }
}
