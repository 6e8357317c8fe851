//! Routers as witnesses. Before a promotion after a failure (`baton.await_routers`) they have ended what they had on the one before; and before
//! what was a primary comes up for reading, what they lead through the pooler beside it.
//!
//! ```text
//!   lead taken ─► every router that is there knows the term and has no session of an older one ─► promote
//!      └────────► the time is up ─► promote, and tell which router said nothing
//! ```
//! Nothing depends on them: the old primary has stopped itself by its deadline, or was killed by its guard. They are one more who must be
//! wrong before a client writes where nothing is kept. A router whose lease has ended is not there, and an announced switchover needs none:
//! PostgreSQL has ended by itself, and its sessions with it.
//!
//! ```text
//!   the lead is over, it was the primary ─► every router that leads to poolers has ended our terms, ─► start as a standby
//!          │                                and nobody lives by a word of this agent any more
//!          └──────────────────────────────► the time is up: whoever is silent leads nobody any more ─► start as a standby
//! ```
//! A session in a pooler outlives the restart of PostgreSQL. One that was to write would find itself on a standby (25006), were it still led here;
//! a router that can be told knows in milliseconds, and one that cannot believes what it heard for a known time.

use crate::decision::Turn;
use crate::observation::{Cluster, Contact, Control, Etcd, LeaderKey, Router};
use std::time::Duration;
use types::{Moment, ROUTER_BELIEVES_AGENT, ROUTER_LEASE, Term};

/// At most so many are named.
const NAMED: usize = 5;

/// For what takes time between a word and who acts on it.
const SLACK: Duration = Duration::from_millis(500);

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
    let routers = named(cluster.routers.iter().filter(|router| router.term != Some(term)));
    let until = since.after(patience);
    if routers.is_empty() || turn.now >= until {
        return Unheard::NotAwaited { routers };
    }
    Unheard::Awaited { routers, until }
}

/// Why what was a primary does not come up for reading yet.
pub(super) struct LedHere {
    /// Who has not said that our terms are over.
    pub(super) routers: Vec<String>,
    pub(super) until: Moment,
}

/// Whether sessions that are to write may still be led to the pooler beside us. Asked while PostgreSQL is stopped.
pub(super) fn led_here(turn: &mut Turn<'_>, cluster: &Cluster, control: &Control) -> Option<LedHere> {
    let leading: Vec<&Router> = cluster.routers.iter().filter(|router| router.pooled).collect();
    if control.standby || (leading.is_empty() && !turn.seen.rules.pooler) {
        return None;
    }
    let since = *turn.memory.stopped_leading.get_or_insert(turn.now);
    let another = match &cluster.leader {
        LeaderKey::Held { name, term, .. } if *name != turn.seen.me => Some(*term),
        LeaderKey::Held { .. } | LeaderKey::Free | LeaderKey::Spoiled { .. } => None,
    };
    let ours = turn.memory.term.or(cluster.last.as_ref().map(|last| last.term));
    let over = |router: &Router| {
        router.term > ours
            || router.over.is_some_and(|over| ours.is_none_or(|ours| over >= ours))
            || another.is_some_and(|another| router.term >= Some(another))
    };
    let routers = named(leading.into_iter().filter(|router| !over(router)));
    let live = matches!(turn.seen.etcd, Etcd::Seen { contact: Contact::Live, .. });
    // Of a standby cluster to be, whose term goes on: the routers know by its end that nothing can be written here.
    let announced = turn.leads().is_some_and(|term| announces(turn, cluster, term));
    let patience = if live && another.is_none() && !announced {
        // Nobody else leads: no longer than a router believes what it heard, as this member is wanted.
        ROUTER_BELIEVES_AGENT + SLACK
    } else {
        // The key of our term is gone after a ttl at the latest, and whoever renews nothing a lease later.
        turn.seen.rules.ttl + ROUTER_LEASE
    };
    // Without etcd nobody knows who is there.
    let by_routers = (announced || !live || !routers.is_empty()).then(|| since.after(patience));
    let by_word = turn.seen.vouched.map(|at| at.after(ROUTER_BELIEVES_AGENT + SLACK));
    let until = by_routers.max(by_word).filter(|until| turn.now < *until)?;
    Some(LedHere { routers, until })
}

/// Whether the announcement that we accept writes in this term stands.
pub(super) fn announces(turn: &Turn<'_>, cluster: &Cluster, term: Term) -> bool {
    cluster.writable.as_ref().is_some_and(|said| said.term == term && said.name == turn.seen.me)
}

fn named<'a>(routers: impl Iterator<Item = &'a Router>) -> Vec<String> {
    let mut routers: Vec<String> = routers.map(|router| router.id.clone()).collect();
    let others = routers.len().saturating_sub(NAMED);
    routers.truncate(NAMED);
    if others > 0 {
        routers.push(format!("{others} others"));
    }
    routers
}
