//! `etcd`: the members of etcd, their certificates, and what somebody should do something about.

use super::{Format, cell_text, tsv};
use crate::table::{Column, Side, draw};
use etcd::{Health, MemberStatus, Warning};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::SystemTime;

const HEADINGS: [&str; 10] = [
    "Endpoint",
    "Member",
    "Role",
    "Version",
    "Size MiB",
    "Used MiB",
    "Term",
    "Applied",
    "Answer ms",
    "State",
];

/// Draws what was found.
pub(crate) fn etcd(health: &Health, warnings: &[Warning], now: SystemTime, format: Format) -> String {
    let rows: Vec<Vec<Value>> = health
        .endpoints
        .iter()
        .map(|endpoint| {
            let listed = |status: &MemberStatus| {
                let whole = health.cluster.as_ref().ok()?;
                whole
                    .members
                    .iter()
                    .find(|member| member.id == status.member)
                    .map(|member| member.name.clone())
            };
            match &endpoint.status {
                Ok(status) => row(&endpoint.url, status, listed(status)),
                Err(why) => {
                    let mut cells = vec![json!(endpoint.url)];
                    cells.resize(HEADINGS.len() - 1, Value::Null);
                    cells.push(json!(why));
                    cells
                }
            }
        })
        .collect();
    match format {
        Format::Pretty => pretty(health, warnings, now, &rows),
        Format::Tsv => tsv(&HEADINGS, &rows),
        Format::Json | Format::Yaml => document(health, warnings, format, &rows),
    }
}

fn row(url: &str, status: &MemberStatus, name: Option<String>) -> Vec<Value> {
    let mib = |bytes: u64| bytes / (1 << 20);
    let role = match (status.leads, status.learner) {
        (true, _) => "Leader",
        (false, true) => "Learner",
        (false, false) => "Follower",
    };
    let state = if status.errors.is_empty() { "running".to_owned() } else { status.errors.join(", ") };
    vec![
        json!(url),
        json!(name.unwrap_or_else(|| format!("{:x}", status.member))),
        json!(role),
        json!(status.version),
        json!(mib(status.size)),
        json!(status.used.map(mib)),
        json!(status.raft_term),
        json!(status.applied_index),
        json!(u64::try_from(status.answered_in.as_millis()).unwrap_or(u64::MAX)),
        json!(state),
    ]
}

fn pretty(health: &Health, warnings: &[Warning], now: SystemTime, rows: &[Vec<Value>]) -> String {
    let columns: Vec<Column> = HEADINGS
        .iter()
        .enumerate()
        .map(|(at, heading)| Column {
            heading: (*heading).to_owned(),
            side: if (4..=8).contains(&at) { Side::Right } else { Side::Left },
        })
        .collect();
    let texts: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(cell_text).collect()).collect();
    let mut out = draw(None, &columns, &texts);
    let said = |out: &mut String, line: String| {
        let _infallible = writeln!(out, "{line}");
    };
    if let Ok(whole) = &health.cluster {
        let growth = health.growth.map(|a_second| format!(", {a_second} added a second")).unwrap_or_default();
        let kept = whole.revision - whole.oldest;
        said(&mut out, format!("revision {}, {kept} older ones kept{growth}", whole.revision));
    }
    for certificate in &health.certificates {
        if let Ok(left) = certificate.expires.as_ref().map(|at| at.duration_since(now).unwrap_or_default()) {
            said(
                &mut out,
                format!("certificate of {}: {} days left", certificate.holder, left.as_secs() / 86_400),
            );
        }
    }
    for warning in warnings {
        said(&mut out, format!("warning: {warning}"));
    }
    out
}

fn document(health: &Health, warnings: &[Warning], format: Format, rows: &[Vec<Value>]) -> String {
    let object = |row: &Vec<Value>| {
        Value::Object(
            HEADINGS.iter().zip(row).map(|(name, cell)| ((*name).to_owned(), cell.clone())).collect(),
        )
    };
    let whole = health.cluster.as_ref().ok();
    let value = json!({
        "endpoints": rows.iter().map(object).collect::<Vec<_>>(),
        "revision": whole.map(|whole| whole.revision),
        "revisions_kept": whole.map(|whole| whole.revision - whole.oldest),
        "revisions_a_second": health.growth,
        "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    match format {
        Format::Yaml => crate::yaml::block(&value),
        Format::Json | Format::Pretty | Format::Tsv => format!("{value}\n"),
    }
}
