//! `baton demo`: a real cluster on this machine, shown until Ctrl-C; with `drive`, broken on purpose and measured.
//!
//! ```text
//!   directory ─► start, step by step ─┬─► show until Ctrl-C ─┐
//!                                     └─► drive ─────────────┴─► end everything, remove the directory
//! ```

mod directory;
mod drive;
mod events;
mod screen;
mod show;
mod table;

pub(crate) use directory::LOCK;
pub(crate) use events::switchover;
pub use events::{Event, Outcome};
pub use table::outcomes;

use crate::binaries::Binaries;
use crate::lab::{Lab, Spec};
use anyhow::{Context, Result};
use screen::Screen;
use serde_json::json;
use std::path::PathBuf;
use tokio::signal::unix::{SignalKind, signal};

/// What kind of demo.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Break it and count, unattended, instead of showing it.
    pub drive: bool,
    /// Where to put everything; by default `baton-demo` in the directory for temporary files.
    pub directory: Option<PathBuf>,
    /// Wait for a synchronous standby at every commit.
    pub synchronous: bool,
    /// Another lease time than a new cluster gets, in seconds.
    pub ttl: Option<u32>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// As asked for.
    Well,
    /// Clients lost something that they must not lose.
    Lost,
}

/// Runs the demo to its end. Needs a runtime with time and I/O, and a thread to spare beside this one.
pub async fn run(options: Options) -> Result<Ending> {
    let mut screen = Screen::new();
    let spec = spec(&options)?;
    let base = spec.base.clone();
    let begun = clock::now();
    screen.say(&format!("A cluster in {}, ended by Ctrl-C", base.display()));
    let result = tokio::select! {
        result = whole(&options, &spec, &mut screen, begun) => result,
        stop = interrupted() => stop.map(|()| Ending::Well),
    };
    // An interrupted or failed run has dropped its lab, which kills what still ran.
    match &result {
        Ok(_) => {
            directory::remove(&base)?;
            Screen::new().say("Everything has been ended and removed.");
        }
        Err(_) if base.exists() => Screen::new().say(&format!("The logs are kept in {}", base.display())),
        Err(_) => {}
    }
    result
}

async fn whole(options: &Options, spec: &Spec, screen: &mut Screen, begun: types::Moment) -> Result<Ending> {
    let mut step = |what: &str| {
        let seconds = clock::now().since(begun).as_secs_f64();
        screen.say(&format!("  {seconds:5.1} s  {what}"));
    };
    let lab = Lab::start(spec, &mut step).await?;
    step("writable through the router");
    if options.drive {
        step("waiting for the replicas");
        lab.await_healthy(spec.members).await?;
        step("complete");
        return drive::run(lab, options.synchronous, screen).await;
    }
    show::run(lab, screen).await?;
    Ok(Ending::Well)
}

fn spec(options: &Options) -> Result<Spec> {
    let me = std::env::current_exe().context("find the path of this program")?;
    let base = match &options.directory {
        Some(directory) => directory::claim(directory)?,
        None => directory::claim_usual()?,
    };
    let mut spec = Spec::usual(base, Binaries::find(me)?);
    spec.ttl = options.ttl;
    if options.synchronous {
        // Commits wait for any one standby; who takes over has seen that it lacks none of them.
        spec.dynamic = json!({ "synchronous_mode": "quorum" });
    }
    Ok(spec)
}

/// Ends when the user or the system wants this program to.
pub(crate) async fn interrupted() -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result.context("listen for Ctrl-C"),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}
