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
use cost::{Cell, Cost};
use idle::Idle;
use serde_json::json;
use std::io::{Write, stdout};
use std::path::PathBuf;

/// What to measure, and how long.
#[derive(Clone, Debug)]
pub struct Options {
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
    /// Another binary than that of this build.
    pub baton: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            pairs: 10,
            seconds: 8,
            copy_megabytes: 1000,
            idle: 10_000,
            changes: 100,
            hangs: 3,
            baton: None,
        }
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
    pub(crate) loads: Vec<(Cell, Vec<Pair>)>,
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
    let mut lab = Lab::start(&spec, &mut |step| note(step)).await?;
    lab.start_haproxy()?;
    lab.await_healthy(spec.members).await?;
    let figures = measure(options, &spec, &mut lab).await;
    lab.stop().await?;
    let text = table::markdown(options, &binaries, &figures?);
    stdout().write_all(text.as_bytes()).context("write the table")
}

async fn measure(options: &Options, spec: &Spec, lab: &mut Lab) -> Result<Figures> {
    let haproxy = Proxy { target: lab.through_haproxy(), pid: lab.haproxy_pid().context("find HAProxy")? };
    let baton = Proxy { target: lab.target(), pid: lab.router_pid().context("find the router")? };
    let bin = &spec.binaries.postgres;
    let mut figures = Figures::default();
    cost::prepare(bin, &baton.target).await?;
    // Both have checked their servers and had their first connections.
    for proxy in [&haproxy, &baton] {
        crate::wait::until(changes::SPAN, "both to serve", async || {
            proxy.target.ask("select 1", changes::SPAN).await.ok()
        })
        .await?;
    }
    for cell in Cell::ALL {
        let mut pairs = Vec::new();
        for number in 0..options.pairs {
            note(&format!("{}, pair {} of {}", cell.describe(), number + 1, options.pairs));
            let run = async |proxy| cost::run(bin, cell, proxy, options).await;
            // Each is the first one in every other pair.
            pairs.push(if number % 2 == 0 {
                let haproxy = run(&haproxy).await?;
                Pair { haproxy, baton: run(&baton).await? }
            } else {
                let baton = run(&baton).await?;
                Pair { haproxy: run(&haproxy).await?, baton }
            });
        }
        figures.loads.push((cell, pairs));
    }
    if options.idle > 0 {
        note("idle sessions");
        figures.idle = Some(idle::measure(spec, lab, options.idle).await?);
    }
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
