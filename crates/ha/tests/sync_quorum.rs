//! The overlap law at every intermediate state of every change: all promises and names over up to four standbys (five nodes with
//! the leader), every goal, every set of those that have confirmed, and a goal that changes on the way.
//!
//! The law itself is checked here by its meaning: every set that can acknowledge is put against every set that can win. The last test
//! walks through every state that can be reached at all.

use ha::sync_quorum::{Goal, Promise, Step, fits, may_promise, next};
use std::collections::BTreeSet;
use types::{NodeName, StandbyNames};

type Set = BTreeSet<NodeName>;

fn set(mask: usize) -> Set {
    let all = ["b", "c", "d", "e"].into_iter().enumerate();
    all.filter(|(bit, _)| mask & (1 << bit) != 0).map(|(_, name)| NodeName::from(name)).collect()
}

fn subsets(of: &Set) -> Vec<Set> {
    (0..16).map(set).filter(|subset| subset.is_subset(of)).collect()
}

/// The sets of standbys that can acknowledge a commit. `None`: commits need nobody.
fn acknowledging(names: &StandbyNames) -> Option<Vec<Set>> {
    match names {
        StandbyNames::First { count, names } | StandbyNames::Any { count, names } => {
            Some(subsets(names).into_iter().filter(|subset| subset.len() == *count).collect())
        }
        StandbyNames::Nobody | StandbyNames::Everybody { .. } | StandbyNames::Other(_) => None,
    }
}

/// The sets of voters that make a winner.
fn winning(promise: &Promise) -> Vec<Set> {
    subsets(&promise.voters).into_iter().filter(|subset| subset.len() == promise.quorum + 1).collect()
}

/// The law by its meaning.
fn overlap(promise: &Promise, names: &StandbyNames) -> bool {
    match acknowledging(names) {
        None => winning(promise).is_empty(),
        Some(acks) => winning(promise).iter().all(|win| acks.iter().all(|ack| !win.is_disjoint(ack))),
    }
}

fn goals() -> Vec<Goal> {
    let mut goals = Vec::new();
    for mask in 0..16 {
        let names = set(mask);
        for any in [false, true] {
            // Only without any name does it make a difference.
            for strict in if names.is_empty() { vec![false, true] } else { vec![false] } {
                let counts = if any { 1..=names.len().max(1) } else { names.len()..=names.len() };
                goals.extend(counts.map(|count| Goal {
                    names: names.clone(),
                    count: count.min(names.len()),
                    any,
                    strict,
                }));
            }
        }
    }
    goals
}

fn promises() -> Vec<Promise> {
    let of = |mask| (0..=4).map(move |quorum| Promise { voters: set(mask), quorum });
    (0..16).flat_map(of).collect()
}

fn values() -> Vec<StandbyNames> {
    let mut values = vec![
        StandbyNames::Nobody,
        StandbyNames::Everybody { any: true },
        StandbyNames::Other("x, y".to_owned()),
    ];
    for mask in 1..16 {
        let names = set(mask);
        for count in 1..=names.len() {
            values.push(StandbyNames::Any { count, names: names.clone() });
            values.push(StandbyNames::First { count, names: names.clone() });
        }
    }
    values
}

/// The promise and the names after each part of a step that may be the last to have an effect.
fn effects(step: &Step, promise: &Promise, names: &StandbyNames) -> Vec<(Promise, StandbyNames)> {
    match step {
        Step::Rest | Step::Await(_) => Vec::new(),
        Step::Names(after) => vec![(promise.clone(), after.clone())],
        Step::Promise(after) => vec![(after.clone(), names.clone())],
        Step::PromiseThenNames(after, then) => {
            vec![(after.clone(), names.clone()), (after.clone(), then.clone())]
        }
    }
}

#[test]
fn what_fits_overlaps() {
    let mut fitting = 0;
    for promise in promises() {
        for names in values() {
            if fits(&promise, &names) {
                fitting += 1;
                assert!(overlap(&promise, &names), "{promise:?} {names:?}");
            }
        }
    }
    assert!(fitting > 500, "only {fitting}");
}

#[test]
fn every_step_keeps_the_law_and_the_goal_is_reached() {
    let (promises, values, goals) = (promises(), values(), goals());
    let mut steps = 0_u64;
    for promise in &promises {
        for names in values.iter().filter(|names| fits(promise, names)) {
            for goal in &goals {
                // The names are in effect and everybody has confirmed: the goal is reached in a few steps.
                let everybody = set(15);
                let (mut at, mut with) = (promise.clone(), names.clone());
                for turn in 0.. {
                    assert!(turn < 8, "no end: {promise:?} {names:?} {goal:?}");
                    let step = next(&at, &with, Some(&everybody), goal);
                    for (promise, names) in effects(&step, &at, &with) {
                        steps += 1;
                        assert!(fits(&promise, &names) && overlap(&promise, &names), "{step:?} of {goal:?}");
                        (at, with) = (promise, names);
                    }
                    if step == Step::Rest {
                        break;
                    }
                }
                assert_eq!((at, with), (goal.promise(), goal.names()));
            }
        }
    }
    assert!(steps > 100_000, "only {steps} steps");
}

/// Commits from before a change of the names were acknowledged by old sets; whoever can win must have them still.
#[test]
fn a_promise_waits_for_those_who_must_have_the_older_commits() {
    let (goals, values) = (goals(), values());
    let mut grown = 0_u64;
    for before in promises() {
        let won_before = winning(&before);
        for names in values.iter().filter(|names| fits(&before, names)) {
            for goal in &goals {
                for mask in 0..16 {
                    let confirmed = set(mask);
                    for confirmed in [Some(&confirmed), None] {
                        let step = next(&before, names, confirmed, goal);
                        let after = match &step {
                            Step::Promise(after) | Step::PromiseThenNames(after, _) => after,
                            Step::Rest | Step::Await(_) | Step::Names(_) => continue,
                        };
                        grown += 1;
                        assert!(may_promise(&before, after, names, confirmed), "{step:?}");
                        let safe = |win: &Set| {
                            won_before.iter().any(|old| old.is_subset(win))
                                || confirmed.is_some_and(|confirmed| !win.is_disjoint(confirmed))
                        };
                        assert!(
                            winning(after).iter().all(safe),
                            "{before:?} {names:?} {confirmed:?} {step:?}"
                        );
                    }
                }
            }
        }
    }
    assert!(grown > 100_000, "only {grown} promises");
}

/// The effect of one change of the names is not seen yet when the next is decided: both must keep the law, with whatever goal.
#[test]
fn names_that_may_or_may_not_be_in_effect_keep_the_law() {
    let (goals, values) = (goals(), values());
    for promise in promises() {
        for names in values.iter().filter(|names| fits(&promise, names)) {
            for goal in &goals {
                let step = next(&promise, names, None, goal);
                if let Step::Names(asked) = &step {
                    for other in &goals {
                        for (after, _) in effects(&next(&promise, asked, None, other), &promise, asked) {
                            assert!(overlap(&after, names), "{promise:?} {names:?} {step:?} then {other:?}");
                        }
                    }
                }
            }
        }
    }
}

/// Names that somebody else set, and promises from before them: nobody is promoted on the strength of those.
#[test]
fn what_does_not_fit_is_taken_back_first() {
    let (goals, values) = (goals(), values());
    for promise in promises() {
        for names in values.iter().filter(|names| !fits(&promise, names)) {
            let step = next(&promise, names, None, &goals[3]);
            assert!(matches!(&step, Step::PromiseThenNames(none, _) if none.voters.is_empty()), "{step:?}");
        }
    }
}

/// Where a change can stand: `/sync`, the names that were asked for last, and those that are in effect.
type State = (Promise, StandbyNames, StandbyNames);

/// A set of names as four bits, for renaming.
fn mask(set: &Set) -> usize {
    (0..4).filter(|bit| set.is_superset(&self::set(1 << bit))).map(|bit| 1 << bit).sum()
}

fn renamed(mask: usize, order: [usize; 4]) -> usize {
    (0..4).filter(|bit| mask & (1 << bit) != 0).map(|bit| 1 << order[bit]).sum()
}

type Key = [(usize, usize, usize); 3];

fn key((promise, asked, effective): &State) -> Key {
    let names = |names: &StandbyNames| match names {
        StandbyNames::Nobody => (0, 0, 0),
        StandbyNames::Everybody { any } => (1, usize::from(*any), 0),
        StandbyNames::First { count, names } => (2, *count, mask(names)),
        StandbyNames::Any { count, names } => (3, *count, mask(names)),
        StandbyNames::Other(_) => (4, 0, 0),
    };
    [(5, promise.quorum, mask(&promise.voters)), names(asked), names(effective)]
}

/// Nothing depends on which standby has which name: of all states that differ by their names only, one is looked at.
fn like(state: &State, orders: &[[usize; 4]]) -> Key {
    let key = key(state);
    let turned = |order: &[usize; 4]| key.map(|(kind, count, mask)| (kind, count, renamed(mask, *order)));
    orders.iter().map(turned).min().unwrap_or(key)
}

fn orders() -> Vec<[usize; 4]> {
    let mut orders = Vec::new();
    for n in 0..256 {
        let order = [n & 3, (n >> 2) & 3, (n >> 4) & 3, (n >> 6) & 3];
        if order.iter().collect::<BTreeSet<_>>().len() == 4 {
            orders.push(order);
        }
    }
    orders
}

/// The proof of the law: from every goal, with every other goal in between, whoever has confirmed, and whether PostgreSQL has taken the
/// names up yet or not, every state that can be reached keeps it. Four standbys and their leader are five nodes; smaller clusters are
/// among them.
#[test]
fn every_state_on_every_way_keeps_the_law() {
    let (goals, orders) = (goals(), orders());
    assert_eq!(orders.len(), 24);
    let mut waiting: Vec<State> =
        goals.iter().map(|goal| (goal.promise(), goal.names(), goal.names())).collect();
    waiting.push((Promise::default(), StandbyNames::Nobody, StandbyNames::Nobody));
    let mut known: BTreeSet<Key> = waiting.iter().map(|state| like(state, &orders)).collect();
    let mut steps = 0_u64;
    while let Some((promise, asked, effective)) = waiting.pop() {
        assert!(fits(&promise, &asked), "{promise:?} {asked:?}");
        assert!(
            overlap(&promise, &effective),
            "{promise:?} with {effective:?} in effect, asked for {asked:?}"
        );
        let mut after = vec![(promise.clone(), asked.clone(), asked.clone())];
        // Who has confirmed is known only when the names are certainly in effect.
        let mut confirmed = vec![None];
        if asked == effective {
            confirmed.extend((0..16).map(|mask| Some(set(mask))));
        }
        for goal in &goals {
            for confirmed in &confirmed {
                let step = next(&promise, &asked, confirmed.as_ref(), goal);
                steps += 1;
                let effects = effects(&step, &promise, &asked).into_iter();
                after.extend(effects.map(|(promise, asked)| (promise, asked, effective.clone())));
            }
        }
        for state in after {
            if known.insert(like(&state, &orders)) {
                waiting.push(state);
            }
        }
    }
    assert!(known.len() > 100 && steps > 50_000, "only {} states and {steps} steps", known.len());
}
