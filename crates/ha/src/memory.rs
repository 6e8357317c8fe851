//! What a member remembers from turn to turn: only what no observation shows.

use crate::action::{Action, StopMode};
use crate::observation::Order;
use crate::reason::Refusal;
use crate::signs::Ailment;
use crate::sync_quorum::Promise;
use crate::upstream::Upstream;
use std::collections::BTreeSet;
use types::{Lsn, Moment, NodeName, StandbyNames, Term, Timeline};

/// At most this many crashes are remembered.
pub(crate) const CRASHES_KEPT: usize = 8;

/// What a member remembers.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Memory {
    /// The race we take part in.
    pub race: Option<Race>,
    /// We do not race before this moment.
    pub no_race_before: Option<Moment>,
    /// Since when we promote, and in which term; until PostgreSQL is seen as a primary or stopped, whoever leads by then.
    pub promoting: Option<(Term, Moment)>,
    /// The term in which the routers are waited for before a promotion, and since when.
    pub awaits_routers: Option<(Term, Moment)>,
    /// Since when PostgreSQL, which was a primary, is stopped without the lead.
    pub stopped_leading: Option<Moment>,
    /// How the operator's command before a promotion ended, and in which term.
    pub pre_promoted: Option<(Term, bool)>,
    /// The stop we asked for.
    pub stopping: Option<(StopMode, Moment)>,
    /// When the signal to stop was sent last.
    pub stop_sent: Option<Moment>,
    /// It took no connections when it was told to stop.
    pub stopped_starting: bool,
    /// The lead is being handed over.
    pub step_aside: Option<StepAside>,
    /// PostgreSQL was stopped to hand the lead over and has not come back: in pause, too, that belongs to what was asked for.
    pub returning: bool,
    /// PostgreSQL is being ended because of this, so that a healthy member can lead.
    pub leaves_for: Option<Ailment>,
    /// A person's order that is being carried out.
    pub ordered: Option<Ordered>,
    /// The term whose key we released last, and when: for a moment it still seems to name us.
    pub released: Option<(Term, Moment)>,
    /// The term whose key we last attached to our lease, and when that was asked for.
    pub adopted: Option<(Term, Moment)>,
    /// The term whose announcement of writes we withdrew again while PostgreSQL is stopped, and when that was asked for.
    pub withdrawn: Option<(Term, Moment)>,
    /// When the system identifier was last written into `/initialize`: for a moment that does not show.
    pub confirmed: Option<Moment>,
    /// The last term in which we led.
    pub term: Option<Term>,
    /// Our data were seen to belong to this cluster.
    pub matched: bool,
    /// The next start is not after a crash: we stopped it ourselves, or we have just created it.
    pub expected_stop: bool,
    /// When PostgreSQL crashed while we led; the newest last.
    pub crashes: Vec<Moment>,
    /// The crash that is being dealt with.
    pub crash: Option<Crash>,
    /// Starts that came to nothing.
    pub start: Retry,
    /// Since when PostgreSQL is wanted as a running primary and is not one.
    pub down_since: Option<Moment>,
    /// When a primary that should have gone was started again, because nobody could take over: that start is given more time.
    pub kept_since: Option<Moment>,
    /// Clones that came to nothing.
    pub clone: Retry,
    /// Rewinds that came to nothing.
    pub rewind: Retry,
    /// The data directory was rewound, or needs no rewind, for this leader: it may follow.
    pub reconciled: Option<Upstream>,
    /// The data were seen to have left the leader's history while PostgreSQL ran: follow only after a rewind.
    pub must_rewind: bool,
    /// The switchover for which the candidates were asked: the revision of its key, and when.
    pub asked_for: Option<(i64, Moment)>,
    /// When the candidates were asked last: those that were silent are asked again for a while.
    pub asked_last: Option<Moment>,
    /// What was announced last, and when: it takes a moment until it is seen.
    pub announced: Option<Announced>,
    /// When the leader was last asked for its history.
    pub history_asked: Option<Moment>,
    /// Since when the running standby gets nothing from its leader.
    pub dry_since: Option<Moment>,
    /// When the promotion was asked for last; `None` when it was not sent, as an action before it failed.
    pub promote_sent: Option<Moment>,
    /// When all others were last asked whether we may lead on without etcd.
    pub failsafe_asked: Option<Moment>,
    /// Until when we lead without etcd by the word of all others, whatever became of the lease.
    pub failsafe_until: Option<Moment>,
    /// Our bootstrap failed, and nothing has been done about it yet.
    pub bootstrap_failed: bool,
    /// We created the cluster and have not led it yet.
    pub created: bool,
    /// The last WAL of our primary was given to the archive, or could not be.
    pub tail_archived: bool,
    /// The change of the synchronous standbys under way.
    pub sync: SyncChange,
    /// Since when we ask the leader not to count on us as a synchronous standby.
    pub leaving_sync: Option<Moment>,
}

/// A crash of the primary, before it is restarted or somebody else leads.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Crash {
    /// How many there were lately, this one included.
    pub number: usize,
    /// When the others were asked who could take over.
    pub asked: Option<Moment>,
    /// Who has all of our last WAL.
    pub handed: Option<NodeName>,
    /// To whom it could not be handed.
    pub failed: Vec<NodeName>,
}

/// How far a change of the synchronous standbys has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct SyncChange {
    /// We have written `/sync` in this term: a request of an earlier life of this agent can no longer change it.
    pub term: Option<Term>,
    /// What was written last and is not seen yet.
    pub sent: Option<SyncSent>,
    /// The names that were asked for last, and when.
    pub asked: Option<(StandbyNames, Moment)>,
    /// When they were first seen. They may have been set long after they were asked for: an action before that took its time.
    pub seen: Option<Moment>,
    /// Where PostgreSQL was when they were certainly in effect.
    pub barrier: Option<Lsn>,
}

/// A value of `/sync` on its way.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SyncSent {
    pub term: Term,
    pub promise: Promise,
    /// What was written over the same revision before it: one of them may be what arrived.
    pub others: BTreeSet<Promise>,
    /// The revision of the key that it replaces; 0: none.
    pub over: i64,
    pub at: Moment,
}

/// An announcement that PostgreSQL accepts writes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Announced {
    pub term: Term,
    pub timeline: Timeline,
    pub guarded: bool,
    pub at: Moment,
}

/// A race for the lead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Race {
    /// Since when we see no leader.
    pub since: Moment,
    /// When we last asked the peers.
    pub asked: Option<Moment>,
    /// What spoke against this member after the last answers: it stands while they are asked again.
    pub refusal: Option<Refusal>,
}

impl Memory {
    /// Takes in that these actions of the last decision were not carried out.
    pub fn void(&mut self, actions: &[Action]) {
        // What takes no effect is asked for again at once, not when the time for an effect is up.
        if actions.iter().any(|action| matches!(action, Action::Promote(_))) {
            self.promote_sent = None;
        }
    }
}

/// Something that is tried again after longer and longer rests.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Retry {
    pub failures: u32,
    pub not_before: Option<Moment>,
}

impl Retry {
    /// One more failure: the next try comes after 1, 2, 4 … 32 seconds.
    #[must_use]
    pub fn failed(self, now: Moment) -> Retry {
        let failures = self.failures.saturating_add(1);
        let rest = std::time::Duration::from_secs(1 << (failures - 1).min(5));
        Retry { failures, not_before: Some(now.after(rest)) }
    }

    /// Whether it may be tried now.
    #[must_use]
    pub fn due(self, now: Moment) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }
}

/// An order that is being carried out.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Ordered {
    pub order: Order,
    /// PostgreSQL was seen stopped since.
    pub stopped: bool,
}

/// A hand-over of the lead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct StepAside {
    pub since: Moment,
    pub why: StepAsideWhy,
    /// Who shall lead; anybody fit when `None`.
    pub candidate: Option<NodeName>,
    /// The checkpoint before the stop was written, or could not be.
    pub checkpointed: bool,
    /// When the routers were told.
    pub announced: Option<Moment>,
}

/// Why the lead is handed over.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StepAsideWhy {
    Switchover,
    Failover,
    Shutdown,
}
