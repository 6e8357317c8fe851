//! The figures as Markdown tables. Pure text, but for the description of the machine.

use super::names::{Rate, Speed};
use super::others::Reference;
use super::ours::{Death, GRACE, Kind, Move};
use super::{Figures, Options};
use crate::bench::machine;
use crate::binaries::Binaries;
use std::time::Duration;

pub(crate) fn markdown(options: &Options, binaries: &Binaries, figures: &Figures) -> String {
    let mut text = format!(
        "Addresses and names in network namespaces: {}. Median (least to most); from \"writable\" is from the last look at etcd that did not \
         show it yet.\n",
        machine(binaries)
    );
    moves(&mut text, &figures.moves);
    if !figures.repairs.is_empty() {
        let back = figures.repairs.iter().flatten().copied();
        text += &format!("| removed by hand: until it is back | {} | ≤ 100 ms |\n", spread(back));
    }
    deaths(&mut text, &figures.deaths);
    if !figures.moves.is_empty() || !figures.deaths.is_empty() {
        text += &format!(
            "\nTwo of our hosts had an address in {} looks (one every 5 ms; to reach: 0).\n",
            figures.twice
        );
    }
    references(&mut text, &figures.references);
    rates(&mut text, &figures.rates, options.seconds);
    text
}

fn moves(text: &mut String, moves: &[Move]) {
    if moves.is_empty() {
        return;
    }
    *text += &format!("\n| planned switchover, {} times | Baton | to reach |\n|---|---|---|\n", moves.len());
    for (at, family) in ["IPv4", "IPv6"].into_iter().enumerate() {
        let back = moves.iter().filter_map(|one| one.back.get(at).copied());
        *text +=
            &format!("| {family}: from writable to the first answer there | {} | ≤ 100 ms |\n", spread(back));
        let free: Vec<Option<Duration>> = moves.iter().filter_map(|one| one.free.get(at).copied()).collect();
        let early = free.iter().filter(|free| free.is_none()).count();
        *text += &format!(
            "| {family}: from gone here to come there | {}; {early} too early | 0 too early |\n",
            spread(free.into_iter().flatten())
        );
    }
    let named = moves.iter().flat_map(|one| one.named.iter().copied());
    let misnamed: usize = moves.iter().map(|one| one.misnamed).sum();
    *text +=
        &format!("| name: from writable to the new answer of each server | {} | ≤ 50 ms |\n", spread(named));
    *text += &format!("| name: old answers of a server after its first new one | {misnamed} | 0 |\n");
    let client = moves.iter().map(|one| one.client);
    *text += &format!(
        "| client that looks the name up each time: from writable to its first statement | {} | |\n",
        spread(client)
    );
}

fn deaths(text: &mut String, deaths: &[Death]) {
    for (kind, words) in [(Kind::Killed, "SIGKILL"), (Kind::Frozen, "SIGSTOP")] {
        let own: Vec<&Death> = deaths.iter().filter(|death| death.kind == kind).collect();
        if own.is_empty() {
            continue;
        }
        let good = |death: &&&Death| {
            let in_time = death.gone.iter().all(|gone| *gone <= death.left + GRACE);
            in_time && death.free.iter().all(Option::is_some)
        };
        let good = own.iter().filter(good).count();
        *text +=
            &format!("\n| agent gets {words}, {} times | Baton | to reach |\n|---|---|---|\n", own.len());
        *text += &format!("| lifetime left | {} | |\n", spread(own.iter().map(|death| death.left)));
        let gone = own.iter().flat_map(|death| death.gone);
        *text += &format!("| address gone after | {} | ≤ lifetime left + 0.5 s |\n", spread(gone));
        let free = own.iter().flat_map(|death| death.free).flatten();
        *text += &format!("| from gone here to come there | {} | |\n", spread(free));
        *text += &format!(
            "| gone in time and before the next holder had it | {good} of {0} | {0} of {0} |\n",
            own.len()
        );
    }
}

fn references(text: &mut String, references: &[Reference]) {
    if references.is_empty() {
        return;
    }
    *text += "\n| beside it | n | from the event to the first answer there | both had the address | |\n|---|---|---|---|---|\n";
    for own in references {
        let never = own.back.iter().filter(|back| back.is_none()).count();
        let never = if never > 0 { format!("; {never} without one") } else { String::new() };
        *text += &format!(
            "| {} | {} | {}{never} | {} | {} |\n",
            own.what,
            own.back.len(),
            spread(own.back.iter().flatten().copied()),
            own.kept,
            own.remark
        );
    }
}

fn rates(text: &mut String, rates: &[Rate], seconds: u32) {
    if rates.is_empty() {
        return;
    }
    *text += &format!(
        "\n| names, {} alternating pairs of {seconds} s | answers a second | one question: median | 99 of 100 |\n|---|---|---|---|\n",
        rates.len()
    );
    type Of = fn(&Rate) -> Speed;
    let both: [(&str, Of); 2] = [("dnsmasq", |rate| rate.dnsmasq), ("Baton", |rate| rate.ours)];
    for (name, of) in both {
        let mut counts: Vec<f64> = rates.iter().map(|rate| of(rate).per_second).collect();
        counts.sort_by(f64::total_cmp);
        let middle = counts.get(counts.len() / 2).copied().unwrap_or_default();
        let (least, most) =
            (counts.first().copied().unwrap_or_default(), counts.last().copied().unwrap_or_default());
        *text += &format!(
            "| {name} | {middle:.0} ({least:.0} to {most:.0}) | {} | {} |\n",
            micros(rates.iter().map(|rate| of(rate).median)),
            micros(rates.iter().map(|rate| of(rate).slow))
        );
    }
}

fn spread(values: impl Iterator<Item = Duration>) -> String {
    let mut values: Vec<Duration> = values.collect();
    values.sort();
    let (Some(least), Some(most)) = (values.first(), values.last()) else { return "–".to_owned() };
    let middle = values.get((values.len() - 1) / 2).unwrap_or(least);
    if *most < Duration::from_secs(2) {
        return format!("{} ms ({} to {})", middle.as_millis(), least.as_millis(), most.as_millis());
    }
    let seconds = Duration::as_secs_f64;
    format!("{:.2} s ({:.2} to {:.2})", seconds(middle), seconds(least), seconds(most))
}

/// The median.
fn micros(values: impl Iterator<Item = Duration>) -> String {
    let mut values: Vec<Duration> = values.collect();
    values.sort();
    format!("{} µs", values.get(values.len() / 2).copied().unwrap_or_default().as_micros())
}

#[cfg(test)]
mod tests {
    use super::{deaths, moves, references, spread};
    use crate::bench_vip::others::Reference;
    use crate::bench_vip::ours::{Death, Kind, Move};
    use std::time::Duration;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn what_was_missed_is_counted() {
        let mut text = String::new();
        let good = Move {
            back: [ms(30), ms(40)],
            free: [Some(ms(9)); 2],
            named: vec![ms(5), ms(6)],
            misnamed: 0,
            client: ms(20),
        };
        let early = Move { free: [None, Some(ms(9))], misnamed: 2, ..good.clone() };
        moves(&mut text, &[good, early]);
        for line in [
            "| IPv4: from gone here to come there | 9 ms (9 to 9); 1 too early |",
            "after its first new one | 2 |",
            "30 ms (30 to 30) | ≤ 100 ms",
        ] {
            assert!(text.contains(line), "{text}");
        }
        let good =
            Death { kind: Kind::Killed, left: ms(3000), gone: [ms(3200), ms(3499)], free: [Some(ms(1)); 2] };
        let late = Death { gone: [ms(3501), ms(1)], ..good.clone() };
        let early = Death { free: [None, Some(ms(1))], ..good.clone() };
        deaths(&mut text, &[good, late, early]);
        assert!(
            text.contains("| gone in time and before the next holder had it | 1 of 3 | 3 of 3 |"),
            "{text}"
        );
        let never = Reference {
            what: "silence".into(),
            back: vec![None, Some(ms(24_000))],
            kept: 0,
            remark: String::new(),
        };
        references(&mut text, &[never]);
        assert!(text.contains("| silence | 2 | 24.00 s (24.00 to 24.00); 1 without one | 0 |"), "{text}");
        assert_eq!(spread([ms(3), ms(1), ms(2)].into_iter()), "2 ms (1 to 3)");
    }
}
