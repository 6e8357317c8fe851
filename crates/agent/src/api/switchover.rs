//! `/switchover` and `/failover`: the wish is written to `/failover` in etcd, and what comes of it is watched.

use super::Shared;
use super::reply::{self, Reply};
use super::schedule;
use etcd::{Failover, Snapshot};
use hyper::StatusCode;
use serde_json::Value;
use settings::SynchronousMode;
use std::sync::Arc;
use std::time::Duration;
use types::NodeName;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Switchover,
    Failover,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Switchover => "switchover",
            Kind::Failover => "failover",
        }
    }
}

struct Wish {
    leader: Option<NodeName>,
    candidate: Option<NodeName>,
    scheduled_at: Option<Value>,
}

/// Writes the wish, if it can come true, and waits for what comes of it.
pub(super) async fn begin(body: Option<Value>, shared: &Arc<Shared>, kind: Kind) -> Reply {
    let Some(body) = body else { return reply::error(StatusCode::BAD_REQUEST, "the request needs a body") };
    let name = |key: &str| {
        let text = body.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
        text.map(NodeName::from)
    };
    let wish = Wish {
        leader: name("leader"),
        candidate: name("candidate").or_else(|| name("member")),
        scheduled_at: body.get("scheduled_at").filter(|at| !at.is_null()).cloned(),
    };
    // A failover that names the leader is a switchover; it still has to name a candidate.
    if kind == Kind::Failover && wish.candidate.is_none() {
        return reply::text(
            StatusCode::BAD_REQUEST,
            "Failover could be performed only to a specific candidate",
        );
    }
    let kind = if kind == Kind::Failover && wish.leader.is_some() { Kind::Switchover } else { kind };
    let by = clock::now().after(Duration::from_secs(3));
    let snapshot = match shared.etcd.snapshot(by).await {
        Ok(snapshot) => snapshot,
        Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("failed to {error}")),
    };
    let dynamic = shared.dynamic();
    let pause = dynamic.pause;
    let on = dynamic.synchronous_mode != SynchronousMode::Off && kind == Kind::Switchover;
    let sync = snapshot.sync.as_ref().filter(|sync| on && sync.leader.is_some());
    let scheduled = match wish.scheduled_at.as_ref().filter(|_| kind == Kind::Switchover) {
        Some(at) if wish.leader.is_some() && wish.leader != wish.candidate => {
            match schedule::read(at, "switchover", pause) {
                Ok(schedule) => Some(schedule.iso()),
                Err(refusal) => return *refusal,
            }
        }
        Some(_) | None => None,
    };
    if let Some((status, text)) = refusal(kind, &wish, &snapshot, sync, pause) {
        return reply::text(status, text);
    }
    let failover = Failover {
        leader: wish.leader.clone(),
        member: wish.candidate.clone(),
        scheduled_at: scheduled.clone(),
        mod_revision: 0,
    };
    if shared.etcd.put_failover(&failover, None, by).await.is_err() {
        let text = "failed to write failover key into DCS";
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, text);
    }
    if scheduled.is_some() {
        return reply::text(StatusCode::ACCEPTED, "Switchover scheduled");
    }
    let from = snapshot.leader.as_ref().map(|leader| leader.name.clone());
    outcome(shared, kind, &wish, from).await
}

/// Whether this standby has every acknowledged commit. Names compare without regard to case.
fn lists(sync: &etcd::Sync, name: &NodeName) -> bool {
    sync.sync_standby.iter().any(|listed| listed.0.eq_ignore_ascii_case(name.as_str()))
}

fn refusal(
    kind: Kind,
    wish: &Wish,
    snapshot: &Snapshot,
    sync: Option<&etcd::Sync>,
    pause: bool,
) -> Option<(StatusCode, String)> {
    let bad = |text: &str| Some((StatusCode::BAD_REQUEST, text.to_owned()));
    let conflict = |text: String| Some((StatusCode::PRECONDITION_FAILED, text));
    match (kind, &wish.leader, &wish.candidate) {
        (Kind::Switchover, None, _) => {
            return bad("Switchover could be performed only from a specific leader");
        }
        (Kind::Failover, _, _) if wish.scheduled_at.is_some() => {
            return bad("Failover can't be scheduled");
        }
        (Kind::Switchover, Some(leader), Some(candidate)) if leader == candidate => {
            return bad("Switchover target and source are the same");
        }
        (Kind::Switchover, Some(_), None) if pause => {
            return bad("Switchover is possible only to a specific candidate in a paused state");
        }
        (_, _, _) => {}
    }
    let leader = snapshot.leader.as_ref().map(|leader| &leader.name);
    if kind == Kind::Switchover && leader != wish.leader.as_ref() {
        return conflict("leader name does not match".to_owned());
    }
    match &wish.candidate {
        Some(candidate) if !snapshot.members.contains_key(candidate) => {
            conflict("candidate does not exists".to_owned())
        }
        Some(candidate) if sync.is_some_and(|sync| !lists(sync, candidate)) => {
            conflict("candidate name does not match with sync_standby".to_owned())
        }
        Some(_) => None,
        None if sync.is_some_and(|sync| sync.sync_standby.is_empty()) => {
            conflict("switchover is not possible: can not find sync_standby".to_owned())
        }
        None if snapshot.members.keys().all(|name| Some(name) == leader) => {
            conflict(format!("{} is not possible: cluster does not have members except leader", kind.name()))
        }
        None => None,
    }
}

/// Waits until another member leads and accepts writes, or the wish is gone and nothing has changed.
async fn outcome(shared: &Arc<Shared>, kind: Kind, wish: &Wish, from: Option<NodeName>) -> Reply {
    let dynamic = shared.dynamic();
    let loop_wait = Duration::from_secs(dynamic.loop_wait.into());
    // Among members that were just started it begins when one can say that nobody leads without etcd.
    let begins = if dynamic.failsafe_mode { Duration::from_secs(dynamic.ttl.into()) } else { Duration::ZERO };
    let patience = begins + 2 * loop_wait.max(Duration::from_secs(10));
    let mut view = shared.view.clone();
    let mut written = false;
    let watched = async {
        loop {
            let snapshot = view.borrow_and_update().snapshot.clone();
            if let Some(snapshot) = snapshot {
                let leader = snapshot.leader.as_ref().map(|leader| leader.name.clone());
                written |= snapshot.failover.is_some();
                if let Some(leader) = leader.as_ref().filter(|leader| Some(*leader) != from.as_ref())
                    && is_primary(&snapshot, leader)
                {
                    return Some(leader.clone());
                }
                if written && snapshot.failover.is_none() && leader.is_some() && leader == from {
                    return None;
                }
            }
            if view.changed().await.is_err() {
                return None;
            }
        }
    };
    let done = if kind == Kind::Switchover { "Switched over" } else { "Failed over" };
    match tokio::time::timeout(patience, watched).await {
        Ok(Some(leader)) => match &wish.candidate {
            Some(candidate) if *candidate != leader => {
                reply::text(StatusCode::OK, format!("{done} to \"{leader}\" instead of \"{candidate}\""))
            }
            Some(_) | None => {
                let text = format!("Successfully {} to \"{leader}\"", done.to_lowercase());
                reply::text(StatusCode::OK, text)
            }
        },
        Ok(None) => {
            let (_, why) = shared.journal.with(|journal| journal.refused()).unwrap_or_default();
            let text = if why.is_empty() {
                format!("{} is not possible: no good candidates have been found", kind.name())
            } else {
                format!("{} is not possible: no good candidates have been found ({why})", kind.name())
            };
            reply::text(StatusCode::PRECONDITION_FAILED, text)
        }
        Err(_) => {
            let text = if kind == Kind::Switchover {
                "Switchover status unknown"
            } else {
                "Failover status unknown"
            };
            reply::text(StatusCode::SERVICE_UNAVAILABLE, text)
        }
    }
}

/// Whether the new leader's PostgreSQL accepts writes.
fn is_primary(snapshot: &Snapshot, leader: &NodeName) -> bool {
    let term = snapshot.leader.as_ref().map(|leader| leader.term);
    let announced = snapshot.writable.as_ref().is_some_and(|writable| Some(writable.term) == term);
    let role = snapshot.members.get(leader).and_then(|member| member.role.known());
    // Who leads a standby cluster never writes.
    let published = matches!(role, Some(types::Role::Primary | types::Role::StandbyLeader));
    announced || published
}

/// Takes a scheduled switchover back.
pub(super) async fn flush(shared: &Arc<Shared>) -> Reply {
    let by = clock::now().after(Duration::from_secs(3));
    let snapshot = match shared.etcd.snapshot(by).await {
        Ok(snapshot) => snapshot,
        Err(error) => return reply::text(StatusCode::SERVICE_UNAVAILABLE, format!("failed to {error}")),
    };
    let planned = snapshot.failover.filter(|failover| failover.scheduled_at.is_some());
    let Some(planned) = planned else {
        return reply::text(StatusCode::NOT_FOUND, "no switchover is scheduled");
    };
    match shared.etcd.clear_failover(planned.mod_revision, by).await {
        Ok(()) => reply::text(StatusCode::OK, "scheduled switchover deleted"),
        Err(_) => reply::error(StatusCode::CONFLICT, "the schedule has changed at the same moment"),
    }
}
