//! After a promotion: whether the archive holds what a restore across it needs (`postgres::continuity`). Asked by the operator's own
//! command, `baton.archive_check`, one name at a time.
//!
//! ```text
//!   leads on a new timeline ──► names ──[command]──► all there                        complete
//!            ▲                            │  0: there, 1: not there, else: not known
//!            ├── some seconds later ──────┤  the first segment is still written to     waits
//!            └── a minute later ──────────┴─ the limit is over                         incomplete, unknown
//! ```
//! A task of its own: nothing waits for it, and its end changes nothing but what is told.

use crate::callbacks::Group;
use crate::journal::Journal;
use crate::local::Local;
use crate::wake::{Cell, Wake};
use etcd::{ArchiveRow, Continuity, Etcd, Snapshot};
use postgres::continuity::{Wanted, holes, wanted};
use postgres::{archive, control, script};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use types::{History, Lsn, Moment, NodeName, Term, Timeline};

/// So many segments before the fork are asked for: the holes of a failover are at its end.
const SEGMENTS: u64 = 16;
/// The archive is asked again after this time.
const AGAIN: Duration = Duration::from_secs(5);
/// The same when names are missing: somebody may yet mend it, or the former leader come back with them.
const LATER: Duration = Duration::from_secs(60);
/// One answer may take so long.
const ANSWER: Duration = Duration::from_secs(60);
const WRITE_WITHIN: Duration = Duration::from_secs(5);

/// What the loop knows.
#[derive(Clone)]
pub(crate) struct Leads {
    pub term: Term,
    pub timeline: Timeline,
    /// Where it writes.
    pub lsn: Lsn,
    pub command: String,
    /// What is missing after this time is missing.
    pub within: Duration,
    pub snapshot: Arc<Snapshot>,
}

/// Looks; a cheap clone.
#[derive(Clone)]
pub(crate) struct ContinuityCheck {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    me: NodeName,
    local: Local,
    journal: Arc<Cell<Journal>>,
    leads: Cell<Option<Leads>>,
    poke: Wake,
}

/// One promotion, as far as it has been looked at.
struct Look {
    timeline: Timeline,
    command: String,
    fork: Lsn,
    wanted: Wanted,
    there: BTreeSet<String>,
    since: Moment,
    /// The first segment of the new timeline has been whole since then.
    whole_since: Option<Moment>,
    why: Option<String>,
    /// What etcd was told.
    told: Option<(Continuity, Vec<String>)>,
}

pub(crate) enum Answer {
    There,
    Missing,
    Unknown(String),
}

impl ContinuityCheck {
    pub(crate) fn new(
        etcd: Etcd,
        me: NodeName,
        local: Local,
        journal: Arc<Cell<Journal>>,
    ) -> ContinuityCheck {
        let (leads, poke) = (Cell::new(None), Wake::default());
        ContinuityCheck { inner: Arc::new(Inner { etcd, me, local, journal, leads, poke }) }
    }

    /// Says whether this member leads, and on which timeline.
    pub(crate) fn leads(&self, leads: Option<Leads>) {
        let key = |leads: &Option<Leads>| leads.as_ref().map(|leads| (leads.timeline, leads.command.clone()));
        let news = self.inner.leads.with(|kept| {
            let news = key(kept) != key(&leads);
            *kept = leads;
            news
        });
        if news {
            self.inner.poke.wake();
        }
    }

    /// Looks for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut look: Option<Look> = None;
        let mut done: Option<(Timeline, String)> = None;
        loop {
            let leads = self.inner.leads.get();
            let open = leads.filter(|leads| done.as_ref() != Some(&(leads.timeline, leads.command.clone())));
            match open {
                None => {
                    look = None;
                    self.inner.poke.changed().await;
                }
                Some(leads) => {
                    if self.step(&leads, &mut look).await {
                        done = Some((leads.timeline, leads.command));
                    } else {
                        let rest = look.as_ref().map_or(AGAIN, |look| pace(look, leads.within, clock::now()));
                        let _ = tokio::time::timeout(rest, self.inner.poke.changed()).await;
                    }
                }
            }
        }
    }

    /// Whether nothing is left to be said about this timeline.
    async fn step(&self, leads: &Leads, look: &mut Option<Look>) -> bool {
        if leads.timeline.0 <= 1 || known(leads).is_some_and(|row| row.found == Continuity::Complete) {
            return true;
        }
        let fresh = look
            .as_ref()
            .is_none_or(|look| (look.timeline, &look.command) != (leads.timeline, &leads.command));
        if fresh {
            match self.begin(leads).await {
                Some(begun) => *look = Some(begun),
                // Its history file is there as soon as it was promoted; without one there is nothing to look for.
                None => return false,
            }
        }
        let Some(look) = look else { return false };
        self.ask(leads, look).await;
        let now = clock::now();
        let (found, names) = verdict(look, leads.within, now);
        if look.told.as_ref() != Some(&(found, names.clone())) {
            if let Err(error) = self.tell(leads, look, found, &names).await {
                tracing::debug!(%error, "failed to write down what the archive has");
                return false;
            }
            look.told = Some((found, names));
        }
        found == Continuity::Complete
    }

    async fn begin(&self, leads: &Leads) -> Option<Look> {
        let data_dir = self.inner.local.data_dir().to_owned();
        let timeline = leads.timeline;
        let read = move || {
            let path = data_dir.join(format!("pg_wal/{:08X}.history", timeline.0));
            let history = History::parse(timeline, &std::fs::read_to_string(path).ok()?).ok()?;
            let size = control::read(&data_dir).ok()?.wal_segment_size;
            Some((history.lines.last()?.end, wanted(&history, size, SEGMENTS)?))
        };
        let (fork, wanted) = tokio::task::spawn_blocking(read).await.ok()??;
        Some(Look {
            timeline,
            command: leads.command.clone(),
            fork,
            wanted,
            there: BTreeSet::new(),
            since: clock::now(),
            whole_since: None,
            why: None,
            told: None,
        })
    }

    async fn ask(&self, leads: &Leads, look: &mut Look) {
        if look.whole_since.is_none() && leads.lsn >= look.wanted.first_ends {
            look.whole_since = Some(clock::now());
        }
        look.why = None;
        // What a fetch leaves behind goes with this.
        let Ok(scratch) = tempfile::tempdir() else {
            look.why = Some("failed to make a directory for temporary files".to_owned());
            return;
        };
        for name in open(look) {
            match ask_for(&leads.command, &name, scratch.path(), None).await {
                Answer::There => drop(look.there.insert(name)),
                Answer::Missing => {}
                Answer::Unknown(why) => {
                    // The others would not fare better.
                    look.why = Some(why);
                    return;
                }
            }
        }
    }

    async fn tell(
        &self,
        leads: &Leads,
        look: &Look,
        found: Continuity,
        names: &[String],
    ) -> Result<(), etcd::Error> {
        let at = jiff::Timestamp::try_from(clock::wall()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let row = ArchiveRow {
            timeline: look.timeline,
            fork: look.fork,
            member: self.inner.me.clone(),
            at: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            found,
            names: names.to_vec(),
            why: look.why.clone(),
        };
        let by = clock::now().after(WRITE_WITHIN);
        self.inner.etcd.put_archive_row(&row, &leads.snapshot, leads.term, by).await?;
        let (timeline, fork) = (look.timeline, look.fork);
        let listed = names.join(", ");
        let (code, text) = match found {
            Continuity::Complete => {
                let text =
                    format!("the archive holds everything across the fork of timeline {timeline} at {fork}");
                tracing::info!("{text}");
                ("Complete", text)
            }
            Continuity::Waits => return Ok(()),
            Continuity::Incomplete => {
                let text = format!(
                    "the archive lacks what a restore across the fork of timeline {timeline} at {fork} needs: {listed}"
                );
                tracing::warn!(
                    "{text}; look at archive_command on the former leader and here, and make a full backup now"
                );
                ("Incomplete", text)
            }
            Continuity::Unknown => {
                let why = look.why.as_deref().unwrap_or("no answer");
                let text = format!(
                    "whether the archive holds what a restore across the fork of timeline {timeline} needs is not known: {why}"
                );
                tracing::warn!("{text}; correct baton.archive_check (exit status 0: there, 1: not there)");
                ("Unknown", text)
            }
        };
        self.inner.journal.with(|journal| journal.tell("archive", code, text));
        Ok(())
    }
}

/// What was told of this timeline before.
fn known(leads: &Leads) -> Option<&ArchiveRow> {
    leads.snapshot.archive.iter().rev().find(|row| row.timeline == leads.timeline)
}

/// What is asked for now.
fn open(look: &Look) -> Vec<String> {
    let mut names = vec![look.wanted.history.clone()];
    names.extend(holes(&look.wanted.before, &look.there));
    names.extend(look.whole_since.map(|_| look.wanted.first.clone()));
    names.retain(|name| !look.there.contains(name));
    names
}

/// When it is asked again.
fn pace(look: &Look, within: Duration, now: Moment) -> Duration {
    let since = look.whole_since.unwrap_or(look.since);
    if now.since(since) < within { AGAIN } else { LATER.min(within) }
}

/// What can be said now, with the names that it is about.
fn verdict(look: &Look, within: Duration, now: Moment) -> (Continuity, Vec<String>) {
    let mut missing = holes(&look.wanted.before, &look.there);
    if !look.there.contains(&look.wanted.history) {
        missing.insert(0, look.wanted.history.clone());
    }
    let over = |since: Moment| now.since(since) >= within;
    let first = !look.there.contains(&look.wanted.first);
    if missing.is_empty() && !first {
        return (Continuity::Complete, missing);
    }
    let late = !missing.is_empty() && over(look.since) || look.whole_since.is_some_and(over);
    if first {
        missing.push(look.wanted.first.clone());
    }
    match (late, &look.why) {
        (false, _) => (Continuity::Waits, missing),
        (true, Some(_)) => (Continuity::Unknown, missing),
        (true, None) => (Continuity::Incomplete, missing),
    }
}

/// Asks by a command that fetches; in `dir`, or where the agent runs. What it fetches is removed.
pub(crate) async fn ask_for(command: &str, name: &str, scratch: &Path, dir: Option<&Path>) -> Answer {
    let path = scratch.join(name);
    let line = archive::filled(command, name, &path.display().to_string());
    let mut process = script::command("/bin/sh");
    process.arg("-c").arg(&line).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    process.process_group(0).kill_on_drop(true);
    if let Some(dir) = dir {
        process.current_dir(dir);
    }
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => return Answer::Unknown(format!("failed to run it: {error}")),
    };
    let mut group = Group::of(&child);
    let ended = tokio::time::timeout(ANSWER, child.wait()).await;
    let answer = match ended {
        Ok(Ok(status)) => {
            group.ended();
            answer(status, name)
        }
        Ok(Err(error)) => Answer::Unknown(format!("failed to wait for it: {error}")),
        Err(_) => Answer::Unknown(format!("it gave no answer about {name} within {ANSWER:?}")),
    };
    // One segment at a time: the next needs the room.
    let _ = tokio::fs::remove_file(&path).await;
    answer
}

fn answer(status: ExitStatus, name: &str) -> Answer {
    match status.code() {
        Some(0) => Answer::There,
        Some(1) => Answer::Missing,
        Some(_) | None => Answer::Unknown(format!("it ended with {status} when it was asked for {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{AGAIN, Answer, LATER, Look, ask_for, open, pace, verdict};
    use etcd::Continuity;
    use postgres::continuity::Wanted;
    use std::time::Duration;
    use types::{Lsn, Moment, Timeline};

    const WITHIN: Duration = Duration::from_secs(300);

    fn look(there: &[&str], whole_since: Option<Moment>, why: Option<&str>) -> Look {
        Look {
            timeline: Timeline(2),
            command: String::new(),
            fork: Lsn(0),
            wanted: Wanted {
                history: "h".into(),
                before: vec!["a".into(), "b".into()],
                first: "f".into(),
                first_ends: Lsn(1),
            },
            there: there.iter().map(|name| (*name).to_owned()).collect(),
            since: Moment::default(),
            whole_since,
            why: why.map(str::to_owned),
            told: None,
        }
    }

    #[test]
    fn what_is_missing_is_said_when_its_time_is_over() {
        let late = Moment::default().after(WITHIN);
        let early = Moment::default().after(WITHIN - Duration::from_millis(1));
        for (there, whole, why, at, found, names) in [
            (&["h", "a", "b", "f"][..], Some(Moment::default()), None, late, Continuity::Complete, ""),
            (&["h", "b", "f"], Some(Moment::default()), None, late, Continuity::Complete, ""),
            (&["h", "a", "b"], None, None, late, Continuity::Waits, "f"),
            (&["h", "a", "b"], Some(early), None, late, Continuity::Waits, "f"),
            (&["h", "a", "b"], Some(Moment::default()), None, late, Continuity::Incomplete, "f"),
            (&["h", "a"], None, None, early, Continuity::Waits, "b f"),
            (&["h", "a"], None, None, late, Continuity::Incomplete, "b f"),
            (&["a", "b", "f"], None, None, late, Continuity::Incomplete, "h"),
            (&[], None, Some("x"), late, Continuity::Unknown, "h a b f"),
            (&[], None, Some("x"), early, Continuity::Waits, "h a b f"),
        ] {
            let (verdict, listed) = verdict(&look(there, whole, why), WITHIN, at);
            assert_eq!((verdict, listed.join(" ").as_str()), (found, names), "{there:?} {whole:?} {why:?}");
        }
    }

    #[test]
    fn what_is_known_is_not_asked_for_again_and_what_is_missing_less_often() {
        let early = Moment::default();
        for (there, whole, asked) in [
            (&[][..], None, "h a b"),
            (&["b"], None, "h"),
            (&["h", "a"], Some(early), "b f"),
            (&["f", "h", "a", "b"], Some(early), ""),
        ] {
            assert_eq!(open(&look(there, whole, None)).join(" "), asked, "{there:?} {whole:?}");
        }
        let (before, after) = (early.after(WITHIN - Duration::from_millis(1)), early.after(WITHIN));
        assert_eq!(pace(&look(&[], None, None), WITHIN, before), AGAIN);
        assert_eq!(pace(&look(&[], None, None), WITHIN, after), LATER);
        assert_eq!(
            pace(&look(&[], Some(after), None), WITHIN, after),
            AGAIN,
            "the first segment has just ended"
        );
        assert_eq!(pace(&look(&[], None, None), AGAIN, after), AGAIN);
    }

    #[tokio::test]
    async fn the_exit_status_is_the_answer() {
        let dir = tempfile::tempdir().unwrap();
        let archive = dir.path().join("archive");
        std::fs::create_dir(&archive).unwrap();
        std::fs::write(archive.join("there"), "").unwrap();
        let fetch = format!("test -f {0}/%f && cp {0}/%f \"%p\"", archive.display());
        let scratch = dir.path().join("scratch");
        std::fs::create_dir(&scratch).unwrap();
        assert!(matches!(ask_for(&fetch, "there", &scratch, None).await, Answer::There));
        assert!(matches!(ask_for(&fetch, "gone", &scratch, None).await, Answer::Missing));
        assert!(
            matches!(ask_for("exit 25", "x", &scratch, None).await, Answer::Unknown(why) if why.contains("25"))
        );
        assert_eq!(std::fs::read_dir(&scratch).unwrap().count(), 0, "what was fetched is removed");
    }
}
