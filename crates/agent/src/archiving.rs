//! An archive that takes nothing: found while the cluster is well, and not at the restore that needed it.
//!
//! ```text
//!   pg_stat_archiver, every LOOK ──► the last attempt failed, for FAILS ──────────────────► trouble: log, journal, member key, metric
//!                                └─► files wait, none archived and none failed for STANDS ─┘
//!   a file is archived ──► no longer
//! ```
//! PostgreSQL keeps what waits and tries again; what is told is that the disk of its WAL fills and that no restore can go further.

use crate::journal::Journal;
use crate::local::Local;
use crate::wake::Cell;
use postgres::archiver::{self, Archiver, Mode};
use postgres::postmaster::Postmaster;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use types::Moment;

/// It is asked so often.
const LOOK: Duration = Duration::from_secs(5);
const WITHIN: Duration = Duration::from_secs(5);
/// One failure is an accident: PostgreSQL tries again after a second.
const FAILS: Duration = Duration::from_secs(10);
/// A command that neither ends nor fails.
const STANDS: Duration = Duration::from_secs(60);

/// Why nothing is archived.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Trouble {
    kind: Kind,
    waiting: u64,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Kind {
    Fails { at: String },
    Stands,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.waiting;
        match &self.kind {
            Kind::Fails { at } => write!(
                f,
                "archives nothing: archive_command fails for {at}, and {waiting} files wait in pg_wal; what it said is in PostgreSQL's log"
            )?,
            Kind::Stands => {
                write!(
                    f,
                    "archives nothing: archive_command does not end, and {waiting} files wait in pg_wal"
                )?;
            }
        }
        f.write_str(
            "; make room in the archive, or correct the command: what waits is archived by itself then",
        )
    }
}

/// The last finding; a cheap clone.
#[derive(Clone)]
pub(crate) struct ArchivingCheck {
    inner: Arc<Inner>,
}

struct Inner {
    local: Local,
    journal: Arc<Cell<Journal>>,
    found: Cell<Found>,
}

#[derive(Clone, Default)]
struct Found {
    waiting: Option<u64>,
    trouble: Option<Trouble>,
}

/// Since when nothing was archived.
#[derive(Default)]
struct Watch {
    last: Option<Archiver>,
    archived: Option<Moment>,
    tried: Option<Moment>,
}

impl Watch {
    /// Takes in what a server that archives says; `None` of one that does not.
    fn see(&mut self, now: Moment, seen: Option<&Archiver>) -> Option<Trouble> {
        let Some(seen) = seen else {
            *self = Watch::default();
            return None;
        };
        let before = self.last.replace(seen.clone());
        let since = |kept: &mut Option<Moment>, is: fn(&Archiver) -> u64| {
            if seen.waiting == 0 || before.as_ref().is_none_or(|before| is(before) != is(seen)) {
                *kept = None;
            }
            now.since(*kept.get_or_insert(now))
        };
        let unarchived = since(&mut self.archived, |archiver| archiver.archived);
        let untried = since(&mut self.tried, |archiver| archiver.archived.wrapping_add(archiver.failed));
        let waiting = seen.waiting;
        let kind = match &seen.fails_at {
            Some(at) if unarchived >= FAILS => Kind::Fails { at: at.clone() },
            None if unarchived >= STANDS && untried >= STANDS => Kind::Stands,
            Some(_) | None => return None,
        };
        Some(Trouble { kind, waiting })
    }
}

impl ArchivingCheck {
    pub(crate) fn new(local: Local, journal: Arc<Cell<Journal>>) -> ArchivingCheck {
        ArchivingCheck { inner: Arc::new(Inner { local, journal, found: Cell::new(Found::default()) }) }
    }

    /// Why this member archives nothing, if it should and does not.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        self.inner.found.get().trouble
    }

    /// Files that wait for the archive, of a member that archives.
    pub(crate) fn waiting(&self) -> Option<u64> {
        self.inner.found.get().waiting
    }

    /// Looks for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let (mut watch, mut known) = (Watch::default(), None);
        loop {
            tokio::time::sleep(LOOK).await;
            let seen = match self.look(&mut known).await {
                Ok(seen) => seen,
                // Who cannot be asked says nothing: the last finding stays.
                Err(error) => {
                    tracing::debug!(%error, "failed to ask what the archiver does");
                    continue;
                }
            };
            let trouble = watch.see(clock::now(), seen.as_ref());
            self.note(Found { waiting: seen.map(|seen| seen.waiting), trouble });
        }
    }

    /// Asks a server that archives. `known` is the mode of the one that was asked last: most archive nothing, or not as a standby, and that
    /// stays so while they run.
    async fn look(
        &self,
        known: &mut Option<(Arc<Postmaster>, Mode)>,
    ) -> Result<Option<Archiver>, postgres::connection::SqlError> {
        let local = &self.inner.local;
        let Some(postmaster) = local.life().postmaster.filter(|_| local.is_running()) else {
            return Ok(None);
        };
        let archives = |mode| mode == Mode::Always || mode == Mode::On && local.is_primary();
        let mode = known.as_ref().filter(|(of, _)| Arc::ptr_eq(of, &postmaster)).map(|(_, mode)| *mode);
        if mode.is_some_and(|mode| !archives(mode)) {
            return Ok(None);
        }
        let (mode, archiver) = archiver::look(&local.connect(), WITHIN).await?;
        *known = Some((postmaster, mode));
        Ok(archives(mode).then_some(archiver))
    }

    /// Says it when it begins, ends or becomes another.
    fn note(&self, found: Found) {
        let kind = |found: &Found| found.trouble.as_ref().map(|trouble| trouble.kind.clone());
        let before = self.inner.found.with(|kept| std::mem::replace(kept, found.clone()));
        if kind(&before) == kind(&found) {
            return;
        }
        match &found.trouble {
            Some(trouble) => {
                let text = format!("this member {trouble}");
                tracing::warn!("{text}");
                self.inner.journal.with(|journal| journal.tell("archiving", "ArchivesNothing", text));
            }
            None => tracing::info!("this member archives again, or does not have to any more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Archiver, Kind, LOOK, Watch};
    use types::Moment;

    /// At which looks there is a trouble, and which.
    fn told(of: impl Fn(u64) -> Option<Archiver>) -> Vec<(u64, Kind)> {
        let mut watch = Watch::default();
        let mut told = Vec::new();
        for look in 0..20_u64 {
            let now = Moment(0).after(LOOK * u32::try_from(look).unwrap());
            if let Some(trouble) = watch.see(now, of(look).as_ref()) {
                told.push((look, trouble.kind));
            }
        }
        told
    }

    fn fails(at: &str) -> Kind {
        Kind::Fails { at: at.to_owned() }
    }

    #[test]
    fn a_failure_that_lasts_is_told_and_one_that_passes_is_not() {
        let bad =
            |failed, waiting| Archiver { archived: 7, failed, fails_at: Some("03".to_owned()), waiting };
        let lasts = told(|look| Some(bad(look, 1 + look)));
        assert_eq!(lasts.first(), Some(&(2, fails("03"))));
        assert_eq!(lasts.len(), 18);
        let good = |archived| Archiver { archived, failed: 1, fails_at: None, waiting: 1 };
        assert_eq!(told(|look| Some(if look == 3 { bad(1, 1) } else { good(look) })), []);
        let mended = told(|look| Some(if look < 5 { bad(look, 1) } else { good(look) }));
        assert_eq!(mended, [(2, fails("03")), (3, fails("03")), (4, fails("03"))]);
    }

    #[test]
    fn a_command_that_never_ends_is_told_and_a_slow_or_idle_archive_is_not() {
        let at = |archived, waiting| Archiver { archived, failed: 0, fails_at: None, waiting };
        assert_eq!(told(|_| Some(at(7, 2))).first(), Some(&(12, Kind::Stands)));
        assert_eq!(told(|look| Some(at(look / 4, 900))), [], "slow");
        assert_eq!(told(|_| Some(at(7, 0))), [], "idle");
        assert_eq!(told(|_| None), [], "no primary");
        assert_eq!(told(|look| (look % 8 != 0).then(|| at(7, 2))), [], "another life of the server");
    }
}
