//! This member holds the lead.
//!
//! ```text
//!   standby ──[pre_promote, routers]──[arm guard, promote]──► promoting ──► primary ──[arm guard]──[announce writable]──► leads
//! ```
//! "Holds the lead" and "accepts writes" are two facts: routers and addresses follow the second, which is announced last.

use super::routers::{self, Unheard};
use crate::action::{Action, StopMode, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Guard, Initialize, Postgres, Running};
use crate::reason::Refusal;
use crate::standing;
use std::fmt;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, SystemId, Term, Timeline};

/// A promotion of which nothing is seen after this time is asked for again.
const PROMOTE_AGAIN: Duration = Duration::from_secs(3);
/// A primary that was started again for want of another is given this long to come up at the least, and twice as long each time.
const KEPT_LEAST: Duration = Duration::from_secs(30);
const KEPT_DOUBLED: u32 = 8;

/// What the leader does.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    ArmsGuard { term: Term },
    NoGuard,
    DataNotWhole { refusal: Refusal },
    KeepsPromise { to: NodeName, until: Moment },
    RunsPrePromote { term: Term },
    PrePromoteFailed { term: Term },
    AwaitsRouters { term: Term, routers: Vec<String> },
    Promotes { term: Term, timeline: Timeline, lsn: Lsn, unheard: Vec<String> },
    WaitsForPromotion { term: Term },
    PromotionTookTooLong { term: Term },
    WaitsForStart { since: Moment },
    StartTookTooLong { since: Moment },
    WaitsForStop,
    Announces { term: Term, timeline: Timeline },
    ConfirmsInitialize { system_id: SystemId },
    Leads { term: Term },
    LeadsUntilSwitchover { term: Term, candidate: Option<NodeName> },
    Unresponsive { since: Moment },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::ArmsGuard { term } => write!(f, "the guard is given the deadline of term {term}"),
            Why::NoGuard => f.write_str("there is no guard process at the moment, without which nothing is promoted; it is being started"),
            Why::DataNotWhole { refusal } => write!(f, "this member holds the leader key, but {refusal}: nothing is promoted, the key is released"),
            Why::KeepsPromise { to, .. } => write!(f, "this member holds the leader key, but it told {to}, which leads without etcd (failsafe mode), that it would not lead yet: nothing is promoted before that is over"),
            Why::RunsPrePromote { term } => write!(f, "this member took the lead in term {term}: pre_promote must succeed before PostgreSQL is promoted"),
            Why::PrePromoteFailed { term } => write!(f, "pre_promote failed in term {term}, see the agent's log: PostgreSQL is not promoted, the leader key is released, and this member leaves the race to others for a ttl"),
            Why::AwaitsRouters { term, routers } => write!(f, "this member took the lead in term {term}: before the promotion these routers get a moment (baton.await_routers) to say that they have no session of an older term: {}", routers.join(", ")),
            Why::Promotes { term, timeline, lsn, unheard } => {
                write!(f, "this member took the lead in term {term}: PostgreSQL is promoted from timeline {timeline} at {lsn}")?;
                if unheard.is_empty() { return Ok(()) }
                write!(f, "; without the word of these routers, which were waited for in vain (baton.await_routers): {}", unheard.join(", "))
            }
            Why::WaitsForPromotion { term } => write!(f, "PostgreSQL is being promoted in term {term}"),
            Why::PromotionTookTooLong { term } => write!(f, "the promotion in term {term} did not end in primary_start_timeout: PostgreSQL is stopped, so that the lead can be given away safely"),
            Why::WaitsForStart { .. } => f.write_str("this member leads and PostgreSQL is starting"),
            Why::StartTookTooLong { .. } => f.write_str("this member leads and PostgreSQL has not come up within primary_start_timeout (or the timeout of the restart): it is stopped, so that the lead can be given away safely"),
            Why::WaitsForStop => f.write_str("this member leads and PostgreSQL is stopping"),
            Why::Announces { term, timeline } => write!(f, "PostgreSQL accepts writes on timeline {timeline}: that is announced for term {term}"),
            Why::ConfirmsInitialize { system_id } => write!(f, "the key /initialize is missing: the system identifier {system_id} is written again"),
            Why::Leads { term } => write!(f, "this member leads in term {term}"),
            Why::LeadsUntilSwitchover { term, candidate: Some(candidate) } => write!(f, "this member leads in term {term}; a switchover to {candidate} is scheduled"),
            Why::LeadsUntilSwitchover { term, candidate: None } => write!(f, "this member leads in term {term}; a switchover is scheduled"),
            Why::Unresponsive { .. } => f.write_str("this member leads and PostgreSQL does not answer; it is given a little time (after that another member gets the lead, if one could take it)"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let term = turn.leads()?;
    let cluster = turn.seen.cluster()?.clone();
    Some(match turn.seen.postgres.clone() {
        Postgres::Stopped => return None,
        Postgres::Stopping { .. } => Answer::because(Why::WaitsForStop),
        Postgres::Starting { since } => starting(turn, &cluster, since),
        Postgres::Unresponsive { since, .. } => Answer::because(Why::Unresponsive { since }),
        Postgres::Running(Running::Standby { timeline, lsn, .. }) => {
            promote(turn, &cluster, term, timeline, lsn)
        }
        Postgres::Running(Running::Primary { timeline, lsn }) => lead(turn, &cluster, term, timeline, lsn),
    })
}

fn starting(turn: &mut Turn<'_>, cluster: &Cluster, since: Moment) -> Answer {
    let limit = turn.start_limit();
    let down_since = *turn.memory.down_since.get_or_insert(since);
    let another = super::another_could_lead(turn.seen, cluster);
    // A start that somebody asked for, or that a promotion needs, is no crash.
    let meant = turn.memory.expected_stop || !turn.seen.may_be_primary();
    let by_itself = !meant && turn.memory.start.failures == 0 && turn.memory.stopping.is_none();
    if by_itself
        && !limit.is_zero()
        && let Some(ended) = super::recover::while_recovering(turn, cluster)
    {
        return ended;
    }
    // Without another member to lead, ending a recovery that takes long only makes it begin anew.
    if (limit.is_zero() && meant) || turn.now.since(down_since) < limit || !another || kept(turn, limit) {
        return Answer::because(Why::WaitsForStart { since });
    }
    let patience = turn.seen.rules.stop_budget();
    Answer::because(Why::StartTookTooLong { since }).act_all(turn.stop(StopMode::Immediate, patience))
}

/// The others were asked before this start, and none could take over, whatever their keys say of them. They are asked again if it
/// comes to nothing, each time later, so that a recovery that is longer than the limit comes to its end.
fn kept(turn: &Turn<'_>, limit: Duration) -> bool {
    let doubled = 1 << turn.memory.start.failures.min(KEPT_DOUBLED);
    let patience = limit.max(KEPT_LEAST) * doubled;
    turn.memory.kept_since.is_some_and(|since| turn.now.since(since) < patience)
}

fn promote(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, timeline: Timeline, lsn: Lsn) -> Answer {
    if turn.seen.guard == Guard::Absent {
        return Answer::because(Why::NoGuard);
    }
    if let Some(refusal) = standing::not_whole(turn.seen) {
        return Answer::because(Why::DataNotWhole { refusal }).act(Action::ReleaseLeader(term));
    }
    if let Some(promise) = standing::promise(turn) {
        let (to, until) = (promise.to.clone(), promise.until);
        return Answer::because(Why::KeepsPromise { to, until }).wake_at(until);
    }
    match turn.memory.promoting {
        Some((promoted, since)) if promoted == term => {
            let limit = turn.seen.rules.primary_start_timeout.max(turn.seen.rules.ttl);
            if turn.now.since(since) < limit {
                return wait_for_promotion(turn, cluster, term);
            }
            turn.memory.down_since = Some(since);
            turn.memory.start.failures = turn.memory.start.failures.max(1);
            let patience = turn.seen.rules.stop_budget();
            let actions = turn.stop(StopMode::Immediate, patience);
            Answer::because(Why::PromotionTookTooLong { term }).act_all(actions)
        }
        Some(_) | None => {
            // The time of the routers begins with the lead: the operator's command runs in it.
            let unheard = routers::unheard(turn, cluster, term);
            if let Some(answer) = pre_promote(turn, cluster, term) {
                return answer;
            }
            let unheard = match unheard {
                Unheard::Awaited { routers, until } => {
                    return Answer::because(Why::AwaitsRouters { term, routers }).wake_at(until);
                }
                Unheard::NotAwaited { routers } => routers,
            };
            turn.memory.promoting = Some((term, turn.now));
            turn.memory.promote_sent = Some(turn.now);
            let synchronous = super::synchronize::before_primary(turn, cluster, term, false);
            Answer::because(Why::Promotes { term, timeline, lsn, unheard })
                .act_all(synchronous)
                .act(Action::ArmGuard(term))
                .act(Action::Promote(term))
        }
    }
}

/// The operator's command: begun once in this term, and waited for. When it fails, the lead is for somebody else.
fn pre_promote(turn: &mut Turn<'_>, cluster: &Cluster, term: Term) -> Option<Answer> {
    if !turn.seen.rules.pre_promote {
        return None;
    }
    match turn.memory.pre_promoted.filter(|(ran, _)| *ran == term) {
        Some((_, true)) => None,
        Some((_, false)) => {
            let until = turn.now.after(turn.seen.rules.ttl);
            turn.memory.no_race_before = Some(until);
            // A wish that names this member is not tried again and again.
            let wish =
                cluster.failover.as_ref().filter(|wish| wish.candidate.as_ref() == Some(&turn.seen.me));
            let clear = wish.map(|wish| Action::ClearFailover(wish.revision));
            let answer = Answer::because(Why::PrePromoteFailed { term });
            Some(answer.act_all(clear.into_iter().collect()).act(Action::ReleaseLeader(term)))
        }
        None => {
            Some(Answer::because(Why::RunsPrePromote { term }).act(Action::Begin(Work::PrePromote(term))))
        }
    }
}

/// The promotion was asked for. When nothing is seen of it for a while it is asked for again: the list of actions may have
/// ended before it, and PostgreSQL takes no harm from a second word.
fn wait_for_promotion(turn: &mut Turn<'_>, cluster: &Cluster, term: Term) -> Answer {
    let answer = Answer::because(Why::WaitsForPromotion { term });
    let young = |sent: &Moment| turn.now.since(*sent) < PROMOTE_AGAIN;
    if let Some(sent) = turn.memory.promote_sent.filter(young) {
        return answer.wake_at(sent.after(PROMOTE_AGAIN));
    }
    turn.memory.promote_sent = Some(turn.now);
    let synchronous = super::synchronize::before_primary(turn, cluster, term, false);
    answer.act_all(synchronous).act(Action::ArmGuard(term)).act(Action::Promote(term))
}

fn lead(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, timeline: Timeline, lsn: Lsn) -> Answer {
    if !turn.seen.rules.pause {
        match turn.seen.guard {
            Guard::Absent => return Answer::because(Why::NoGuard),
            Guard::Disarmed => {
                return Answer::because(Why::ArmsGuard { term }).act(Action::ArmGuard(term));
            }
            Guard::Armed => {}
        }
    }
    if let (Initialize::Absent, Some(system_id)) = (cluster.initialize, turn.seen.system_id()) {
        let answer = Answer::because(Why::ConfirmsInitialize { system_id });
        return answer.act(Action::ConfirmInitialize(system_id));
    }
    let guarded = turn.seen.guard == Guard::Armed;
    if super::announced(turn, cluster, term, timeline, guarded) {
        let change = super::synchronize::answer(turn, cluster, term, lsn);
        return change.unwrap_or_else(|| {
            Answer::because(match &cluster.failover {
                Some(wish) => Why::LeadsUntilSwitchover { term, candidate: wish.candidate.clone() },
                None => Why::Leads { term },
            })
        });
    }
    super::announce(turn, Answer::because(Why::Announces { term, timeline }), (term, timeline, lsn), guarded)
}
