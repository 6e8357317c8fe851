//! `make bench-bgp`: how soon routers learn and forget a virtual address, as a Markdown table.

use anyhow::Result;
use lab::bench::{options, program};
use lab::bench_bgp::{Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench-bgp [--runs N] [--frozen N] [--baton FILE]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1), USAGE, take), async |options| {
        run(&options).await.map(|()| ExitCode::SUCCESS)
    })
}

fn take(options: &mut Options, word: &str, value: &str) -> Result<bool> {
    match word {
        "--runs" => options.runs = value.parse()?,
        "--frozen" => options.frozen = value.parse()?,
        "--baton" => options.baton = Some(value.into()),
        _ => return Ok(false),
    }
    Ok(true)
}
