//! Which member gets a session: a pure function of the service, the truth and how many sessions each member has.

use crate::config::{Role, Service};
use crate::truth::{NoPrimary, Target, Truth};
use std::fmt;
use types::{NodeName, Term};

/// Where a session goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Choice<'a> {
    /// To the primary, as such: the session carries its term.
    Primary { target: &'a Target, term: Term },
    /// To a member for reading.
    Replica { target: &'a Target },
    /// Nowhere for now.
    Hold(Why),
}

/// Why a session has to wait: what is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    Primary(NoPrimary),
    /// No member for reading, and no primary to stand in.
    Replica(NoPrimary),
    /// No member for the offline service, where the primary never stands in.
    Offline,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Primary(why) => write!(f, "{why}"),
            Why::Replica(why) => write!(f, "no replica can be used, and {why}"),
            Why::Offline => write!(f, "no replica can be used"),
        }
    }
}

/// The target for a new session of `service`. `sessions` tells how many a member has; `failed` are the members that
/// this client has just tried in vain; `turn` differs from call to call and spreads sessions over equals.
#[must_use]
pub(crate) fn choose<'a>(
    service: &Service,
    truth: &'a Truth,
    sessions: impl Fn(&NodeName) -> usize,
    failed: &[NodeName],
    turn: usize,
) -> Choice<'a> {
    let primary = || match (&truth.primary, truth.in_force) {
        (Ok(target), Some(term)) => Ok((target, term)),
        (Ok(_), None) => Err(NoPrimary::NoLeader),
        (Err(why), _) => Err(why.clone()),
    };
    let near = |target: &&Target| match (service.max_lag, target.lag) {
        (Some(most), Some(lag)) => lag <= most,
        (Some(_), None) | (None, _) => true,
    };
    let least = |targets: &'a [Target]| {
        let usable: Vec<&Target> =
            targets.iter().filter(near).filter(|target| !failed.contains(&target.name)).collect();
        let count = usable.len().max(1);
        let place = |at: usize| (at + count - turn % count) % count;
        let best = usable.iter().enumerate().min_by_key(|(at, target)| (sessions(&target.name), place(*at)));
        best.map(|(_, target)| *target)
    };
    match service.role {
        Role::Primary => match primary() {
            Ok((target, term)) => Choice::Primary { target, term },
            Err(why) => Choice::Hold(Why::Primary(why)),
        },
        Role::Replica => match (least(&truth.replicas).or_else(|| least(&truth.offline)), primary()) {
            (Some(target), _) => Choice::Replica { target },
            (None, Ok((target, term))) => Choice::Primary { target, term },
            (None, Err(why)) => Choice::Hold(Why::Replica(why)),
        },
        Role::Offline => match least(&truth.offline).or_else(|| least(&truth.replicas)) {
            Some(target) => Choice::Replica { target },
            None => Choice::Hold(Why::Offline),
        },
    }
}

/// Every member that a session of `service` may be on: where a cancel request is sent that names an unknown session.
#[must_use]
pub(crate) fn candidates<'a>(service: &Service, truth: &'a Truth) -> Vec<&'a Target> {
    let primary = truth.primary.iter().filter(|_| truth.in_force.is_some());
    match service.role {
        Role::Primary => primary.collect(),
        Role::Replica => truth.replicas.iter().chain(&truth.offline).chain(primary).collect(),
        Role::Offline => truth.offline.iter().chain(&truth.replicas).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Choice, Why, choose};
    use crate::config::{Role, Service};
    use crate::truth::{NoPrimary, Target, Truth};
    use types::{NodeName, Term};

    fn target(name: &str, lag: u64) -> Target {
        Target { name: NodeName::from(name), host: "127.0.0.1".into(), port: 5432, lag: Some(lag) }
    }

    fn truth(primary: bool, replicas: &[(&str, u64)], offline: &[&str]) -> Truth {
        let mut truth = Truth::closed("test");
        truth.primary = Err(NoPrimary::NoLeader);
        if primary {
            truth.in_force = Some(Term(7));
            truth.primary = Ok(target("p", 0));
        }
        truth.replicas = replicas.iter().map(|(name, lag)| target(name, *lag)).collect();
        truth.offline = offline.iter().map(|name| target(name, 0)).collect();
        truth
    }

    /// The name that was chosen; `!` before it when as the primary, `-` when nobody.
    fn chosen(role: Role, truth: &Truth, busy: &[(&str, usize)], failed: &[&str], turn: usize) -> String {
        let service = Service { max_lag: Some(1000), ..Service::new("s", ([127, 0, 0, 1], 0).into(), role) };
        let count = |name: &NodeName| busy.iter().find(|(n, _)| name.as_str() == *n).map_or(0, |(_, c)| *c);
        let failed: Vec<NodeName> = failed.iter().map(|name| NodeName::from(*name)).collect();
        match choose(&service, truth, count, &failed, turn) {
            Choice::Primary { target, term } => {
                assert_eq!(term, Term(7));
                format!("!{}", target.name)
            }
            Choice::Replica { target } => target.name.to_string(),
            Choice::Hold(_) => "-".to_owned(),
        }
    }

    #[test]
    fn each_role_in_each_situation() {
        type Case<'a> = (bool, &'a [(&'a str, u64)], &'a [&'a str], [&'a str; 3]);
        let cases: [Case<'_>; 8] = [
            // primary, replicas, offline        → for primary, replica, offline
            (true, &[("a", 0)], &["o"], ["!p", "a", "o"]),
            (true, &[("a", 0)], &[], ["!p", "a", "a"]),
            (true, &[], &["o"], ["!p", "o", "o"]),
            (true, &[], &[], ["!p", "!p", "-"]),
            (true, &[("a", 5000)], &[], ["!p", "!p", "-"]),
            (false, &[("a", 0)], &[], ["-", "a", "a"]),
            (false, &[], &["o"], ["-", "o", "o"]),
            (false, &[], &[], ["-", "-", "-"]),
        ];
        for (primary, replicas, offline, expected) in cases {
            let truth = truth(primary, replicas, offline);
            let roles = [Role::Primary, Role::Replica, Role::Offline];
            let found = roles.map(|role| chosen(role, &truth, &[], &[], 0));
            assert_eq!(found, expected, "{truth:?}");
        }
    }

    #[test]
    fn the_least_busy_replica_is_taken_and_equals_in_turn() {
        let truth = truth(true, &[("a", 0), ("b", 0), ("c", 0)], &[]);
        assert_eq!(chosen(Role::Replica, &truth, &[("a", 2), ("b", 1), ("c", 2)], &[], 0), "b");
        let turns: Vec<String> = (0..6).map(|turn| chosen(Role::Replica, &truth, &[], &[], turn)).collect();
        assert_eq!(turns, ["a", "b", "c", "a", "b", "c"]);
        assert_eq!(chosen(Role::Replica, &truth, &[("b", 9), ("c", 9)], &["a"], 1), "c");
        assert_eq!(chosen(Role::Replica, &truth, &[], &["a", "b", "c"], 0), "!p");
    }

    #[test]
    fn a_hold_says_why() {
        let service = Service::new("s", ([127, 0, 0, 1], 0).into(), Role::Replica);
        let truth = Truth::closed("etcd has not answered");
        let Choice::Hold(why) = choose(&service, &truth, |_| 0, &[], 0) else { panic!("no hold") };
        assert!(matches!(&why, Why::Replica(NoPrimary::NeverSeen { .. })));
        assert!(why.to_string().ends_with("not known yet: etcd has not answered"), "{why}");
    }
}
