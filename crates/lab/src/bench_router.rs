//! The router beside HAProxy, on the same cluster in the same run: what a transaction costs, what an idle session keeps, how soon a new
//! primary is reached.
//!
//! ```text
//!   a fresh lab with both ─► pairs times, in turn: pgbench, pgbench -C, COPY      rate and CPU of each
//!                         ─► many idle sessions before a backend that only greets  memory of each
//!                         ─► changes of the primary, both probed at once           first connection there, connections to the old one
//!                         ─► a switchover under pgbench -C; hosts that hang         failed transactions; sessions cut
//! ```

mod changes;
mod cost;
mod idle;
mod table;

use crate::bench::{directory, note};
use crate::binaries::{Binaries, baton_of_this_build};
use crate::client::Target;
use crate::demo::interrupted;
use crate::lab::{Lab, Spec};
use anyhow::{Context, Result, bail};
use changes::{Change, Hang};
use cost::Cost;
pub use cost::Load;
use idle::Idle;
use serde_json::{Map, Value, json};
use std::io::{Write, stdout};
use std::path::PathBuf;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which loads.
    pub loads: Vec<Load>,
    /// Pairs of runs of each load.
    pub pairs: usize,
    /// The seconds of one run of pgbench.
    pub seconds: u32,
    /// What COPY sends out.
    pub copy_megabytes: u32,
    /// Idle sessions.
    pub idle: usize,
    /// Planned switchovers.
    pub changes: usize,
    /// Primaries that hang.
    pub hangs: usize,
    /// The router's settings of these names; those that are not said are the usual ones.
    pub spin: u32,
    pub io: Option<String>,
    pub threads: u32,
    /// Another binary than that of this build.
    pub baton: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            loads: Load::ALL.to_vec(),
            pairs: 10,
            seconds: 8,
            copy_megabytes: 1000,
            idle: 10_000,
            changes: 100,
            hangs: 3,
            spin: 0,
            io: None,
            threads: 0,
            baton: None,
        }
    }
}

impl Options {
    /// What the router's file says besides the usual.
    pub(crate) fn settings(&self) -> Map<String, Value> {
        let numbers = [("spin", self.spin), ("threads", self.threads)];
        let said = numbers.into_iter().filter(|(_, number)| *number > 0);
        let said = said.map(|(name, number)| (name.to_owned(), json!(number)));
        said.chain(self.io.iter().map(|io| ("io".to_owned(), json!(io)))).collect()
    }
}

/// One of the two that are compared.
#[derive(Clone)]
pub(crate) struct Proxy {
    pub(crate) target: Target,
    pub(crate) pid: i32,
}

/// Both runs of a pair.
pub(crate) struct Pair {
    pub(crate) haproxy: Cost,
    pub(crate) baton: Cost,
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) loads: Vec<(Load, Vec<Pair>)>,
    pub(crate) idle: Option<Idle>,
    pub(crate) changes: Vec<Change>,
    /// Of `pgbench -C -c 32` during a switchover: transactions, and clients that gave up.
    pub(crate) under_load: Vec<(&'static str, u64, u64)>,
    pub(crate) hangs: Vec<Hang>,
}

/// Measures and prints the table.
pub async fn run(options: &Options) -> Result<()> {
    tokio::select! {
        result = whole_run(options) => result,
        // The lab is dropped, which ends everything that it started.
        stop = interrupted() => stop.and_then(|()| bail!("go on: it was interrupted")),
    }
}

async fn whole_run(options: &Options) -> Result<()> {
    idle::raise_descriptors();
    let baton = match &options.baton {
        Some(path) => path.clone(),
        None => baton_of_this_build()?,
    };
    let binaries = Binaries::find(baton)?;
    let mut spec = Spec::usual(directory()?, binaries.clone());
    spec.members = 2;
    spec.etcd = 1;
    spec.dynamic = json!({ "ttl": 5, "loop_wait": 1, "retry_timeout": 2 });
    spec.ttl = Some(5);
    let settings = options.settings();
    if !settings.is_empty() {
        spec.router_file = json!({ "router": settings });
    }
    let mut lab = Lab::start(&spec, &mut |step| note(step)).await?;
    lab.start_haproxy()?;
    lab.await_healthy(spec.members).await?;
    let figures = measure(options, &spec, &mut lab).await;
    lab.stop().await?;
    let text = table::markdown(options, &binaries, &figures?);
    stdout().write_all(text.as_bytes()).context("write the table")
}

/// What Baton came to beside HAProxy, as medians: 1.0 is the same.
#[derive(Clone, Copy, Debug)]
pub struct Ratios {
    pub load: Load,
    pub rate: f64,
    /// CPU of the proxy for each transaction.
    pub proxy: f64,
}

/// The loads and the idle sessions of `options` in a lab that has both; also the bytes that each keeps for an idle session, HAProxy first.
pub async fn beside_haproxy(
    options: &Options,
    spec: &Spec,
    lab: &mut Lab,
) -> Result<(Vec<Ratios>, Option<(u64, u64)>)> {
    idle::raise_descriptors();
    let figures = loads(options, spec, lab).await?;
    let ratio = |pairs: &[Pair], of: fn(&Cost) -> f64| {
        table::median(pairs.iter().map(|pair| of(&pair.baton) / of(&pair.haproxy).max(f64::MIN_POSITIVE)))
    };
    let ratios = figures.loads.iter().map(|(load, pairs)| Ratios {
        load: *load,
        rate: ratio(pairs, |cost| cost.rate),
        proxy: ratio(pairs, |cost| cost.proxy),
    });
    Ok((ratios.collect(), figures.idle.map(|idle| (idle.haproxy, idle.baton))))
}

fn both(lab: &Lab) -> Result<[Proxy; 2]> {
    let haproxy = Proxy { target: lab.through_haproxy(), pid: lab.haproxy_pid().context("find HAProxy")? };
    let baton = Proxy { target: lab.target(), pid: lab.router_pid().context("find the router")? };
    Ok([haproxy, baton])
}

async fn loads(options: &Options, spec: &Spec, lab: &mut Lab) -> Result<Figures> {
    let [haproxy, baton] = both(lab)?;
    let bin = &spec.binaries.postgres;
    let mut figures = Figures::default();
    // At its start HAProxy takes every server for a good one.
    changes::settled(lab, [&baton.target, &haproxy.target]).await?;
    cost::prepare(bin, &baton.target).await?;
    for load in &options.loads {
        let mut pairs = Vec::new();
        for number in 0..options.pairs {
            note(&format!("{}, pair {} of {}", load.describe(), number + 1, options.pairs));
            let run = async |proxy| cost::run(bin, *load, proxy, options).await;
            // Each is the first one in every other pair.
            pairs.push(if number % 2 == 0 {
                let haproxy = run(&haproxy).await?;
                Pair { haproxy, baton: run(&baton).await? }
            } else {
                let baton = run(&baton).await?;
                Pair { haproxy: run(&haproxy).await?, baton }
            });
        }
        figures.loads.push((*load, pairs));
    }
    if options.idle > 0 {
        note("idle sessions");
        figures.idle = Some(idle::measure(spec, lab, options.idle).await?);
    }
    Ok(figures)
}

async fn measure(options: &Options, spec: &Spec, lab: &mut Lab) -> Result<Figures> {
    let mut figures = loads(options, spec, lab).await?;
    let [haproxy, baton] = both(lab)?;
    let bin = &spec.binaries.postgres;
    for number in 0..options.changes {
        note(&format!("change {} of {}", number + 1, options.changes));
        figures.changes.push(changes::once(lab, &baton.target, &haproxy.target).await?);
    }
    if options.changes > 0 {
        for (name, proxy) in [("HAProxy", &haproxy), ("Baton", &baton)] {
            note(&format!("a switchover under pgbench -C through {name}"));
            let (done, failed) = changes::under_load(lab, bin, &proxy.target).await?;
            figures.under_load.push((name, done, failed));
        }
    }
    for number in 0..options.hangs {
        note(&format!("hang {} of {}", number + 1, options.hangs));
        figures.hangs.push(changes::hang(lab, &baton.target, &haproxy.target).await?);
    }
    Ok(figures)
}
