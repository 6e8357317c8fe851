//! `make faults`: real faults, drawn from a seed, under a writing client, and what they cost.

use anyhow::{Context, Result, bail};
use lab::bench::{Mode, program};
use lab::faults::{Options, Verdict, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-faults [--faults N] [--mode off|on|quorum] [--ttl SECONDS] [--seed NUMBER]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1)), async |options| {
        Ok(match run(&options).await? {
            Verdict::Good => ExitCode::SUCCESS,
            Verdict::Bad => ExitCode::FAILURE,
        })
    })
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let value = words.next();
        match (word.as_str(), value.as_deref()) {
            ("--faults", Some(value)) => options.faults = value.parse()?,
            ("--ttl", Some(value)) => options.ttl = value.parse()?,
            ("--seed", Some(value)) => options.seed = value.parse()?,
            ("--mode", Some(value)) => {
                options.mode =
                    Mode::of(value).with_context(|| format!("understand the mode {value}; {USAGE}"))?;
            }
            (_, _) => bail!("understand {word}; {USAGE}"),
        }
    }
    Ok(options)
}
