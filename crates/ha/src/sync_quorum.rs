//! Which standbys must confirm a commit, and which may be promoted: two values that live in two places and change one after
//! the other.
//!
//! ```text
//!   PostgreSQL  synchronous_standby_names   a commit is acknowledged when `count` of `names` have it
//!   etcd        /sync                       an election is won with `quorum` + 1 of `voters`, the winner's own vote included
//! ```
//! The law: every set that can acknowledge a commit shares a member with every set that can win an election,
//! `|voters ∪ names| <= quorum + count`, and one of the two lists lies within the other, at every moment, whichever of the two changes first, whether its effect is seen
//! yet, and wherever the change is broken off. Each step here keeps it against the other value as it is; a step that asks more
//! (of commits or of voters) comes before the one that asks less. In the mode `on` the quorum is 0: each voter alone is
//! enough, so all of them must have every commit.
//!
//! Commits from before the last change of the names were acknowledged by others. A standby that has reached the position at
//! which the names had certainly changed (`confirmed`) has all of those. Voters that have not, may be at most `quorum`.

use std::collections::BTreeSet;
use types::{NodeName, StandbyNames};

/// What `/sync` says of those who may be promoted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Promise {
    pub voters: BTreeSet<NodeName>,
    /// So many voters must be seen beside the winner, if the winner is one of them.
    pub quorum: usize,
}

/// Which standbys shall be in both, and how many of them a commit waits for.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Goal {
    pub names: BTreeSet<NodeName>,
    pub count: usize,
    /// Written as ANY.
    pub any: bool,
    /// Without any standby commits wait for one to come.
    pub strict: bool,
}

/// What is to be changed next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing: both are as they shall be.
    Rest,
    /// Nothing before these have confirmed.
    Await(BTreeSet<NodeName>),
    Names(StandbyNames),
    Promise(Promise),
    /// Both, one after the other: the second only when the first has had its effect.
    PromiseThenNames(Promise, StandbyNames),
}

impl Goal {
    /// The value of `synchronous_standby_names` for it.
    #[must_use]
    pub fn names(&self) -> StandbyNames {
        let (count, names) = (self.count, self.names.clone());
        match (names.is_empty(), self.strict, self.any) {
            (true, false, _) => StandbyNames::Nobody,
            (true, true, any) => StandbyNames::Everybody { any },
            (false, _, true) => StandbyNames::Any { count, names },
            (false, _, false) => StandbyNames::First { count, names },
        }
    }

    /// The value of `/sync` for it.
    #[must_use]
    pub fn promise(&self) -> Promise {
        Promise { voters: self.names.clone(), quorum: self.names.len().saturating_sub(self.count) }
    }
}

/// Whether every set that can acknowledge a commit meets every set that can win an election. Without voters nobody but the
/// leader itself can win one.
#[must_use]
pub fn fits(promise: &Promise, names: &StandbyNames) -> bool {
    let Promise { voters, quorum } = promise;
    match names {
        // Of a list longer than its count any part may be connected: the same as any of them.
        StandbyNames::First { count, names } | StandbyNames::Any { count, names } => {
            let nested = names.is_subset(voters) || voters.is_subset(names);
            voters.is_empty() || (nested && voters.len().max(names.len()) <= quorum + count)
        }
        StandbyNames::Nobody | StandbyNames::Everybody { .. } | StandbyNames::Other(_) => voters.is_empty(),
    }
}

/// Whether `/sync` may change from one promise to the other while these names are in effect. `confirmed` is unknown while a
/// change of the names is not certain to have taken effect.
#[must_use]
pub fn may_promise(
    before: &Promise,
    after: &Promise,
    names: &StandbyNames,
    confirmed: Option<&BTreeSet<NodeName>>,
) -> bool {
    // Whoever wins with the new promise would have won with the old one.
    let harder = after.voters.is_subset(&before.voters) && after.quorum >= before.quorum;
    let covered =
        confirmed.is_some_and(|confirmed| after.voters.difference(confirmed).count() <= after.quorum);
    fits(after, names) && (after.voters.is_empty() || harder || covered)
}

/// The next step from here to the goal. `names` is what was asked for last.
#[must_use]
pub fn next(
    promise: &Promise,
    names: &StandbyNames,
    confirmed: Option<&BTreeSet<NodeName>>,
    goal: &Goal,
) -> Step {
    let (wanted, target) = (goal.names(), goal.promise());
    if !fits(promise, names) {
        // Somebody else has changed the names: nobody may be promoted on the strength of them.
        return Step::PromiseThenNames(Promise::default(), wanted);
    }
    if *names != wanted {
        if fits(promise, &wanted) {
            return Step::Names(wanted);
        }
        if may_promise(promise, &target, names, confirmed) {
            return Step::PromiseThenNames(target, wanted);
        }
        return towards(promise, names, &target, wanted);
    }
    if *promise == target {
        return Step::Rest;
    }
    if may_promise(promise, &target, names, confirmed) {
        return Step::Promise(target);
    }
    let missing = confirmed.map_or_else(
        || target.voters.clone(),
        |confirmed| target.voters.difference(confirmed).cloned().collect(),
    );
    Step::Await(missing)
}

/// A step on the way when neither value can be changed to the goal at once: fewer voters.
fn towards(promise: &Promise, names: &StandbyNames, target: &Promise, wanted: StandbyNames) -> Step {
    let voters: BTreeSet<NodeName> = promise.voters.intersection(&target.voters).cloned().collect();
    let quorum = if voters.is_empty() { 0 } else { promise.quorum.max(target.quorum) };
    let fewer = Promise { voters, quorum };
    if !fits(&fewer, names) {
        // The names lie within the voters, and not within those that stay: first the same lists, then fewer voters.
        let count = promise.voters.len().saturating_sub(promise.quorum);
        return Step::Names(StandbyNames::Any { count, names: promise.voters.clone() });
    }
    if fits(&fewer, &wanted) {
        return Step::PromiseThenNames(fewer, wanted);
    }
    Step::Promise(fewer)
}
