//! Whether to hold an address, and for how long. Pure.
//!
//! ```text
//!            right to it, long enough                     right renewed
//!   away ─────────────────────────────► held until E ───────────────────► held until a later E
//!    ▲                                     │  │ removed by somebody: installed again
//!    └── right given up or ending ─────────┘  └ our agent hangs or dies: the kernel removes it at E
//! ```
//! E, the end that the kernel is told, is never later than the end of the right.

use std::fmt;
use std::time::Duration;
use types::{Moment, Term};

/// The right to hold an address: whose term it comes from, and when it ends at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    pub term: Term,
    pub until: Moment,
}

/// What is so on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The address is on its interface.
    pub present: bool,
    /// When the kernel will remove it: as we have told it, and later by the time that the host was suspended since.
    pub until: Option<Moment>,
    pub interface: Interface,
    /// It belongs on that interface. Once it is held that is not asked again: the network may be taken down for a moment.
    pub fits: bool,
}

/// What is known of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interface {
    Missing,
    /// It is switched off, or no cable is in it.
    Down,
    Up,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell the kernel: from now for this many seconds.
    Install {
        seconds: u32,
        term: Term,
        why: Why,
    },
    Remove {
        why: Why,
    },
    /// All is as it should be. Look again then, if nothing happens before.
    Rest {
        until: Option<Moment>,
        why: Why,
    },
}

/// Why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    NewRight {
        term: Term,
    },
    Renewed,
    /// The right ends earlier than it did, or the host was suspended, and the kernel does not count that time.
    Shortened,
    WasRemoved,
    NoRight,
    EndsSoon,
    NoInterface,
    InterfaceDown,
    /// It is in no network of its interface.
    Misplaced,
    Holds,
}

/// The kernel counts whole seconds and looks at them with its own timers: an address was seen to outlive its lifetime by up to 0.39 s.
const LATE: Duration = Duration::from_millis(400);
/// A lifetime that ends this much later is worth telling the kernel.
const WORTH: Duration = Duration::from_millis(500);
/// The longest lifetime that is told: an address must not outlive its agent for long, however long the lease.
const LONGEST: Duration = Duration::from_secs(30);

/// Decides.
#[must_use]
pub(crate) fn decide(right: Option<Right>, seen: Seen, now: Moment) -> Step {
    let Some(right) = right else { return without(seen, Why::NoRight) };
    match seen.interface {
        Interface::Missing => return Step::Rest { until: None, why: Why::NoInterface },
        // Whoever is behind the cable cannot reach us, whatever we hold; and we can announce nothing.
        Interface::Down => return without(seen, Why::InterfaceDown),
        Interface::Up => {}
    }
    if seen.until.is_none() && !seen.fits {
        return without(seen, Why::Misplaced);
    }
    let seconds = whole_seconds(now.until(right.until).min(LONGEST));
    if seconds == 0 {
        return without(seen, Why::EndsSoon);
    }
    let end = now.after(Duration::from_secs(u64::from(seconds)));
    let install = |why| Step::Install { seconds, term: right.term, why };
    match (seen.present, seen.until) {
        (false, None) => install(Why::NewRight { term: right.term }),
        (false, Some(_)) => install(Why::WasRemoved),
        (true, None) => install(Why::NewRight { term: right.term }),
        (true, Some(told)) if told.after(LATE) > right.until => install(Why::Shortened),
        (true, Some(told)) if end > told.after(WORTH) => install(Why::Renewed),
        (true, Some(told)) => Step::Rest { until: Some(told), why: Why::Holds },
    }
}

fn without(seen: Seen, why: Why) -> Step {
    if seen.present { Step::Remove { why } } else { Step::Rest { until: None, why } }
}

/// The longest lifetime that surely ends within `rest`.
fn whole_seconds(rest: Duration) -> u32 {
    u32::try_from(rest.saturating_sub(LATE).as_secs()).unwrap_or(u32::MAX)
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NewRight { term } => write!(f, "this member has the right to it in term {term}"),
            Why::Renewed => f.write_str("the right was renewed"),
            Why::Shortened => f.write_str("the kernel would have kept it for longer than the right lasts"),
            Why::WasRemoved => f.write_str("somebody removed it, and this member has the right to it"),
            Why::NoRight => f.write_str("this member has no right to it"),
            Why::EndsSoon => f.write_str("the right to it ends and was not renewed"),
            Why::NoInterface => f.write_str("its interface does not exist"),
            Why::InterfaceDown => f.write_str("its interface is down or has no carrier"),
            Why::Misplaced => f.write_str("it does not belong on its interface"),
            Why::Holds => f.write_str("this member holds it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Interface, LATE, Right, Seen, Step, Why, decide};
    use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
    use std::time::Duration;
    use types::{Moment, Term};

    const NOW: Moment = Moment(100_000);
    const AWAY: Seen = Seen { present: false, until: None, interface: Interface::Up, fits: true };

    fn right(rest: u64) -> Option<Right> {
        Some(Right { term: Term(7), until: Moment(NOW.0 + rest) })
    }

    fn held(rest: u64) -> Seen {
        Seen { present: true, until: Some(Moment(NOW.0 + rest)), ..AWAY }
    }

    #[test]
    fn it_comes_with_the_right_and_ends_before_it() {
        let new = Why::NewRight { term: Term(7) };
        assert_eq!(decide(right(4000), AWAY, NOW), Step::Install { seconds: 3, term: Term(7), why: new });
        assert_eq!(decide(None, AWAY, NOW), Step::Rest { until: None, why: Why::NoRight });
        assert_eq!(decide(None, held(3000), NOW), Step::Remove { why: Why::NoRight });
        assert_eq!(decide(right(1300), held(900), NOW), Step::Remove { why: Why::EndsSoon });
        assert_eq!(decide(right(1300), AWAY, NOW), Step::Rest { until: None, why: Why::EndsSoon });
    }

    #[test]
    fn it_is_renewed_and_repaired() {
        assert_eq!(
            decide(right(5000), held(3000), NOW),
            Step::Install { seconds: 4, term: Term(7), why: Why::Renewed }
        );
        let rest = Step::Rest { until: Some(Moment(NOW.0 + 3000)), why: Why::Holds };
        assert_eq!(decide(right(4200), held(3000), NOW), rest);
        let removed = Seen { present: false, ..held(3000) };
        assert_eq!(
            decide(right(4000), removed, NOW),
            Step::Install { seconds: 3, term: Term(7), why: Why::WasRemoved }
        );
        let left_over = Seen { present: true, ..AWAY };
        assert!(matches!(decide(right(4000), left_over, NOW), Step::Install { .. }));
        assert!(matches!(decide(None, left_over, NOW), Step::Remove { .. }));
    }

    #[test]
    fn it_is_shortened_with_the_right_and_after_a_sleep() {
        let shortened = Step::Install { seconds: 2, term: Term(7), why: Why::Shortened };
        assert_eq!(decide(right(3000), held(2700), NOW), shortened);
        assert_eq!(decide(right(3000), held(9000), NOW), shortened);
        assert!(matches!(decide(right(3000), held(2600), NOW), Step::Rest { .. }));
    }

    #[test]
    fn without_an_interface_nothing_is_held() {
        let missing = Seen { interface: Interface::Missing, ..AWAY };
        assert_eq!(decide(right(9000), missing, NOW), Step::Rest { until: None, why: Why::NoInterface });
        let down = Seen { interface: Interface::Down, ..held(3000) };
        assert_eq!(decide(right(9000), down, NOW), Step::Remove { why: Why::InterfaceDown });
    }

    #[test]
    fn where_it_does_not_belong_it_is_not_put_and_what_is_held_is_kept() {
        let wrong = Seen { fits: false, ..AWAY };
        assert_eq!(decide(right(9000), wrong, NOW), Step::Rest { until: None, why: Why::Misplaced });
        let left_over = Seen { present: true, ..wrong };
        assert_eq!(decide(right(9000), left_over, NOW), Step::Remove { why: Why::Misplaced });
        let held = Seen { fits: false, ..held(3000) };
        assert!(matches!(decide(right(9000), held, NOW), Step::Install { why: Why::Renewed, .. }));
    }

    proptest! {
        /// The law: whatever is installed, or left as it is, has left the kernel, as late as it may be, before the right ends.
        #[test]
        fn nothing_outlives_the_right(
            rest in 0_u64..100_000,
            told in prop_oneof![Just(None), (0_u64..40_000).prop_map(Some)],
            present in any::<bool>(),
        ) {
            let seen = Seen { present, until: told.map(|told| Moment(NOW.0 + told)), interface: Interface::Up, fits: true };
            match decide(right(rest), seen, NOW) {
                Step::Install { seconds, .. } => {
                    let gone = Duration::from_secs(u64::from(seconds)) + LATE;
                    assert!(seconds > 0 && gone <= Duration::from_millis(rest));
                }
                Step::Rest { until: Some(told), .. } if present => assert!(told.after(LATE) <= Moment(NOW.0 + rest)),
                Step::Rest { .. } | Step::Remove { .. } => {}
            }
        }
    }
}
