//! The router's figures as a Markdown table. Pure text, but for the description of the machine.

use super::changes::Seen;
use super::cost::{Cost, Load};
use super::{Figures, Options, Pair};
use crate::bench::machine;
use crate::binaries::Binaries;
use std::time::Duration;

pub(crate) fn markdown(options: &Options, binaries: &Binaries, figures: &Figures) -> String {
    let mut text = format!(
        "The router beside HAProxy on the same cluster in the same run: {}. {} alternating pairs of {} s; medians. CPU from /proc/PID/stat \
         of the proxy and /proc/stat of the machine.\n\n",
        machine(binaries),
        options.pairs,
        options.seconds,
    );
    let settings: Vec<String> = options
        .settings()
        .iter()
        .map(|(name, value)| {
            format!("`{name}: {}`", value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        })
        .collect();
    if !settings.is_empty() {
        text.push_str(&format!("The router has {}.\n\n", settings.join(", ")));
    }
    text.push_str("| load | figure | HAProxy | Baton | Baton / HAProxy, median of pairs (least, most) | to reach |\n|---|---|---|---|---|---|\n");
    for (load, pairs) in figures.loads.iter().filter(|(_, pairs)| !pairs.is_empty()) {
        loads(&mut text, *load, pairs);
    }
    if let Some(idle) = figures.idle {
        let ratio = idle.baton as f64 / idle.haproxy.max(1) as f64;
        text.push_str(&format!(
            "| {} idle sessions | bytes per session | {} | {} | {ratio:.2} | ≤ HAProxy's |\n",
            idle.sessions, idle.haproxy, idle.baton
        ));
    }
    changes(&mut text, figures);
    for (name, done, failed) in &figures.under_load {
        text.push_str(&format!(
            "\nA switchover under `pgbench -S -C -c 32` through {name}: {done} transactions, {failed} complaints (to reach: 0 for Baton).\n"
        ));
    }
    if !figures.hangs.is_empty() {
        text.push_str("\n| hung primary | sessions end after its lease | after its last sign of life: Baton | HAProxy |\n|---|---|---|---|\n");
        for (number, hang) in figures.hangs.iter().enumerate() {
            let haproxy =
                hang.haproxy.map_or("never".to_owned(), |span| format!("{:.1} s", span.as_secs_f64()));
            text.push_str(&format!(
                "| {} | {} ms (to reach: ≤ 100) | {:.1} s | {haproxy} |\n",
                number + 1,
                hang.baton_after_lease.as_millis(),
                hang.baton.as_secs_f64()
            ));
        }
    }
    text
}

fn loads(text: &mut String, load: Load, pairs: &[Pair]) {
    type Figure = (&'static str, fn(&Cost) -> f64, &'static str);
    let figures: [Figure; 3] = match load {
        Load::CopyOut => [
            ("MB per second", |cost| cost.rate, "≥ 1.0"),
            ("µs of the proxy per MB", |cost| cost.proxy, "≤ 1.0"),
            ("µs of the machine per MB", |cost| cost.machine, ""),
        ],
        Load::Connect(_) => [
            ("transactions per second", |cost| cost.rate, "≥ 1.0"),
            ("µs of the proxy per transaction", |cost| cost.proxy, ""),
            ("µs of the machine per transaction", |cost| cost.machine, ""),
        ],
        Load::Prepared(_) => [
            ("transactions per second", |cost| cost.rate, "≥ 1.0"),
            ("µs of the proxy per transaction", |cost| cost.proxy, "≤ 0.75"),
            ("µs of the machine per transaction", |cost| cost.machine, "≤ 0.9"),
        ],
    };
    for (name, figure, goal) in figures {
        let haproxy = median(pairs.iter().map(|pair| figure(&pair.haproxy)));
        let baton = median(pairs.iter().map(|pair| figure(&pair.baton)));
        let ratios =
            || pairs.iter().map(|pair| figure(&pair.baton) / figure(&pair.haproxy).max(f64::MIN_POSITIVE));
        let least = ratios().fold(f64::INFINITY, f64::min);
        let most = ratios().fold(0.0, f64::max);
        text.push_str(&format!(
            "| {} | {name} | {haproxy:.1} | {baton:.1} | {:.2} ({least:.2}, {most:.2}) | {goal} |\n",
            load.describe(),
            median(ratios()),
        ));
    }
}

fn changes(text: &mut String, figures: &Figures) {
    if figures.changes.is_empty() {
        return;
    }
    text.push_str(&format!(
        "\nPlanned switchovers, n = {}: from the key that says who accepts writes to the first new connection there.\n\n\
         | through | p50 | p99 | most | new connections to the old primary, all / most in one | failed connections |\n|---|---|---|---|---|---|\n",
        figures.changes.len()
    ));
    for (name, of, goal) in [
        ("HAProxy (Pigsty's norm)", (|change| change.haproxy) as fn(&super::changes::Change) -> Seen, ""),
        ("Baton", |change| change.baton, " (to reach: p99 ≤ 50 ms; 0)"),
    ] {
        let seen: Vec<Seen> = figures.changes.iter().map(of).collect();
        let mut landed: Vec<Duration> = seen.iter().map(|seen| seen.landed).collect();
        landed.sort_unstable();
        let at = |percent: usize| {
            let place = (landed.len() * percent).div_ceil(100).max(1) - 1;
            landed.get(place).copied().unwrap_or_default().as_millis()
        };
        let to_the_old = || seen.iter().map(|seen| seen.to_the_old);
        text.push_str(&format!(
            "| {name}{goal} | {} ms | {} ms | {} ms | {} / {} | {} |\n",
            at(50),
            at(99),
            at(100),
            to_the_old().sum::<usize>(),
            to_the_old().max().unwrap_or_default(),
            seen.iter().map(|seen| seen.failed).sum::<usize>(),
        ));
    }
    // A run is bounded: several can be put together.
    let all: Vec<String> =
        figures.changes.iter().map(|change| change.baton.landed.as_millis().to_string()).collect();
    text.push_str(&format!("\nAll of Baton's, in ms: {}.\n", all.join(" ")));
}

pub(crate) fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    let upper = numbers.get(numbers.len() / 2).copied().unwrap_or_default();
    let lower = numbers.get(numbers.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    (upper + lower) / 2.0
}

#[cfg(test)]
mod tests {
    use super::{loads, median};
    use crate::bench_router::Pair;
    use crate::bench_router::cost::{Cost, Load};

    #[test]
    fn medians_are_of_the_pairs() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        let cost = |rate, proxy| Cost { rate, proxy, machine: 50.0 };
        let pair = |rate| Pair { haproxy: cost(1000.0, 20.0), baton: cost(rate, 10.0) };
        let mut text = String::new();
        loads(&mut text, Load::Prepared(8), &[pair(900.0), pair(1100.0), pair(1050.0)]);
        assert!(
            text.contains("| transactions per second | 1000.0 | 1050.0 | 1.05 (0.90, 1.10) | ≥ 1.0 |"),
            "{text}"
        );
        assert!(
            text.contains("| µs of the proxy per transaction | 20.0 | 10.0 | 0.50 (0.50, 0.50) | ≤ 0.75 |"),
            "{text}"
        );
    }
}
