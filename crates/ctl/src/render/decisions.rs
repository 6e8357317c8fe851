//! `why`: a member's decisions as prose. When, what was seen, what was decided or refused and why; the newest last.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde::Deserialize;
use serde_json::Value;

/// A member's answer to `GET /baton/why`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Diary {
    /// The member's own clock when it answered.
    pub now: String,
    #[serde(default)]
    pub decisions: Vec<Entry>,
    /// What is not right, though nothing depends on it now.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// One decision, and how long it stayed the same.
#[derive(Clone, Debug, Deserialize, PartialEq)]
pub(crate) struct Entry {
    pub at: String,
    #[serde(default)]
    pub duty: String,
    #[serde(default)]
    pub reason: String,
    /// One or two sentences.
    #[serde(default)]
    pub text: String,
    /// A sentence, or facts by name.
    #[serde(default)]
    pub seen: Value,
    #[serde(default)]
    pub actions: Vec<String>,
    /// How often it was decided again with nothing new.
    #[serde(default)]
    pub count: u64,
    /// When it was decided the last time.
    #[serde(default)]
    pub until: Option<String>,
}

/// The width that a terminal surely has.
const WIDTH: usize = 100;

impl Diary {
    /// Reads the answer.
    pub(crate) fn read(answer: &Value) -> Result<Diary, String> {
        Diary::deserialize(answer).map_err(|error| format!("its answer is not understood: {error}"))
    }
}

/// The last `count` decisions of `member`, or why there are none.
pub(crate) fn decisions(member: &str, diary: &Result<Diary, String>, count: usize) -> String {
    let mut out = format!("{member}\n");
    let diary = match diary {
        Ok(diary) => diary,
        Err(why) => return out + &paragraph(&format!("nothing is known: {why}"), 2) + "\n",
    };
    for remark in &diary.remarks {
        out.push_str(&paragraph(&sentence(remark), 2));
    }
    if diary.decisions.is_empty() {
        return out + "  has decided nothing yet\n\n";
    }
    let hidden = diary.decisions.len().saturating_sub(count);
    if hidden > 0 {
        out.push_str(&format!("  ({hidden} earlier decisions; show more with -n)\n"));
    }
    for entry in diary.decisions.iter().skip(hidden) {
        push_entry(&mut out, entry, &diary.now);
    }
    out.push('\n');
    out
}

fn push_entry(out: &mut String, entry: &Entry, now: &str) {
    out.push_str(&format!(
        "  {}{}  {}\n",
        when(&entry.at),
        ago(&entry.at, now),
        duty(&entry.duty, &entry.reason)
    ));
    out.push_str(&paragraph(&sentence(&entry.text), 4));
    let seen = words(&entry.seen);
    if !entry.seen.is_null() && !seen.is_empty() {
        out.push_str(&paragraph(&sentence(&format!("Seen: {seen}")), 4));
    }
    if !entry.actions.is_empty() {
        out.push_str(&paragraph(&format!("Ordered: {}.", entry.actions.join(", then ")), 4));
    }
    if entry.count > 1 {
        let until = entry.until.as_deref().map(|until| format!(", the last time at {}", when(until)));
        out.push_str(&paragraph(&format!("The same {} times{}.", entry.count, until.unwrap_or_default()), 4));
    }
}

fn duty(duty: &str, reason: &str) -> String {
    match (duty, reason) {
        ("", reason) => reason.to_owned(),
        (duty, "") => duty.to_owned(),
        (duty, reason) => format!("{duty} ({reason})"),
    }
}

/// A value as a person says it.
fn words(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join(", "),
        Value::Object(map) => {
            let pairs =
                map.iter().map(|(name, value)| format!("{} {}", name.replace('_', " "), words(value)));
            pairs.collect::<Vec<_>>().join("; ")
        }
    }
}

/// A log line's fragment with its full stop. Its first letter stays: it may belong to a member's name.
fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '!', '?']) { text.to_owned() } else { format!("{text}.") }
}

/// The member's time as it wrote it, without the parts of a second beyond the third.
fn when(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(instant) => {
            let zoned: Zoned = instant.to_zoned(TimeZone::UTC);
            zoned.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
        }
        Err(_) => at.to_owned(),
    }
}

fn ago(at: &str, now: &str) -> String {
    let (Ok(at), Ok(now)) = (at.parse::<Timestamp>(), now.parse::<Timestamp>()) else { return String::new() };
    let seconds = now.as_second().saturating_sub(at.as_second()).max(0);
    let text = match seconds {
        0 => "just now".to_owned(),
        1..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    };
    format!(" ({text})")
}

/// `text` in lines of a bearable length, indented; nothing for nothing.
fn paragraph(text: &str, indent: usize) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&format!("{:indent$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Diary, decisions};
    use serde_json::json;

    #[test]
    fn a_diary_reads_as_prose() {
        let answer = json!({
            "member": "pg-2", "now": "2026-11-23T10:00:30.5Z",
            "decisions": [
                {"at": "2026-11-23T09:57:00Z", "duty": "follow", "reason": "streaming", "text": "pg-1 leads and this member follows", "count": 180,
                 "until": "2026-11-23T10:00:00Z"},
                {"at": "2026-11-23T10:00:01.123456Z", "duty": "race", "reason": "leader_lost",
                 "text": "The leader key is gone: pg-1 has not renewed its lease. This member has everything that was written, \
                          so it takes the lead.",
                 "seen": {"leader": null, "own_lsn": "0/5000060", "peers": {"pg-3": "0/5000028"}, "paused": false},
                 "actions": ["create the leader key", "arm the guard", "promote"], "count": 1},
                {"at": "2026-11-23T10:00:29Z", "duty": "lead", "reason": "holding", "text": "this member leads in term 40",
                 "seen": "the leader key is ours; PostgreSQL accepts writes"}
            ]
        });
        let read = Diary::read(&answer);
        insta::assert_snapshot!("why", decisions("pg-2", &read, 10));
        let short = decisions("pg-2", &read, 1);
        assert!(short.contains("(2 earlier decisions") && !short.contains("follows"), "{short}");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let text = decisions(
            "pg-3",
            &Err("it does not answer at http://10.0.0.3:8008: connection refused".into()),
            5,
        );
        assert_eq!(
            text,
            "pg-3\n  nothing is known: it does not answer at http://10.0.0.3:8008: connection refused\n\n"
        );
        assert!(Diary::read(&json!({"decisions": 3})).is_err());
        assert!(decisions("pg-3", &Diary::read(&json!({"now": ""})), 5).contains("nothing yet"));
    }
}
