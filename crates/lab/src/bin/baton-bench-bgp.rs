//! `make bench-bgp`: how soon routers learn and forget a virtual address, as a Markdown table.

use anyhow::{Context, Result, bail};
use lab::bench::program;
use lab::bench_bgp::{Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench-bgp [--runs N] [--frozen N] [--baton FILE]";

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
            "--runs" => options.runs = value.parse()?,
            "--frozen" => options.frozen = value.parse()?,
            "--baton" => options.baton = Some(value.into()),
            _ => bail!("understand {word}; {USAGE}"),
        }
    }
    Ok(options)
}
