//! `sim --seeds N [--from S] [--seed S --trace] [--without PROTECTION]`: many simulated clusters against the laws.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use sim::{Report, Without, run_seeds, story};
use std::process::ExitCode;

const USAGE: &str = "usage: sim --seeds N [--from S] [--threads N] [--findings N] [--without guard|door|terms|peers|claims|sent-time|confirmation|promises]
       sim --seed S [--trace] [--without …]";

/// What was typed.
#[derive(Default)]
struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    threads: Option<u64>,
    findings: Option<u64>,
    without: Option<Without>,
}

fn parse() -> Result<Args, String> {
    let mut args = Args { seeds: 200, ..Args::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let value = words.next().and_then(|value| value.parse::<u64>().ok());
            value.ok_or(format!("{word} wants a number"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--seed" => args.seed = Some(number()?),
            "--threads" => args.threads = Some(number()?),
            "--findings" => args.findings = Some(number()?),
            "--trace" => args.trace = true,
            "--without" => {
                let name = words.next().unwrap_or_default();
                let known = Without::ALL.into_iter().find(|(word, _)| *word == name);
                args.without = Some(known.ok_or(format!("nothing is called {name:?}"))?.1);
            }
            other => return Err(format!("unknown argument {other:?}")),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = args.seed {
        return tell(seed, args.without, args.trace);
    }
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        |threads| threads as usize,
    );
    let enough = args.findings.unwrap_or(1) as usize;
    let report = run_seeds(args.from, args.seeds, threads, args.without, enough);
    print(&report);
    if report.findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    let without =
        args.without.and_then(|without| Without::ALL.into_iter().find(|(_, known)| *known == without));
    let without = without.map(|(word, _)| format!(" --without {word}")).unwrap_or_default();
    if let Some(first) = report.findings.first() {
        for line in story(first.seed, args.without).trace.tail() {
            println!("{line}");
        }
    }
    for finding in &report.findings {
        println!("law {} broken by seed {}: {}", finding.broken.law, finding.seed, finding.broken.what);
        println!("  cargo run -q -p baton-sim --bin sim -- --seed {} --trace{without}", finding.seed);
    }
    ExitCode::FAILURE
}

/// One seed, with its whole story if it is asked for.
fn tell(seed: u64, without: Option<Without>, trace: bool) -> ExitCode {
    let world = story(seed, without);
    let tail = world.trace.tail();
    let lines: Vec<&str> = if trace { world.trace.lines().collect() } else { tail };
    for line in lines {
        println!("{line}");
    }
    match &world.laws.broken {
        Some(broken) => {
            println!("law {} broken by seed {seed}: {}", broken.law, broken.what);
            ExitCode::FAILURE
        }
        None => {
            println!("seed {seed}: no law broken");
            ExitCode::SUCCESS
        }
    }
}

fn print(report: &Report) {
    println!("{} seeds, {:.1} simulated hours, {} events", report.seeds, report.hours(), report.events);
    let faults: Vec<String> = report.faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
    println!("faults: {}", faults.join(", "));
    let laws: Vec<String> = report.checked.iter().map(|(law, count)| format!("{law}: {count}")).collect();
    println!("laws checked: {}", laws.join(", "));
    println!(
        "writes: {} acknowledged, {} refused, {} lost with asynchronous failovers",
        report.acknowledged, report.refused, report.lost
    );
}
