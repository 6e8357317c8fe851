//! `baton/archive`: whether the archive holds what a restore across each promotion needs, as the new leader found.

use super::json;
use serde_json::{Map, Value};
use types::{Lsn, NodeName, Timeline};

/// So many names are told of each promotion.
const NAMES: usize = 20;

/// What was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// Everything is there.
    Complete,
    /// Nothing is missing so far; the first segment of the new timeline is still being written.
    Waits,
    /// These names are missing, and came not in time.
    Incomplete,
    /// The archive could not be asked.
    Unknown,
}

impl Continuity {
    /// As written and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Continuity::Complete => "complete",
            Continuity::Waits => "waits",
            Continuity::Incomplete => "incomplete",
            Continuity::Unknown => "unknown",
        }
    }

    fn of(text: &str) -> Option<Continuity> {
        [Continuity::Complete, Continuity::Waits, Continuity::Incomplete, Continuity::Unknown]
            .into_iter()
            .find(|known| known.as_str() == text)
    }
}

/// One promotion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ArchiveRow {
    /// The timeline that began.
    pub timeline: Timeline,
    pub fork: Lsn,
    /// Who led it and looked, and when that was.
    pub member: NodeName,
    pub at: String,
    pub found: Continuity,
    /// What is missing, waited for or could not be asked for.
    pub names: Vec<String>,
    /// Why the archive could not be asked.
    pub why: Option<String>,
}

impl ArchiveRow {
    /// As in the list.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let cells = [
            ("timeline", Value::from(self.timeline.0)),
            ("fork", Value::from(self.fork.to_string())),
            ("member", Value::from(self.member.as_str())),
            ("at", Value::from(self.at.as_str())),
            ("found", Value::from(self.found.as_str())),
            ("names", self.names.iter().take(NAMES).map(|name| Value::from(name.as_str())).collect()),
            ("why", self.why.as_deref().map_or(Value::Null, Value::from)),
        ];
        Value::Object(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn of(map: &Map<String, Value>) -> Option<ArchiveRow> {
        let text = |name: &str| map.get(name).and_then(json::text);
        let names = map.get("names").and_then(Value::as_array);
        Some(ArchiveRow {
            timeline: json::timeline(map.get("timeline")?)?,
            fork: map.get("fork")?.as_str()?.parse().ok()?,
            member: NodeName(text("member")?),
            at: text("at")?,
            found: Continuity::of(&text("found")?)?,
            names: names.into_iter().flatten().take(NAMES).filter_map(json::text).collect(),
            why: text("why"),
        })
    }
}

pub(crate) fn archive_json(rows: &[ArchiveRow]) -> String {
    Value::Array(rows.iter().map(ArchiveRow::to_value).collect()).to_string()
}

pub(crate) fn parse_archive(value: &str) -> Result<Vec<ArchiveRow>, String> {
    json::rows(value, ("promotion", "promotions"), ArchiveRow::of)
}

#[cfg(test)]
mod tests {
    use super::{archive_json, parse_archive};

    #[test]
    fn rows_go_both_ways() {
        let text = concat!(
            r#"[{"timeline":2,"fork":"0/3000060","member":"pg-2","at":"2026-11-27T10:00:00Z","found":"incomplete","#,
            r#""names":["000000010000000000000002"],"why":null}]"#
        );
        let rows = parse_archive(text).unwrap();
        let again: serde_json::Value = serde_json::from_str(&archive_json(&rows)).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(parse_archive("[]").unwrap(), []);
        let odd = text.replace("incomplete", "perhaps");
        for spoiled in ["", "{}", "[1]", r#"[{"timeline":2}]"#, &odd] {
            assert!(parse_archive(spoiled).is_err(), "{spoiled}");
        }
    }
}
