//! Which of several members gets the next session: the fewest sessions for its share, or each in its turn.
//!
//! A member's share is its weight; one that became usable only just now comes to it within `slow_start`. The primary has
//! its full share from the first moment: nobody else can do its work.

use crate::choose::Candidate;
use crate::config::{Balance, Service};
use std::collections::BTreeMap;
use types::{Moment, NodeName};

/// The turns of one service: who has a session to its credit. A weighted round robin without bursts.
#[derive(Default, Debug)]
pub(crate) struct Wheel {
    credit: BTreeMap<NodeName, i64>,
}

/// The parts of a share: a weight of 1 at the beginning of a slow start is still a share.
const PARTS: u64 = 1000;

/// The least part of its weight that a member gets.
const LEAST_PARTS: u64 = 10;

/// The member for the next session. `sessions` tells how many a member has; `turn` differs from call to call and
/// spreads sessions over equals.
#[must_use]
pub(crate) fn pick<'a>(
    service: &Service,
    candidates: &[Candidate<'a>],
    sessions: impl Fn(&NodeName) -> usize,
    wheel: &mut Wheel,
    turn: usize,
    now: Moment,
) -> Option<Candidate<'a>> {
    let shares: Vec<(Candidate<'a>, u64)> =
        candidates.iter().map(|candidate| (*candidate, share(service, candidate, now))).collect();
    match service.balance {
        Balance::LeastConn => {
            let count = shares.len().max(1);
            let place = |at: usize| (at + count - turn % count) % count;
            let load = |(candidate, share): &(Candidate<'a>, u64)| {
                // Sessions per share, as a whole number: fine enough for any weight.
                (sessions(&candidate.target.name) as u64 + 1).saturating_mul(1 << 32) / share
            };
            let best = shares.iter().enumerate().min_by_key(|(at, entry)| (load(entry), place(*at)));
            best.map(|(_, (candidate, _))| *candidate)
        }
        Balance::RoundRobin => wheel.next(&shares),
    }
}

/// Never 0.
fn share(service: &Service, candidate: &Candidate<'_>, now: Moment) -> u64 {
    let weight = service.weights.get(&candidate.target.name).copied().unwrap_or(Service::WEIGHT);
    let (age, ramp) = (now.since(candidate.target.since).as_millis(), service.slow_start.as_millis());
    let parts = if candidate.term.is_some() || age >= ramp {
        PARTS
    } else {
        u64::try_from(age * u128::from(PARTS) / ramp.max(1)).unwrap_or(PARTS).max(LEAST_PARTS)
    };
    (u64::from(weight) * parts).max(1)
}

impl Wheel {
    fn next<'a>(&mut self, shares: &[(Candidate<'a>, u64)]) -> Option<Candidate<'a>> {
        self.credit.retain(|name, _| shares.iter().any(|(candidate, _)| candidate.target.name == *name));
        let mut all = 0i64;
        let mut best: Option<(Candidate<'a>, i64)> = None;
        for (candidate, share) in shares {
            let share = i64::try_from(*share).unwrap_or(i64::MAX / 2);
            all = all.saturating_add(share);
            let credit = self.credit.entry(candidate.target.name.clone()).or_insert(0);
            *credit = credit.saturating_add(share);
            if best.is_none_or(|(_, most)| *credit > most) {
                best = Some((*candidate, *credit));
            }
        }
        let (chosen, _) = best?;
        if let Some(credit) = self.credit.get_mut(&chosen.target.name) {
            *credit = credit.saturating_sub(all);
        }
        Some(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::{Wheel, pick};
    use crate::choose::Candidate;
    use crate::config::{Balance, Role, Service};
    use crate::truth::Target;
    use std::time::Duration;
    use types::{Moment, NodeName};

    const NOW: Moment = Moment(1_000_000);

    fn targets(names: &[(&str, u64)]) -> Vec<Target> {
        let target = |(name, age): &(&str, u64)| Target {
            name: NodeName::from(*name),
            host: "h".into(),
            port: 1,
            pooler: None,
            lag: None,
            sync: false,
            since: NOW.before(Duration::from_secs(*age)),
        };
        names.iter().map(target).collect()
    }

    fn service(balance: Balance, weights: &[(&str, u32)]) -> Service {
        let mut service = Service::new("s", ([127, 0, 0, 1], 0).into(), Role::Replica);
        service.balance = balance;
        service.weights = weights.iter().map(|(name, weight)| (NodeName::from(*name), *weight)).collect();
        service
    }

    /// The first letters of whom so many sessions go to, one after the other, none of which ends.
    fn spread(service: &Service, names: &[(&str, u64)], count: usize) -> String {
        let targets = targets(names);
        let all: Vec<_> = targets.iter().map(|target| Candidate { target, term: None }).collect();
        let (mut wheel, mut taken) = (Wheel::default(), String::new());
        for turn in 0..count {
            let sessions = |name: &NodeName| taken.matches(name.as_str()).count();
            let chosen = pick(service, &all, sessions, &mut wheel, turn, NOW).unwrap();
            taken.push_str(chosen.target.name.as_str());
        }
        taken
    }

    #[test]
    fn equals_take_turns_and_weights_give_shares() {
        let old = [("a", 900), ("b", 900), ("c", 900)];
        assert_eq!(spread(&service(Balance::LeastConn, &[]), &old, 6), "abcabc");
        assert_eq!(spread(&service(Balance::RoundRobin, &[]), &old, 6), "abcabc");
        for balance in [Balance::LeastConn, Balance::RoundRobin] {
            let weighted = service(balance, &[("a", 200), ("b", 100), ("c", 100)]);
            let taken = spread(&weighted, &old, 40);
            let counts = ["a", "b", "c"].map(|name| taken.matches(name).count());
            assert_eq!(counts, [20, 10, 10], "{balance:?}: {taken}");
        }
        assert!(spread(&service(Balance::RoundRobin, &[("a", 200)]), &old, 8).contains("ab"), "no bursts");
    }

    #[test]
    fn a_new_replica_comes_to_its_share_slowly() {
        for balance in [Balance::LeastConn, Balance::RoundRobin] {
            let mut slow = service(balance, &[]);
            slow.slow_start = Duration::from_secs(30);
            let taken = spread(&slow, &[("a", 900), ("b", 3)], 110);
            let of_b = taken.matches('b').count();
            assert!((5..=15).contains(&of_b), "{balance:?}: {of_b} of 110");
            let taken = spread(&slow, &[("a", 900), ("b", 31)], 110);
            assert_eq!(taken.matches('b').count(), 55, "{balance:?}");
        }
    }
}
