//! Patroni's truth table of the health checks, as a function of what this member knows of itself.

use crate::api::query::{Query, is_meant};
use types::{Lsn, Tags};

/// What a health check looks at.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Holds the lock, and its lease has not run out.
    pub leads: bool,
    /// Held it when the cluster was last read.
    pub led: bool,
    /// The cluster follows another one.
    pub standby_cluster: bool,
    /// What PostgreSQL is, or was when it last answered.
    pub postgres: Is,
    /// PostgreSQL answers.
    pub running: bool,
    /// It announced that it accepts writes in its present term.
    pub writable: bool,
    pub paused: bool,
    /// The cluster was read from etcd within the last `ttl`.
    pub readable: bool,
    pub sync: bool,
    pub quorum: bool,
    pub tags: Tags,
    /// How far the leader is, as far as is known here.
    pub leader_lsn: Option<Lsn>,
    pub received: Option<Lsn>,
    pub replayed: Option<Lsn>,
    pub replication_state: Option<&'static str>,
    /// The other members confirm the lead while etcd is away.
    pub failsafe: bool,
}

/// What a PostgreSQL is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Is {
    #[default]
    Unknown,
    Primary,
    Standby,
}

impl Facts {
    /// Paused, and the cluster is not known any more: what PostgreSQL is counts instead of the lock.
    fn paused_alone(&self) -> bool {
        self.paused && !self.readable
    }

    fn is_primary(&self) -> bool {
        let by_itself = self.paused_alone() && self.postgres == Is::Primary;
        !self.standby_cluster && (self.leads || by_itself)
    }

    fn is_standby_leader(&self) -> bool {
        let by_itself = self.paused_alone() && self.led && self.postgres == Is::Standby;
        self.standby_cluster && (self.leads || by_itself)
    }

    fn is_any_leader(&self) -> bool {
        self.is_primary() || self.is_standby_leader()
    }

    fn accepts_writes(&self) -> bool {
        self.writable && self.running && self.postgres == Is::Primary
    }

    fn lags(&self, reached: Option<Lsn>, limit: u64) -> bool {
        self.leader_lsn.is_some_and(|leader| leader.bytes_since(reached.unwrap_or_default()) > limit)
    }

    fn is_replica(&self, query: &Query) -> bool {
        let near = query.lag().is_none_or(|limit| !self.lags(self.replayed, limit));
        let state = query.get("replication_state");
        self.postgres == Is::Standby
            && self.running
            && !self.tags.noloadbalance()
            && near
            && state.is_none_or(|wanted| self.replication_state == Some(wanted))
            && !self.is_standby_leader()
    }

    fn has_tags(&self, query: &Query) -> bool {
        query.tags().all(|(name, wanted)| self.tags.0.get(name).is_some_and(|tag| is_meant(tag, wanted)))
    }
}

/// Which check a path means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Check {
    StandbyLeader,
    Leader,
    Primary,
    Replica,
    ReadOnly,
    ReadOnlySync,
    ReadOnlyQuorum,
    Sync,
    Async,
    Quorum,
    Health,
    Unknown,
}

/// By parts of the path, as in the contract.
fn named(path: &str) -> Check {
    let has = |part: &str| path.contains(part);
    match () {
        () if path.is_empty() => Check::Primary,
        () if has("standby_leader") || has("standby-leader") => Check::StandbyLeader,
        () if has("leader") => Check::Leader,
        () if has("primary") || has("master") || has("read-write") => Check::Primary,
        () if has("replica") => Check::Replica,
        () if has("read-only-sync") => Check::ReadOnlySync,
        () if has("read-only-quorum") => Check::ReadOnlyQuorum,
        () if has("read-only") => Check::ReadOnly,
        () if has("health") => Check::Health,
        () if has("async") => Check::Async,
        () if has("sync") => Check::Sync,
        () if has("quorum") => Check::Quorum,
        () => Check::Unknown,
    }
}

/// Whether the check that `path` names is passed. `strict`: the primary must accept writes.
pub(crate) fn passes(path: &str, query: &Query, facts: &Facts, strict: bool) -> bool {
    let replica = || facts.is_replica(query);
    let passed = match named(path) {
        // Who asks for a leader asks for no tags.
        Check::StandbyLeader => return facts.is_standby_leader(),
        Check::Leader => return facts.is_any_leader(),
        Check::Primary => {
            let strict = strict || query.has("writable");
            return facts.is_primary() && (!strict || facts.accepts_writes());
        }
        Check::Replica => replica(),
        Check::ReadOnly => facts.is_any_leader() || replica(),
        Check::ReadOnlySync => facts.readable && (facts.leads || (facts.sync && replica())),
        Check::ReadOnlyQuorum => facts.readable && (facts.leads || (facts.quorum && replica())),
        Check::Sync => facts.readable && facts.sync && replica(),
        Check::Async => facts.readable && !facts.sync && !facts.quorum && replica(),
        Check::Quorum => facts.readable && facts.quorum && replica(),
        Check::Health => facts.running,
        Check::Unknown => false,
    };
    passed && facts.has_tags(query)
}

/// `/readiness`: leading, or streaming and near enough to the leader.
pub(crate) fn is_ready(query: &Query, facts: &Facts, usual_limit: u64) -> bool {
    let limit = query.lag().unwrap_or(usual_limit);
    let reached = if query.get("mode") == Some("write") { facts.received } else { facts.replayed };
    let near = match facts.leader_lsn {
        Some(_) => !facts.lags(reached, limit),
        // Nobody knows where the leader is: a member that the leader counts on is as good as it can be.
        None => facts.failsafe,
    };
    facts.leads || (facts.running && facts.replication_state == Some("streaming") && near)
}
