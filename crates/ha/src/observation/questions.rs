//! What follows from an observation alone, without a word on what to do about it.

use super::{Authority, Cluster, Data, Etcd, LeaderKey, Observation, Postgres, Running};
use types::{Moment, NodeName, SystemId, Term};

impl Observation {
    /// Whether a member would not take a free lead, because a leader without etcd would not ask it.
    pub(crate) fn is_unlisted(&self, cluster: &Cluster, name: &NodeName) -> bool {
        self.rules.failsafe && cluster.failsafe.as_ref().is_some_and(|listed| !listed.contains(name))
    }

    /// The cluster as last read.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        match &self.etcd {
            Etcd::Never { .. } => None,
            Etcd::Seen { cluster, .. } => Some(cluster),
        }
    }

    /// The term in which we lead now: the authority has not run out, and etcd does not show that the key is gone or belongs
    /// to a newer term. A view older than the term cannot show anything about it.
    #[must_use]
    pub fn leads(&self, now: Moment) -> Option<Term> {
        let (term, deadline) = match self.authority {
            Authority::None => return None,
            Authority::Held { term, deadline } => (term, deadline),
        };
        if now >= deadline {
            return None;
        }
        let contradicted = self.cluster().is_some_and(|cluster| {
            cluster.revision >= term.0
                && match &cluster.leader {
                    LeaderKey::Free => true,
                    LeaderKey::Held { name, term: held, .. } => *held != term || *name != self.me,
                    LeaderKey::Spoiled { .. } => false,
                }
        });
        (!contradicted).then_some(term)
    }

    /// The system identifier of our data.
    #[must_use]
    pub fn system_id(&self) -> Option<SystemId> {
        match &self.data {
            Data::Present(control) => Some(control.system_id),
            Data::Empty | Data::Incomplete | Data::Unusable => None,
        }
    }

    /// The other member that holds the leader key.
    #[must_use]
    pub fn other_leader(&self) -> Option<&NodeName> {
        match &self.cluster()?.leader {
            LeaderKey::Held { name, .. } if *name != self.me => Some(name),
            LeaderKey::Held { .. } | LeaderKey::Free | LeaderKey::Spoiled { .. } => None,
        }
    }

    /// Whether our PostgreSQL is, or may be, a primary.
    #[must_use]
    pub fn may_be_primary(&self) -> bool {
        match &self.postgres {
            Postgres::Stopped => false,
            Postgres::Running(Running::Primary { .. }) => true,
            Postgres::Running(Running::Standby { .. }) => false,
            Postgres::Unresponsive { primary, .. } => *primary,
            Postgres::Starting { .. } | Postgres::Stopping { .. } => match &self.data {
                Data::Present(control) => !control.standby,
                Data::Empty | Data::Incomplete | Data::Unusable => false,
            },
        }
    }
}
