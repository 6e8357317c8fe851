//! The tables of the demo: members, and what the drive measured. Pure text.

use super::events::Outcome;
use crate::view::View;

/// The members as rows under a heading.
#[must_use]
pub(super) fn members(view: &View) -> Vec<String> {
    let mut rows = vec![[
        "member".to_owned(),
        "role".to_owned(),
        "state".to_owned(),
        "timeline".to_owned(),
        "lag".to_owned(),
        "term".to_owned(),
    ]];
    for member in &view.members {
        let leads = view.leader.as_ref().filter(|(name, _)| *name == member.name);
        let role = match (leads, view.primary() == Some(&member.name)) {
            (Some(_), true) => "leader".to_owned(),
            (Some(_), false) => "leader, not writable yet".to_owned(),
            (None, _) => member.role.clone(),
        };
        let state = member.replication.clone().unwrap_or_else(|| member.state.clone());
        let lag = match (leads, view.lag(member)) {
            (Some(_), _) => String::new(),
            (None, Some(bytes)) => amount(bytes),
            (None, None) => "unknown".to_owned(),
        };
        rows.push([
            member.name.clone(),
            role,
            state,
            member.timeline.map(|timeline| timeline.to_string()).unwrap_or_default(),
            lag,
            leads.map(|(_, term)| term.to_string()).unwrap_or_default(),
        ]);
    }
    align(&rows)
}

/// What the drive measured.
#[must_use]
pub fn outcomes(outcomes: &[Outcome]) -> Vec<String> {
    let heading = [
        "event",
        "longest pause",
        "failed statements",
        "failed connections",
        "acknowledged rows missing",
        "two primaries",
    ];
    let mut rows = vec![heading.map(str::to_owned)];
    for outcome in outcomes {
        rows.push([
            outcome.event.describe(),
            format!("{:.2} s", outcome.pause.as_secs_f64()),
            outcome.failed_statements.to_string(),
            outcome.failed_connections.to_string(),
            outcome.missing.to_string(),
            format!("{} ms", outcome.two_primaries.as_millis()),
        ]);
    }
    align(&rows)
}

/// Left-aligned columns, three spaces apart.
fn align<const N: usize>(rows: &[[String; N]]) -> Vec<String> {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("  {}", cells.join("   ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn amount(bytes: i64) -> String {
    match bytes {
        ..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} kB", bytes / 1024),
        1_048_576.. => format!("{} MB", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::members;
    use crate::view::{Member, View};

    #[test]
    fn members_are_shown_by_what_they_do() {
        let member = |name: &str, role: &str, position, replication: Option<&str>| Member {
            name: name.to_owned(),
            role: role.to_owned(),
            state: "running".to_owned(),
            timeline: Some(2),
            position,
            replication: replication.map(str::to_owned),
            baton: true,
        };
        let view = View {
            synchronous: Vec::new(),
            failsafe: None,
            leader: Some(("n1".to_owned(), 41)),
            writable: Some("n1".to_owned()),
            paused: false,
            members: vec![
                member("n1", "primary", Some(9000), None),
                member("n2", "replica", Some(1000), Some("streaming")),
                member("n3", "replica", None, None),
            ],
        };
        let expected = [
            "  member   role      state       timeline   lag       term",
            "  n1       leader    running     2                    41",
            "  n2       replica   streaming   2          7 kB",
            "  n3       replica   running     2          unknown",
        ];
        assert_eq!(members(&view), expected);
    }
}
