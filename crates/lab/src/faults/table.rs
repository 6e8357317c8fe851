//! The campaign's Markdown table. Pure.

use super::{Campaign, Options, Outcome};
use crate::bench::Mode;
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) fn markdown(options: &Options, campaign: &Campaign) -> String {
    let rounds = &campaign.outcomes;
    let faults: usize = rounds.iter().map(|round| round.kinds.len()).sum();
    let pairs = rounds.iter().filter(|round| round.kinds.len() > 1).count();
    let missing = rounds.iter().map(|round| round.missing).max().unwrap_or_default();
    let two: Duration = rounds.iter().map(|round| round.two_primaries).sum();
    let mut text = format!(
        "{faults} faults in {} rounds, {pairs} of them pairs; synchronous_mode {}, ttl {}, seed {}. {} rows acknowledged, \
         {missing} missing, two primaries {} ms, {} rounds broken.\n\n",
        rounds.len(),
        options.mode.word(),
        options.ttl,
        options.seed,
        campaign.acknowledged,
        two.as_millis(),
        campaign.broken.len(),
    );
    text.push_str("| fault | rounds | pause p50 | p95 | max | rows missing | two primaries |\n|---|---|---|---|---|---|---|\n");
    let (mut alone, mut paired) = (BTreeMap::new(), BTreeMap::new());
    for round in rounds {
        let mut names: Vec<String> = round.kinds.iter().map(ToString::to_string).collect();
        names.sort();
        let table = if names.len() > 1 { &mut paired } else { &mut alone };
        table.entry(names.join(" + ")).or_insert_with(Vec::new).push(round);
    }
    for (name, rounds) in alone {
        text.push_str(&row(&name, &rounds));
    }
    for (name, rounds) in paired {
        text.push_str(&row(&name, &rounds));
    }
    text.push_str(&row("all", &rounds.iter().collect::<Vec<_>>()));
    if options.mode == Mode::Off {
        text.push_str("\nWithout a synchronous mode, rows that had reached no standby may be missing.\n");
    }
    for why in &campaign.broken {
        text.push_str(&format!("\nbroken: {why}\n"));
    }
    text
}

fn row(name: &str, rounds: &[&Outcome]) -> String {
    let mut pauses: Vec<Duration> = rounds.iter().map(|round| round.pause).collect();
    pauses.sort();
    let at = |percent: usize| {
        let place = (pauses.len() * percent).div_ceil(100).saturating_sub(1);
        pauses.get(place).map_or("–".to_owned(), |pause| format!("{:.2} s", pause.as_secs_f64()))
    };
    let missing = rounds.iter().map(|round| round.missing).max().unwrap_or_default();
    let two: Duration = rounds.iter().map(|round| round.two_primaries).sum();
    format!(
        "| {name} | {} | {} | {} | {} | {missing} | {} ms |\n",
        rounds.len(),
        at(50),
        at(95),
        at(100),
        two.as_millis()
    )
}

#[cfg(test)]
mod tests {
    use super::markdown;
    use crate::faults::kind::{Kind, Who};
    use crate::faults::{Campaign, Options, Outcome};
    use std::time::Duration;

    #[test]
    fn faults_and_pairs_have_rows_of_their_own() {
        let outcome = |kinds: &[Kind], millis, missing| Outcome {
            kinds: kinds.to_vec(),
            pause: Duration::from_millis(millis),
            failed: 0,
            missing,
            two_primaries: Duration::ZERO,
        };
        let killed = Kind::KillHost(Who::Primary);
        let campaign = Campaign {
            outcomes: vec![
                outcome(&[killed], 500, 0),
                outcome(&[killed], 300, 0),
                outcome(&[Kind::Switchover, killed], 900, 2),
            ],
            broken: vec!["round 4: it stood still".to_owned()],
            acknowledged: 77,
        };
        let text = markdown(&Options::default(), &campaign);
        assert!(text.starts_with("4 faults in 3 rounds, 1 of them pairs;"), "{text}");
        assert!(
            text.contains("77 rows acknowledged, 2 missing, two primaries 0 ms, 1 rounds broken"),
            "{text}"
        );
        assert!(
            text.contains("| primary's host killed | 2 | 0.30 s | 0.50 s | 0.50 s | 0 | 0 ms |"),
            "{text}"
        );
        assert!(text.contains("| primary's host killed + switchover | 1 | 0.90 s"), "{text}");
        assert!(text.contains("| all | 3 | 0.50 s | 0.90 s | 0.90 s | 2 | 0 ms |"), "{text}");
        assert!(text.ends_with("broken: round 4: it stood still\n"), "{text}");
    }
}
