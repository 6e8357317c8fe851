//! The backups that pgBackRest has: asked on this host, read from `pgbackrest info --output=json`.
//!
//!     archive_command in the dynamic configuration ─▶ --stanza, --config, --repo… ─▶ pgbackrest info ─▶ [Backup]

use serde::Deserialize;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use types::{Lsn, SystemId};

/// A repository on another host takes its time; nothing waits for it but the person.
const WITHIN: Duration = Duration::from_secs(20);
/// Words of the archive command that lead to the same repository.
const SAME: [&str; 4] = ["--stanza", "--config", "--config-path", "--config-include-path"];

/// One backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backup {
    pub label: String,
    /// `full`, `diff` or `incr`.
    pub kind: String,
    /// Of the segment where it began.
    pub timeline: u32,
    pub start: Option<Lsn>,
    /// From here on a restore of it can end.
    pub stop: Option<Lsn>,
    /// When it was complete, ISO 8601 in UTC.
    pub finished: Option<String>,
    /// pgBackRest found damaged pages or files in it.
    pub damaged: bool,
}

/// How pgBackRest is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Question {
    pub stanza: String,
    /// `pgbackrest`, or as the cluster calls it.
    pub program: String,
    words: Vec<String>,
}

impl Question {
    /// For this stanza, with what the configuration of this host says.
    pub(crate) fn stanza(name: &str) -> Question {
        Question {
            stanza: name.to_owned(),
            program: "pgbackrest".to_owned(),
            words: vec![format!("--stanza={name}")],
        }
    }

    /// As the cluster archives: `None` when that is not by pgBackRest.
    pub(crate) fn of(archive_command: &str) -> Option<Question> {
        let words = shlex::split(archive_command)?;
        let at = words.iter().position(|word| word.rsplit('/').next() == Some("pgbackrest"))?;
        let mut kept = Vec::new();
        let mut rest = words.iter().skip(at + 1);
        while let Some(word) = rest.next() {
            match word.split_once('=') {
                Some((name, _)) if SAME.contains(&name) => kept.push(word.clone()),
                None if SAME.contains(&word.as_str()) => kept.push(format!("{word}={}", rest.next()?)),
                Some(_) | None => {}
            }
        }
        let stanza = kept.iter().find_map(|word| word.strip_prefix("--stanza="))?.to_owned();
        let program = words.get(at)?.clone();
        Some(Question { stanza, program, words: kept })
    }

    /// With another word, such as another configuration.
    pub(crate) fn with(mut self, word: String) -> Question {
        self.words.push(word);
        self
    }

    /// What leads pgBackRest to the repository.
    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }

    /// Asks. The failure is a sentence for a person.
    pub(crate) async fn ask(&self, system: Option<SystemId>) -> Result<Vec<Backup>, String> {
        let mut command = Command::new(&self.program);
        command.args(&self.words).args(["--output=json", "--log-level-console=off", "info"]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let done = match tokio::time::timeout(WITHIN, command.output()).await {
            Ok(Ok(done)) => done,
            Ok(Err(error)) => {
                return Err(format!("failed to run pgbackrest: {error}; it is asked on this host"));
            }
            Err(_) => return Err(format!("pgbackrest info gave no answer within {WITHIN:?}")),
        };
        if !done.status.success() {
            let text = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(format!("pgbackrest info failed ({}): {text}", done.status));
        }
        parse(&String::from_utf8_lossy(&done.stdout), &self.stanza, system)
    }
}

#[derive(Deserialize)]
struct Stanza {
    name: String,
    #[serde(default)]
    backup: Vec<Found>,
    #[serde(default)]
    db: Vec<Database>,
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    code: i64,
    message: String,
}

#[derive(Deserialize)]
struct Database {
    id: u64,
    #[serde(rename = "repo-key", default)]
    repo: u64,
    #[serde(rename = "system-id")]
    system: u64,
}

#[derive(Deserialize)]
struct Found {
    label: String,
    #[serde(rename = "type")]
    kind: String,
    archive: Segments,
    database: Reference,
    #[serde(default)]
    error: Option<bool>,
    #[serde(default)]
    lsn: Option<Range>,
    #[serde(default)]
    timestamp: Option<Times>,
}

#[derive(Deserialize)]
struct Segments {
    start: Option<String>,
}

#[derive(Deserialize)]
struct Reference {
    id: u64,
    #[serde(rename = "repo-key", default)]
    repo: u64,
}

#[derive(Deserialize)]
struct Range {
    start: Option<String>,
    stop: Option<String>,
}

#[derive(Deserialize)]
struct Times {
    stop: i64,
}

/// Reads the answer. Backups of another database that the stanza once was for are left out.
pub(crate) fn parse(text: &str, stanza: &str, system: Option<SystemId>) -> Result<Vec<Backup>, String> {
    let stanzas: Vec<Stanza> = serde_json::from_str(text)
        .map_err(|error| format!("the answer of pgbackrest info is not understood: {error}"))?;
    let Some(found) = stanzas.into_iter().find(|found| found.name == stanza) else {
        return Err(format!("pgBackRest knows no stanza {stanza}"));
    };
    // 2 is a stanza without a backup, which is no failure.
    if found.backup.is_empty() && !matches!(found.status.code, 0 | 2) {
        return Err(format!("stanza {stanza} of pgBackRest: {}", found.status.message));
    }
    let ours = |backup: &Found| {
        let of =
            |database: &&Database| database.id == backup.database.id && database.repo == backup.database.repo;
        system
            .is_none_or(|system| found.db.iter().find(of).is_none_or(|database| database.system == system.0))
    };
    Ok(found.backup.iter().filter(|backup| ours(backup)).filter_map(backup).collect())
}

fn backup(found: &Found) -> Option<Backup> {
    let timeline = found.archive.start.as_deref()?.get(..8)?;
    let lsn = |text: Option<&String>| text.and_then(|text| text.parse().ok());
    let stop = found.timestamp.as_ref().and_then(|times| jiff::Timestamp::from_second(times.stop).ok());
    Some(Backup {
        label: found.label.clone(),
        kind: found.kind.clone(),
        timeline: u32::from_str_radix(timeline, 16).ok()?,
        start: lsn(found.lsn.as_ref().and_then(|range| range.start.as_ref())),
        stop: lsn(found.lsn.as_ref().and_then(|range| range.stop.as_ref())),
        finished: stop.map(|stop| stop.to_string()),
        damaged: found.error == Some(true),
    })
}

#[cfg(test)]
mod tests {
    use super::{Question, parse};
    use types::SystemId;

    #[test]
    fn the_archive_command_says_where_the_backups_are() {
        let words = |command: &str| Question::of(command).map(|question| question.words.join(" "));
        for (command, wanted) in [
            ("pgbackrest --stanza=main archive-push %p", Some("--stanza=main")),
            (
                "/usr/bin/pgbackrest --stanza main --config=/etc/b.conf archive-push \"%p\"",
                Some("--stanza=main --config=/etc/b.conf"),
            ),
            ("nice pgbackrest --log-level-console=info --stanza='a b' archive-push %p", Some("--stanza=a b")),
            ("pgbackrest archive-push %p", None),
            ("cp %p /archive/%f", None),
            ("pgbackrest --stanza 'open", None),
            ("", None),
        ] {
            assert_eq!(words(command).as_deref(), wanted, "{command}");
        }
    }

    #[test]
    fn backups_of_another_database_are_left_out() {
        let text = include_str!("backups/info.json");
        let labels = |system| {
            let backups = parse(text, "main", system).unwrap();
            backups
                .into_iter()
                .map(|backup| format!("{} {}", backup.label, backup.timeline))
                .collect::<Vec<_>>()
        };
        let ours = ["20261127-090000F 1", "20261127-113000F_20261127-120500I 5"];
        assert_eq!(labels(Some(SystemId(7_391_234_567_890_123_456))), ours);
        assert_eq!(labels(None).len(), 3);
    }

    #[test]
    fn what_is_wrong_is_said() {
        let missing =
            r#"[{"backup":[],"db":[],"name":"main","status":{"code":1,"message":"missing stanza path"}}]"#;
        assert!(parse(missing, "main", None).unwrap_err().ends_with("missing stanza path"));
        let none = missing.replace("\"code\":1", "\"code\":2");
        assert_eq!(parse(&none, "main", None), Ok(vec![]));
        assert_eq!(parse("[]", "main", None).unwrap_err(), "pgBackRest knows no stanza main");
        assert!(parse("x", "main", None).is_err());
    }
}
