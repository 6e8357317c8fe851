//! The campaign: real faults and overlapping pairs of them, drawn from a seed, under a writing client.
//!
//! ```text
//!   seed ─► rounds (plan)            known beforehand, and the same for the same seed
//!   for each round:   healthy ─► strike, strike ─► undo, undo ─► healthy ─► every acknowledged row there? ever two primaries?
//!   a round that breaks: its lab is ended and kept for reading, and the next one begins in a new lab
//! ```
//! The rows of all rounds of a lab are asked for after each of them: what an old fault cost must not show only in the end.

mod dice;
mod kind;
mod plan;
mod strike;
mod table;

use crate::bench::{Mode, note, spec, whole};
use crate::binaries::{Binaries, baton_of_this_build};
use crate::client::{FailureKind, Plan, Workload};
use crate::daemon::tail;
use crate::demo::interrupted;
use crate::lab::Lab;
use crate::primaries::Primaries;
use crate::wait::until;
use anyhow::{Context, Result, bail};
use kind::Kind;
use plan::Round;
use std::io::{Write, stdout};
use std::time::Duration;
use strike::{Roles, Undo};
use types::Moment;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// At least so many faults.
    pub faults: usize,
    pub mode: Mode,
    pub ttl: u32,
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { faults: 20, mode: Mode::Quorum, ttl: 5, seed: 1 }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// A row was lost that must not be, two primaries were seen, or a cluster did not heal.
    Bad,
}

/// What one round did.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) kinds: Vec<Kind>,
    pub(crate) pause: Duration,
    pub(crate) failed: usize,
    pub(crate) missing: usize,
    pub(crate) two_primaries: Duration,
}

/// What all rounds did.
#[derive(Default)]
pub(crate) struct Campaign {
    pub(crate) outcomes: Vec<Outcome>,
    /// Rounds that did not come to an end, and why.
    pub(crate) broken: Vec<String>,
    pub(crate) acknowledged: usize,
}

/// What is moved aside in a lab stays there, and every timeline keeps a segment: after so many rounds a fresh one goes on.
const ROUNDS_IN_ONE: usize = 20;
/// More broken labs are not kept.
const MOST_BROKEN: usize = 5;
const WAL_DISK: u32 = 512;
/// Longer than any lease, crash recovery or copy here takes.
const HEALING: Duration = Duration::from_secs(120);
const NORMAL: usize = 100;
const SEEING: Duration = Duration::from_secs(20);

/// Runs the campaign and prints its table.
pub async fn run(options: &Options) -> Result<Verdict> {
    tokio::select! {
        result = whole_run(options) => result,
        // The lab is dropped, which ends everything that it started.
        stop = interrupted() => stop.and_then(|()| bail!("go on: it was interrupted")),
    }
}

async fn whole_run(options: &Options) -> Result<Verdict> {
    let binaries = Binaries::find(baton_of_this_build()?)?;
    let root = rustix::process::geteuid().is_root();
    if !root {
        note("without root no cable is pulled and no disk is filled");
    }
    let rounds = plan::rounds(options, root);
    let mut campaign = Campaign::default();
    let mut next = 0;
    while next < rounds.len() && campaign.broken.len() < MOST_BROKEN {
        let mut spec = spec(options.mode, options.ttl, &binaries)?;
        spec.cables = root;
        spec.wal_disk = root.then_some(WAL_DISK);
        let mut lab = whole(&spec, options.mode).await?;
        let work = Workload::start(&lab.target(), Plan::default()).await?;
        let end = rounds.len().min(next + ROUNDS_IN_ONE);
        let mut kept = false;
        while next < end && !kept {
            let Some(round) = rounds.get(next) else { break };
            next += 1;
            note(&format!("round {next} of {}: {round}", rounds.len()));
            kept = match one(&mut lab, &work, round, options.mode).await {
                Ok(outcome) => {
                    note(&outcome.line());
                    let bad = outcome.is_bad(options.mode);
                    campaign.outcomes.push(outcome);
                    bad
                }
                Err(error) => {
                    note(&format!("  failed to {error:#}"));
                    campaign.broken.push(format!("round {next}, {round}: {error:#}"));
                    true
                }
            };
        }
        campaign.acknowledged += work.acked();
        drop(work);
        if let Some(panic) = panics(&lab) {
            campaign.broken.push(panic);
            kept = true;
        }
        if kept {
            note(&format!("  the lab is kept in {}", lab.stop_and_keep().await?.display()));
        } else {
            lab.stop().await?;
        }
    }
    let text = table::markdown(options, &campaign);
    stdout().lock().write_all(text.as_bytes()).context("print the table")?;
    let bad = !campaign.broken.is_empty() || campaign.outcomes.iter().any(|one| one.is_bad(options.mode));
    Ok(if bad { Verdict::Bad } else { Verdict::Good })
}

/// One round: everything strikes and is undone in its time, then all must be well.
async fn one(lab: &mut Lab, work: &Workload, round: &Round, mode: Mode) -> Result<Outcome> {
    let nodes = lab.nodes.iter().map(|node| (node.name.clone(), lab.own_socket(node))).collect();
    let primaries = Primaries::watch(nodes);
    let mut roles =
        until(SEEING, "the primary and etcd's leader", async || Roles::of(lab).await.ok()).await?;
    let from = clock::now();
    let mut undo: Vec<Option<Undo>> = round.strikes.iter().map(|_| None).collect();
    for moment in round.moments() {
        sleep_until(from.after(moment.at)).await;
        let (Some(strike), Some(undo)) = (round.strikes.get(moment.strike), undo.get_mut(moment.strike))
        else {
            continue;
        };
        match undo.take() {
            Some(undo) => undo.happen(lab)?,
            None => *undo = Some(strike::happen(strike.kind, lab, &mut roles).await?),
        }
    }
    let healed = heal(lab, work, mode).await;
    let to = clock::now();
    let primaries = primaries.stop().await;
    let twice = primaries.two_primaries();
    healed.with_context(|| format!("heal, with two primaries for {} ms", twice.as_millis()))?;
    let report = work.so_far();
    Ok(Outcome {
        kinds: round.strikes.iter().map(|strike| strike.kind).collect(),
        pause: report.longest_pause(from, to),
        failed: report.failed(FailureKind::Statement, from, to)
            + report.failed(FailureKind::Connection, from, to),
        missing: report.missing().await?.len(),
        two_primaries: twice,
    })
}

/// Whoever has ended is started again, as systemd would do; then everybody must become healthy by himself.
async fn heal(lab: &mut Lab, work: &Workload, mode: Mode) -> Result<()> {
    let end = clock::now().after(HEALING);
    loop {
        for name in lab.ended() {
            lab.start_again(&name)?;
        }
        lab.start_agents()?;
        let view = lab.view().await.ok().filter(|view| view.healthy(lab.nodes.len()));
        if view.is_some_and(|view| mode == Mode::Off || !view.synchronous.is_empty()) {
            break;
        }
        if clock::now() >= end {
            bail!(
                "wait for a healthy cluster: none within {} s; the keys say {:?}",
                HEALING.as_secs(),
                lab.view().await
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    work.await_progress(NORMAL, HEALING).await
}

async fn sleep_until(moment: Moment) {
    tokio::time::sleep(clock::now().until(moment)).await;
}

/// The first panic in the logs.
fn panics(lab: &Lab) -> Option<String> {
    let logs = lab.nodes.iter().map(crate::node::Node::log).chain(lab.router_log());
    logs.filter(|log| std::fs::read_to_string(log).is_ok_and(|text| text.contains("panicked at")))
        .map(|log| format!("{} has a panic: {}", log.display(), tail(log, 5)))
        .next()
}

impl Outcome {
    fn is_bad(&self, mode: Mode) -> bool {
        (mode != Mode::Off && self.missing > 0) || !self.two_primaries.is_zero()
    }

    fn line(&self) -> String {
        format!(
            "  {:.2} s, {} failed, {} rows missing, two primaries {} ms",
            self.pause.as_secs_f64(),
            self.failed,
            self.missing,
            self.two_primaries.as_millis()
        )
    }
}
