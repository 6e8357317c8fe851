//! From what etcd holds to what is shown: [`etcd::Snapshot`] → [`Cluster`].

use crate::render::history::Row;
use crate::view::{Cluster, Lead, Member, Position, Scheduled, Standing, Synchronous, Writable};
use etcd::{Initialize, OrText, PendingChange, Snapshot};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use types::{Lsn, NodeName, PostgresState, Role, TagValue};

/// The cluster `name`, as its keys tell.
pub(crate) fn cluster(name: &str, snapshot: &Snapshot) -> Cluster {
    let config = |key: &str| snapshot.config.as_ref().and_then(|config| config.value.get(key));
    let mut members: Vec<Member> =
        snapshot.members.iter().map(|(name, found)| member(snapshot, name, found)).collect();
    members.extend(gone(snapshot).into_iter().map(|name| absent(snapshot, &name)));
    members.sort_by(|a, b| a.name.cmp(&b.name));
    Cluster {
        name: name.to_owned(),
        system_id: snapshot.initialize.as_ref().map(|initialize| match initialize {
            Initialize::Bootstrapping => String::new(),
            Initialize::System(id) => id.to_string(),
        }),
        members,
        lead: snapshot
            .leader
            .as_ref()
            .map(|leader| Lead { name: leader.name.0.clone(), term: leader.term.0 }),
        writable: snapshot.writable.as_ref().map(|writable| Writable {
            name: writable.name.0.clone(),
            term: writable.term.0,
            timeline: writable.timeline.0,
            lsn: writable.lsn,
        }),
        paused: config("pause").is_some_and(truthy),
        synchronous: synchronous(config("synchronous_mode")),
        scheduled_switchover: snapshot.failover.as_ref().and_then(|failover| {
            let text = |name: &Option<NodeName>| name.as_ref().map(|name| name.0.clone());
            let at = failover.scheduled_at.clone()?;
            Some(Scheduled { at, from: text(&failover.leader), to: text(&failover.member) })
        }),
        addresses: snapshot
            .addresses
            .iter()
            .map(|(ip, holder)| (ip.clone(), holder.role.clone(), holder.name.0.clone()))
            .collect(),
        bgp: snapshot.bgp.iter().map(|(name, of)| (name.0.clone(), of.clone())).collect(),
        spoiled: snapshot.spoiled.iter().map(|spoiled| format!("{}: {}", spoiled.key, spoiled.why)).collect(),
        remarks: snapshot
            .members
            .iter()
            .flat_map(|(name, member)| {
                let told = member.waits_for.iter().chain(&member.archives_nothing);
                told.map(move |text| format!("{name} {text}"))
            })
            .collect(),
    }
}

/// The rows of `history`.
pub(crate) fn history(snapshot: &Snapshot) -> Vec<Row> {
    let row = |row: &etcd::HistoryRow| Row {
        timeline: row.timeline.0,
        lsn: row.lsn.0,
        reason: row.reason.clone(),
        timestamp: row.timestamp.clone(),
        new_leader: row.new_leader.clone(),
    };
    snapshot.history.iter().map(row).collect()
}

fn member(snapshot: &Snapshot, name: &NodeName, found: &etcd::Member) -> Member {
    let standing = standing(snapshot, name, found);
    let (host, port) = address(found.conn_url.as_deref().unwrap_or_default());
    let optime = snapshot.optime();
    let position = |lsn: Option<Lsn>| match lsn {
        _ if standing.leads() => Position::NotApplicable,
        None => Position::Unknown,
        Some(lsn) => Position::At { lsn, lag: optime.map(|optime| optime.bytes_since(lsn)) },
    };
    Member {
        name: name.0.clone(),
        host,
        port,
        api_url: found.api_url.clone().unwrap_or_default(),
        standing,
        state: state(standing, found),
        timeline: found.timeline.map(|timeline| timeline.0),
        receive: position(found.receive_lsn),
        // A primary without the lead says only where it is.
        replay: position(found.replay_lsn.or(found.xlog_location)),
        pending_restart: found.pending_restart,
        pending_restart_reason: found.pending_restart_reason.iter().map(change).collect(),
        scheduled_restart: found
            .scheduled_restart
            .as_ref()
            .and_then(|restart| restart.get("schedule")?.as_str().map(str::to_owned)),
        paused: found.pause,
        tags: found.tags.0.iter().map(|(name, value)| (name.clone(), tag(value))).collect(),
        version: found.version.clone(),
    }
}

/// A running replica is called by how it gets its WAL.
fn state(standing: Standing, found: &etcd::Member) -> String {
    match (&found.state, &found.replication_state) {
        (OrText::Known(PostgresState::Running), Some(replication)) if !standing.leads() => {
            replication.clone()
        }
        (state, _) => state.as_str().to_owned(),
    }
}

fn standing(snapshot: &Snapshot, name: &NodeName, found: &etcd::Member) -> Standing {
    if snapshot.leader.as_ref().is_some_and(|leader| leader.name == *name) {
        return match found.role {
            OrText::Known(Role::StandbyLeader) => Standing::StandbyLeader,
            OrText::Known(_) | OrText::Other(_) => Standing::Leader,
        };
    }
    let mode = snapshot.config.as_ref().and_then(|config| config.value.get("synchronous_mode"));
    let listed = snapshot.sync.as_ref().is_some_and(|sync| {
        sync.sync_standby.iter().any(|standby| standby.as_str().eq_ignore_ascii_case(name.as_str()))
    });
    match (listed, synchronous(mode)) {
        (true, Synchronous::On) => Standing::SyncStandby,
        (true, Synchronous::Quorum) => Standing::QuorumStandby,
        (true, Synchronous::Off) | (false, _) => Standing::Replica,
    }
}

/// Whom the others count on without a key of its own: the holder of the lead, and those that confirm commits.
fn gone(snapshot: &Snapshot) -> BTreeSet<NodeName> {
    let lead = snapshot.leader.iter().map(|leader| leader.name.clone());
    let sync = snapshot.sync.iter().flat_map(|sync| sync.sync_standby.iter().cloned());
    let known =
        |name: &NodeName| snapshot.members.keys().any(|member| member.0.eq_ignore_ascii_case(&name.0));
    lead.chain(sync).filter(|name| !known(name)).collect()
}

fn absent(snapshot: &Snapshot, name: &NodeName) -> Member {
    let nothing = etcd::Member::new(PostgresState::Stopped, Role::Replica);
    let standing = standing(snapshot, name, &nothing);
    Member {
        name: name.0.clone(),
        host: String::new(),
        port: 5432,
        api_url: String::new(),
        standing,
        state: "gone".to_owned(),
        timeline: None,
        receive: if standing.leads() { Position::NotApplicable } else { Position::Unknown },
        replay: if standing.leads() { Position::NotApplicable } else { Position::Unknown },
        pending_restart: false,
        pending_restart_reason: Vec::new(),
        scheduled_restart: None,
        paused: false,
        tags: BTreeMap::new(),
        version: None,
    }
}

/// Host and port of `postgres://host:port/database`.
fn address(conn_url: &str) -> (String, u16) {
    let rest = conn_url.split_once("://").map_or(conn_url, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let bare = |host: &str| host.trim_start_matches('[').trim_end_matches(']').to_owned();
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => match port.parse() {
            Ok(port) => (bare(host), port),
            Err(_) => (bare(authority), 5432),
        },
        Some(_) | None => (bare(authority), 5432),
    }
}

fn change((name, change): (&String, &PendingChange)) -> String {
    let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "unset".to_owned());
    format!("{name}: {}->{}", side(&change.old_value), side(&change.new_value))
}

fn tag(value: &TagValue) -> Value {
    match value {
        TagValue::Bool(flag) => Value::from(*flag),
        TagValue::Int(number) => Value::from(*number),
        TagValue::Text(text) => Value::from(text.as_str()),
    }
}

fn synchronous(value: Option<&Value>) -> Synchronous {
    match value {
        Some(Value::String(text)) if text.eq_ignore_ascii_case("quorum") => Synchronous::Quorum,
        Some(value) if truthy(value) => Synchronous::On,
        Some(_) | None => Synchronous::Off,
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64().is_some_and(|number| number != 0.0),
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "on" | "true" | "yes" | "1"),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{address, cluster};
    use crate::render::list::{Wish, list};
    use etcd::{ConfigKey, Initialize, Leader, Member, Snapshot, Status, Sync, Writable};
    use serde_json::json;
    use types::{LeaseId, Lsn, NodeName, SystemId, Term, Timeline};

    fn member(json: &str) -> Member {
        Member::parse(json).unwrap()
    }

    /// What four members of a synchronous cluster write.
    fn demo() -> Snapshot {
        let first = member(
            r#"{"conn_url":"postgres://10.0.0.1:5432/postgres","api_url":"http://10.0.0.1:8008/patroni","state":"running","role":"primary","version":"4.1.5","xlog_location":67108960,"timeline":3,"pending_restart":true,"pending_restart_reason":{"max_connections":{"old_value":"100","new_value":"200"}},"tags":{"clonefrom":true,"zone":"a"}}"#,
        );
        let second = member(
            r#"{"conn_url":"postgres://10.0.0.2:5432/postgres","api_url":"http://10.0.0.2:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67108960,"replay_lsn":63108960,"receive_lsn":67108960,"replication_state":"streaming","timeline":3}"#,
        );
        let third = member(
            r#"{"conn_url":"postgres://10.0.0.3:5432/postgres","api_url":"http://10.0.0.3:8008/patroni","state":"starting","role":"replica","version":"4.1.5"}"#,
        );
        let fourth = member(
            r#"{"conn_url":"postgres://10.0.0.4:5433/postgres","api_url":"http://10.0.0.4:8008/patroni","state":"running","role":"replica","version":"4.1.5","xlog_location":67108960,"replay_lsn":63108960,"receive_lsn":67108960,"replication_state":"streaming","timeline":3,"tags":{"replicatefrom":"pg-2","nofailover":true},"scheduled_restart":{"schedule":"2030-01-01T10:00:00+00:00","postmaster_start_time":"2029"}}"#,
        );
        let name = |name: &str| NodeName::from(name);
        Snapshot {
            initialize: Some(Initialize::System(SystemId(7_391_234_567_890_123_456))),
            config: Some(ConfigKey { value: json!({"ttl": 30, "synchronous_mode": true}), mod_revision: 5 }),
            leader: Some(Leader { name: name("pg-1"), lease: LeaseId(1), term: Term(17), mod_revision: 17 }),
            members: [("pg-1", first), ("pg-2", second), ("pg-3", third), ("pg-4", fourth)]
                .into_iter()
                .map(|(key, member)| (name(key), member))
                .collect(),
            status: Some(Status::parse(r#"{"optime":67108960}"#).unwrap()),
            sync: Some(Sync {
                leader: Some(name("pg-1")),
                sync_standby: vec![name("PG-2")],
                ..Sync::default()
            }),
            ..Snapshot::default()
        }
    }

    #[test]
    fn the_keys_become_the_table_that_patronictl_draws_of_them() {
        let drawn = list(&cluster("demo", &demo()), Wish::default());
        assert_eq!(drawn, list(&crate::render::tests::rich(), Wish::default()));
    }

    #[test]
    fn who_is_counted_on_but_has_no_key_is_shown_as_gone() {
        let mut snapshot = demo();
        snapshot.members.remove(&NodeName::from("pg-1"));
        snapshot.members.remove(&NodeName::from("pg-2"));
        snapshot.writable = Some(Writable {
            term: Term(17),
            name: NodeName::from("pg-1"),
            timeline: Timeline(3),
            lsn: Lsn(5),
            guarded: true,
            lease: None,
        });
        let cluster = cluster("demo", &snapshot);
        let shown: Vec<(&str, &str, &str)> = cluster
            .members
            .iter()
            .map(|member| (member.name.as_str(), member.standing.text(), member.state.as_str()))
            .collect();
        assert_eq!(shown[..2], [("PG-2", "Sync Standby", "gone"), ("pg-1", "Leader", "gone")]);
        assert!(cluster.candidates().iter().all(|member| member.state != "gone"));
    }

    #[test]
    fn addresses_are_taken_out_of_urls() {
        for (url, host, port) in [
            ("postgres://10.0.0.1:5432/postgres", "10.0.0.1", 5432),
            ("postgres://db/postgres", "db", 5432),
            ("postgres://[::1]:5433/x", "::1", 5433),
            ("postgres://[::1]/x", "::1", 5432),
            ("postgres://u:p@h:1/x", "h", 1),
            ("", "", 5432),
        ] {
            assert_eq!(address(url), (host.to_owned(), port), "{url}");
        }
    }
}
