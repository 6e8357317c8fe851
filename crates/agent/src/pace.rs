//! What recoveries of this data directory and promotions took, and when its primary crashed: kept beside the data directory, so that an
//! agent that is started again goes on with it.
//!
//! ```text
//!   files read while PostgreSQL is stopped ─► how much there is to replay ─┐
//!   started ──► takes connections ──────────► bytes a second ──────────────┼─► observe() ─► restart here, or fail over
//!   promoted ─► is a primary ───────────────► how long that takes ─────────┘
//! ```

use crate::wake::Cell;
use postgres::control::Control;
use postgres::handover::WalFiles;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, Moment};

/// A recovery of less says nothing about the rate: it is over before it has begun.
const TELLING: u64 = 32 << 20;
/// A start that has nothing to replay.
const START: Duration = Duration::from_millis(200);
/// Longest file that is read.
const LONGEST: u64 = 1 << 16;

/// The numbers; a cheap clone.
#[derive(Clone)]
pub(crate) struct Pace {
    inner: Arc<Inner>,
}

struct Inner {
    file: PathBuf,
    state: Cell<State>,
}

#[derive(Clone, Default)]
struct State {
    found: Option<Found>,
    starting: Option<(u64, Moment)>,
    promoting: Option<Moment>,
    kept: Kept,
    /// Crashes that were counted by this agent.
    counted: u64,
}

/// What the file holds.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Kept {
    redo_rate: Option<u64>,
    promotion: Option<Duration>,
    /// Moments since the host was started.
    crashes: Vec<Moment>,
}

/// What the files of a stopped PostgreSQL say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    end: Lsn,
    /// By a start as a primary.
    to_replay: u64,
    /// By a start as a standby, before it takes connections.
    to_consistency: u64,
}

impl Found {
    /// A few reads, however much WAL there is. What cannot be read is unknown, and decides nothing.
    pub(crate) fn look(data_dir: &Path, control: &Control) -> Option<Found> {
        let looked = WalFiles::of(data_dir, control).and_then(|files| files.to_replay());
        match looked {
            Ok(to_replay) => Some(Found {
                end: Lsn(control.redo.0.saturating_add(to_replay)),
                to_replay,
                to_consistency: control.min_recovery_end.bytes_since(control.redo),
            }),
            Err(error) => {
                tracing::debug!(%error, "failed to estimate how much WAL there is to replay");
                None
            }
        }
    }
}

impl Pace {
    pub(crate) fn new(data_dir: &Path) -> Pace {
        let mut name = data_dir.components().as_path().as_os_str().to_owned();
        name.push(".baton-pace.json");
        let file = PathBuf::from(name);
        let kept = read(&file).unwrap_or_default();
        let state = State { kept, ..State::default() };
        Pace { inner: Arc::new(Inner { file, state: Cell::new(state) }) }
    }

    pub(crate) fn observe(&self) -> ha::Pace {
        self.inner.state.with(|state| ha::Pace {
            end: state.found.map(|found| found.end),
            to_replay: state.found.map(|found| found.to_replay),
            redo_rate: state.kept.redo_rate,
            promotion: state.kept.promotion,
        })
    }

    /// When the primary crashed, as an earlier life of this agent counted it.
    pub(crate) fn crashes(&self) -> Vec<Moment> {
        self.inner.state.with(|state| state.kept.crashes.clone())
    }

    pub(crate) fn counted(&self) -> u64 {
        self.inner.state.with(|state| state.counted)
    }

    /// The files were looked at.
    pub(crate) fn found(&self, found: Option<Found>) {
        self.inner.state.with(|state| state.found = found);
    }

    /// The decisions have counted these.
    pub(crate) fn note_crashes(&self, crashes: &[Moment]) {
        let news = self.inner.state.with(|state| {
            let last = state.kept.crashes.last().copied();
            let news = crashes.iter().filter(|crash| last < Some(**crash)).count();
            state.counted += news as u64;
            if news > 0 {
                state.kept.crashes = crashes.to_vec();
            }
            news
        });
        if news > 0 {
            self.keep();
        }
    }

    pub(crate) fn starts(&self, standby: bool) {
        self.inner.state.with(|state| {
            let bytes = |found: &Found| if standby { found.to_consistency } else { found.to_replay };
            state.starting = state.found.as_ref().map(|found| (bytes(found), clock::now()));
            state.promoting = None;
        });
    }

    pub(crate) fn promotes(&self) {
        self.inner.state.with(|state| state.promoting = state.promoting.or(Some(clock::now())));
    }

    /// It takes connections.
    pub(crate) fn runs(&self, primary: bool) {
        let news = self.inner.state.with(|state| {
            let mut kept = state.kept.clone();
            if let Some((bytes, since)) = state.starting.take().filter(|(bytes, _)| *bytes >= TELLING) {
                kept.redo_rate = Some(rate(bytes, clock::now().since(since)));
            }
            if let Some(since) = state.promoting.take_if(|_| primary) {
                kept.promotion = Some(clock::now().since(since));
            }
            let news = kept != state.kept;
            state.kept = kept;
            // What was found says nothing of WAL that is written now.
            state.found = None;
            news
        });
        if news {
            self.keep();
        }
    }

    /// Writes the file beside the loop: it is a help, and no decision waits for it.
    fn keep(&self) {
        let pace = self.clone();
        tokio::task::spawn_blocking(move || {
            let kept = pace.inner.state.with(|state| state.kept.clone());
            let file = &pace.inner.file;
            let (Some(dir), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str()))
            else {
                return;
            };
            if let Err(error) = postgres::config_files::keep(dir, name, text(&kept).as_bytes()) {
                tracing::warn!(%error, "failed to keep how long recoveries take: an agent that is started again will not know");
            }
        });
    }
}

fn rate(bytes: u64, took: Duration) -> u64 {
    let millis = u64::try_from(took.saturating_sub(START).as_millis()).unwrap_or(u64::MAX).max(50);
    bytes.saturating_mul(1000) / millis
}

fn text(kept: &Kept) -> String {
    json!({
        "redo_bytes_per_second": kept.redo_rate,
        "promotion_ms": kept.promotion.and_then(|took| u64::try_from(took.as_millis()).ok()),
        "boot": boot(),
        "crashes_ms_since_boot": kept.crashes.iter().map(|crash| crash.0).collect::<Vec<_>>(),
    })
    .to_string()
}

fn read(file: &Path) -> Option<Kept> {
    if fs::metadata(file).ok()?.len() > LONGEST {
        return None;
    }
    let value: Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let number = |name: &str| value.get(name).and_then(Value::as_u64);
    // Moments of another life of this host cannot be compared with ours.
    let same = value.get("boot").and_then(Value::as_str).map(str::to_owned) == boot();
    let crashes = value.get("crashes_ms_since_boot").and_then(Value::as_array).filter(|_| same);
    let now = clock::now();
    let crashes = crashes.into_iter().flatten().filter_map(|at| Some(Moment(at.as_u64()?)));
    Some(Kept {
        redo_rate: number("redo_bytes_per_second").filter(|rate| *rate > 0),
        promotion: number("promotion_ms").map(Duration::from_millis),
        crashes: crashes.filter(|at| *at <= now).collect(),
    })
}

/// Which life of this host it is.
fn boot() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Kept, Pace, rate, read, text};
    use std::time::Duration;
    use types::Moment;

    #[test]
    fn what_was_measured_outlives_the_agent_and_a_spoiled_file_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("data.baton-pace.json");
        assert_eq!(read(&file), None);
        let kept = Kept {
            redo_rate: Some(32 << 20),
            promotion: Some(Duration::from_millis(120)),
            crashes: vec![Moment(1), Moment(2)],
        };
        std::fs::write(&file, text(&kept)).unwrap();
        assert_eq!(read(&file), Some(kept.clone()));
        assert_eq!(Pace::new(&dir.path().join("data/")).crashes(), kept.crashes);
        let other = text(&kept).replace("\"boot\":\"", "\"boot\":\"0");
        std::fs::write(&file, other).unwrap();
        assert_eq!(read(&file).unwrap().crashes, [], "of another life of the host");
        std::fs::write(&file, "{").unwrap();
        assert_eq!(read(&file), None);
    }

    #[test]
    fn a_rate_is_bytes_over_time_without_the_start_itself() {
        assert_eq!(rate(64 << 20, Duration::from_millis(2200)), 32 << 20);
        assert_eq!(rate(64 << 20, Duration::ZERO), 20 * (64 << 20));
    }
}
