//! `/failsafe`: who must agree, and a leader without etcd that asks whether it may lead on.

use super::Shared;
use super::reply::{self, Reply};
use crate::failsafe::Call;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use serde_json::{Map, Value};
use settings::SynchronousMode;
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, NodeName};

/// Who asks gives up after 800 ms.
const ETCD_WITHIN: Duration = Duration::from_millis(400);

/// The members of `/failsafe` and their addresses.
pub(super) fn topology(shared: &Shared) -> Reply {
    let snapshot = shared.view.borrow().snapshot.clone();
    let members = match snapshot {
        Some(snapshot) => snapshot.failsafe.clone(),
        None => shared.failsafe.kept().cloned(),
    };
    match members {
        Some(members) => {
            let entry = |(name, url): (NodeName, String)| (name.0, Value::from(url));
            reply::json(StatusCode::OK, &Value::Object(members.into_iter().map(entry).collect::<Map<_, _>>()))
        }
        None => reply::error(StatusCode::BAD_GATEWAY, "the key /failsafe is not there"),
    }
}

/// A leader asks. Who agrees does not take the lead for a ttl, and says how far its own WAL is.
pub(super) async fn asked(body: &Value, shared: &Arc<Shared>) -> Reply {
    let dynamic = shared.dynamic();
    if !dynamic.failsafe_mode {
        return reply::error(StatusCode::BAD_GATEWAY, "failsafe mode is not enabled");
    }
    let Some(call) = call(body) else {
        return reply::error(StatusCode::BAD_REQUEST, "the name of the leader is missing");
    };
    // A Patroni, which does not say what it takes for the ttl, gets the answer that it would get from a Patroni.
    if call.ttl.is_some() && can_replace(shared).await {
        let why = "etcd answers here, and this member can take over: the one who asks is cut off alone";
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, why);
    }
    let caller = call.name.clone();
    let facts = shared.local.seen().facts.map(|(facts, _)| facts);
    let running = shared.local.life().postmaster.is_some();
    let ttl = Duration::from_secs(dynamic.ttl.into());
    let agreed = shared.failsafe.accept(call, ttl, || {
        let primary = running && facts.as_ref().is_some_and(|facts| !facts.in_recovery);
        primary || shared.keeper.lease().term.is_some() || replaced(shared, &caller)
    });
    if !agreed {
        return reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Running as a leader");
    }
    let mut accepted = reply::text(StatusCode::OK, "Accepted");
    let lsn = facts.and_then(|facts| facts.received_lsn.max(facts.replayed_lsn));
    if let Some(lsn) = lsn {
        accepted.headers_mut().insert("lsn", HeaderValue::from(lsn.0));
    }
    accepted
}

/// Whether this member reaches etcd and could lead. Where the watch takes etcd to be there, it is asked now: that may be from before
/// an outage.
async fn can_replace(shared: &Shared) -> bool {
    let (settings, dynamic) = (shared.settings(), shared.dynamic());
    let live = matches!(shared.view.borrow().contact, etcd::Contact::Live { .. });
    if !live || settings.tags.nofailover() || shared.local.life().postmaster.is_none() {
        return false;
    }
    match shared.etcd.snapshot(clock::now().after(ETCD_WITHIN)).await {
        Err(_) => false,
        Ok(snapshot) => {
            let named = |sync: &etcd::Sync| sync.sync_standby.contains(&settings.name);
            dynamic.synchronous_mode == SynchronousMode::Off || snapshot.sync.as_ref().is_some_and(named)
        }
    }
}

/// Whether etcd shows another leader than the one who asks: then that one is of the past.
fn replaced(shared: &Shared, caller: &NodeName) -> bool {
    let view = shared.view.borrow();
    let live = matches!(view.contact, etcd::Contact::Live { .. });
    let leader = view.snapshot.as_ref().and_then(|snapshot| snapshot.leader.as_ref());
    live && leader.is_some_and(|leader| leader.name != *caller)
}

fn call(body: &Value) -> Option<Call> {
    let name = body.get("name").and_then(Value::as_str).filter(|name| !name.is_empty())?;
    let slots = body.get("slots").and_then(Value::as_object);
    let slots = slots.into_iter().flatten().filter_map(|(slot, at)| Some((slot.clone(), Lsn(at.as_u64()?))));
    let ttl = body.get("ttl").and_then(Value::as_u64).filter(|ttl| *ttl <= 86_400);
    Some(Call { name: NodeName::from(name), ttl: ttl.map(Duration::from_secs), slots: slots.collect() })
}
