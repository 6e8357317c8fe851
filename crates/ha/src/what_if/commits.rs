//! Whom commits would wait for afterwards, if this member led then.
//!
//! ```text
//!   those that could be synchronous standbys, without the one it befalls ── as many as are wanted ──► Waits
//!                                                                       ├── fewer ─────────────────► Waits, for those
//!                                                                       └── none ── strict ────────► Stands
//!                                                                               └── not strict ────► Alone
//! ```

use super::{Event, What};
use crate::observation::Observation;
use crate::rules::SyncMode;
use std::collections::BTreeSet;
use types::NodeName;

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Commits {
    /// Replication is asynchronous.
    Free,
    /// For `count` of `names`; so many are `wanted`. `interrupted`: those under way wait for one that is gone until that is noticed.
    Waits { names: BTreeSet<NodeName>, count: usize, wanted: usize, interrupted: bool },
    /// For nobody: there is no standby, and nobody else may be promoted until one is back.
    Alone,
    /// Until a standby comes (`synchronous_mode_strict`).
    Stands,
}

/// What would become of commits, as far as it was published who is there.
#[must_use]
pub fn commits(seen: &Observation, event: &Event) -> Commits {
    let rules = &seen.rules.synchronous;
    let Some(cluster) = seen.cluster().filter(|_| rules.mode != SyncMode::Off && !seen.rules.standby_cluster)
    else {
        return Commits::Free;
    };
    let ends = match event.what {
        What::Dies | What::Unplugged | What::PostgresCrashes => event.member.as_ref(),
        What::Switchover | What::EtcdAway => None,
    };
    let stands_by = |name: &NodeName| {
        let could = |member: &crate::observation::Member| member.running && member.sync_priority > 0;
        *name != seen.me && Some(name) != ends && cluster.members.get(name).is_some_and(could)
    };
    let names: BTreeSet<NodeName> = cluster.members.keys().filter(|name| stands_by(name)).cloned().collect();
    let wanted = rules.count.max(1);
    if names.is_empty() {
        return if rules.strict { Commits::Stands } else { Commits::Alone };
    }
    let waited_for = |gone: &NodeName| cluster.sync.as_ref().is_some_and(|key| key.lists(gone));
    let interrupted = ends.is_some_and(|gone| *gone != seen.me && waited_for(gone));
    Commits::Waits { count: wanted.min(names.len()), names, wanted, interrupted }
}
