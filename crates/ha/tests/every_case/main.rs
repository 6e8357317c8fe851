//! Every combination of small domains, one turn each, against the laws that hold in any single turn; and every reason that a duty
//! can give must come up.
#![expect(clippy::expect_used, reason = "helpers of a test")]

mod chooser;
mod laws;
mod reasons;
mod synchronous;
mod world;

use ha::Reason;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::mem::discriminant;
use std::time::Duration;

/// What came of the cases.
#[derive(Default)]
struct Outcome {
    cases: u64,
    /// Duty and code of each reason that came up, by its discriminants.
    reasons: BTreeMap<u64, (String, String)>,
    /// By law and reason: how often it was broken, and the first case.
    broken: BTreeMap<(&'static str, String), (u64, String)>,
}

/// Runs all cases of one slice of the domains.
fn walk(case: impl Fn(&mut chooser::Chooser) -> (ha::Observation, ha::Memory), outcome: &mut Outcome) {
    let mut chooser = chooser::Chooser::default();
    while chooser.more() {
        let (seen, memory) = case(&mut chooser);
        let decision = ha::decide(&seen, &memory, world::NOW);
        if let Some(law) = laws::broken(&seen, &memory, &decision) {
            let key = (law, format!("{}: {}", decision.reason.duty(), decision.reason.code()));
            let story = || (0, format!("{seen:?}\n{memory:?}\n{decision:?}"));
            outcome.broken.entry(key).or_insert_with(story).0 += 1;
        }
        if outcome.cases.is_multiple_of(64) {
            assert_eq!(decision, ha::decide(&seen, &memory, world::NOW), "not deterministic");
        }
        outcome.reasons.entry(branch(&decision.reason)).or_insert_with(|| {
            assert!(!decision.reason.to_string().trim().is_empty(), "no words for {:?}", decision.reason);
            (decision.reason.duty().to_owned(), decision.reason.code())
        });
        outcome.cases += 1;
    }
}

/// Which branch of which duty gave the reason, whatever the values in it.
fn branch(reason: &Reason) -> u64 {
    let mut hasher = DefaultHasher::new();
    discriminant(reason).hash(&mut hasher);
    match reason {
        Reason::LiveOn(why) => discriminant(why).hash(&mut hasher),
        Reason::KeepDeadline(why) => discriminant(why).hash(&mut hasher),
        Reason::NotFenced(why) => discriminant(why).hash(&mut hasher),
        Reason::NeedHealth(why) => discriminant(why).hash(&mut hasher),
        Reason::WaitForJob(why) => discriminant(why).hash(&mut hasher),
        Reason::CarryOutOrder(why) => discriminant(why).hash(&mut hasher),
        Reason::StandStill(why) => discriminant(why).hash(&mut hasher),
        Reason::NeedWatchdog(why) => discriminant(why).hash(&mut hasher),
        Reason::RefuseForeignData(why) => discriminant(why).hash(&mut hasher),
        Reason::SurviveWithoutEtcd(why) => discriminant(why).hash(&mut hasher),
        Reason::BootstrapOrClone(why) => discriminant(why).hash(&mut hasher),
        Reason::StepAside(why) => discriminant(why).hash(&mut hasher),
        Reason::KeepSchedule(why) => discriminant(why).hash(&mut hasher),
        Reason::Recover(why) => discriminant(why).hash(&mut hasher),
        Reason::LeadStandbyCluster(why) => discriminant(why).hash(&mut hasher),
        Reason::Lead(why) => discriminant(why).hash(&mut hasher),
        Reason::Synchronize(why) => discriminant(why).hash(&mut hasher),
        Reason::Race(why) => discriminant(why).hash(&mut hasher),
        Reason::Follow(why) => discriminant(why).hash(&mut hasher),
    }
    hasher.finish()
}

#[test]
fn every_case_keeps_the_laws_and_every_reason_comes_up() {
    let began = clock::now();
    let mut outcome = Outcome::default();
    std::thread::scope(|scope| {
        let walks = world::Slice::ALL.map(|slice| {
            scope.spawn(move || {
                let mut part = Outcome::default();
                walk(|chooser| world::case(chooser, slice), &mut part);
                part
            })
        });
        walk(synchronous::case, &mut outcome);
        for part in walks.map(|walk| walk.join().unwrap()) {
            outcome.cases += part.cases;
            outcome.reasons.extend(part.reasons);
            outcome.broken.extend(part.broken);
        }
    });
    let took = clock::now().since(began).max(Duration::from_millis(1));
    println!("{} cases, {:.0} a second", outcome.cases, outcome.cases as f64 / took.as_secs_f64());
    for ((law, reason), (count, story)) in &outcome.broken {
        println!("{count} times broken: {law} ({reason})\n{story}");
    }
    assert!(outcome.broken.is_empty(), "{} laws are broken", outcome.broken.len());
    let missing: Vec<(String, String)> = reasons::all()
        .into_iter()
        .filter(|reason| !outcome.reasons.values().any(|known| known == reason))
        .collect();
    assert!(missing.is_empty(), "reasons that no case gives: {missing:#?}");
    assert!(outcome.cases > 500_000, "only {} cases", outcome.cases);
}
