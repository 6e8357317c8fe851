//! How each member is used, or why it is not, in words for a person.

use std::fmt;
use types::{Moment, NodeName, Term};

/// Why new sessions have no primary to go to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum NoPrimary {
    /// No consistent state was read since the router started.
    NeverSeen {
        why: String,
    },
    NoLeader,
    /// The leader has no member key, so nobody knows its address.
    LeaderUnknown {
        leader: NodeName,
    },
    LeaderAddress {
        leader: NodeName,
        conn_url: String,
    },
    /// The leader holds the lock and does not accept writes (not yet, or no longer).
    NotWritable {
        leader: NodeName,
        term: Term,
    },
    /// The whole cluster follows a remote one.
    StandbyLeader {
        leader: NodeName,
    },
    /// The leader is about to hand the lead over.
    HandingOver {
        leader: NodeName,
    },
    /// A person ordered that this member gets no new sessions.
    Drained {
        leader: NodeName,
    },
    /// The primary is on the way, but its member key names no pooler.
    NoPooler {
        leader: NodeName,
    },
    /// A term smaller than one that was seen before.
    TermWentBack {
        term: Term,
        newest: Term,
    },
    /// No sign of etcd, nor a word of the leader's agent, of just now says that it takes writes: for a session in a pooler that is too little.
    Doubted {
        leader: NodeName,
    },
    /// etcd is out of reach, and the leader's agent does not confirm that it still leads.
    Unconfirmed {
        leader: NodeName,
        why: String,
    },
}

impl fmt::Display for NoPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NoPrimary::NeverSeen { why } => write!(f, "the state of the cluster is not known yet: {why}"),
            NoPrimary::NoLeader => write!(f, "the cluster has no leader at the moment"),
            NoPrimary::LeaderUnknown { leader } => write!(f, "leader {leader} has not published its address"),
            NoPrimary::LeaderAddress { leader, conn_url } => {
                write!(f, "leader {leader} published an address that cannot be used: {conn_url:?}")
            }
            NoPrimary::NotWritable { leader, term } => {
                write!(f, "leader {leader} (term {term}) does not accept writes at the moment")
            }
            NoPrimary::StandbyLeader { leader } => {
                write!(
                    f,
                    "leader {leader} follows a remote cluster: nothing can be written in a standby cluster"
                )
            }
            NoPrimary::HandingOver { leader } => {
                write!(f, "leader {leader} is handing the lead over; the next one is on its way")
            }
            NoPrimary::Drained { leader } => {
                write!(
                    f,
                    "leader {leader} gets no new sessions by order: `baton route undrain {leader}` ends it"
                )
            }
            NoPrimary::NoPooler { leader } => {
                write!(f, "leader {leader} publishes no proxy_url, and this service leads to its pooler")
            }
            NoPrimary::TermWentBack { term, newest } => {
                write!(
                    f,
                    "etcd shows term {term} after term {newest}: an older state of etcd is not followed"
                )
            }
            NoPrimary::Doubted { leader } => {
                write!(
                    f,
                    "neither etcd nor the agent of leader {leader} says just now that it takes writes (after a silence of etcd its agent has \
                     to), and a pooler may have come to a standby unseen"
                )
            }
            NoPrimary::Unconfirmed { leader, why } => {
                write!(
                    f,
                    "etcd is out of reach and leader {leader} does not confirm that it still leads: {why}"
                )
            }
        }
    }
}

/// How a member is used, or why not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Primary,
    /// It serves reads; `streaming_lost` since when it does so only on credit.
    Replica {
        streaming_lost: Option<Moment>,
    },
    /// The same, for the offline service.
    Offline {
        streaming_lost: Option<Moment>,
    },
    /// Its PostgreSQL is not running.
    NotRunning {
        state: String,
    },
    /// It runs, but does not follow the primary.
    NotStreaming,
    /// Its tag `noloadbalance` keeps sessions away.
    NoLoadBalance,
    /// Its `conn_url` is unusable.
    BadAddress {
        conn_url: String,
    },
    /// It holds the leader key; see why there is no primary.
    LeaderNotUsed,
    /// It calls itself a primary (or is neither primary nor replica) and does not hold the leader key.
    WrongRole {
        role: String,
    },
    /// Its key is gone since then.
    Gone {
        since: Moment,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Primary => write!(f, "primary"),
            Verdict::Replica { streaming_lost: None } => write!(f, "replica"),
            Verdict::Replica { streaming_lost: Some(_) } => {
                write!(f, "replica, not streaming since a moment ago")
            }
            Verdict::Offline { streaming_lost: None } => write!(f, "replica for the offline service"),
            Verdict::Offline { streaming_lost: Some(_) } => {
                write!(f, "replica for the offline service, not streaming since a moment ago")
            }
            Verdict::NotRunning { state } => write!(f, "not used: its PostgreSQL is {state:?}"),
            Verdict::NotStreaming => write!(f, "not used: it does not stream from the primary"),
            Verdict::NoLoadBalance => write!(f, "not used: tagged noloadbalance"),
            Verdict::BadAddress { conn_url } => {
                write!(f, "not used: its conn_url {conn_url:?} names no host and port")
            }
            Verdict::LeaderNotUsed => write!(f, "not used: it leads but cannot take new sessions now"),
            Verdict::WrongRole { role } => {
                write!(f, "not used: it says {role:?} and does not hold the leader key")
            }
            Verdict::Gone { .. } => write!(f, "not used: its key is gone from etcd"),
        }
    }
}
