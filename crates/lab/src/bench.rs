//! The bench: each event happens several times under a steady load, and the pauses are told as median, least and most.
//!
//! ```text
//!   for each mode and event:   a fresh lab ─► runs times (load on ─► event ─► healthy ─► load off ─► count) ─► memory ─► stop
//! ```

mod memory;
mod table;

pub(crate) use memory::pss;
pub(crate) use table::machine;

use crate::binaries::{Binaries, baton_of_this_build};
use crate::client::{Plan, Workload};
use crate::demo::{Event, Outcome, interrupted};
use crate::lab::{Lab, Spec};
use crate::primaries::Primaries;
use crate::wait::until;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::io::{Write, stderr, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often each event happens.
    pub runs: usize,
    /// The lease time of the clusters, in seconds.
    pub ttl: u32,
    /// `synchronous_mode` of the clusters: a column of the table for each.
    pub modes: Vec<Mode>,
    /// Empty means all that the mode and the rights of this process allow.
    pub events: Vec<Event>,
    /// For how many seconds all of etcd is away.
    pub etcd_away: u32,
}

/// What a commit waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    Off,
    On,
    Quorum,
}

impl Mode {
    /// As the setting is spelled.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Mode::Off => "off",
            Mode::On => "on",
            Mode::Quorum => "quorum",
        }
    }

    /// All of them.
    pub const ALL: [Mode; 3] = [Mode::Off, Mode::On, Mode::Quorum];

    /// The mode that a word means.
    #[must_use]
    pub fn of(word: &str) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

impl Default for Options {
    fn default() -> Options {
        Options { runs: 5, ttl: 5, modes: vec![Mode::Off], events: Vec::new(), etcd_away: 60 }
    }
}

/// All runs of one event in one mode.
pub(crate) struct Series {
    pub(crate) mode: Mode,
    pub(crate) event: Event,
    pub(crate) outcomes: Vec<Outcome>,
    /// Runs that did not come to an end, and why.
    pub(crate) broken: Vec<String>,
}

fn all(etcd_away: u32) -> [Event; 13] {
    [
        Event::KillPostmaster,
        Event::KillHost,
        Event::UnplugHost,
        Event::CutFromEtcd,
        Event::FreezeAgent,
        Event::KillAgent,
        Event::Switchover,
        Event::KillSyncStandby,
        Event::StopSyncStandby,
        Event::HangPostgres,
        Event::FillWalDisk,
        Event::KillEtcdLeader,
        Event::StopEtcd(etcd_away),
    ]
}
/// Two seconds of normal work come before each event.
const WARM_UP: usize = 200;
/// Enough for a dozen segments.
const WAL_DISK: u32 = 256;

/// Measures and prints the table.
pub async fn run(options: &Options) -> Result<()> {
    tokio::select! {
        result = whole_run(options) => result,
        // The lab is dropped, which ends everything that it started.
        stop = interrupted() => stop.and_then(|()| bail!("go on: it was interrupted")),
    }
}

async fn whole_run(options: &Options) -> Result<()> {
    let binaries = Binaries::find(baton_of_this_build()?)?;
    let mut series = Vec::new();
    let mut memory = Vec::new();
    let root = rustix::process::geteuid().is_root();
    let events =
        if options.events.is_empty() { all(options.etcd_away).to_vec() } else { options.events.clone() };
    for mode in &options.modes {
        for event in &events {
            if *mode == Mode::Off && event.needs_synchronous() {
                continue;
            }
            note(&format!("synchronous_mode {}: {}", mode.word(), event.describe()));
            if !root && (event.needs_cables() || event.needs_wal_disk()) {
                note("  left out: it needs root");
                continue;
            }
            series.push(measure(*event, *mode, options, &binaries, &mut memory).await?);
        }
    }
    let text = table::markdown(options, &binaries, &series, &memory);
    stdout().lock().write_all(text.as_bytes()).context("print the table")
}

/// Options that all have a value: `take` understands one, or says that it does not know it.
pub fn options<O: Default>(
    mut words: impl Iterator<Item = String>,
    usage: &str,
    take: impl Fn(&mut O, &str, &str) -> Result<bool>,
) -> Result<O> {
    let mut options = O::default();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("read a value of {word}; {usage}"))?;
        if !take(&mut options, &word, &value)? {
            bail!("understand {word}; {usage}");
        }
    }
    Ok(options)
}

/// The life of a program that measures: its options are understood, then it runs; what goes wrong is said, and fails it.
pub fn program<O>(options: Result<O>, run: impl AsyncFnOnce(O) -> Result<ExitCode>) -> ExitCode {
    let result = options.and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run(options))
    });
    result.unwrap_or_else(|error| {
        note(&format!("failed to {error:#}"));
        ExitCode::FAILURE
    })
}

/// A line for whoever waits; the table alone goes to standard output.
pub fn note(line: &str) {
    // Without anybody to read it, it is not needed.
    let _ = writeln!(stderr().lock(), "{line}");
}

async fn measure(
    event: Event,
    mode: Mode,
    options: &Options,
    binaries: &Binaries,
    memory: &mut Vec<u64>,
) -> Result<Series> {
    let mut series = Series { mode, event, outcomes: Vec::new(), broken: Vec::new() };
    let mut lab: Option<Lab> = None;
    for number in 1..=options.runs {
        let mut current = match lab.take() {
            Some(lab) => lab,
            None => start(event, mode, options.ttl, binaries).await?,
        };
        match once(event, &mut current).await {
            Ok(outcome) => {
                note(&format!(
                    "  run {number}: {:.2} s, {} statements and {} connections failed, {} rows missing, two primaries {} ms",
                    outcome.pause.as_secs_f64(),
                    outcome.failed_statements,
                    outcome.failed_connections,
                    outcome.missing,
                    outcome.two_primaries.as_millis(),
                ));
                series.outcomes.push(outcome);
                lab = Some(current);
            }
            Err(error) => {
                let kept = current.stop_and_keep().await?;
                note(&format!("  run {number}: failed to {error:#}; logs in {}", kept.display()));
                series.broken.push(format!("{error:#}"));
            }
        }
    }
    if let Some(lab) = lab {
        memory.extend(lab.nodes.iter().filter_map(memory::pss_of_agent_and_guard));
        lab.stop().await?;
    }
    Ok(series)
}

async fn start(event: Event, mode: Mode, ttl: u32, binaries: &Binaries) -> Result<Lab> {
    let mut spec = spec(mode, ttl, binaries)?;
    spec.cables = event.needs_cables();
    spec.wal_disk = event.needs_wal_disk().then_some(WAL_DISK);
    whole(&spec, mode).await
}

/// A cluster as one is born under Baton, in this mode.
pub(crate) fn spec(mode: Mode, ttl: u32, binaries: &Binaries) -> Result<Spec> {
    let mut spec = Spec::usual(directory()?, binaries.clone());
    spec.ttl = Some(ttl);
    // What a cluster that is born under Baton gets as well; a `ttl` of one's own leaves it to oneself.
    spec.dynamic = json!({ "failsafe_mode": true, "synchronous_mode": mode.word() });
    Ok(spec)
}

/// Starts it and waits until it is as it shall be before something happens.
pub(crate) async fn whole(spec: &Spec, mode: Mode) -> Result<Lab> {
    let lab = Lab::start(spec, &mut |_| {}).await?;
    lab.await_healthy(spec.members).await?;
    if mode != Mode::Off {
        until(Duration::from_secs(30), "a synchronous standby", async || {
            lab.view().await.ok().filter(|view| !view.synchronous.is_empty()).map(drop)
        })
        .await?;
    }
    Primaries::prepare(&lab.target()).await?;
    Ok(lab)
}

async fn once(event: Event, lab: &mut Lab) -> Result<Outcome> {
    let work = Workload::start(&lab.target(), Plan::default()).await?;
    // What the watchers write makes the other standby speak, and hides how long commits would wait for its word.
    let watched = lab.nodes.iter().filter(|_| !event.needs_synchronous());
    let primaries = Primaries::watch(watched.map(|node| (node.name.clone(), lab.own_socket(node))).collect());
    work.await_progress(WARM_UP, Duration::from_secs(30)).await?;
    let window = event.happen(lab, &work).await?;
    let report = work.stop().await;
    let primaries = primaries.stop().await;
    let missing = report.missing().await?.len();
    Ok(Outcome::of(&window, &report, &primaries, missing))
}

/// A directory that is not there yet.
pub(crate) fn directory() -> Result<PathBuf> {
    let temporary = std::env::temp_dir();
    let number = std::process::id();
    let free = (0..1000).map(|serial| temporary.join(format!("baton-bench-{number}-{serial}")));
    free.into_iter().find(|path| !path.exists()).context("find a free name for a directory")
}
