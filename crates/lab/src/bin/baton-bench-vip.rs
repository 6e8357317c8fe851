//! `make bench-vip`: how virtual addresses and names move, beside keepalived, vip-manager and dnsmasq, as a Markdown table.

use anyhow::Result;
use lab::bench::{options, program};
use lab::bench_vip::{Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench-vip [--switchovers N] [--deaths N] [--references N] [--silent N] [--pairs N] [--seconds N] \
     [--baton FILE]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1), USAGE, take), async |options| {
        run(&options).await.map(|()| ExitCode::SUCCESS)
    })
}

fn take(options: &mut Options, word: &str, value: &str) -> Result<bool> {
    match word {
        "--switchovers" => options.switchovers = value.parse()?,
        "--deaths" => options.deaths = value.parse()?,
        "--references" => options.references = value.parse()?,
        "--silent" => options.silent = value.parse()?,
        "--pairs" => options.pairs = value.parse()?,
        "--seconds" => options.seconds = value.parse()?,
        "--baton" => options.baton = Some(value.into()),
        _ => return Ok(false),
    }
    Ok(true)
}
