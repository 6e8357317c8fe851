//! What happens when, drawn from the seed before anything does. Pure.

use super::Options;
use super::dice::Dice;
use super::kind::Kind;
use std::fmt;
use std::time::Duration;

/// One fault: when it strikes, counted from the beginning of its round, and how long it lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strike {
    pub(super) kind: Kind,
    pub(super) at: Duration,
    pub(super) lasts: Duration,
}

/// A fault, or two that overlap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) strikes: Vec<Strike>,
}

/// The beginning or the end of a fault: the first one of each is the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    pub(super) at: Duration,
    pub(super) strike: usize,
}

const PAIRS_PERCENT: u64 = 45;

/// The rounds of a campaign.
pub(super) fn rounds(options: &Options, root: bool) -> Vec<Round> {
    let mut dice = Dice::new(options.seed);
    let kinds = Kind::all(root);
    let ttl = u64::from(options.ttl) * 1000;
    let (mut rounds, mut faults) = (Vec::new(), 0);
    while faults < options.faults {
        let mut strikes = Vec::new();
        let first = strike(&mut dice, &kinds, ttl, 0);
        let until = first.map_or(0, |first| millis(first.lasts));
        strikes.extend(first);
        if dice.percent(PAIRS_PERCENT) {
            // Most often while the first one lasts, or while others still recover from it.
            let delay = dice.between(0, until.max(ttl / 2));
            strikes.extend(strike(&mut dice, &kinds, ttl, delay));
        }
        faults += strikes.len();
        rounds.push(Round { strikes });
    }
    rounds
}

fn strike(dice: &mut Dice, kinds: &[Kind], ttl: u64, delay: u64) -> Option<Strike> {
    let kind = dice.pick(kinds)?;
    // Now shorter than a lease, now long enough that others take over.
    let lasts = if kind.is_brief() { 0 } else { dice.between(ttl / 10, ttl * 8 / 5) };
    Some(Strike { kind, at: Duration::from_millis(delay), lasts: Duration::from_millis(lasts) })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Round {
    /// The beginnings and the ends in the order of time.
    pub(super) fn moments(&self) -> Vec<Moment> {
        let both = self.strikes.iter().enumerate().flat_map(|(at, strike)| {
            [Moment { at: strike.at, strike: at }, Moment { at: strike.at + strike.lasts, strike: at }]
        });
        let mut moments: Vec<Moment> = both.collect();
        moments.sort();
        moments
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, strike) in self.strikes.iter().enumerate() {
            if at > 0 {
                write!(f, "; after {:.1} s ", strike.at.as_secs_f64())?;
            }
            write!(f, "{}", strike.kind)?;
            if !strike.lasts.is_zero() {
                write!(f, " for {:.1} s", strike.lasts.as_secs_f64())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::rounds;
    use crate::faults::Options;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_campaign_with_every_kind_and_with_pairs() {
        let options = |seed| Options { faults: 300, seed, ..Options::default() };
        let one = rounds(&options(7), true);
        assert_eq!(one, rounds(&options(7), true));
        assert_ne!(one, rounds(&options(8), true));
        let struck: BTreeSet<_> =
            one.iter().flat_map(|round| &round.strikes).map(|strike| strike.kind).collect();
        let all: BTreeSet<_> = super::Kind::all(true).into_iter().collect();
        assert_eq!(struck, all);
        let pairs = one.iter().filter(|round| round.strikes.len() == 2).count();
        assert!(pairs > one.len() / 3, "{pairs} of {}", one.len());
        for round in &one {
            let moments = round.moments();
            assert_eq!(moments.len(), 2 * round.strikes.len());
            assert!(moments.is_sorted());
        }
    }
}
