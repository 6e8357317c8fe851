//! Failsafe mode as a member sees it: what it asked the others, and what it told one that asked.
//! What follows from it is in `duties/live_on.rs` (the one that leads on) and `standing.rs` (the others).

use std::collections::BTreeSet;
use types::{Moment, NodeName, Term};

/// Failsafe mode: a leader without etcd leads on while all others agree, and who agrees does not race for a ttl.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Failsafe {
    /// Since when this agent runs. What it promised in an earlier life it does not know.
    pub began: Moment,
    /// Whom a write of ours to `/failsafe` may have listed, although the view does not show it yet.
    pub listed: BTreeSet<NodeName>,
    /// `/failsafe` as an earlier life of this agent kept it, in the term that it left and we took up. It counts until etcd was read.
    pub kept: Option<BTreeSet<NodeName>>,
    /// Our last question to all others.
    pub round: Option<FailsafeRound>,
    /// Whom we told that it may lead on, and until when we do not race.
    pub promise: Option<FailsafePromise>,
}

/// One question to all others whether we may lead on.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FailsafeRound {
    pub term: Term,
    /// Before the first question was sent.
    pub asked: Moment,
    /// All answers are in, or did not come in time.
    pub over: bool,
    /// Who agreed so far.
    pub accepted: BTreeSet<NodeName>,
}

/// We do not race before this moment, because that member leads without etcd.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct FailsafePromise {
    pub to: NodeName,
    pub until: Moment,
}
