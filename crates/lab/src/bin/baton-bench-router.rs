//! `make bench-router`: what the router costs and how soon it follows, beside HAProxy, as a Markdown table.

use anyhow::{Context, Result};
use lab::bench::{options, program};
use lab::bench_router::{Load, Options, run};
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench-router [--loads c1,c8,c64,connect,copy|none] [--pairs N] [--seconds N] [--copy-megabytes N] [--idle N] [--changes N] [--hangs N] \
     [--spin MICROSECONDS] [--io epoll|auto|io_uring] [--threads N] [--baton FILE]";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1), USAGE, take), async |options| {
        run(&options).await.map(|()| ExitCode::SUCCESS)
    })
}

fn take(options: &mut Options, word: &str, value: &str) -> Result<bool> {
    match word {
        "--loads" => options.loads = loads(value)?,
        "--pairs" => options.pairs = value.parse()?,
        "--seconds" => options.seconds = value.parse()?,
        "--copy-megabytes" => options.copy_megabytes = value.parse()?,
        "--idle" => options.idle = value.parse()?,
        "--changes" => options.changes = value.parse()?,
        "--hangs" => options.hangs = value.parse()?,
        "--spin" => options.spin = value.parse()?,
        "--io" => options.io = Some(value.to_owned()),
        "--threads" => options.threads = value.parse()?,
        "--baton" => options.baton = Some(value.into()),
        _ => return Ok(false),
    }
    Ok(true)
}

/// The loads of a list of words.
fn loads(words: &str) -> Result<Vec<Load>> {
    let words = words.split(',').filter(|word| *word != "none");
    words.map(|word| Load::called(word).with_context(|| format!("understand {word}; {USAGE}"))).collect()
}
