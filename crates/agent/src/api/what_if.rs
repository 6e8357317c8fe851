//! `GET /baton/what-if?event=…&member=…`: what would become of this member, by the decisions of this very agent.
//!
//! The command line asks every member and puts the answers together. Nothing is changed, and no decision waits for it.

use super::Shared;
use super::reply::{self, Reply};
use crate::observe;
use crate::what_if::Scene;
use ha::what_if::{Commits, Event, Foreseen, LossBound, Outcome, What, commits, foresee, loss_bound};
use ha::{Authority, LeaderKey, Observation, PeerAnswer, Postgres, Rules, Running, SyncMode};
use http::Client;
use hyper::StatusCode;
use percent_encoding::percent_decode_str;
use postgres::probe::Facts;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use types::{NodeName, Slot, SlotKind};

/// What is asked for.
const USAGE: &str = "ask with event=dies|unplugged|postgres-crashes|switchover|etcd-away and, but for the last two, member=NAME";

/// How long PostgreSQL has to say where it is now.
const FRESH_WITHIN: Duration = Duration::from_millis(300);

/// Answers.
pub(super) async fn what_if(query: &str, shared: &Arc<Shared>) -> Reply {
    let Some(event) = event(query) else { return reply::text(StatusCode::BAD_REQUEST, USAGE) };
    let Some(scene) = shared.what_if.scene() else {
        return reply::text(StatusCode::SERVICE_UNAVAILABLE, "this agent has not decided anything yet");
    };
    let snapshot = shared.view.borrow().snapshot.clone();
    let client = Client::for_members(&shared.settings().ctl);
    let peers = shared.what_if.ask(&client, snapshot.as_deref(), &scene.seen.me).await;
    let silent: Vec<String> = peers
        .answers
        .iter()
        .filter(|(_, answer)| **answer == PeerAnswer::Silent)
        .map(|(name, _)| name.to_string())
        .collect();
    let now = clock::now();
    let mut seen = Observation { peers, ..scene.seen.clone() };
    let facts = shared.local.fresh(FRESH_WITHIN).await.facts.map(|(facts, _)| facts);
    if let (Postgres::Running(running), Some(facts)) = (&mut seen.postgres, &facts) {
        look_again(running, facts);
    }
    let foreseen = foresee(&seen, &scene.memory, &event, now);
    let mut body = outcome(&seen, &foreseen);
    body["silent"] = json!(silent);
    body["rules"] = rules(&seen.rules);
    body["loss"] = loss(shared, &scene, &event);
    body["commits"] = waits(&commits(&scene.seen, &event));
    body["seen_ms_ago"] = json!(millis(now.since(scene.at)));
    if let Authority::Held { deadline, .. } = seen.authority {
        let ends = deadline.after(Rules::margin(seen.rules.ttl));
        body["lease_ms"] = json!(millis(now.until(ends)));
    }
    let slots = facts.iter().flat_map(|facts| facts.slots.iter()).map(slot);
    body["slots"] = slots.collect();
    body["unready_slots"] = json!(shared.slots.unready());
    body["addresses"] =
        shared.settings().vip.iter().map(|address| Value::from(address.ip.to_string())).collect();
    reply::json(StatusCode::OK, &body)
}

/// Where it is now; that it is another than it was is for the next turn to find.
fn look_again(running: &mut Running, facts: &Facts) {
    let upstream = match running {
        Running::Primary { .. } => None,
        Running::Standby { upstream, .. } => upstream.clone(),
    };
    let primary = matches!(running, Running::Primary { .. });
    if primary != facts.in_recovery {
        *running = observe::running(facts, upstream);
    }
}

fn event(query: &str) -> Option<Event> {
    let value = |name: &str| {
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let found = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()?;
        Some(percent_decode_str(found).decode_utf8_lossy().into_owned()).filter(|value| !value.is_empty())
    };
    let what = match value("event")?.as_str() {
        "dies" => What::Dies,
        "unplugged" => What::Unplugged,
        "postgres-crashes" => What::PostgresCrashes,
        "switchover" => What::Switchover,
        "etcd-away" => What::EtcdAway,
        _ => return None,
    };
    let member = value("member").map(|name| NodeName::from(name.as_str()));
    let optional = matches!(what, What::Switchover | What::EtcdAway);
    (member.is_some() || optional).then_some(Event { what, member })
}

fn outcome(seen: &Observation, foreseen: &Foreseen) -> Value {
    let word = match foreseen.outcome {
        Outcome::Gone => "gone",
        Outcome::TakesLead => "takes the lead",
        Outcome::KeepsLead => "keeps the lead",
        Outcome::HandsOver => "hands over",
        Outcome::Ends => "ends",
        Outcome::DoesNotLead => "does not lead",
    };
    let leader = match seen.cluster().map(|cluster| &cluster.leader) {
        Some(LeaderKey::Held { name, .. }) => Some(name.as_str()),
        Some(LeaderKey::Free | LeaderKey::Spoiled { .. }) | None => None,
    };
    let (timeline, lsn) = match &seen.postgres {
        Postgres::Running(Running::Primary { timeline, lsn } | Running::Standby { timeline, lsn, .. }) => {
            (Some(timeline.0), Some(lsn.0))
        }
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => (None, None),
    };
    json!({
        "member": seen.me.as_str(), "leader": leader, "outcome": word, "after_ms": millis(foreseen.after),
        "duty": foreseen.reason.as_ref().map(ha::Reason::duty), "reason": foreseen.reason.as_ref().map(ha::Reason::code),
        "text": foreseen.text(), "timeline": timeline, "lsn": lsn,
    })
}

fn rules(rules: &Rules) -> Value {
    let synchronous = match rules.synchronous.mode {
        SyncMode::Off => "off",
        SyncMode::On => "on",
        SyncMode::Quorum => "quorum",
    };
    json!({
        "ttl": rules.ttl.as_secs(), "loop_wait": rules.loop_wait.as_secs(),
        "maximum_lag_on_failover": rules.maximum_lag_on_failover, "synchronous_mode": synchronous,
        "synchronous_mode_strict": rules.synchronous.strict, "failsafe_mode": rules.failsafe, "pause": rules.pause,
        "standby_cluster": rules.standby_cluster, "await_routers_ms": millis(rules.await_routers),
    })
}

/// The bound, as far as this member can tell: only a primary knows how much it writes.
fn loss(shared: &Shared, scene: &Scene, event: &Event) -> Value {
    let written = |span| shared.what_if.most_in(span);
    let bound = loss_bound(&scene.seen, written, event.what == What::Unplugged);
    let mut value = json!({ "bytes": bound.bytes() });
    if let LossBound::Bytes { allowed, unseen, span } = bound {
        value["allowed"] = json!(allowed);
        value["unseen"] = json!(unseen);
        value["span_ms"] = json!(millis(span));
    }
    value
}

/// Whom commits would wait for, if this member led then.
fn waits(commits: &Commits) -> Value {
    match commits {
        Commits::Free => Value::Null,
        Commits::Waits { names, count, wanted, interrupted } => {
            let names: Vec<&str> = names.iter().map(NodeName::as_str).collect();
            json!({ "names": names, "count": count, "wanted": wanted, "interrupted": interrupted })
        }
        Commits::Alone => json!({ "names": [], "stand": false }),
        Commits::Stands => json!({ "names": [], "stand": true }),
    }
}

fn slot(slot: &Slot) -> Value {
    json!({
        "name": slot.name, "type": if slot.kind == SlotKind::Logical { "logical" } else { "physical" },
        "position": slot.position().map(|lsn| lsn.0), "lost": slot.is_lost(), "temporary": slot.temporary,
        "failover": slot.failover, "synced": slot.synced, "active": slot.active,
    })
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::event;
    use ha::what_if::What;

    #[test]
    fn events_are_read_from_the_query() {
        let read = |query: &str| event(query).map(|event| (event.what, event.member.map(|name| name.0)));
        assert_eq!(read("event=dies&member=pg%2D1"), Some((What::Dies, Some("pg-1".to_owned()))));
        assert_eq!(read("event=etcd-away"), Some((What::EtcdAway, None)));
        assert_eq!(read("event=switchover&member="), Some((What::Switchover, None)));
        for bad in ["", "event=dies", "event=explodes&member=a", "member=a"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
