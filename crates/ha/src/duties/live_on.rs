//! Failsafe mode: the lead goes on without etcd while every other member of `/failsafe` agrees.
//!
//! ```text
//!   half of the authority is used up ─► ask all others ─► all agreed: authority = the asking + ttl − margin
//!                                            ▲        └─► somebody did not: ask again, until `keep_deadline` stops PostgreSQL
//!                                            └────────────────┘
//! ```
//! Whoever agrees does not take the lead for a ttl after it was asked, which is after we asked; and nobody else may take it, because
//! only members of `/failsafe` race. So there is no second leader before our deadline. Asked before everything else: neither a job nor
//! an order may be in the way of it.
//!
//! An agent that was started again while etcd is away knows its term and deadline from the guard, and `/failsafe` from what it kept in
//! that term. It goes on with a primary that runs; it starts nothing that it has not seen running.

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::failsafe::FailsafeRound;
use crate::observation::{Authority, Etcd, Postgres, Running};
use crate::rules::Rules;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use types::{Moment, NodeName, Term};

/// How the lead goes on without etcd.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    AsksAll { term: Term, left: Duration },
    AsksAgain { term: Term, left: Duration, without: NodeName },
    AllAgreed { term: Term },
    NobodyElse { term: Term },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::AsksAll { term, left } => write!(
                f,
                "the lease of term {term} could not be renewed for a while and its authority ends in {left:?}: all other members are asked whether this one may lead on without etcd (failsafe mode)"
            ),
            Why::AsksAgain { term, left, without } => write!(
                f,
                "{without} has not agreed that this member leads on without etcd in term {term} (failsafe mode), and all must; they are asked again, {left:?} before the authority ends"
            ),
            Why::AllAgreed { term } => write!(
                f,
                "all other members agreed: this one leads on in term {term} without etcd (failsafe mode)"
            ),
            Why::NobodyElse { term } => write!(
                f,
                "no other member is listed in /failsafe: this one leads on in term {term} without etcd (failsafe mode)"
            ),
        }
    }
}

/// When the others are asked, or asked again, unless a renewal comes before.
pub(crate) fn ask_at(turn: &Turn<'_>) -> Option<Moment> {
    let (_, deadline) = leading(turn)?;
    others(turn)?;
    let again = turn.memory.failsafe_asked.map(|asked| asked.after(turn.seen.rules.race_pause()));
    let first = deadline.before(turn.seen.rules.failsafe_ahead());
    Some(again.map_or(first, |again| again.max(first)))
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let (term, deadline) = leading(turn)?;
    let others = others(turn)?;
    if let Some(until) = agreed(turn, term, &others).filter(|until| *until > deadline) {
        turn.memory.failsafe_until = Some(until);
        return Some(Answer::because(Why::AllAgreed { term }).act(Action::ExtendLead { term, until }));
    }
    if turn.now < deadline.before(turn.seen.rules.failsafe_ahead()) {
        return None;
    }
    if others.is_empty() {
        let until = extended(turn, turn.now);
        turn.memory.failsafe_until = Some(until);
        return Some(Answer::because(Why::NobodyElse { term }).act(Action::ExtendLead { term, until }));
    }
    ask(turn, (term, deadline), others)
}

/// The lead that could go on.
fn leading(turn: &Turn<'_>) -> Option<(Term, Moment)> {
    let rules = &turn.seen.rules;
    if !rules.failsafe || rules.pause || !serves(turn) || turn.memory.step_aside.is_some() {
        return None;
    }
    match turn.seen.authority {
        Authority::Held { term, deadline } if turn.leads() == Some(term) => Some((term, deadline)),
        Authority::Held { .. } | Authority::None => None,
    }
}

/// Whether there is a PostgreSQL here to lead on with: a primary, or one that was; in a standby cluster a standby that runs.
fn serves(turn: &Turn<'_>) -> bool {
    let running = matches!(turn.seen.postgres, Postgres::Running(Running::Standby { .. }));
    if turn.seen.rules.standby_cluster {
        return running;
    }
    match &turn.seen.etcd {
        Etcd::Never { .. } => turn.seen.may_be_primary(),
        Etcd::Seen { .. } => turn.is_stopped_primary() || turn.seen.may_be_primary(),
    }
}

/// All who must agree; `None` when nobody may lead on here, because we are not listed ourselves.
fn others(turn: &Turn<'_>) -> Option<BTreeSet<NodeName>> {
    let listed = match &turn.seen.etcd {
        Etcd::Never { .. } => turn.seen.failsafe.kept.as_ref()?,
        Etcd::Seen { cluster, .. } => cluster.failsafe.as_ref()?,
    };
    let me = &turn.seen.me;
    let all = listed.union(&turn.seen.failsafe.listed);
    listed.contains(me).then(|| all.filter(|name| *name != me).cloned().collect())
}

/// The round that counts for the last question.
fn round<'a>(turn: &'a Turn<'_>, term: Term) -> Option<&'a FailsafeRound> {
    let asked = turn.memory.failsafe_asked?;
    turn.seen.failsafe.round.as_ref().filter(|round| round.asked >= asked && round.term == term)
}

/// The end of the authority that the last round gives, when all have agreed.
fn agreed(turn: &Turn<'_>, term: Term, others: &BTreeSet<NodeName>) -> Option<Moment> {
    let round = round(turn, term)?;
    (!others.is_empty() && others.is_subset(&round.accepted)).then(|| extended(turn, round.asked))
}

fn extended(turn: &Turn<'_>, asked: Moment) -> Moment {
    let ttl = turn.seen.rules.ttl;
    asked.after(ttl.saturating_sub(Rules::margin(ttl)))
}

/// Asks, and again after a rest when somebody did not agree.
fn ask(turn: &mut Turn<'_>, (term, deadline): (Term, Moment), others: BTreeSet<NodeName>) -> Option<Answer> {
    let left = turn.now.until(deadline);
    if left <= turn.seen.rules.stop_budget() {
        return None;
    }
    let patience = turn.seen.rules.peer_patience();
    // The answers to a question of the last extension are not those to this one.
    let fresh = turn.memory.failsafe_asked.filter(|asked| extended(turn, *asked) > deadline);
    let why = match (fresh, round(turn, term)) {
        (Some(asked), Some(round)) if round.over => {
            let rest = asked.after(turn.seen.rules.race_pause());
            if turn.now < rest {
                return None;
            }
            let without = others.difference(&round.accepted).next().cloned()?;
            Why::AsksAgain { term, left, without }
        }
        (Some(asked), Some(_) | None) if turn.now.since(asked) < patience => return None,
        (Some(_) | None, Some(_) | None) => Why::AsksAll { term, left },
    };
    turn.memory.failsafe_asked = Some(turn.now);
    let rest = turn.now.after(turn.seen.rules.race_pause());
    let names = others.into_iter().collect();
    Some(Answer::because(why).act(Action::AskFailsafe { term, names }).wake_at(rest))
}
