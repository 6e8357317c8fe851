//! `sim --seeds N [--from S] [--seed S --trace] [--without PROTECTION | --known-bug NAME]`: many simulated clusters against the laws.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]

use sim::{KNOWN_BUGS, Report, Twist, Without, run_seeds, story};
use std::process::ExitCode;

const USAGE: &str =
    "usage: sim --seeds N [--from S] [--threads N] [--findings N] [--without PROTECTION | --known-bug NAME]
       sim --seed S [--trace] [--without PROTECTION | --known-bug NAME]
       sim --known-bugs";

/// So many of the commonest pairs of faults are shown.
const PAIRS_SHOWN: usize = 12;

/// What was typed.
#[derive(Default)]
struct Args {
    seeds: u64,
    from: u64,
    seed: Option<u64>,
    trace: bool,
    threads: Option<u64>,
    findings: Option<u64>,
    list: bool,
    twist: Twist,
    /// The twist as it was typed.
    typed: String,
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
            "--known-bugs" => args.list = true,
            "--without" => {
                let name = words.next().unwrap_or_default();
                let known = Without::ALL.into_iter().find(|(word, _)| *word == name);
                let names = Without::ALL.map(|(word, _)| word).join(", ");
                args.twist = known.ok_or(format!("{name:?} is none of {names}"))?.1.into();
                args.typed = format!(" --without {name}");
            }
            "--known-bug" => {
                let name = words.next().unwrap_or_default();
                let known = KNOWN_BUGS.into_iter().find(|entry| entry.name == name);
                let names = KNOWN_BUGS.map(|entry| entry.name).join(", ");
                args.twist = known.ok_or(format!("{name:?} is none of {names}"))?.bug.into();
                args.typed = format!(" --known-bug {name}");
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
    if args.list {
        for entry in KNOWN_BUGS {
            println!("{:21} {}: {}", entry.name, entry.seen, entry.models);
        }
        return ExitCode::SUCCESS;
    }
    if let Some(seed) = args.seed {
        return tell(seed, args.twist, args.trace);
    }
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        |threads| threads as usize,
    );
    let enough = args.findings.unwrap_or(1) as usize;
    let begun = clock::now();
    let report = run_seeds(args.from, args.seeds, threads, args.twist, enough);
    print(&report, clock::now().since(begun).as_secs_f64());
    if report.findings.is_empty() {
        return ExitCode::SUCCESS;
    }
    if let Some(first) = report.findings.first() {
        for line in story(first.seed, args.twist).trace.tail() {
            println!("{line}");
        }
    }
    for finding in &report.findings {
        println!("law {} broken by seed {}: {}", finding.broken.law, finding.seed, finding.broken.what);
        println!("  cargo run --release -q -p baton-sim -- --seed {} --trace{}", finding.seed, args.typed);
    }
    ExitCode::FAILURE
}

/// One seed, with its whole story if it is asked for.
fn tell(seed: u64, twist: Twist, trace: bool) -> ExitCode {
    let world = story(seed, twist);
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

fn print(report: &Report, took: f64) {
    let ratio = report.hours() * 3600.0 / took.max(0.001);
    println!(
        "{} seeds, {:.1} simulated hours in {took:.1} s ({ratio:.0} times as fast as life), {} events",
        report.seeds,
        report.hours(),
        report.events
    );
    let faults: Vec<String> = report.faults.iter().map(|(kind, count)| format!("{kind:?} {count}")).collect();
    println!("faults: {}", faults.join(", "));
    let mut pairs: Vec<_> = report.pairs.iter().collect();
    pairs.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let kinds = report.faults.len();
    let shown = pairs.iter().take(PAIRS_SHOWN).map(|((a, b), count)| format!("{a:?} + {b:?} {count}"));
    println!(
        "pairs of faults that overlapped: {} of {}; most often {}",
        pairs.len(),
        kinds * kinds.saturating_sub(1) / 2,
        shown.collect::<Vec<_>>().join(", ")
    );
    let laws: Vec<String> = report.checked.iter().map(|(law, count)| format!("{law}: {count}")).collect();
    println!("laws checked: {}", laws.join(", "));
    let lost = report.findings.iter().filter(|finding| finding.broken.law == 2).count();
    println!(
        "synchronous commits: {} acknowledged, {lost} runs in which one was lost; asynchronous: {} acknowledged, {} lost with failovers; {} writes refused",
        report.promised,
        report.acknowledged - report.promised.min(report.acknowledged),
        report.lost,
        report.refused
    );
    println!("runs that ended with disks on which nobody may lead without a person's word: {}", report.waits);
}
