//! `make faults`: real faults, drawn from a seed, under a writing client, and what they cost.

use anyhow::{Context, Result, bail};
use lab::bench::{Mode, note};
use lab::faults::{Options, Verdict, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-faults [--faults N] [--mode off|on|quorum] [--ttl SECONDS] [--seed NUMBER]";

fn main() -> ExitCode {
    let result = options(std::env::args().skip(1)).and_then(|options| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(run(&options))
    });
    match result {
        Ok(Verdict::Good) => ExitCode::SUCCESS,
        Ok(Verdict::Bad) => ExitCode::FAILURE,
        Err(error) => {
            note(&format!("failed to {error:#}"));
            ExitCode::FAILURE
        }
    }
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
