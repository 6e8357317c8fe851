//! The body of `GET /patroni` and of every health check. Other members read it in a race for the lead.

use super::{Shared, health};
use crate::conditions::Present;
use crate::local::{Answer, Seen};
use crate::publish;
use etcd::{Contact, PendingChange};
use postgres::probe::Facts;
use serde_json::{Map, Value, json};
use settings::SynchronousMode;
use std::collections::BTreeMap;
use std::time::Duration;
use types::{NodeName, TagValue};

/// So many log lines wait now and then without anything being wrong.
const USUALLY_WAITING: u64 = 2;

/// State and role in the words of the contract.
pub(super) fn state_and_role(shared: &Shared, seen: &Seen) -> (&'static str, &'static str) {
    let life = shared.local.life();
    let primary = seen.facts.as_ref().is_some_and(|(facts, _)| !facts.in_recovery);
    let role = match (primary, shared.dynamic().standby_cluster.is_some() && is_leader(shared)) {
        (true, _) => "primary",
        (false, true) => "standby_leader",
        (false, false) => "replica",
    };
    if life.postmaster.is_none() {
        return match shared.jobs.running() {
            ha::Job::Running { work: ha::Work::Bootstrap, .. } => {
                (shared.jobs.creation().as_str(), "uninitialized")
            }
            ha::Job::Running { work: ha::Work::Clone(_), .. } => ("creating replica", "uninitialized"),
            ha::Job::Running { .. } | ha::Job::Idle => match shared.local.data() {
                ha::Data::Present(control) if !control.clean => ("crashed", "replica"),
                ha::Data::Present(_) => ("stopped", "replica"),
                ha::Data::Empty | ha::Data::Incomplete | ha::Data::Unusable => ("stopped", "uninitialized"),
            },
        };
    }
    if life.stopping.is_some() {
        return ("stopping", role);
    }
    match seen.now {
        Answer::Running | Answer::Crowded => ("running", role),
        Answer::None | Answer::NotYet => ("starting", role),
        Answer::Silent => ("unknown", role),
    }
}

/// What the conditions of a restart are compared with.
pub(crate) fn present(shared: &Shared) -> Present {
    let seen = shared.local.seen();
    Present {
        role: state_and_role(shared, &seen).1,
        version: seen.facts.as_ref().map(|(facts, _)| facts.server_version),
        pending: !shared.local.pending().is_empty(),
    }
}

/// The whole body.
pub(super) fn body(shared: &Shared, seen: &Seen) -> Value {
    let (state, role) = state_and_role(shared, seen);
    let mut map = Map::new();
    map.insert("state".to_owned(), json!(state));
    let facts = seen.facts.as_ref().map(|(facts, _)| facts).filter(|_| state == "running");
    if let Some(facts) = facts {
        map.insert("postmaster_start_time".to_owned(), json!(facts.postmaster_start_time));
    }
    map.insert("role".to_owned(), json!(role));
    if let Some(facts) = facts {
        postgres(&mut map, facts);
    }
    let view = shared.view.borrow().clone();
    match health::sync_mode(shared, &view) {
        SynchronousMode::On if facts.is_some() => map.insert("sync_standby".to_owned(), json!(true)),
        SynchronousMode::Quorum if facts.is_some() => map.insert("quorum_standby".to_owned(), json!(true)),
        SynchronousMode::On | SynchronousMode::Quorum | SynchronousMode::Off => None,
    };
    let dynamic = shared.dynamic();
    if dynamic.pause {
        map.insert("pause".to_owned(), json!(true));
    }
    if let Some(snapshot) = &view.snapshot
        && snapshot.leader.is_none()
    {
        map.insert("cluster_unlocked".to_owned(), json!(true));
    }
    if failsafe_is_active(shared) {
        map.insert("failsafe_mode_is_active".to_owned(), json!(true));
    }
    if let Contact::Live { at } | Contact::Lost { since: at, .. } = view.contact {
        map.insert("dcs_last_seen".to_owned(), json!(wall_seconds(at)));
    }
    if is_leader(shared)
        && let ha::Authority::Held { term, .. } = shared.keeper.authority()
    {
        map.insert("term".to_owned(), json!(term.0));
    }
    let tags = tags(shared);
    if !tags.is_empty() {
        map.insert("tags".to_owned(), Value::Object(tags));
    }
    if let ha::Data::Present(control) = shared.local.data() {
        map.insert("database_system_identifier".to_owned(), json!(control.system_id.to_string()));
    }
    let pending = shared.local.pending();
    if !pending.is_empty() {
        map.insert("pending_restart".to_owned(), json!(true));
        map.insert("pending_restart_reason".to_owned(), reasons(&pending));
    }
    let settings = &shared.settings();
    map.insert(
        "patroni".to_owned(),
        json!({"version": crate::CONTRACT_VERSION, "scope": settings.scope, "name": settings.name.as_str()}),
    );
    if let Some(planned) = shared.planned.shown() {
        map.insert("scheduled_restart".to_owned(), Value::Object(planned));
    }
    let mut baton = json!({"version": env!("CARGO_PKG_VERSION"), "takes_wal": takes_wal(shared)});
    if dynamic.failsafe_mode && shared.failsafe.is_young(Duration::from_secs(dynamic.ttl.into())) {
        // What was promised before this start is not known: nobody may conclude that nothing was.
        baton["failsafe_unsure"] = json!(true);
    }
    if let Some(obstacles) = shared.readiness.obstacles() {
        let words: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        baton["rejoin"] = json!({"ready": obstacles.is_empty(), "obstacles": words});
    }
    let health = shared.health.get();
    if let Some(ailment) = health.sick {
        // Members in a race let others lead before this one.
        baton["sick"] = json!(ailment.to_string());
    }
    if let Some(lost) = shared.lost_wal.found() {
        baton["waits_for_lost_wal"] = json!(lost.segment);
    }
    if let Some(trouble) = shared.archiving.trouble() {
        baton["archives_nothing"] = json!(trouble.to_string());
    }
    if health.unfenced.is_some() {
        baton["fenced"] = json!(false);
    }
    map.insert("baton".to_owned(), baton);
    if shared.watchdog.failed() {
        map.insert("watchdog_failed".to_owned(), json!(true));
    }
    let (waiting, lost) = (shared.log.waiting(), shared.log.lost());
    if waiting > USUALLY_WAITING {
        map.insert("logger_queue_size".to_owned(), json!(waiting));
    }
    if lost > 0 {
        map.insert("logger_records_lost".to_owned(), json!(lost));
    }
    if let Some(progress) = shared.jobs.progress() {
        let job = json!({"done_bytes": progress.done_bytes, "total_bytes": progress.total_bytes, "bytes_per_second": progress.rate});
        map.insert("baton_job".to_owned(), job);
    }
    if let Some(last) = shared.losses.counts().last {
        let lost = json!({"timeline": last.fork_timeline, "fork": last.fork.to_string(), "bytes": last.bytes, "commits": last.transactions.commits, "kept": last.kept});
        map.insert("baton_undone".to_owned(), lost);
    }
    Value::Object(map)
}

fn postgres(map: &mut Map<String, Value>, facts: &Facts) {
    map.insert("server_version".to_owned(), json!(facts.server_version));
    let number = |lsn: Option<types::Lsn>| lsn.map(|lsn| lsn.0);
    let xlog = if facts.in_recovery {
        json!({
            "received_location": number(facts.received_lsn.or(facts.replayed_lsn)),
            "replayed_location": number(facts.replayed_lsn),
            "replayed_timestamp": facts.replayed_at.and_then(timestamp),
            "paused": facts.replay_paused,
        })
    } else {
        json!({ "location": number(facts.flush_lsn) })
    };
    map.insert("xlog".to_owned(), xlog);
    if let Some(timeline) = facts.timeline {
        map.insert("timeline".to_owned(), json!(timeline.0));
    }
    if let Some(state) = publish::replication_state(facts) {
        map.insert("replication_state".to_owned(), json!(state));
    }
    if !facts.replication.is_empty() {
        let row = |standby: &postgres::probe::Standby| {
            json!({
                "usename": standby.user, "application_name": standby.application_name,
                "client_addr": standby.client_addr, "state": standby.state,
                "sync_state": standby.sync_state, "sync_priority": standby.sync_priority,
            })
        };
        map.insert("replication".to_owned(), facts.replication.iter().map(row).collect());
    }
}

/// Whether a crashed leader could hand its last WAL over: only to a standby that follows nobody else.
fn takes_wal(shared: &Shared) -> bool {
    let upstream = shared.local.life().upstream;
    leader(shared).is_some_and(|leader| upstream == Some(ha::Upstream::Member(leader)))
}

/// The parameters that wait for a restart, with the value in effect and the one that is configured.
pub(super) fn reasons(pending: &BTreeMap<String, PendingChange>) -> Value {
    let reason =
        |change: &PendingChange| json!({"old_value": change.old_value, "new_value": change.new_value});
    Value::Object(pending.iter().map(|(name, change)| (name.clone(), reason(change))).collect())
}

fn tags(shared: &Shared) -> Map<String, Value> {
    let value = |value: &TagValue| match value {
        TagValue::Bool(value) => json!(value),
        TagValue::Int(value) => json!(value),
        TagValue::Text(text) => json!(text),
    };
    shared.settings().tags.published().0.iter().map(|(name, tag)| (name.clone(), value(tag))).collect()
}

fn timestamp(micros: i64) -> Option<String> {
    let at = jiff::Timestamp::from_microsecond(micros).ok()?;
    Some(at.strftime("%Y-%m-%d %H:%M:%S.%6f+00:00").to_string())
}

/// A moment as seconds since the epoch, for people.
pub(super) fn wall_seconds(at: types::Moment) -> i64 {
    let ago = clock::now().since(at);
    let then = clock::wall().checked_sub(ago).unwrap_or(std::time::SystemTime::UNIX_EPOCH);
    jiff::Timestamp::try_from(then).map_or(0, jiff::Timestamp::as_second)
}

/// Whether this member holds the lead and its authority has not run out.
pub(super) fn is_leader(shared: &Shared) -> bool {
    let held = match shared.keeper.authority() {
        ha::Authority::Held { deadline, .. } => clock::now() < deadline,
        ha::Authority::None => false,
    };
    held && leader(shared).as_ref() == Some(&shared.settings().name)
}

/// Whether this member leads without etcd by the word of the others, or gave its word to one that does.
pub(super) fn failsafe_is_active(shared: &Shared) -> bool {
    let deadline = match shared.keeper.authority() {
        ha::Authority::Held { deadline, .. } => Some(deadline),
        ha::Authority::None => None,
    };
    shared.failsafe.is_active(deadline)
}

/// Who holds the leader key, as last seen; before it was seen, an agent that was started again as the leader knows that it did.
pub(super) fn leader(shared: &Shared) -> Option<NodeName> {
    let snapshot = shared.view.borrow().snapshot.clone();
    match snapshot {
        Some(snapshot) => snapshot.leader.as_ref().map(|leader| leader.name.clone()),
        None => shared.failsafe.kept().map(|_| shared.settings().name.clone()),
    }
}

/// Whether this member announced that its PostgreSQL accepts writes in the present term.
pub(super) fn is_writable(shared: &Shared) -> bool {
    let snapshot = shared.view.borrow().snapshot.clone();
    let Some(snapshot) = snapshot else { return is_leader(shared) };
    let (Some(leader), Some(writable)) = (&snapshot.leader, &snapshot.writable) else { return false };
    leader.term == writable.term && writable.name == shared.settings().name
}
