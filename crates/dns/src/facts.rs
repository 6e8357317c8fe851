//! Who is what, from etcd's content. Pure.

use etcd::Snapshot;
use std::collections::BTreeMap;
use types::{NodeName, PostgresState, Role, TagValue, Term};

/// Where a member's PostgreSQL is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// A name or an address, without brackets.
    pub host: String,
    pub port: u16,
}

/// What the names say.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    pub revision: i64,
    /// The term of the leader, and who accepts writes in it.
    pub primary: Option<(NodeName, Term)>,
    pub replicas: Vec<NodeName>,
    pub sync: Vec<NodeName>,
    pub offline: Vec<NodeName>,
    pub members: BTreeMap<NodeName, Place>,
}

impl Facts {
    /// Reads them. Replicas more than `max_lag` bytes behind are left out.
    #[must_use]
    pub fn of(snapshot: &Snapshot, max_lag: Option<u64>) -> Facts {
        let mut facts = Facts { revision: snapshot.revision, ..Facts::default() };
        facts.primary = primary(snapshot);
        let synchronous = snapshot.sync.as_ref().map(|sync| &sync.sync_standby);
        for (name, member) in &snapshot.members {
            let Some(place) = member.conn_url.as_deref().and_then(place_of) else { continue };
            facts.members.insert(name.clone(), place);
            let tag = |tag: &str| member.tags.0.get(tag).and_then(TagValue::as_bool).unwrap_or(false);
            let running = member.state.known() == Some(PostgresState::Running);
            // Without a primary nobody streams, and reads go on where they can.
            let streams = member.replication_state.as_deref() == Some("streaming") || facts.primary.is_none();
            if !running
                || !streams
                || member.role.known() != Some(Role::Replica)
                || member.tags.noloadbalance()
            {
                continue;
            }
            let lag = snapshot.optime().zip(member.replay_lsn).map(|(head, at)| head.bytes_since(at));
            if max_lag.is_some_and(|max| lag.is_none_or(|lag| lag > max)) {
                continue;
            }
            if tag("offline") || tag("pg_offline_query") {
                facts.offline.push(name.clone());
                continue;
            }
            facts.replicas.push(name.clone());
            if synchronous.is_some_and(|synchronous| synchronous.contains(name)) {
                facts.sync.push(name.clone());
            }
        }
        facts
    }
}

/// The holder of the leader key, when it accepts writes. Our agents say so in a key of its own; a Patroni is believed when it calls itself
/// a running primary.
fn primary(snapshot: &Snapshot) -> Option<(NodeName, Term)> {
    let leader = snapshot.leader.as_ref()?;
    let member = snapshot.members.get(&leader.name)?;
    let writable = match &snapshot.writable {
        Some(writable) if writable.term == leader.term => writable.name == leader.name,
        Some(_) | None => {
            member.baton.is_none()
                && member.role.known() == Some(Role::Primary)
                && member.state.known() == Some(PostgresState::Running)
        }
    };
    writable.then(|| (leader.name.clone(), leader.term))
}

/// Host and port of a `postgres://host:port/db`.
fn place_of(url: &str) -> Option<Place> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
    let authority = rest.split(['/', '?']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (host, rest) = bracketed.split_once(']')?;
            (host, rest.strip_prefix(':').unwrap_or("5432"))
        }
        None => place.rsplit_once(':').unwrap_or((place, "5432")),
    };
    Some(Place { host: host.to_owned(), port: port.parse().ok()? }).filter(|place| !place.host.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Facts, place_of};
    use etcd::{Leader, Member, Snapshot, Sync, Writable};
    use types::{LeaseId, Lsn, NodeName, PostgresState, Role, TagValue, Term, Timeline};

    fn cluster() -> Snapshot {
        let mut snapshot = Snapshot { revision: 40, ..Snapshot::default() };
        for (number, role) in [(1, Role::Primary), (2, Role::Replica), (3, Role::Replica), (4, Role::Replica)]
        {
            let mut member = Member::new(PostgresState::Running, role);
            member.conn_url = Some(format!("postgres://10.0.0.{number}:5432/postgres"));
            member.replication_state = (role == Role::Replica).then(|| "streaming".to_owned());
            member.replay_lsn = Some(Lsn(1000 - 100 * number));
            snapshot.members.insert(NodeName(format!("pg-{number}")), member);
        }
        let name = NodeName::from("pg-1");
        snapshot.leader = Some(Leader { name, lease: LeaseId(1), term: Term(17), mod_revision: 17 });
        snapshot.optime_leader = Some(Lsn(1000));
        snapshot.sync =
            Some(Sync { sync_standby: [NodeName::from("pg-2")].into(), ..Sync::parse("{}").unwrap() });
        let tags = &mut snapshot.members.get_mut(&NodeName::from("pg-4")).unwrap().tags;
        tags.0.insert("pg_offline_query".to_owned(), TagValue::Bool(true));
        snapshot
    }

    fn names(names: &[NodeName]) -> String {
        names.iter().map(|name| name.0.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn everybody_has_a_role() {
        let facts = Facts::of(&cluster(), None);
        assert_eq!(facts.primary, Some((NodeName::from("pg-1"), Term(17))));
        assert_eq!(names(&facts.replicas), "pg-2 pg-3");
        assert_eq!(names(&facts.sync), "pg-2");
        assert_eq!(names(&facts.offline), "pg-4");
        assert_eq!(names(&Facts::of(&cluster(), Some(250)).replicas), "pg-2");
    }

    #[test]
    fn a_leader_that_does_not_accept_writes_is_no_primary() {
        let mut snapshot = cluster();
        let first = NodeName::from("pg-1");
        snapshot.members.get_mut(&first).unwrap().baton = Some("1".to_owned());
        assert_eq!(Facts::of(&snapshot, None).primary, None, "it has not said so");
        let writable = |term| Writable {
            term: Term(term),
            name: first.clone(),
            timeline: Timeline(1),
            lsn: Lsn(1),
            guarded: true,
            lease: None,
        };
        snapshot.writable = Some(writable(16));
        assert_eq!(Facts::of(&snapshot, None).primary, None, "it said so of an earlier term");
        snapshot.writable = Some(writable(17));
        assert!(Facts::of(&snapshot, None).primary.is_some());
        snapshot.leader = None;
        assert_eq!(Facts::of(&snapshot, None).primary, None);
    }

    #[test]
    fn places_are_found_in_urls() {
        let place = |url| place_of(url).map(|place| format!("{} {}", place.host, place.port));
        assert_eq!(place("postgres://10.0.0.1:5433/postgres").unwrap(), "10.0.0.1 5433");
        assert_eq!(place("postgresql://[fd00::1]:5433/x?y").unwrap(), "fd00::1 5433");
        assert_eq!(place("postgres://pg-1.example/x").unwrap(), "pg-1.example 5432");
        assert_eq!(place("http://x"), None);
    }
}
