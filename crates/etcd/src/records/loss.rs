//! `baton/losses`: what a member had written that the others never got, as it found when it came back.

use super::json;
use serde_json::{Map, Value};
use types::{Lsn, NodeName, Term, Timeline};

/// So many relations are told of each loss.
const RELATIONS: usize = 10;

/// What one member had and the cluster has not. Its directory holds the whole account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loss {
    /// Whose directory it was.
    pub member: NodeName,
    /// When the account was made; with the member it names the loss.
    pub at: String,
    /// Who led then, and in which term.
    pub leader: Option<NodeName>,
    pub term: Option<Term>,
    /// Where the histories parted, and where this member's ended.
    pub timeline: Timeline,
    pub fork: Lsn,
    pub end: Lsn,
    pub bytes: u64,
    pub commits: u64,
    pub prepared: u64,
    /// All of it could be read.
    pub complete: bool,
    pub first_commit: Option<String>,
    pub last_commit: Option<String>,
    /// Those with the most records.
    pub relations: Vec<LostIn>,
    /// Where it is kept, on the member's host.
    pub kept: String,
}

/// A relation that was changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LostIn {
    pub name: String,
    pub records: u64,
}

impl Loss {
    /// Nothing was committed or prepared.
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        self.commits == 0 && self.prepared == 0 && self.complete
    }

    /// As in the list.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        let relation = |relation: &LostIn| {
            let cells =
                [("name", Value::from(relation.name.as_str())), ("records", Value::from(relation.records))];
            Value::Object(cells.map(|(name, value)| (name.to_owned(), value)).into_iter().collect())
        };
        let cells = [
            ("member", Value::from(self.member.as_str())),
            ("at", Value::from(self.at.as_str())),
            ("leader", self.leader.as_ref().map_or(Value::Null, |name| Value::from(name.as_str()))),
            ("term", self.term.map_or(Value::Null, |term| Value::from(term.0))),
            ("timeline", Value::from(self.timeline.0)),
            ("fork", Value::from(self.fork.to_string())),
            ("end", Value::from(self.end.to_string())),
            ("bytes", Value::from(self.bytes)),
            ("commits", Value::from(self.commits)),
            ("prepared", Value::from(self.prepared)),
            ("complete", Value::from(self.complete)),
            ("first_commit", text(&self.first_commit)),
            ("last_commit", text(&self.last_commit)),
            ("relations", self.relations.iter().take(RELATIONS).map(relation).collect()),
            ("kept", Value::from(self.kept.as_str())),
        ];
        Value::Object(cells.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }

    fn of(map: &Map<String, Value>) -> Option<Loss> {
        let text = |name: &str| map.get(name).and_then(json::text);
        let number = |name: &str| map.get(name).and_then(Value::as_u64);
        let lsn = |name: &str| map.get(name)?.as_str()?.parse().ok();
        let relation = |relation: &Value| {
            let name = relation.get("name").and_then(json::text)?;
            Some(LostIn { name, records: relation.get("records").and_then(Value::as_u64)? })
        };
        let relations = map.get("relations").and_then(Value::as_array);
        Some(Loss {
            member: NodeName(text("member")?),
            at: text("at")?,
            leader: text("leader").map(NodeName),
            term: map.get("term").and_then(Value::as_i64).map(Term),
            timeline: json::timeline(map.get("timeline")?)?,
            fork: lsn("fork")?,
            end: lsn("end")?,
            bytes: number("bytes")?,
            commits: number("commits")?,
            prepared: number("prepared").unwrap_or_default(),
            complete: map.get("complete").and_then(Value::as_bool).unwrap_or_default(),
            first_commit: text("first_commit"),
            last_commit: text("last_commit"),
            relations: relations.into_iter().flatten().take(RELATIONS).filter_map(relation).collect(),
            kept: text("kept").unwrap_or_default(),
        })
    }
}

pub(crate) fn losses_json(rows: &[Loss]) -> String {
    Value::Array(rows.iter().map(Loss::to_value).collect()).to_string()
}

pub(crate) fn parse_losses(value: &str) -> Result<Vec<Loss>, String> {
    json::rows(value, ("loss", "losses"), Loss::of)
}

#[cfg(test)]
mod tests {
    use super::{losses_json, parse_losses};

    #[test]
    fn rows_go_both_ways() {
        let text = concat!(
            r#"[{"member":"pg-1","at":"2026-11-27T10:00:00.000Z","leader":"pg-2","term":17,"timeline":1,"#,
            r#""fork":"0/3000060","end":"0/3000860","bytes":2048,"commits":2,"prepared":0,"complete":true,"#,
            r#""first_commit":"2026-11-27T09:59:58Z","last_commit":null,"#,
            r#""relations":[{"name":"app.public.orders","records":2}],"kept":"/data.kept-x-wal"}]"#
        );
        let rows = parse_losses(text).unwrap();
        assert!(!rows[0].is_nothing());
        let again: serde_json::Value = serde_json::from_str(&losses_json(&rows)).unwrap();
        assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
        assert_eq!(parse_losses("[]").unwrap(), []);
        for spoiled in ["", "{}", "[1]", r#"[{"member":"pg-1"}]"#] {
            assert!(parse_losses(spoiled).is_err(), "{spoiled}");
        }
    }
}
