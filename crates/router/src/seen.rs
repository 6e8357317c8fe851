//! What of etcd's content matters to a router, read from the snapshot in one place.

use std::collections::{BTreeMap, BTreeSet};
use types::{Lsn, NodeName, PostgresState, Role, TagValue, Term};

/// One consistent state of the cluster's keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Seen {
    pub revision: i64,
    pub leader: Option<(NodeName, Term)>,
    /// Who says to accept writes, and in which term.
    pub writable: Option<(NodeName, Term)>,
    /// A switchover was announced: the term that ends with it, and the revision of the announcement.
    pub handover: Option<(Term, i64)>,
    /// The synchronous standbys.
    pub sync: BTreeSet<NodeName>,
    /// The newest position that the leader published.
    pub position: Option<Lsn>,
    pub members: BTreeMap<NodeName, Member>,
}

/// One member's key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Member {
    pub conn_url: String,
    /// Where its pooler is.
    pub proxy_url: Option<String>,
    pub api_url: String,
    /// `None` for a text that is no known state.
    pub state: Option<PostgresState>,
    pub state_text: String,
    pub role: Option<Role>,
    pub role_text: String,
    pub streaming: bool,
    pub replayed: Option<Lsn>,
    pub noloadbalance: bool,
    /// Tagged `offline` or `pg_offline_query`.
    pub offline: bool,
    /// Written by one of our agents, which also say when they accept writes.
    pub is_baton: bool,
}

impl From<&etcd::Snapshot> for Seen {
    fn from(snapshot: &etcd::Snapshot) -> Seen {
        Seen {
            revision: snapshot.revision,
            leader: snapshot.leader.as_ref().map(|leader| (leader.name.clone(), leader.term)),
            writable: snapshot.writable.as_ref().map(|writable| (writable.name.clone(), writable.term)),
            handover: snapshot.handover.as_ref().map(|handover| (handover.term, handover.mod_revision)),
            sync: snapshot.sync.iter().flat_map(|sync| sync.sync_standby.iter().cloned()).collect(),
            position: snapshot.optime(),
            members: snapshot
                .members
                .iter()
                .map(|(name, member)| (name.clone(), Member::from(member)))
                .collect(),
        }
    }
}

impl From<&etcd::Member> for Member {
    fn from(member: &etcd::Member) -> Member {
        let tag = |name: &str| member.tags.0.get(name).and_then(TagValue::as_bool).unwrap_or(false);
        Member {
            conn_url: member.conn_url.clone().unwrap_or_default(),
            proxy_url: member.proxy_url.clone(),
            api_url: member.api_url.clone().unwrap_or_default(),
            state: member.state.known(),
            state_text: member.state.as_str().to_owned(),
            role: member.role.known(),
            role_text: member.role.as_str().to_owned(),
            streaming: member.replication_state.as_deref() == Some("streaming"),
            replayed: member.replay_lsn,
            noloadbalance: member.tags.noloadbalance(),
            offline: tag("offline") || tag("pg_offline_query"),
            is_baton: member.baton.is_some(),
        }
    }
}
