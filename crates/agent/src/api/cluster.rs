//! `GET /cluster`, `GET /history`, `GET /baton/losses` and `GET /baton/archive`.

use super::Shared;
use super::reply::{self, Reply};
use crate::configure::Upstream;
use etcd::{Member, Snapshot};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use settings::{Dynamic, SynchronousMode};
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, NodeName, TagValue};

/// The cluster, read freshly from etcd; the last view when etcd does not answer.
pub(super) async fn cluster(shared: &Arc<Shared>) -> Reply {
    let by = clock::now().after(Duration::from_secs(2));
    let snapshot = match shared.etcd.snapshot(by).await {
        Ok(snapshot) => Arc::new(snapshot),
        Err(_) => match shared.view.borrow().snapshot.clone() {
            Some(snapshot) => snapshot,
            None => return reply::text(StatusCode::SERVICE_UNAVAILABLE, "etcd does not answer"),
        },
    };
    let dynamic = shared.dynamic();
    let members: Vec<Value> =
        snapshot.members.iter().map(|(name, found)| member(&snapshot, &dynamic, name, found)).collect();
    let mut body = Map::new();
    body.insert("members".to_owned(), Value::Array(members));
    if dynamic.pause {
        body.insert("pause".to_owned(), json!(true));
    }
    if let Some(failover) = snapshot.failover.as_ref().filter(|failover| failover.scheduled_at.is_some()) {
        let mut planned = Map::new();
        planned.insert("at".to_owned(), json!(failover.scheduled_at));
        if let Some(from) = &failover.leader {
            planned.insert("from".to_owned(), json!(from.as_str()));
        }
        if let Some(to) = &failover.member {
            planned.insert("to".to_owned(), json!(to.as_str()));
        }
        body.insert("scheduled_switchover".to_owned(), Value::Object(planned));
    }
    body.insert("scope".to_owned(), json!(shared.settings().scope));
    reply::json(StatusCode::OK, &Value::Object(body))
}

fn member(snapshot: &Snapshot, dynamic: &Dynamic, name: &NodeName, member: &Member) -> Value {
    let leads = snapshot.leader.as_ref().is_some_and(|leader| leader.name == *name);
    let sync = snapshot.sync.as_ref().is_some_and(|sync| {
        sync.sync_standby.iter().any(|listed| listed.0.eq_ignore_ascii_case(name.as_str()))
    });
    let role = match (leads, sync, dynamic.synchronous_mode) {
        (true, _, _) if dynamic.standby_cluster.is_some() => "standby_leader",
        (true, _, _) => "leader",
        (false, true, SynchronousMode::On) => "sync_standby",
        (false, true, SynchronousMode::Quorum) => "quorum_standby",
        (false, _, _) => "replica",
    };
    let state = match &member.replication_state {
        Some(state) if !leads => state.as_str(),
        Some(_) | None => member.state.as_str(),
    };
    let mut row = Map::new();
    row.insert("name".to_owned(), json!(name.as_str()));
    row.insert("role".to_owned(), json!(role));
    row.insert("state".to_owned(), json!(state));
    row.insert("api_url".to_owned(), json!(member.api_url));
    if let Some(place) = member.conn_url.as_deref().and_then(|url| Upstream::of(name, url)) {
        row.insert("host".to_owned(), json!(place.host));
        row.insert("port".to_owned(), json!(place.port));
    }
    if let Some(timeline) = member.timeline {
        row.insert("timeline".to_owned(), json!(timeline.0));
    }
    if member.pending_restart {
        row.insert("pending_restart".to_owned(), json!(true));
        if !member.pending_restart_reason.is_empty() {
            let reasons = super::status::reasons(&member.pending_restart_reason);
            row.insert("pending_restart_reason".to_owned(), reasons);
        }
    }
    if let Some(planned) = &member.scheduled_restart {
        row.insert("scheduled_restart".to_owned(), Value::Object(planned.clone()));
    }
    if !member.tags.0.is_empty() {
        let value = |value: &TagValue| match value {
            TagValue::Bool(value) => json!(value),
            TagValue::Int(value) => json!(value),
            TagValue::Text(text) => json!(text),
        };
        let tags: Map<String, Value> =
            member.tags.0.iter().map(|(name, tag)| (name.clone(), value(tag))).collect();
        row.insert("tags".to_owned(), Value::Object(tags));
    }
    if !leads {
        let optime = snapshot.optime();
        for (prefix, lsn) in
            [("receive_", member.receive_lsn), ("replay_", member.replay_lsn), ("", member.xlog_location)]
        {
            put_lag(&mut row, prefix, lsn, optime);
        }
    }
    Value::Object(row)
}

fn put_lag(row: &mut Map<String, Value>, prefix: &str, lsn: Option<Lsn>, optime: Option<Lsn>) {
    let position = lsn.map_or(json!("unknown"), |lsn| json!(lsn.to_string()));
    let lag = match (lsn, optime) {
        (Some(lsn), Some(optime)) => json!(optime.bytes_since(lsn)),
        (None, _) | (_, None) => json!("unknown"),
    };
    row.insert(format!("{prefix}lsn"), position);
    row.insert(format!("{prefix}lag"), lag);
}

/// The timelines so far.
pub(super) fn history(shared: &Shared) -> Reply {
    let snapshot = shared.view.borrow().snapshot.clone();
    let rows = snapshot.map(|snapshot| snapshot.history.clone()).unwrap_or_default();
    let row = |row: &etcd::HistoryRow| {
        let mut cells = vec![json!(row.timeline.0), json!(row.lsn.0), json!(row.reason)];
        cells.extend(row.timestamp.iter().map(|text| json!(text)));
        cells.extend(row.new_leader.iter().map(|text| json!(text)));
        Value::Array(cells)
    };
    reply::json(StatusCode::OK, &rows.iter().map(row).collect())
}

/// What single members had and the cluster has not, as they found when they came back.
pub(super) fn losses(shared: &Shared) -> Reply {
    let snapshot = shared.view.borrow().snapshot.clone();
    let rows = snapshot.map(|snapshot| snapshot.losses.clone()).unwrap_or_default();
    reply::json(StatusCode::OK, &rows.iter().map(etcd::Loss::to_value).collect())
}

/// What the archive holds of each promotion.
pub(super) fn archive(shared: &Shared) -> Reply {
    let snapshot = shared.view.borrow().snapshot.clone();
    let rows = snapshot.map(|snapshot| snapshot.archive.clone()).unwrap_or_default();
    reply::json(StatusCode::OK, &rows.iter().map(etcd::ArchiveRow::to_value).collect())
}
