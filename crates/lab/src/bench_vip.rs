//! Virtual addresses and names, beside what people use today, in networks of their own on this machine.
//!
//! ```text
//!   a fresh lab, agents with addresses (v4, v6) and names ─► planned switchovers     service back, old gone, names
//!                                                         ─► agents killed, frozen   address gone, next one has it
//!   keepalived, vip-manager, nothing at all               ─► the same moves
//!   our name server and dnsmasq, in turn                  ─► answers a second
//! ```

mod names;
mod others;
mod ours;
mod table;
mod watch;

use crate::bench::{directory, note};
use crate::binaries::{Binaries, baton_of_this_build};
use crate::demo::interrupted;
use crate::netns::stand;
use anyhow::{Context, Result, bail};
use names::Rate;
use others::Reference;
use ours::{Death, Move};
use std::io::{Write, stdout};
use std::path::PathBuf;
use std::time::Duration;

/// What to measure, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Planned switchovers.
    pub switchovers: usize,
    /// Agents killed, and as many frozen.
    pub deaths: usize,
    /// Moves of each kind by keepalived and by vip-manager.
    pub references: usize,
    /// Moves that nobody announces; each takes a minute or so.
    pub silent: usize,
    /// Pairs of runs of both name servers.
    pub pairs: usize,
    /// The seconds of one of them.
    pub seconds: u32,
    /// Another binary than that of this build.
    pub baton: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Options {
        Options { switchovers: 20, deaths: 50, references: 5, silent: 2, pairs: 5, seconds: 5, baton: None }
    }
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) moves: Vec<Move>,
    /// From the removal of each address by hand to its return.
    pub(crate) repairs: Vec<[Duration; 2]>,
    pub(crate) deaths: Vec<Death>,
    /// Looks in which two of our hosts had an address.
    pub(crate) twice: usize,
    pub(crate) references: Vec<Reference>,
    pub(crate) rates: Vec<Rate>,
}

/// Measures and prints the table.
pub async fn run(options: &Options) -> Result<()> {
    tokio::select! {
        result = whole_run(options) => result,
        // Labs and networks are dropped, which ends everything that they started.
        stop = interrupted() => stop.and_then(|()| bail!("go on: it was interrupted")),
    }
}

async fn whole_run(options: &Options) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("make network namespaces: start this as root");
    }
    let baton = match &options.baton {
        Some(path) => path.clone(),
        None => baton_of_this_build()?,
    };
    let binaries = Binaries::find(baton)?;
    let mut figures = Figures::default();
    if options.switchovers + options.deaths > 0 {
        ours::measure(options, directory()?, &binaries, &mut figures).await?;
    }
    others::measure(options, &mut figures.references).await;
    if options.pairs > 0 {
        note("name servers");
        figures.rates = names::measure(options, &binaries).await?;
    }
    let text = table::markdown(options, &binaries, &figures);
    stdout().write_all(text.as_bytes()).context("write the table")
}
