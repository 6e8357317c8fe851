//! Why a primary's lead goes to another member, what that costs, and why it may stay.

use crate::pace::{Bytes, Estimate, Rough};
use crate::reason::Refusal;
use crate::signs::Ailment;
use std::fmt;
use std::time::Duration;
use types::NodeName;

/// The longest that a primary waits for its WAL to be handed over.
const HANDED_WITHIN: Duration = Duration::from_secs(30);
/// The same where a person wants the lead to move at once.
const HANDED_AT_ONCE_WITHIN: Duration = Duration::from_secs(5);

/// Why another member shall lead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// That is clearly faster.
    Faster(Estimate),
    /// The settings want it.
    Preferred,
    Crashes {
        crashes: usize,
    },
    /// `primary_start_timeout` is 0.
    AtOnce,
    FailedStarts {
        down: Duration,
    },
    /// The lead was being handed over, and PostgreSQL did not end cleanly.
    Leaves,
    /// It was ended for this.
    Sick(Ailment),
}

/// What a failover costs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cost {
    Nothing,
    /// About so many bytes of WAL that the fittest other member was not seen to have.
    UpTo {
        bytes: u64,
    },
    Unknown,
}

/// Why PostgreSQL is restarted where it crashed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stays {
    /// Nothing speaks against it.
    #[default]
    Fine,
    /// No other member could lead now.
    Alone,
    /// The others were asked: nobody can take over without a loss.
    NobodyFit { refusals: Vec<(NodeName, Refusal)> },
    /// That one could not be given our last WAL.
    NotHanded { to: NodeName },
}

impl Stays {
    /// Whether another member would lead, if one could.
    pub(super) fn for_want_of_another(&self) -> bool {
        match self {
            Stays::Fine => false,
            Stays::Alone | Stays::NobodyFit { .. } | Stays::NotHanded { .. } => true,
        }
    }
}

impl Cause {
    /// Whether the lead goes even when that costs something.
    pub(super) fn must_go(&self) -> bool {
        match self {
            // Whoever sent it away decides what comes when nobody can be given what it has.
            Cause::Faster(_) | Cause::Preferred | Cause::Leaves | Cause::Sick(_) => false,
            Cause::Crashes { .. } | Cause::AtOnce | Cause::FailedStarts { .. } => true,
        }
    }

    /// How long the hand-over of the WAL may take: it must leave time for what comes instead.
    pub(super) fn patience(&self) -> Duration {
        match self {
            Cause::Faster(estimate) => {
                (estimate.restart.saturating_sub(estimate.failover) / 2).min(HANDED_WITHIN)
            }
            Cause::AtOnce | Cause::Leaves | Cause::Sick(_) => HANDED_AT_ONCE_WITHIN,
            Cause::Preferred | Cause::Crashes { .. } | Cause::FailedStarts { .. } => HANDED_WITHIN,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Faster(estimate) => write!(f, "PostgreSQL crashed while it led: restarting it takes {estimate}, a failover about {}", Rough(estimate.failover)),
            Cause::Preferred => f.write_str("PostgreSQL crashed while it led, and baton.crash prefers a failover that loses nothing"),
            Cause::Crashes { crashes } => write!(f, "PostgreSQL crashed {crashes} times in two minutes"),
            Cause::AtOnce => f.write_str("PostgreSQL crashed while it led, and primary_start_timeout is 0: it is not restarted as the primary"),
            Cause::FailedStarts { down } => write!(f, "PostgreSQL could not be brought up as the primary for {down:?} (primary_start_timeout, or the timeout of the restart)"),
            Cause::Leaves => f.write_str("the lead is handed over and PostgreSQL did not end cleanly, so that the standbys may lack what it wrote last"),
            Cause::Sick(ailment) => write!(f, "{ailment}, and PostgreSQL was ended"),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cost::Nothing => f.write_str(", which loses nothing"),
            Cost::UpTo { bytes } => write!(
                f,
                ", which may lose up to {} of WAL that no other member was seen to have (maximum_lag_on_failover allows it; it stays in this data directory, and is kept when that is rewound)",
                Bytes(*bytes)
            ),
            Cost::Unknown => Ok(()),
        }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::Fine => Ok(()),
            Stays::Alone => f.write_str("; no other member could lead now"),
            Stays::NobodyFit { refusals } => {
                f.write_str("; nobody can take over without a loss:")?;
                for (name, refusal) in refusals {
                    write!(f, " {name}: {refusal};")?;
                }
                Ok(())
            }
            Stays::NotHanded { to } => {
                write!(f, "; {to} could not be given the last WAL in time, the agent's log says why")
            }
        }
    }
}
