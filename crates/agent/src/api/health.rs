//! The health checks: status codes for load balancers, by Patroni's truth table.

use super::Shared;
use super::status;
use etcd::{Contact, Sync};
use hyper::StatusCode;
use settings::SynchronousMode;
use std::time::Duration;
use types::{Lsn, TagValue};

/// What a health check looks at.
struct Facts {
    leads: bool,
    running: bool,
    replica: bool,
    primary: bool,
    /// etcd does not answer and the cluster is paused.
    paused_alone: bool,
    /// etcd's view is recent.
    readable: bool,
    sync: bool,
    quorum: bool,
    no_load: bool,
    lag: Option<u64>,
}

/// The code for a path that names no other endpoint.
pub(super) fn check(path: &str, query: &str, shared: &Shared) -> StatusCode {
    let facts = look(shared);
    let parameters: Vec<(String, String)> = pairs(query);
    let limit = value(&parameters, "lag").and_then(bytes);
    let replica_ok = facts.replica
        && facts.running
        && !facts.no_load
        && limit.is_none_or(|limit| facts.lag.is_none_or(|lag| lag <= limit));
    let tags_ok = parameters.iter().all(|(name, wanted)| match name.strip_prefix("tag_") {
        Some(tag) => has_tag(shared, tag, wanted),
        None => true,
    });
    let leads = facts.leads || (facts.paused_alone && facts.primary);
    let known = facts.readable && replica_ok;
    let ok = match kind(path) {
        Kind::StandbyLeader => false,
        Kind::Leader => return code(leads),
        Kind::Primary => {
            let writable = parameters.iter().any(|(name, _)| name == "writable");
            return code(
                leads && (!writable || (facts.primary && facts.running && status::is_writable(shared))),
            );
        }
        Kind::Replica => replica_ok,
        Kind::ReadOnly => facts.leads || replica_ok,
        Kind::ReadOnlySync => facts.leads || (known && facts.sync),
        Kind::ReadOnlyQuorum => facts.leads || (known && facts.quorum),
        Kind::Sync => known && facts.sync,
        Kind::Async => known && !facts.sync && !facts.quorum,
        Kind::Quorum => known && facts.quorum,
        Kind::Health => facts.running,
        Kind::Unknown => false,
    };
    code(ok && tags_ok)
}

/// Alive: paused, or the loop has turned lately.
pub(super) fn liveness(shared: &Shared) -> StatusCode {
    let dynamic = shared.dynamic.get();
    let ttl = Duration::from_secs(dynamic.ttl.into());
    let primary = shared.local.seen().facts.is_some_and(|(facts, _)| !facts.in_recovery);
    let allowed = if primary { ttl } else { ttl * 2 };
    code(dynamic.pause || clock::now().since(shared.turned.get()) < allowed)
}

/// Ready: leading, or streaming with little lag.
pub(super) fn readiness(query: &str, shared: &Shared) -> StatusCode {
    let facts = look(shared);
    if facts.leads {
        return StatusCode::OK;
    }
    let parameters = pairs(query);
    let dynamic = shared.dynamic.get();
    let limit = value(&parameters, "lag").and_then(bytes).unwrap_or(dynamic.maximum_lag_on_failover);
    let seen = shared.local.seen();
    let Some((pg, _)) = &seen.facts else { return StatusCode::SERVICE_UNAVAILABLE };
    let streaming = pg.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
    let reached = if value(&parameters, "mode") == Some("write") { pg.received_lsn } else { pg.replayed_lsn };
    let behind = leader_lsn(shared).map_or(0, |leader| leader.bytes_since(reached.unwrap_or_default()));
    code(facts.running && facts.replica && streaming && behind <= limit)
}

fn look(shared: &Shared) -> Facts {
    let seen = shared.local.seen();
    let (state, _) = status::state_and_role(shared, &seen);
    let in_recovery = seen.facts.as_ref().map(|(facts, _)| facts.in_recovery);
    let view = shared.view.borrow().clone();
    let readable = matches!(view.contact, Contact::Live { .. });
    let settings = shared.settings();
    let me = settings.name.as_str();
    let dynamic = shared.dynamic.get();
    let listed = view
        .snapshot
        .as_ref()
        .and_then(|snapshot| snapshot.sync.as_ref())
        .is_some_and(|sync| lists(sync, me));
    let replayed = seen.facts.as_ref().and_then(|(facts, _)| facts.replayed_lsn).unwrap_or_default();
    Facts {
        leads: status::is_leader(shared),
        running: state == "running",
        replica: in_recovery == Some(true),
        primary: in_recovery == Some(false),
        paused_alone: dynamic.pause && !readable,
        readable,
        sync: listed && dynamic.synchronous_mode == SynchronousMode::On,
        quorum: listed && dynamic.synchronous_mode == SynchronousMode::Quorum,
        no_load: settings.tags.noloadbalance(),
        lag: leader_lsn(shared).map(|leader| leader.bytes_since(replayed)),
    }
}

fn lists(sync: &Sync, me: &str) -> bool {
    sync.sync_standby.iter().any(|name| name.0.eq_ignore_ascii_case(me))
}

fn leader_lsn(shared: &Shared) -> Option<Lsn> {
    let optime = shared.view.borrow().snapshot.as_ref().and_then(|snapshot| snapshot.optime());
    let seen = shared.local.seen();
    let receiver = seen.facts.as_ref().and_then(|(facts, _)| facts.receiver.as_ref()?.latest_end_lsn);
    optime.max(receiver)
}

enum Kind {
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

/// Which check a path means; by parts of it, as in the contract.
fn kind(path: &str) -> Kind {
    let has = |part: &str| path.contains(part);
    match () {
        () if path.is_empty() => Kind::Primary,
        () if has("standby_leader") || has("standby-leader") => Kind::StandbyLeader,
        () if has("leader") => Kind::Leader,
        () if has("primary") || has("master") || has("read-write") => Kind::Primary,
        () if has("replica") => Kind::Replica,
        () if has("read-only-sync") => Kind::ReadOnlySync,
        () if has("read-only-quorum") => Kind::ReadOnlyQuorum,
        () if has("read-only") => Kind::ReadOnly,
        () if has("health") => Kind::Health,
        () if has("async") => Kind::Async,
        () if has("sync") => Kind::Sync,
        () if has("quorum") => Kind::Quorum,
        () => Kind::Unknown,
    }
}

fn code(ok: bool) -> StatusCode {
    if ok { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn has_tag(shared: &Shared, name: &str, wanted: &str) -> bool {
    match shared.settings().tags.0.get(name) {
        Some(TagValue::Text(text)) => text == wanted,
        Some(TagValue::Bool(value)) => value.to_string() == wanted.to_lowercase(),
        Some(TagValue::Int(value)) => value.to_string() == wanted,
        None => false,
    }
}

fn pairs(query: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.replace("%20", " ").replace('+', " "))
    };
    query.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

fn value<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

/// `10MB` as bytes; `None` when it cannot be understood, which means no limit.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text.get(..digits)?.parse().ok()?;
    let shift = match text.get(digits..)?.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return None,
    };
    number.checked_shl(shift)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("1048576"), Some(1 << 20));
        assert_eq!(bytes("10MB"), Some(10 << 20));
        assert_eq!(bytes("16 kB"), Some(16 << 10));
        assert_eq!(bytes("much"), None);
    }
}
