//! The bench's Markdown table. Pure text, but for the description of the machine.

use super::{Options, Series};
use crate::binaries::Binaries;
use crate::demo::Event;
use std::fs;
use std::process::Command;
use std::time::Duration;

/// What we want to reach, as people compare it, with a lease of `ttl` seconds.
fn goal(event: Event, ttl: u32) -> String {
    match event {
        Event::KillPostmaster => "≤ 0.8 s".to_owned(),
        Event::KillHost => format!("≤ {ttl}.7 s"),
        Event::UnplugHost | Event::CutFromEtcd => format!("≤ {}.0 s", ttl + 1),
        Event::FreezeAgent => format!("≤ {ttl}.7 s, never two primaries"),
        Event::KillAgent => "never two primaries".to_owned(),
        Event::Switchover => "≤ 0.5 s, no failed connection".to_owned(),
        Event::KillSyncStandby => "≤ 0.3 s".to_owned(),
        Event::HangPostgres | Event::FillWalDisk => "≤ 5 s".to_owned(),
        Event::KillEtcdLeader | Event::StopEtcd(_) | Event::StopSyncStandby => "no pause".to_owned(),
    }
}

pub(super) fn markdown(options: &Options, binaries: &Binaries, series: &[Series], memory: &[u64]) -> String {
    let mut text = format!(
        "Pause: the longest gap between two acknowledged commits; 100 single-row commits a second over 4 connections \
         through the router. Three nodes, three etcd members, ttl {}, {} runs each, {}. Median, in parentheses min and max.\n\n",
        options.ttl,
        options.runs,
        machine(binaries),
    );
    text.push_str(&pauses(options, series));
    text.push_str("\nWhat else clients saw, at most in one run:\n\n");
    text.push_str("| event | synchronous_mode | runs | failed statements | failed connections | rows missing | two primaries |\n");
    text.push_str("|---|---|---|---|---|---|---|\n");
    for one in series {
        let most =
            |of: &dyn Fn(&super::Outcome) -> usize| one.outcomes.iter().map(of).max().unwrap_or_default();
        let twice = one.outcomes.iter().map(|outcome| outcome.two_primaries).max().unwrap_or_default();
        let twice = match one.event.needs_synchronous() {
            true => "not watched".to_owned(),
            false => format!("{} ms", twice.as_millis()),
        };
        text.push_str(&format!(
            "| {} | {} | {} | {} | {} | {} | {twice} |\n",
            one.event.describe(),
            one.mode.word(),
            one.outcomes.len(),
            most(&|outcome| outcome.failed_statements),
            most(&|outcome| outcome.failed_connections),
            most(&|outcome| outcome.missing),
        ));
    }
    for one in series.iter().filter(|one| !one.broken.is_empty()) {
        let (event, mode) = (one.event.describe(), one.mode.word());
        text.push_str(&format!("\n{event}, {mode}: did not end well {} times:\n", one.broken.len()));
        one.broken.iter().for_each(|why| text.push_str(&format!("- {why}\n")));
    }
    if let (Some(least), Some(most)) = (memory.iter().min(), memory.iter().max()) {
        text.push_str(&format!(
            "\nMemory of an agent with its guard (PSS): {:.1} to {:.1} MB; to reach: ≤ 15 MB.\n",
            mega(*least),
            mega(*most)
        ));
    }
    text
}

#[expect(clippy::cast_precision_loss, reason = "a figure with one decimal")]
fn mega(kilobytes: u64) -> f64 {
    kilobytes as f64 / 1024.0
}

/// A row for each event, a column for each mode.
fn pauses(options: &Options, series: &[Series]) -> String {
    let modes: Vec<&str> = options.modes.iter().map(|mode| mode.word()).collect();
    let mut text = format!("| event | to reach | {} |\n", modes.join(" | "));
    text.push_str(&format!("|---|---|{}\n", "---|".repeat(modes.len())));
    let mut events: Vec<Event> = Vec::new();
    for one in series {
        if !events.contains(&one.event) {
            events.push(one.event);
        }
    }
    for event in events {
        let cells = options.modes.iter().map(|mode| {
            let one = series.iter().find(|one| one.event == event && one.mode == *mode);
            one.map_or("–".to_owned(), |one| {
                spread(one.outcomes.iter().map(|outcome| outcome.pause).collect())
            })
        });
        let cells: Vec<String> = cells.collect();
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            event.describe(),
            goal(event, options.ttl),
            cells.join(" | ")
        ));
    }
    text
}

/// Median, least and most; a dash without a value.
fn spread(mut pauses: Vec<Duration>) -> String {
    pauses.sort();
    let middle = pauses.len().saturating_sub(1) / 2;
    match (pauses.get(middle), pauses.first(), pauses.last()) {
        (Some(median), Some(least), Some(most)) => {
            let [median, least, most] = [median, least, most].map(Duration::as_secs_f64);
            format!("{median:.2} s ({least:.2} to {most:.2})")
        }
        (_, _, _) => "–".to_owned(),
    }
}

pub(crate) fn machine(binaries: &Binaries) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let first_line = |path: &std::path::Path| {
        let output =
            Command::new(path).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).lines().next().unwrap_or_default().to_owned()
    };
    let postgres = first_line(&binaries.postgres.join("postgres"));
    format!("{cores} cores, Linux {}, {postgres}, {}", kernel.trim(), first_line(&binaries.etcd))
}

#[cfg(test)]
mod tests {
    use super::spread;
    use std::time::Duration;

    #[test]
    fn the_median_is_one_of_the_values() {
        let seconds = |values: &[u64]| values.iter().map(|value| Duration::from_secs(*value)).collect();
        let shown = |values: &[u64]| spread(seconds(values));
        assert_eq!(shown(&[3, 1, 2]), "2.00 s (1.00 to 3.00)");
        assert_eq!(shown(&[4, 1]), "1.00 s (1.00 to 4.00)");
        assert_eq!(shown(&[]), "–");
    }
}
