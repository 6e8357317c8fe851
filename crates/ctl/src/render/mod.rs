//! What is printed, as pure functions from a [`crate::view::Cluster`] to text. Golden files hold every form.

pub(crate) mod archive;
pub(crate) mod bgp;
pub(crate) mod decisions;
pub(crate) mod diff;
pub(crate) mod etcd;
pub(crate) mod haproxy;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod losses;
pub(crate) mod route;
pub(crate) mod rows;
pub(crate) mod stays;
pub(crate) mod timelines;
pub(crate) mod topology;
pub(crate) mod what_if;

use crate::table::{Column, Side, draw};
use serde_json::Value;
use std::ops::Range;

/// In which form a table is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    #[default]
    Pretty,
    Tsv,
    Json,
    #[value(alias = "yml")]
    Yaml,
}

/// What a document does with empty cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Empty {
    /// They are left out.
    Left,
    /// They are there, empty.
    Kept,
}

/// Rows as a document: one object a row. YAML ends with an empty line, as a document of its own.
pub(crate) fn document(format: Format, headings: &[&str], rows: &[Vec<Value>], empty: Empty) -> String {
    let object = |row: &Vec<Value>| {
        let cells = headings.iter().zip(row).filter(|(_, cell)| empty == Empty::Kept || !is_empty(cell));
        Value::Object(cells.map(|(heading, cell)| ((*heading).to_owned(), cell.clone())).collect())
    };
    let objects = Value::Array(rows.iter().map(object).collect());
    match format {
        Format::Yaml => crate::yaml::block(&objects) + "\n",
        Format::Json | Format::Pretty | Format::Tsv => crate::python_json::text(&objects) + "\n",
    }
}

/// A plain table: the headings, and one row for each thing; the columns `right` are numbers.
fn listing(headings: &[&str], right: Range<usize>, cells: &[Vec<Value>], format: Format) -> String {
    match format {
        Format::Pretty => {
            let side = |at| if right.contains(&at) { Side::Right } else { Side::Left };
            let columns = headings.iter().enumerate();
            let columns: Vec<Column> = columns
                .map(|(at, heading)| Column { heading: (*heading).to_owned(), side: side(at) })
                .collect();
            let texts: Vec<Vec<String>> =
                cells.iter().map(|row| row.iter().map(cell_text).collect()).collect();
            draw(None, &columns, &texts)
        }
        Format::Tsv => tsv(headings, cells),
        Format::Json | Format::Yaml => document(format, headings, cells, Empty::Kept),
    }
}

/// Rows as lines of cells that tabulators separate.
fn tsv(headings: &[&str], rows: &[Vec<Value>]) -> String {
    let mut out = headings.join("\t");
    out.push('\n');
    for row in rows {
        out.push_str(&row.iter().map(cell_text).collect::<Vec<_>>().join("\t"));
        out.push('\n');
    }
    out
}

/// A cell as text; a structure on one line.
fn cell_text(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(map) if map.is_empty() => String::new(),
        other => crate::yaml::inline(other),
    }
}

fn is_empty(cell: &Value) -> bool {
    match cell {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use crate::view::{Cluster, Lead, Member, Position, Scheduled, Standing, Synchronous};
    use etcd::{Loss, LostIn};
    use serde_json::json;
    use std::collections::BTreeMap;
    use types::Lsn;
    use types::{NodeName, Term, Timeline};

    /// What a former leader had alone.
    pub(crate) fn loss() -> Loss {
        Loss {
            member: NodeName::from("pg-1"),
            at: "2026-11-27T10:00:00.000Z".into(),
            leader: Some(NodeName::from("pg-2")),
            term: Some(Term(17)),
            timeline: Timeline(1),
            fork: Lsn(0x300_0060),
            end: Lsn(0x300_0860),
            bytes: 2048,
            commits: 2,
            prepared: 1,
            complete: true,
            first_commit: None,
            last_commit: Some("2026-11-27T09:59:59Z".into()),
            relations: vec![LostIn { name: "app.public.orders".into(), records: 2 }],
            kept: "/data.kept-20261127T100000.000Z-wal".into(),
        }
    }

    fn member(name: &str, host: &str, standing: Standing, state: &str) -> Member {
        let replica = Position::At { lsn: Lsn(67_108_960), lag: Some(0) };
        let replay = Position::At { lsn: Lsn(63_108_960), lag: Some(4_000_000) };
        let leads = standing.leads();
        Member {
            name: name.into(),
            host: host.into(),
            port: 5432,
            api_url: format!("http://{host}:8008/patroni"),
            standing,
            state: state.into(),
            timeline: Some(3),
            receive: if leads { Position::NotApplicable } else { replica },
            replay: if leads { Position::NotApplicable } else { replay },
            pending_restart: false,
            pending_restart_reason: Vec::new(),
            scheduled_restart: None,
            paused: false,
            tags: BTreeMap::new(),
            version: Some("4.1.5".into()),
        }
    }

    /// Three members without anything special.
    pub(crate) fn plain() -> Cluster {
        Cluster {
            name: "plain".into(),
            system_id: Some("7391234567890123456".into()),
            members: vec![
                member("pg-1", "10.0.0.1", Standing::Leader, "running"),
                member("pg-2", "10.0.0.2", Standing::QuorumStandby, "streaming"),
                member("pg-3", "10.0.0.3", Standing::Replica, "in archive recovery"),
            ],
            lead: Some(Lead { name: "pg-1".into(), term: 17 }),
            synchronous: Synchronous::Quorum,
            paused: true,
            scheduled_switchover: Some(Scheduled {
                at: "2030-01-01T10:00:00+00:00".into(),
                from: Some("pg-1".into()),
                to: Some("pg-2".into()),
            }),
            ..Cluster::default()
        }
    }

    /// Four members with everything that makes a column appear.
    pub(crate) fn rich() -> Cluster {
        let mut first = member("pg-1", "10.0.0.1", Standing::Leader, "running");
        first.pending_restart = true;
        first.pending_restart_reason = vec!["max_connections: 100->200".into()];
        first.tags = BTreeMap::from([("clonefrom".into(), json!(true)), ("zone".into(), json!("a"))]);
        let second = member("pg-2", "10.0.0.2", Standing::SyncStandby, "streaming");
        let mut third = member("pg-3", "10.0.0.3", Standing::Replica, "starting");
        third.timeline = None;
        third.receive = Position::Unknown;
        third.replay = Position::Unknown;
        let mut fourth = member("pg-4", "10.0.0.4", Standing::Replica, "streaming");
        fourth.port = 5433;
        fourth.scheduled_restart = Some("2030-01-01T10:00:00+00:00".into());
        fourth.tags =
            BTreeMap::from([("nofailover".into(), json!(true)), ("replicatefrom".into(), json!("pg-2"))]);
        Cluster {
            name: "demo".into(),
            system_id: Some("7391234567890123456".into()),
            members: vec![first, second, third, fourth],
            lead: Some(Lead { name: "pg-1".into(), term: 17 }),
            synchronous: Synchronous::On,
            ..Cluster::default()
        }
    }
}
