//! What people planned for later: a switchover, a restart.
//!
//! ```text
//!   before its time                              waits
//!   from then on, for 1.5 × loop_wait            is carried out
//!   later (nobody could at the time)             is dropped: people count on it to happen then, or not at all
//! ```
//! In pause nothing that was planned is carried out, nor dropped.

use std::fmt;
use std::time::Duration;
use types::Moment;

/// When something is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Due {
    /// Now: nobody wrote a time.
    Now,
    /// At this moment.
    At(Moment),
    /// A time was written that cannot be read.
    Unreadable,
}

impl Due {
    /// Whether its time has come.
    #[must_use]
    pub fn has_come(self, now: Moment) -> bool {
        match self {
            Due::Now => true,
            Due::At(at) => now >= at,
            Due::Unreadable => false,
        }
    }

    /// Whether it is to be done at this moment: its time has come, and is not long past.
    #[must_use]
    pub fn presses(self, now: Moment, tolerated: Duration) -> bool {
        self.has_come(now) && self.late(now, tolerated).is_none()
    }

    /// By how much it is too late to begin.
    #[must_use]
    pub fn late(self, now: Moment, tolerated: Duration) -> Option<Duration> {
        match self {
            Due::Now | Due::Unreadable => None,
            Due::At(at) => Some(now.since(at)).filter(|late| *late > tolerated),
        }
    }
}

/// A restart of PostgreSQL that is planned.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PlannedRestart {
    /// When.
    pub at: Moment,
    /// PostgreSQL was started since it was planned: there is nothing left to restart for.
    pub overtaken: bool,
    /// The first of its conditions that does not hold at the moment.
    pub unmet: Option<Unmet>,
    /// A primary that takes longer to come up gives the lead away.
    pub within: Option<Duration>,
}

/// A condition of a restart that does not hold.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Unmet {
    /// It was asked for only in this role.
    Role { wanted: String, is: String },
    /// Only for a PostgreSQL older than this.
    Version { below: String },
    /// Only while a parameter waits for a restart.
    NotPending,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unmet::Role { wanted, is } => {
                write!(f, "it was asked for in the role {wanted}, and this member is {is}")
            }
            Unmet::Version { below } => {
                write!(f, "it was asked for below PostgreSQL {below}, and the one that runs is not older")
            }
            Unmet::NotPending => {
                f.write_str("it was asked for while a parameter waits for a restart, and none does")
            }
        }
    }
}
