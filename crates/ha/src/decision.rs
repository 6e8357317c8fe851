//! The function and its result.
//!
//! ```text
//!   remember what the observation settled
//!   ask the duties in order, the first that answers wins
//!   settle the guard: disarmed wherever nothing can be a primary
//!   wake at the latest when the primary must begin to stop
//! ```

use crate::action::{Action, StopMode, Work};
use crate::duties;
use crate::memory::{CRASHES_KEPT, Memory, Race};
use crate::observation::{
    Authority, Contact, Data, Etcd, Finished, Guard, Initialize, Job, LeaderKey, Observation, Order,
    Postgres, Running,
};
use crate::plans::Due;
use crate::reason::Reason;
use crate::upstream::Upstream;
use std::time::Duration;
use types::{Moment, Term};

/// A signal of which nothing is seen after this time is sent again.
pub(crate) const SIGNAL_AGAIN: Duration = Duration::from_millis(500);

/// A standby that does not stop cleanly in this time is stopped hard.
const STANDBY_STOPS_WITHIN: Duration = Duration::from_secs(60);
/// One that recovers has nothing to end in order, and PostgreSQL may hang for ever when it is told to do so then: its disk was full.
const STARTING_STOPS_WITHIN: Duration = Duration::from_secs(10);

/// What a member does next, and why.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decision {
    /// To be handed back in the next turn.
    pub memory: Memory,
    /// To be done in this order, until the first that fails.
    pub actions: Vec<Action>,
    /// The next turn is due then, if no event comes before.
    pub wake_at: Moment,
    /// Which duty answered, and why.
    pub reason: Reason,
}

/// Decides what this member does next.
#[must_use]
pub fn decide(seen: &Observation, memory: &Memory, now: Moment) -> Decision {
    let mut turn = Turn { seen, memory: memory.clone(), now };
    turn.remember();
    let answer = duties::ask(&mut turn);
    turn.conclude(answer)
}

/// One turn under way.
pub(crate) struct Turn<'a> {
    pub(crate) seen: &'a Observation,
    pub(crate) memory: Memory,
    pub(crate) now: Moment,
}

/// What a duty answered.
pub(crate) struct Answer {
    reason: Reason,
    actions: Vec<Action>,
    wake_at: Option<Moment>,
}

impl Answer {
    /// An answer that does nothing.
    pub(crate) fn because(why: impl Into<Reason>) -> Answer {
        Answer { reason: why.into(), actions: Vec::new(), wake_at: None }
    }

    /// One more action, after those before it.
    pub(crate) fn act(mut self, action: Action) -> Answer {
        self.actions.push(action);
        self
    }

    /// Some more actions.
    pub(crate) fn act_all(mut self, actions: Vec<Action>) -> Answer {
        self.actions.extend(actions);
        self
    }

    /// Turn again at this moment at the latest.
    pub(crate) fn wake_at(mut self, at: Moment) -> Answer {
        self.wake_at = Some(self.wake_at.map_or(at, |set| set.min(at)));
        self
    }
}

impl Turn<'_> {
    /// The term in which we lead now.
    pub(crate) fn leads(&self) -> Option<Term> {
        self.seen.leads(self.now)
    }

    /// The moment at which a primary that could not renew begins to stop.
    pub(crate) fn stop_at(&self) -> Option<Moment> {
        match self.seen.authority {
            Authority::None => None,
            Authority::Held { deadline, .. } => Some(deadline.before(self.seen.rules.stop_budget())),
        }
    }

    /// The end of the authority, when a primary would be stopped for it by now.
    pub(crate) fn authority_ends(&self) -> Option<Moment> {
        match (self.seen.authority, self.stop_at()) {
            (Authority::Held { deadline, .. }, Some(stop_at)) if self.now >= stop_at => Some(deadline),
            (Authority::Held { .. } | Authority::None, _) => None,
        }
    }

    /// Whether our PostgreSQL is stopped and was a primary: the next start makes it one again.
    pub(crate) fn is_stopped_primary(&self) -> bool {
        self.seen.postgres == Postgres::Stopped
            && match &self.seen.data {
                Data::Present(control) => !control.standby,
                Data::Empty | Data::Incomplete | Data::Unusable => false,
            }
    }

    /// How long a primary may take to come up before the lead is given away; an ordered restart can set its own limit.
    pub(crate) fn start_limit(&self) -> Duration {
        let within = match self.memory.ordered.as_ref().map(|ordered| &ordered.order) {
            Some(Order::Restart { within }) => *within,
            Some(Order::Reinitialize { .. } | Order::LoadSlots | Order::Shutdown) | None => None,
        };
        within.unwrap_or(self.seen.rules.primary_start_timeout)
    }

    /// When the next thing that was planned is due here.
    fn planned_at(&self) -> Option<Moment> {
        let switchover = self.seen.cluster().and_then(|cluster| cluster.failover.as_ref());
        let switchover = match switchover.filter(|_| self.leads().is_some()).map(|wish| wish.due) {
            Some(Due::At(at)) => Some(at),
            Some(Due::Now | Due::Unreadable) | None => None,
        };
        let restart = self.seen.planned.as_ref().map(|plan| plan.at);
        switchover.into_iter().chain(restart).filter(|at| self.now < *at).min()
    }

    /// How long a clean stop may take before a harder one. A standby loses nothing by it.
    pub(crate) fn stop_patience(&self) -> Duration {
        let primary = self.seen.may_be_primary();
        if primary { self.seen.rules.stop_patience() } else { STANDBY_STOPS_WITHIN }
    }

    /// Until when all others agreed that we lead on without etcd, as long as that is not over in a moment.
    pub(crate) fn lives_by_failsafe(&self) -> Option<Moment> {
        let until = self.memory.failsafe_until?;
        (self.now < until.before(self.seen.rules.stop_budget())).then_some(until)
    }

    /// The actions that stop PostgreSQL: the signal once, and a harder one when it takes longer than `patience`.
    pub(crate) fn stop(&mut self, mode: StopMode, patience: Duration) -> Vec<Action> {
        let wanted = match self.memory.stopping {
            Some((asked, since)) if asked >= mode => {
                let starting = self.memory.stopped_starting;
                let patience = if starting { patience.min(STARTING_STOPS_WITHIN) } else { patience };
                let late = self.now.since(since) >= patience;
                // The list of actions ended before it, or the signal was lost.
                let sent = self.memory.stop_sent.unwrap_or(since);
                let unheard = matches!(self.seen.postgres, Postgres::Running(_))
                    && self.now.since(sent) >= SIGNAL_AGAIN;
                match asked {
                    StopMode::Fast if late => StopMode::Immediate,
                    StopMode::Immediate if late => StopMode::Kill,
                    StopMode::Fast | StopMode::Immediate | StopMode::Kill if unheard => {
                        self.memory.stop_sent = Some(self.now);
                        return vec![Action::Stop(asked)];
                    }
                    StopMode::Fast | StopMode::Immediate | StopMode::Kill => return Vec::new(),
                }
            }
            Some(_) | None => {
                self.memory.stopped_starting = matches!(self.seen.postgres, Postgres::Starting { .. });
                mode
            }
        };
        self.memory.stopping = Some((wanted, self.now));
        self.memory.stop_sent = Some(self.now);
        vec![Action::Stop(wanted)]
    }

    /// Asks whom we follow for the history of its timeline, unless it was asked a moment ago: the answer comes with a later turn.
    pub(crate) fn ask_history(&mut self, answer: Answer, of: Upstream, pause: Duration) -> Answer {
        match self.memory.history_asked.filter(|asked| self.now.since(*asked) < pause) {
            Some(asked) => answer.wake_at(asked.after(pause)),
            None => {
                self.memory.history_asked = Some(self.now);
                answer.act(Action::ReadLeaderHistory(of)).wake_at(self.now.after(pause))
            }
        }
    }

    /// Updates the memory with what this observation settles.
    fn remember(&mut self) {
        self.remember_postgres();
        self.remember_leader();
        if let Some(finished) = self.seen.finished.clone() {
            self.remember_job(&finished);
        }
    }

    fn remember_postgres(&mut self) {
        let leads = self.leads();
        let free = self.seen.cluster().is_some_and(|cluster| cluster.leader == LeaderKey::Free);
        let memory = &mut self.memory;
        match &self.seen.postgres {
            Postgres::Stopped => {
                memory.stopping = None;
                // A promotion that ended it is a crash of the leader's, although what comes up again is a standby.
                if memory.promoting.take().is_some() && leads.is_some() {
                    memory.crashes.push(self.now);
                }
            }
            Postgres::Running(running) => {
                memory.start = Default::default();
                memory.crash = None;
                memory.stopped_leading = None;
                // It is well again before it was stopped: what was asked for did not reach it.
                if memory.leaves_for.is_some() && self.seen.ailment().is_none() {
                    memory.stopping = None;
                }
                memory.leaves_for = memory.leaves_for.filter(|_| memory.stopping.is_some());
                match running {
                    Running::Primary { .. } => {
                        memory.returning = false;
                        memory.down_since = None;
                        memory.kept_since = None;
                        memory.promoting = None;
                        memory.expected_stop = memory.stopping.is_some() || memory.ordered.is_some();
                        memory.created &= leads.is_none();
                        memory.tail_archived = false;
                    }
                    Running::Standby { streaming, .. } => {
                        memory.returning &= free;
                        memory.created &= leads.is_none() || !self.seen.rules.standby_cluster;
                        if *streaming {
                            memory.dry_since = None;
                            memory.reconciled = None;
                        }
                    }
                }
            }
            Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => {}
        }
        if let Some(term) = leads {
            memory.term = Some(term);
            if !self.seen.rules.standby_cluster {
                memory.stopped_leading = None;
            }
        } else {
            // A promotion that was asked for goes on: until it is seen to be over, this is a primary to be.
            memory.down_since = None;
            memory.kept_since = None;
            memory.crash = None;
        }
        let excess = memory.crashes.len().saturating_sub(CRASHES_KEPT);
        memory.crashes.drain(..excess);
    }

    fn remember_leader(&mut self) {
        let live = matches!(self.seen.etcd, Etcd::Seen { contact: Contact::Live, .. });
        let other = self.seen.other_leader().cloned();
        let leads = self.leads().is_some();
        let memory = &mut self.memory;
        let free = self.seen.cluster().is_some_and(|cluster| cluster.leader == LeaderKey::Free);
        if free && live && !leads {
            memory.race.get_or_insert(Race { since: self.now, asked: None, refusal: None });
        } else {
            memory.race = None;
        }
        if let Some(leader) = other {
            memory.no_race_before = None;
            memory.failsafe_until = None;
            if memory.reconciled.as_ref().is_some_and(|with| with.member() != Some(&leader)) {
                memory.reconciled = None;
            }
            let shutdown = self.seen.order == Some(Order::Shutdown);
            if !leads && !shutdown {
                memory.returning |= memory.step_aside.take().is_some();
            }
        }
    }

    fn remember_job(&mut self, finished: &Finished) {
        let leader = self.seen.other_leader().cloned().map(Upstream::Member);
        let initialize = self.seen.cluster().map(|cluster| cluster.initialize);
        let in_progress = matches!(initialize, Some(Initialize::InProgress { .. }));
        let memory = &mut self.memory;
        match (&finished.work, finished.ok) {
            (Work::Bootstrap, true) => {
                memory.created = true;
                memory.expected_stop = true;
            }
            (Work::Bootstrap, false) => memory.bootstrap_failed = true,
            (Work::Clone(from), true) => {
                let remote = *from == Upstream::Remote;
                memory.created = remote && in_progress;
                memory.clone = Default::default();
                memory.rewind = Default::default();
                memory.must_rewind = false;
                memory.reconciled = if remote { Some(Upstream::Remote) } else { leader };
            }
            (Work::Clone(from), false) => {
                let remote = *from == Upstream::Remote;
                memory.bootstrap_failed |= remote && in_progress;
                memory.clone = memory.clone.failed(self.now);
            }
            (Work::Rewind { from, .. }, true) => {
                memory.rewind = Default::default();
                memory.must_rewind = false;
                memory.reconciled = Some(from.clone());
            }
            (Work::PrePromote(term), ok) => memory.pre_promoted = Some((*term, ok)),
            (Work::ArchiveTail, _) => memory.tail_archived = true,
            (Work::HandTail { to, .. }, ok) => match &mut memory.crash {
                Some(crash) if ok => crash.handed = Some(to.clone()),
                Some(crash) => crash.failed.push(to.clone()),
                None => {}
            },
            (Work::Rewind { .. }, false) => memory.rewind = memory.rewind.failed(self.now),
            (Work::Checkpoint, _) => {
                if let Some(aside) = &mut memory.step_aside {
                    aside.checkpointed = true;
                }
            }
        }
    }

    /// Completes the answer with what holds whichever duty gave it.
    fn conclude(mut self, answer: Answer) -> Decision {
        let Answer { reason, mut actions, wake_at } = answer;
        let released = actions.iter().find_map(Action::released);
        self.memory.released = released.map(|term| (term, self.now)).or(self.memory.released);
        if self.seen.guard == Guard::Armed && self.guard_is_idle(&actions) {
            actions.insert(0, Action::DisarmGuard);
        }
        let mut wake_at = wake_at.unwrap_or(self.now.after(self.seen.rules.loop_wait));
        if let Some(again) = duties::pace_initialize(&mut self, &mut actions) {
            wake_at = wake_at.min(again);
        }
        if let (Some(_), Some(sent), Postgres::Running(_)) =
            (self.memory.stopping, self.memory.stop_sent, &self.seen.postgres)
        {
            wake_at = wake_at.min(sent.after(SIGNAL_AGAIN));
        }
        if let (true, Some(stop_at)) = (self.seen.may_be_primary() && !self.seen.rules.pause, self.stop_at())
        {
            wake_at = wake_at.min(stop_at);
        }
        if let Some(planned_at) = self.planned_at() {
            wake_at = wake_at.min(planned_at);
        }
        if let Some(counts_at) = duties::need_health::counts_at(&self) {
            wake_at = wake_at.min(counts_at);
        }
        if let Some(ask_at) = duties::live_on::ask_at(&self).filter(|ask_at| self.now < *ask_at) {
            wake_at = wake_at.min(ask_at);
        }
        let soon = self.now.after(Duration::from_millis(10));
        Decision { memory: self.memory, actions, wake_at: wake_at.max(soon), reason }
    }

    /// Whether everybody can see that no guard will end our primary.
    fn is_confessed(&self) -> bool {
        let last = self.seen.cluster().and_then(|cluster| cluster.last.as_ref());
        last.is_some_and(|last| last.name == self.seen.me && Some(last.term) == self.leads() && !last.guarded)
    }

    /// Whether nothing that the guard would have to end is there or about to be.
    fn guard_is_idle(&self, actions: &[Action]) -> bool {
        let starts = |action: &Action| {
            matches!(action, Action::ArmGuard(_) | Action::Promote(_) | Action::StartPrimary)
        };
        if self.seen.rules.pause && self.seen.may_be_primary() {
            let begun = self.memory.step_aside.is_some() || self.memory.promoting.is_some();
            return self.is_confessed() && !begun && !actions.iter().any(starts);
        }
        let idle = match &self.seen.postgres {
            Postgres::Stopped => true,
            Postgres::Running(running) => matches!(running, Running::Standby { .. }),
            Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => false,
        };
        let busy = matches!(self.seen.job, Job::Running { .. });
        // Who leads a standby cluster is a standby itself.
        let writes = self.leads().is_some() && !self.seen.rules.standby_cluster;
        idle && !busy && !writes && self.memory.promoting.is_none() && !actions.iter().any(starts)
    }
}
