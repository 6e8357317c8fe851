//! Which standbys must have everything before the consumer of a failover slot gets it (`synchronized_standby_slots`).
//!
//! ```text
//!   consumer ◄── gets what ── every standby that may be promoted and streams from here ── has flushed
//! ```
//! Else a consumer could have changes that the next primary never had (law 10). What holds a consumer up is the slowest of these, so
//! the list is no longer than it must be: not those that are never promoted (`nofailover`), in a synchronous mode only those that
//! `/sync` names, and nobody who has not streamed for a while.

use super::plan::Memory;
use super::wanted::{is_failover, streams_from};
use super::{Post, Seen};
use types::{Moment, NodeName, SlotKind, slot_name};

/// The slots of these standbys; `None` while nobody wants failover slots here.
pub(super) fn awaited(seen: &Seen, memory: &mut Memory, now: Moment) -> Option<Vec<String>> {
    if seen.post != Post::Leads || !seen.permanent.keys().any(|name| is_failover(seen, name)) {
        memory.idle_since.clear();
        return None;
    }
    let mut awaited: Vec<String> = Vec::new();
    for name in seen.members.keys().filter(|name| counts(seen, name)) {
        let slot = slot_name(name);
        let there = seen.there.iter().find(|there| there.name == slot && there.kind == SlotKind::Physical);
        // One that has never streamed from here, or cannot any more, is not waited for.
        let Some(there) = there.filter(|there| there.restart_lsn.is_some() && !there.is_lost()) else {
            continue;
        };
        if there.active {
            memory.idle_since.remove(&slot);
            awaited.push(slot);
            continue;
        }
        let since = *memory.idle_since.entry(slot.clone()).or_insert(now);
        if now.since(since) < seen.rules.patience {
            awaited.push(slot);
        }
    }
    memory.idle_since.retain(|slot, _| seen.there.iter().any(|there| there.name == *slot && !there.active));
    awaited.sort();
    awaited.dedup();
    Some(awaited)
}

/// Whether this member streams from us and may be promoted.
fn counts(seen: &Seen, name: &NodeName) -> bool {
    let tenant = seen.members.get(name);
    let may_lead = tenant.is_some_and(|tenant| !tenant.nofailover && !tenant.nostream);
    let listed = |voters: &std::collections::BTreeSet<NodeName>| {
        voters.iter().any(|voter| voter.as_str().eq_ignore_ascii_case(name.as_str()))
    };
    *name != seen.me
        && may_lead
        && seen.voters.as_ref().is_none_or(listed)
        && streams_from(seen, name) == Some(&seen.me)
}
