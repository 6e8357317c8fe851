//! Why the router ends a session.

use std::fmt;
use types::{NodeName, Term};

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CutReason {
    /// The lead went to somebody else, or nobody is known to have it.
    TermOver {
        member: NodeName,
        term: Term,
        now: Option<Term>,
    },
    /// A session that must not be on a primary found itself on one.
    Promoted {
        member: NodeName,
    },
    MemberGone {
        member: NodeName,
    },
    /// It was to write, and its server turned out to be a standby.
    Standby {
        member: NodeName,
    },
    /// It is to write through the member's pooler, which is not known to lead to a server that takes writes, and it cannot be read to be held.
    Distrusted {
        member: NodeName,
    },
    /// Its transaction outlasted the drain before a switchover.
    HandedOver {
        member: NodeName,
    },
    /// Its cluster is no longer in the configuration.
    ClusterDropped,
    /// Another process serves in this one's place, and the session was given its time.
    Exchanged,
    Stopping,
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutReason::TermOver { member, term, now: Some(now) } => {
                write!(f, "{member} no longer leads: its term {term} was followed by term {now}")
            }
            CutReason::TermOver { member, term, now: None } => {
                write!(f, "{member} no longer leads: term {term} is over")
            }
            CutReason::Promoted { member } => {
                write!(f, "{member} was promoted, and this service never uses the primary")
            }
            CutReason::MemberGone { member } => write!(f, "{member} is gone from the cluster"),
            CutReason::Standby { member } => write!(f, "{member} runs as a standby and takes no writes"),
            CutReason::Distrusted { member } => write!(
                f,
                "whether the pooler of {member} leads to a server that takes writes is not known, and a session that cannot be read cannot wait"
            ),
            CutReason::HandedOver { member } => {
                write!(f, "{member} hands the lead over, and the transaction did not end in time")
            }
            CutReason::ClusterDropped => write!(f, "the router no longer serves this cluster"),
            CutReason::Exchanged => write!(f, "a new process of the router has taken over"),
            CutReason::Stopping => write!(f, "the router is stopping"),
        }
    }
}
