//! What a restore by pgBackRest comes to: which backup, which commands, which settings of the recovery. Pure.
//!
//!     wish + backups ─▶ Plan: pgbackrest restore --set … ─▶ PostgreSQL with these settings recovers to the target and is promoted
//!
//! pgBackRest is told to write no settings of a recovery (`--type=none`): those would stay in postgresql.auto.conf, where they come
//! before what the agent writes. PostgreSQL gets them on its command line instead.

use crate::backups::Backup;
use jiff::Timestamp;
use std::path::Path;
use types::Lsn;

/// Where the recovery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// At the end of the archive.
    Latest,
    /// As soon as the backup is consistent.
    Immediate,
    Time(Timestamp),
    Lsn(Lsn),
    Xid(u64),
    /// A restore point.
    Name(String),
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    pub target: Target,
    /// Stop just before the target and not just after it.
    pub exclusive: bool,
    /// The timeline to follow; else the newest.
    pub timeline: Option<u32>,
    /// The backup; else the newest that the target allows.
    pub set: Option<String>,
    /// How pgBackRest finds the repository: `--stanza=…` and the like.
    pub words: Vec<String>,
    /// `pgbackrest`, or as the cluster calls it.
    pub program: String,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub backup: String,
    /// The program and its words.
    pub restore: Vec<String>,
    /// The settings of the recovery.
    pub recovery: Vec<(String, String)>,
}

/// Plans a restore into `dir`. The failure is a sentence that says what to do.
pub(crate) fn plan(wish: &Wish, backups: &[Backup], dir: &Path) -> Result<Plan, String> {
    let backup = choose(wish, backups)?;
    let at = format!("--pg1-path={}", dir.display());
    let mut restore = vec![wish.program.clone()];
    restore.extend_from_slice(&wish.words);
    restore.extend([at.clone(), format!("--set={backup}"), "--type=none".to_owned(), "restore".to_owned()]);
    let get = [&wish.program]
        .into_iter()
        .chain(&wish.words)
        .chain([&at])
        .map(|word| quoted(word))
        .collect::<Result<Vec<_>, _>>()?;
    let get = get.join(" ");
    let mut command = format!("{get} archive-get %f \"%p\"");
    if wish.timeline.is_some() {
        // The segment in which a timeline was left is never whole: whoever went on elsewhere archived what there was under this name.
        command.push_str(&format!(" || {get} archive-get %f.partial \"%p\""));
    }
    let mut recovery = vec![
        ("restore_command".to_owned(), command),
        ("recovery_target_action".to_owned(), "promote".to_owned()),
        (
            "recovery_target_timeline".to_owned(),
            wish.timeline.map_or("latest".to_owned(), |number| number.to_string()),
        ),
    ];
    let target = match &wish.target {
        Target::Latest => None,
        Target::Immediate => Some(("recovery_target", "immediate".to_owned())),
        Target::Time(time) => {
            Some(("recovery_target_time", time.strftime("%Y-%m-%d %H:%M:%S%.6f+00").to_string()))
        }
        Target::Lsn(lsn) => Some(("recovery_target_lsn", lsn.to_string())),
        Target::Xid(xid) => Some(("recovery_target_xid", xid.to_string())),
        Target::Name(name) => Some(("recovery_target_name", name.clone())),
    };
    recovery.extend(target.map(|(name, value)| (name.to_owned(), value)));
    if wish.exclusive {
        recovery.push(("recovery_target_inclusive".to_owned(), "off".to_owned()));
    }
    Ok(Plan { backup, restore, recovery })
}

/// A word of a command that PostgreSQL gives to a shell; it takes a percent sign for its own.
fn quoted(word: &str) -> Result<String, String> {
    let doubled = word.replace('%', "%%");
    shlex::try_quote(&doubled)
        .map(|word| word.into_owned())
        .map_err(|_| format!("{word:?} cannot stand in a command"))
}

/// The newest backup from which the target can be reached.
fn choose(wish: &Wish, backups: &[Backup]) -> Result<String, String> {
    if let Some(set) = &wish.set {
        return match backups.iter().find(|backup| backup.label == *set) {
            Some(backup) => Ok(backup.label.clone()),
            None => Err(format!("there is no backup {set}; {}", there(backups))),
        };
    }
    let reaches = |backup: &&Backup| {
        let before = match &wish.target {
            Target::Lsn(target) => backup.stop.is_some_and(|stop| stop <= *target),
            Target::Time(target) => {
                let finished = backup.finished.as_deref().and_then(|at| at.parse::<Timestamp>().ok());
                finished.is_some_and(|finished| finished < *target)
            }
            Target::Latest | Target::Immediate | Target::Xid(_) | Target::Name(_) => true,
        };
        before && wish.timeline.is_none_or(|timeline| backup.timeline <= timeline)
    };
    let found = backups.iter().rfind(reaches);
    found.map(|backup| backup.label.clone()).ok_or_else(|| {
        format!("no backup was complete before the target, so nothing leads to it; {}", there(backups))
    })
}

fn there(backups: &[Backup]) -> String {
    let one = |backup: &Backup| {
        let finished = backup.finished.as_deref().unwrap_or("unknown");
        format!("{} (timeline {}, complete at {finished})", backup.label, backup.timeline)
    };
    match backups {
        [] => "the stanza has no backup of this cluster".to_owned(),
        some => format!("the backups are {}", some.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, Target, Wish, plan};
    use crate::backups::Backup;
    use std::path::Path;
    use types::Lsn;

    fn backup(label: &str, timeline: u32, stop: u64, finished: &str) -> Backup {
        Backup {
            label: label.into(),
            kind: "full".into(),
            timeline,
            start: None,
            stop: Some(Lsn(stop)),
            finished: Some(finished.into()),
            damaged: false,
        }
    }

    fn backups() -> [Backup; 3] {
        [
            backup("first", 1, 0x200_0100, "2026-11-27T09:00:10Z"),
            backup("second", 2, 0x400_0100, "2026-11-27T11:30:10Z"),
            backup("third", 4, 0x600_0100, "2026-11-27T12:05:05Z"),
        ]
    }

    fn wish(target: Target) -> Wish {
        Wish {
            target,
            exclusive: false,
            timeline: None,
            set: None,
            program: "/usr/bin/pgbackrest".into(),
            words: vec!["--stanza=main".into(), "--config=/etc/pg backrest.conf".into()],
        }
    }

    fn shown(plan: &Plan) -> String {
        let words: Vec<String> =
            plan.restore.iter().map(|word| shlex::try_quote(word).unwrap().into_owned()).collect();
        let recovery: Vec<String> =
            plan.recovery.iter().map(|(name, value)| format!("    {name} = {value}")).collect();
        format!("{}\n{}\n", words.join(" "), recovery.join("\n"))
    }

    #[test]
    fn commands() {
        let time = "2026-11-27T12:00:00.5+01:00".parse().unwrap();
        let mut all = String::new();
        for (title, wish) in [
            ("latest", wish(Target::Latest)),
            ("immediate, of a named backup", Wish { set: Some("first".into()), ..wish(Target::Immediate) }),
            ("time", wish(Target::Time(time))),
            ("just before a time", Wish { exclusive: true, ..wish(Target::Time(time)) }),
            ("lsn", wish(Target::Lsn(Lsn(0x400_0100)))),
            ("xid on a timeline", Wish { timeline: Some(3), ..wish(Target::Xid(771)) }),
            ("name", wish(Target::Name("it's before 100%".into()))),
        ] {
            let plan = plan(&wish, &backups(), Path::new("/var/lib/postgresql/15/main.restoring")).unwrap();
            all.push_str(&format!("{title}: {}", shown(&plan)));
        }
        insta::assert_snapshot!("restore", all);
    }

    #[test]
    fn what_no_backup_leads_to_is_refused() {
        let refused = |wish: &Wish, backups: &[Backup]| plan(wish, backups, Path::new("/d")).unwrap_err();
        let early = wish(Target::Lsn(Lsn(0x200_00ff)));
        assert!(refused(&early, &backups()).starts_with("no backup was complete before the target"));
        let early = wish(Target::Time("2026-11-27T09:00:10Z".parse().unwrap()));
        assert!(refused(&early, &backups()).contains("first (timeline 1, complete at 2026-11-27T09:00:10Z)"));
        assert!(refused(&wish(Target::Latest), &[]).ends_with("the stanza has no backup of this cluster"));
        let named = Wish { set: Some("fourth".into()), ..wish(Target::Latest) };
        assert!(refused(&named, &backups()).starts_with("there is no backup fourth; the backups are first"));
    }
}
