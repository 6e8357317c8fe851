//! `make bench-vip`: how virtual addresses and names move, beside keepalived, vip-manager and dnsmasq, as a Markdown table.

use anyhow::{Context, Result, bail};
use lab::bench::program;
use lab::bench_vip::{Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench-vip [--switchovers N] [--deaths N] [--references N] [--silent N] [--pairs N] [--seconds N] \
     [--baton FILE]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1)), async |options| {
        run(&options).await.map(|()| ExitCode::SUCCESS)
    })
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let value = words.next().with_context(|| format!("read a value of {word}; {USAGE}"))?;
        match word.as_str() {
            "--switchovers" => options.switchovers = value.parse()?,
            "--deaths" => options.deaths = value.parse()?,
            "--references" => options.references = value.parse()?,
            "--silent" => options.silent = value.parse()?,
            "--pairs" => options.pairs = value.parse()?,
            "--seconds" => options.seconds = value.parse()?,
            "--baton" => options.baton = Some(value.into()),
            _ => bail!("understand {word}; {USAGE}"),
        }
    }
    Ok(options)
}
