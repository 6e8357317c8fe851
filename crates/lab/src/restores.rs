//! `make restores`: a restore to just before and to just after each of several injected failovers, compared row by row with what the
//! writer has written down.
//!
//! ```text
//!   full backup ─► writer on ─► N times: mark ─► failover ─► mark, next segment ─► archive whole? ─► healthy     (a backup in the middle)
//!   writer off  ─► for each mark: baton restore --to NEW ─► PostgreSQL beside the cluster ─► its rows == the writer's log
//! ```
//! Each restore is asked for in another way: by position, time, transaction, name and timeline, in turn. Before and after them the cluster runs on.

mod beside;
mod writer;

use crate::bench::{Mode, machine, note, spec};
use crate::binaries::{Binaries, baton_of_this_build};
use crate::demo::interrupted;
use crate::lab::Lab;
use crate::node::Node;
use crate::pgbackrest::PgBackRest;
use crate::rest;
use crate::wait::until;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use std::time::Duration;
use writer::{Row, Writer};

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    pub failovers: usize,
    /// The lease time of the cluster, in seconds.
    pub ttl: u32,
    /// Each failover is restored to in every way, and not in one of them.
    pub every_way: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { failovers: 10, ttl: 5, every_way: false }
    }
}

/// How a point is named to `baton restore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Lsn,
    Time,
    Xid,
    Name,
    Timeline,
}

const WAYS: [By; 5] = [By::Lsn, By::Time, By::Xid, By::Name, By::Timeline];

/// A point to which is restored, and so many rows of the log that are there then.
struct Point {
    title: String,
    by: By,
    rows: usize,
    at: Row,
    /// The restore point that the writer made right after this row.
    name: String,
    /// The backup that lies before it.
    backup: String,
}

/// What a restore came to.
struct Outcome {
    title: String,
    by: By,
    rows: usize,
    took: Duration,
    /// What differs from the log; empty when nothing does.
    differs: Vec<String>,
}

const SPAN: Duration = Duration::from_secs(120);
const NORMAL: usize = 30;

/// Restores and compares; whether everything was equal.
pub async fn run(options: &Options) -> Result<bool> {
    tokio::select! {
        result = whole_run(options) => result,
        // The lab is dropped, which ends everything that it started.
        stop = interrupted() => stop.and_then(|()| bail!("go on: it was interrupted")),
    }
}

async fn whole_run(options: &Options) -> Result<bool> {
    let binaries = Binaries::find(baton_of_this_build()?)?;
    let mut spec = spec(Mode::On, options.ttl, &binaries)?;
    let dir = PathBuf::from(format!("{}-backups", spec.base.display()));
    std::fs::create_dir(&dir).with_context(|| format!("make {}", dir.display()))?;
    let backups = PgBackRest::at(&dir);
    crate::config::merge(&mut spec.dynamic, &backups.dynamic());
    spec.etcd = 1;
    let mut lab = Lab::create(&spec)?;
    backups.install(&lab, "")?;
    lab.start_etcd().await?;
    lab.start_agents()?;
    lab.start_router()?;
    lab.await_writable(SPAN).await?;
    match measured(&mut lab, &backups, &dir, options).await {
        Ok((outcomes, checks)) => {
            let text = table(options, &machine(&binaries), &outcomes, &checks);
            stdout().lock().write_all(text.as_bytes()).context("print the table")?;
            lab.stop().await?;
            std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
            Ok(outcomes.iter().all(|outcome| outcome.differs.is_empty()))
        }
        Err(error) => {
            let kept = lab.stop_and_keep().await?;
            Err(error.context(format!("go on; logs in {} and {}", kept.display(), dir.display())))
        }
    }
}

async fn measured(
    lab: &mut Lab,
    backups: &PgBackRest,
    dir: &Path,
    options: &Options,
) -> Result<(Vec<Outcome>, Vec<Duration>)> {
    healthy(lab).await?;
    backup(lab, backups, "stanza-create", "").await?;
    let mut label = backup(lab, backups, "backup", "--type=full").await?;
    let writer = Writer::start(&lab.target(), &dir.join("written")).await?;
    let (mut points, mut checks) = (Vec::new(), Vec::new());
    for number in 1..=options.failovers {
        writer.progress(NORMAL).await?;
        if number == options.failovers / 2 + 1 {
            label = backup(lab, backups, "backup", "--type=incr").await?;
            writer.progress(NORMAL).await?;
        }
        let before = writer.mark(&format!("before-{number}")).await?;
        // Rows that were acknowledged after it show that a standby has the mark as well.
        writer.progress(NORMAL).await?;
        let from = lab.primary().await?;
        let how = strike(lab, &from, number)?;
        let (last, first) = writer.across(&before, SPAN).await?;
        let after = writer.mark(&format!("after-{number}")).await?;
        checks.push(archive_is_whole(lab, &from).await?);
        undo(lab, &from, number)?;
        healthy(lab).await?;
        note(&format!(
            "failover {number}, {how} of {from}: timeline {} to {}, {} rows written",
            last.1.timeline,
            first.1.timeline,
            writer.count()
        ));
        for (turn, by) in ways(options, number).into_iter().enumerate() {
            let sides = [("before", &last, &before), ("after", &first, &after)];
            // In every way to one side each is enough: the other ways go to the other one.
            let sides = sides.into_iter().skip(if options.every_way { turn % 2 } else { 0 });
            for (side, edge, marked) in sides.take(if options.every_way { 1 } else { 2 }) {
                // A name stands right behind the row that its mark was made after; the others at the very edges of the gap.
                // An old timeline has nothing behind its edge where a recovery could stop.
                let (index, at) = if matches!(by, By::Name | By::Timeline) { marked } else { edge };
                points.push(Point {
                    title: format!("{side} failover {number}"),
                    by,
                    rows: index + 1,
                    at: at.clone(),
                    name: format!("{side}-{number}"),
                    backup: label.clone(),
                });
            }
        }
    }
    writer.progress(NORMAL).await?;
    let log = writer.stop().await?;
    let leader = lab.primary().await?;
    let own = lab.own_socket(node(lab, &leader)?);
    let last = own.ask("SELECT pg_walfile_name(pg_switch_wal())", SPAN).await?;
    let archived = "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver";
    until(SPAN, "the last segment to be archived", async || {
        own.ask(archived, SPAN).await.ok().filter(|name| *name >= last).map(drop)
    })
    .await?;
    each_name_has_one_content(lab)?;
    let mut outcomes = Vec::new();
    for point in &points {
        let outcome = beside::restored(lab, dir, point, &log).await.with_context(|| point.title.clone())?;
        note(&format!(
            "{} by {:?}: {} rows, {:.1} s, {}",
            outcome.title,
            outcome.by,
            outcome.rows,
            outcome.took.as_secs_f64(),
            if outcome.differs.is_empty() { "all equal".to_owned() } else { outcome.differs.join("; ") }
        ));
        outcomes.push(outcome);
    }
    // While it was looked back the cluster went its way.
    healthy(lab).await?;
    Ok((outcomes, checks))
}

/// Two members that archive one name with different content: pgBackRest refuses the second, and PostgreSQL's log has what it said.
fn each_name_has_one_content(lab: &Lab) -> Result<()> {
    for node in &lab.nodes {
        let log = node.data_dir().with_extension("log");
        let said = std::fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        if String::from_utf8_lossy(&said).contains("with a different checksum") {
            bail!("{} archived a name that another one had archived with different content", node.name);
        }
    }
    Ok(())
}

fn ways(options: &Options, number: usize) -> Vec<By> {
    let own = number.checked_rem(WAYS.len()).and_then(|at| WAYS.get(at));
    if options.every_way { WAYS.to_vec() } else { own.copied().into_iter().collect() }
}

fn node<'a>(lab: &'a Lab, name: &str) -> Result<&'a Node> {
    lab.nodes.iter().find(|node| node.name == name).ok_or_else(|| anyhow!("there is no node {name}"))
}

/// Whoever leads makes it; the label of the newest backup.
async fn backup(lab: &Lab, backups: &PgBackRest, command: &str, kind: &str) -> Result<String> {
    let leader = lab.primary().await?;
    let node = node(lab, &leader)?;
    let words: Vec<&str> = [kind, command].into_iter().filter(|word| !word.is_empty()).collect();
    backups.run(lab, node, &words)?;
    let told: Value = serde_json::from_str(&backups.run(lab, node, &["--output=json", "info"])?)?;
    let label = told.pointer("/0/backup").and_then(Value::as_array).and_then(|all| all.last());
    Ok(label.and_then(|label| label["label"].as_str()).unwrap_or_default().to_owned())
}

/// By turns the host dies, and its agent freezes, which the guard ends.
fn strike(lab: &mut Lab, leader: &str, number: usize) -> Result<&'static str> {
    let node = lab.node(leader)?;
    if number % 2 == 1 {
        node.kill_host();
        Ok("death of the host")
    } else {
        node.freeze_agent();
        Ok("frozen agent")
    }
}

fn undo(lab: &mut Lab, old: &str, number: usize) -> Result<()> {
    let node = lab.node(old)?;
    if number % 2 == 1 {
        return node.start_agent();
    }
    node.thaw_agent();
    Ok(())
}

/// Ends the first segment of the new timeline, and waits for the word that the archive has all that a restore across the fork needs.
/// How long that word took from the moment on which the segment ended.
async fn archive_is_whole(lab: &Lab, old: &str) -> Result<Duration> {
    let leader = until(SPAN, "another leader", async || {
        lab.view().await.ok()?.primary().filter(|name| *name != old).map(str::to_owned)
    })
    .await?;
    let node = node(lab, &leader)?;
    let own = lab.own_socket(node);
    let timeline =
        own.ask("SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int", SPAN).await?;
    let timeline: u64 = timeline.parse().context("read a timeline")?;
    own.run("SELECT pg_switch_wal()", SPAN).await?;
    let began = clock::now();
    let row = until(SPAN, "the archive to be looked at", async || {
        let rows: Value = rest::get(node.rest, "/baton/archive", SPAN).await.ok()?.json().ok()?;
        let row = rows.as_array()?.iter().rev().find(|row| row["timeline"] == timeline)?.clone();
        (row["found"] != "waits").then_some(row)
    })
    .await?;
    if row["found"] != "complete" {
        bail!("find everything across the fork in the archive: {row}");
    }
    Ok(clock::now().since(began))
}

async fn healthy(lab: &Lab) -> Result<()> {
    until(SPAN, "a healthy cluster with a synchronous standby", async || {
        let view = lab.view().await.ok()?;
        (view.healthy(lab.nodes.len()) && !view.synchronous.is_empty()).then_some(())
    })
    .await
}

fn table(options: &Options, machine: &str, outcomes: &[Outcome], checks: &[Duration]) -> String {
    let rows: usize = outcomes.iter().map(|outcome| outcome.rows).sum();
    let equal = outcomes.iter().filter(|outcome| outcome.differs.is_empty()).count();
    let mut text = format!(
        "{} failovers of a primary under a writer (synchronous_mode on, ttl {}, {machine}); {} restores by `baton restore`, {rows} rows compared: \
         {equal} of {} restores equal the writer's log.\n\n| restores by | n | equal | rows, at most | seconds, median (min to max) |\n|---|---|---|---|---|\n",
        options.failovers,
        options.ttl,
        outcomes.len(),
        outcomes.len(),
    );
    for by in WAYS {
        let these: Vec<&Outcome> = outcomes.iter().filter(|outcome| outcome.by == by).collect();
        let most = these.iter().map(|outcome| outcome.rows).max().unwrap_or_default();
        let equal = these.iter().filter(|outcome| outcome.differs.is_empty()).count();
        let took: Vec<Duration> = these.iter().map(|outcome| outcome.took).collect();
        text.push_str(&format!("| {by:?} | {} | {equal} | {most} | {} |\n", these.len(), spread(&took)));
    }
    text.push_str(&format!(
        "\nThe check of the archive, from the end of the new timeline's first segment to its answer: {} s, n = {}.\n",
        spread(checks),
        checks.len()
    ));
    for outcome in outcomes.iter().filter(|outcome| !outcome.differs.is_empty()) {
        text.push_str(&format!("\n{}: {}\n", outcome.title, outcome.differs.join("; ")));
    }
    text
}

fn spread(times: &[Duration]) -> String {
    let mut seconds: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    seconds.sort_by(f64::total_cmp);
    match (seconds.first(), seconds.get(seconds.len() / 2), seconds.last()) {
        (Some(least), Some(middle), Some(most)) => format!("{middle:.1} ({least:.1} to {most:.1})"),
        (_, _, _) => "–".to_owned(),
    }
}
