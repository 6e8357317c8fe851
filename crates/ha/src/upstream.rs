//! Where WAL and copies come from.
//!
//! ```text
//!   follows   the leader of a standby cluster ─────────────────────────► the remote cluster
//!             nostream ────────────────────────────────────────────────► the archive
//!             replicatefrom: a member that runs and does not follow us ► that member
//!             everybody else ──────────────────────────────────────────► the leader
//!   copies    a running member with clonefrom, each in its turn; the leader without one
//! ```

use crate::decision::Turn;
use crate::observation::Cluster;
use std::fmt;
use types::NodeName;

/// Where a standby gets its WAL from, or a copy its data.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Upstream {
    /// A member of this cluster.
    Member(NodeName),
    /// The remote cluster that a standby cluster follows.
    Remote,
    /// No running PostgreSQL: the archive, or a backup.
    Archive,
}

impl Upstream {
    /// The member, if it is one.
    #[must_use]
    pub fn member(&self) -> Option<&NodeName> {
        match self {
            Upstream::Member(name) => Some(name),
            Upstream::Remote | Upstream::Archive => None,
        }
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Upstream::Member(name) => name.fmt(f),
            Upstream::Remote => f.write_str("the remote cluster"),
            Upstream::Archive => f.write_str("the archive"),
        }
    }
}

/// Whom this member follows while that one leads.
pub(crate) fn followed(turn: &Turn<'_>, cluster: &Cluster, leader: &NodeName) -> Upstream {
    if turn.seen.tags.nostream() {
        return Upstream::Archive;
    }
    let wanted = turn.seen.tags.replicatefrom().map(NodeName::from);
    match wanted.filter(|name| may_feed(&turn.seen.me, cluster, name)) {
        Some(name) => Upstream::Member(name),
        None => Upstream::Member(leader.clone()),
    }
}

/// Whether this member runs and gets nothing by way of us.
fn may_feed(me: &NodeName, cluster: &Cluster, name: &NodeName) -> bool {
    let mut at = name;
    if !cluster.members.get(at).is_some_and(|member| member.running) {
        return false;
    }
    for _ in 0..=cluster.members.len() {
        if at == me {
            return false;
        }
        match cluster.members.get(at).and_then(|member| member.replicatefrom.as_ref()) {
            Some(next) => at = next,
            None => return true,
        }
    }
    // The others follow each other in a ring: nothing flows there.
    false
}

/// Whom a copy is taken from while that one leads. A source that failed is not the first to be asked again.
pub(crate) fn copied(turn: &Turn<'_>, cluster: &Cluster, leader: &NodeName) -> Upstream {
    let me = &turn.seen.me;
    let offers: Vec<&NodeName> = cluster
        .members
        .iter()
        .filter(|(name, member)| member.clonefrom && member.running && *name != me)
        .map(|(name, _)| name)
        .collect();
    // Members that are copied to at the same time begin with different sources.
    let first = offers.iter().position(|name| *name > me).unwrap_or(0);
    let tried = usize::try_from(turn.memory.clone.failures).unwrap_or(usize::MAX);
    let at = first.checked_add(tried).and_then(|at| at.checked_rem(offers.len()));
    let chosen = at.and_then(|at| offers.get(at)).filter(|_| tried < offers.len());
    Upstream::Member((*chosen.unwrap_or(&leader)).clone())
}
