//! `make restores`: restores to just before and just after failovers, compared with the writer's own log.

use anyhow::{Result, bail};
use lab::bench::program;
use lab::restores::{Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-restores [--failovers N] [--ttl SECONDS]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1)), async |options| {
        Ok(if run(&options).await? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let value = words.next();
        match (word.as_str(), value.as_deref()) {
            ("--failovers", Some(value)) => options.failovers = value.parse()?,
            ("--ttl", Some(value)) => options.ttl = value.parse()?,
            (_, _) => bail!("understand {word}; {USAGE}"),
        }
    }
    Ok(options)
}
