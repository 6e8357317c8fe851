//! Routers as witnesses (`baton.await_routers`): before a promotion after a failure they have ended what they had on the one before.
//!
//! ```text
//!   lead taken ─► every router that is there knows the term and has no session of an older one ─► promote
//!      └────────► the time is up ─► promote, and tell which router said nothing
//! ```
//! Nothing depends on them: the old primary has stopped itself by its deadline, or was killed by its guard. They are one more who must be
//! wrong before a client writes where nothing is kept. A router whose lease has ended is not there, and an announced switchover needs none:
//! PostgreSQL has ended by itself, and its sessions with it.

use crate::decision::Turn;
use crate::observation::Cluster;
use types::{Moment, Term};

/// At most so many are named.
const NAMED: usize = 5;

/// The routers that have not said it.
pub(super) enum Unheard {
    Awaited {
        routers: Vec<String>,
        until: Moment,
    },
    /// None is left, or they were waited for long enough.
    NotAwaited {
        routers: Vec<String>,
    },
}

/// Who has not said yet that it has no session of a term before `term`, which we hold.
pub(super) fn unheard(turn: &mut Turn<'_>, cluster: &Cluster, term: Term) -> Unheard {
    let patience = turn.seen.rules.await_routers;
    let planned =
        cluster.handed_over.is_some() && cluster.handed_over == cluster.last.as_ref().map(|last| last.term);
    if patience.is_zero() || planned {
        return Unheard::NotAwaited { routers: Vec::new() };
    }
    let begun = turn.memory.awaits_routers.filter(|(of, _)| *of == term);
    let (_, since) = begun.unwrap_or((term, turn.now));
    turn.memory.awaits_routers = Some((term, since));
    let silent = cluster.routers.iter().filter(|router| router.term != Some(term));
    let mut routers: Vec<String> = silent.map(|router| router.id.clone()).collect();
    let others = routers.len().saturating_sub(NAMED);
    routers.truncate(NAMED);
    if others > 0 {
        routers.push(format!("{others} others"));
    }
    let until = since.after(patience);
    if routers.is_empty() || turn.now >= until {
        return Unheard::NotAwaited { routers };
    }
    Unheard::Awaited { routers, until }
}
