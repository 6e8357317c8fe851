//! Whether a neighbour may be told of an address, or be told anything at all while it has been. Pure.
//!
//! ```text
//!   sent: a message ── at most `delivery` ──► heard: the neighbour begins to count ── `hold` ──► it drops our routes
//!   └──────────────────────── all of that must be over before the right ends ────────────────────────┘
//! ```
//! So a route is withdrawn rather than kept by a message that would let it outlive the right. A program that is frozen or killed sends
//! nothing, and what it had sent was allowed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use types::Moment;

/// Clocks of neighbours tick in whole seconds at worst, and their timers are coarse.
const LATE: Duration = Duration::from_millis(500);

/// The pause between two keepalives.
#[must_use]
pub(crate) fn period(hold: Duration) -> Duration {
    hold / 3
}

/// How long the kernel may go on trying to deliver what we have said; then it gives the connection up.
#[must_use]
pub(crate) fn delivery(hold: Duration) -> Duration {
    hold - period(hold)
}

/// For how long from the sending of a message a neighbour may keep the routes that it has.
#[must_use]
pub(crate) fn reach(hold: Duration) -> Duration {
    delivery(hold) + hold + LATE
}

/// What this host has a right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub ip: IpAddr,
    /// When the right ends; `None` without one, or while the address is not on this host.
    pub until: Option<Moment>,
    /// It is about to be given up: neighbours are to look for another way before.
    pub parting: bool,
}

/// What to tell one neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Announce { ip: IpAddr, parting: bool },
    Withdraw { ip: IpAddr, why: Why },
}

/// Why it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    NoRight,
    /// It was not renewed: one more message, and the neighbour could keep the route for longer than it lasts.
    EndsSoon,
}

/// What has been announced to a neighbour on this session, and whether as parting.
pub(crate) type Told = BTreeMap<IpAddr, bool>;

/// What there is to say now, before anything else is said. Withdrawals come first.
pub(crate) fn steps(wanted: &[Wanted], told: &Told, hold: Duration, now: Moment) -> Vec<Step> {
    let mut steps = Vec::new();
    for ip in told.keys() {
        let until = wanted.iter().find(|wanted| wanted.ip == *ip).and_then(|wanted| wanted.until);
        match until {
            None => steps.push(Step::Withdraw { ip: *ip, why: Why::NoRight }),
            Some(until) if now.after(reach(hold)) > until => {
                steps.push(Step::Withdraw { ip: *ip, why: Why::EndsSoon });
            }
            Some(_) => {}
        }
    }
    for Wanted { ip, until, parting } in wanted {
        let Some(until) = until else { continue };
        let enough = match told.get(ip) {
            // Worth a word only when it lasts for the next one too.
            None => now.after(reach(hold) + period(hold)) <= *until,
            Some(said) => said != parting && now.after(reach(hold)) <= *until,
        };
        if enough {
            steps.push(Step::Announce { ip: *ip, parting: *parting });
        }
    }
    steps
}

/// When something of what was told has to be withdrawn, unless the right to it is renewed before.
pub(crate) fn next(wanted: &[Wanted], told: &Told, hold: Duration) -> Option<Moment> {
    let ends = wanted.iter().filter(|wanted| told.contains_key(&wanted.ip)).filter_map(|wanted| wanted.until);
    ends.map(|until| until.before(reach(hold))).min()
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Why::NoRight => "this member has no right to it",
            Why::EndsSoon => "the right to it ends and was not renewed",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Step, Told, Wanted, Why, delivery, next, period, reach, steps};
    use proptest::prelude::{Strategy, any, prop::collection::vec, prop::option, proptest};
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;
    use types::Moment;

    const NOW: Moment = Moment(100_000);
    const HOLD: Duration = Duration::from_secs(3);

    fn ip(last: u8) -> IpAddr {
        IpAddr::V4(Ipv4Addr::new(192, 0, 2, last))
    }

    fn wanted(last: u8, rest: Option<u64>) -> Wanted {
        Wanted { ip: ip(last), until: rest.map(|rest| Moment(NOW.0 + rest)), parting: false }
    }

    #[test]
    fn the_shortest_hold_time_needs_five_and_a_half_seconds() {
        assert_eq!((period(HOLD), delivery(HOLD)), (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!(reach(HOLD), Duration::from_millis(5500));
    }

    #[test]
    fn a_route_comes_with_the_right_and_goes_before_it_ends() {
        let none = Told::new();
        let announce = Step::Announce { ip: ip(1), parting: false };
        assert_eq!(steps(&[wanted(1, Some(6500))], &none, HOLD, NOW), [announce]);
        assert_eq!(steps(&[wanted(1, Some(6499))], &none, HOLD, NOW), [], "gone again with the next message");
        assert_eq!(steps(&[wanted(1, None)], &none, HOLD, NOW), []);
        let told = Told::from([(ip(1), false)]);
        assert_eq!(steps(&[wanted(1, Some(5500))], &told, HOLD, NOW), []);
        let ends = Step::Withdraw { ip: ip(1), why: Why::EndsSoon };
        assert_eq!(steps(&[wanted(1, Some(5499))], &told, HOLD, NOW), [ends]);
        let gone = Step::Withdraw { ip: ip(1), why: Why::NoRight };
        assert_eq!(steps(&[wanted(1, None)], &told, HOLD, NOW), [gone]);
        assert_eq!(steps(&[], &told, HOLD, NOW), [gone]);
        assert_eq!(next(&[wanted(1, Some(7000))], &told, HOLD), Some(Moment(NOW.0 + 1500)));
        assert_eq!(next(&[wanted(1, Some(7000))], &none, HOLD), None);
    }

    #[test]
    fn parting_is_told_once_and_taken_back() {
        let parting = Wanted { parting: true, ..wanted(1, Some(9000)) };
        let told = Told::from([(ip(1), false)]);
        assert_eq!(steps(&[parting], &told, HOLD, NOW), [Step::Announce { ip: ip(1), parting: true }]);
        let told = Told::from([(ip(1), true)]);
        assert_eq!(steps(&[parting], &told, HOLD, NOW), []);
        let stays = [wanted(1, Some(9000))];
        assert_eq!(steps(&stays, &told, HOLD, NOW), [Step::Announce { ip: ip(1), parting: false }]);
    }

    proptest! {
        /// The law: after any look, whatever the neighbour still has is gone there before the right ends, if nothing more is said.
        #[test]
        fn nothing_outlives_the_right(
            hold in 3_u64..60,
            rights in vec(option::of(0_u64..200_000), 4),
            told in vec(option::of(any::<bool>()), 4),
        ) {
            let hold = Duration::from_secs(hold);
            let wanted: Vec<Wanted> = (1..).zip(&rights).map(|(last, rest)| wanted(last, *rest)).collect();
            let told: Told = (1..).zip(told).filter_map(|(last, said)| Some((ip(last), said?))).collect();
            let mut has = told.clone();
            for step in steps(&wanted, &told, hold, NOW) {
                match step {
                    Step::Announce { ip, parting } => { has.insert(ip, parting); }
                    Step::Withdraw { ip, .. } => assert!(has.remove(&ip).is_some()),
                }
            }
            for ip in has.keys() {
                let until = wanted.iter().find(|wanted| wanted.ip == *ip).and_then(|wanted| wanted.until);
                assert!(NOW.after(reach(hold)) <= until.unwrap());
            }
            assert_eq!(steps(&wanted, &has, hold, NOW), []);
            assert!(next(&wanted, &has, hold).is_none_or(|at| at >= NOW));
        }

        #[test]
        fn what_a_neighbour_may_keep_is_counted_from_the_last_moment_of_delivery(hold in (3_u64..60).prop_map(Duration::from_secs)) {
            assert!(reach(hold) > delivery(hold) + hold);
            assert!(period(hold) + delivery(hold) <= hold);
        }
    }
}
