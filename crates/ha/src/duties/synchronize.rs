//! The leader keeps the synchronous standbys: whose confirmation commits wait for, and who may be promoted without a loss.
//!
//! ```text
//!   before it is a primary ─► /sync names nobody but us (or, after a restart, whom it named), then the names that fit
//!   a standby came ─────────► names ─► seen, certainly in effect ─► it has confirmed ─► /sync
//!   a standby went ─────────► /sync ─► names                       both at once, the second only after the first
//!   mode switched off ──────► /sync is removed ─► names as configured
//! ```
//! What to change next is decided in `sync_quorum`. Here is what makes it sure: of two writes to `/sync` only one is under way, and
//! while one may still arrive it is written again rather than anything else; nothing from before this term can arrive.

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::memory::{SyncChange, SyncSent};
use crate::observation::{Cluster, Contact, Etcd, Replication, Standby, SyncKey, same};
use crate::rules::{SyncMode, Synchronous};
use crate::sync_quorum::{Goal, Promise, Step, fits, next};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;
use types::{Lsn, NodeName, StandbyNames, Term};

/// PostgreSQL tells all its processes of new names one after the other; after this time none is left out.
const SETTLE: Duration = Duration::from_millis(100);
/// A value of `/sync` that is not seen after this time is written again.
const PROMISE_AGAIN: Duration = Duration::from_millis(300);
/// Names that are not seen after this time are set again.
const NAMES_AGAIN: Duration = Duration::from_secs(1);

/// What is changed, or awaited.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    TakesOver,
    WaitsForKey,
    WritesAgain,
    SetsNames { names: StandbyNames },
    Promises { promise: Promise },
    Replaces { promise: Promise, names: StandbyNames },
    AwaitsConfirmation { by: BTreeSet<NodeName> },
    SwitchesOff,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::TakesOver => f.write_str("this member leads: it takes /sync over, so that nothing from before can change it"),
            Why::WaitsForKey => f.write_str("/sync was written and is not seen changed yet"),
            Why::WritesAgain => f.write_str("/sync was written and is still not seen changed: it is written again"),
            Why::SetsNames { names: StandbyNames::Nobody } => f.write_str("there is no standby that could be synchronous: commits wait for nobody, and nobody else may be promoted"),
            Why::SetsNames { names: StandbyNames::Everybody { .. } } => f.write_str("No active replication connections from Patroni members and synchronous_mode_strict is requested: commits wait until a standby comes"),
            Why::SetsNames { names } => write!(f, "commits shall wait for {names}"),
            Why::Promises { promise } => write!(f, "{} in /sync now: they have every acknowledged commit", voters(promise)),
            Why::Replaces { promise, names: StandbyNames::Nobody } => write!(f, "the synchronous standbys have gone: {} in /sync, and commits wait for nobody", voters(promise)),
            Why::Replaces { promise, names } => write!(f, "the synchronous standbys change: {} in /sync, and commits wait for {names}", voters(promise)),
            Why::AwaitsConfirmation { by } => {
                let by: Vec<&str> = by.iter().map(NodeName::as_str).collect();
                write!(f, "synchronous_standby_names was changed; before /sync promises more, {} must confirm that they have what was committed before", by.join(", "))
            }
            Why::SwitchesOff => f.write_str("synchronous_mode is off: /sync is removed and synchronous_standby_names is what the configuration says"),
        }
    }
}

fn voters(promise: &Promise) -> String {
    let names: Vec<&str> = promise.voters.iter().map(NodeName::as_str).collect();
    match (names.as_slice(), promise.quorum) {
        ([], _) => "nobody else may be promoted".to_owned(),
        (names, 0) => format!("{} may be promoted", names.join(", ")),
        (names, quorum) => {
            format!("whoever has seen {} of {} may be promoted", quorum.saturating_add(1), names.join(", "))
        }
    }
}

/// The next change, if there is one or one is awaited. Asked when the primary is announced and has nothing else to do.
pub(crate) fn answer(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, lsn: Lsn) -> Option<Answer> {
    match turn.seen.etcd {
        Etcd::Seen { contact: Contact::Live, .. } => {}
        Etcd::Seen { contact: Contact::Lost { .. }, .. } | Etcd::Never { .. } => return None,
    }
    if turn.seen.rules.synchronous.mode == SyncMode::Off {
        return switch_off(turn, cluster, term);
    }
    if let Some(answer) = await_key(turn, cluster, term) {
        return Some(answer);
    }
    let replication = turn.seen.replication.clone()?;
    let ours = cluster.sync.as_ref().filter(|key| key.is_led_by(&turn.seen.me));
    let promise = ours.map(|key| key.promise.clone()).unwrap_or_default();
    if ours.is_none() || turn.memory.sync.term != Some(term) {
        // What it said before the mode was off and on again has not been kept since.
        let promise = if fits(&promise, &replication.names) { promise } else { Promise::default() };
        let put = put(turn, cluster, term, promise);
        return Some(soon(turn, Answer::because(Why::TakesOver).act(put)));
    }
    let names = note_names(turn, &replication, lsn);
    let confirmed = turn.memory.sync.barrier.map(|barrier| {
        let has = |standby: &&Standby| standby.streaming && standby.flushed >= barrier;
        let members = replication.standbys.iter().filter(has).filter_map(|standby| member(cluster, standby));
        members.cloned().collect::<BTreeSet<NodeName>>()
    });
    let goal = goal(turn, cluster, &replication, &promise, lsn);
    let step = next(&promise, &names, confirmed.as_ref(), &goal);
    take(turn, cluster, term, step)
}

/// Takes the step.
fn take(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, step: Step) -> Option<Answer> {
    let answer = match step {
        Step::Rest => return None,
        Step::Await(by) => Answer::because(Why::AwaitsConfirmation { by }),
        Step::Names(names) => {
            let set = set(turn, names.clone());
            Answer::because(Why::SetsNames { names }).act(set)
        }
        Step::Promise(promise) => {
            let put = put(turn, cluster, term, promise.clone());
            Answer::because(Why::Promises { promise }).act(put)
        }
        Step::PromiseThenNames(promise, names) => {
            let put = put(turn, cluster, term, promise.clone());
            let set = set(turn, names.clone());
            Answer::because(Why::Replaces { promise, names }).act(put).act(set)
        }
    };
    Some(soon(turn, answer))
}

/// What must be in place before this member becomes a primary in this term. With `keep` it was the primary before: those that
/// `/sync` names keep their promise, and the first commit waits for them already.
pub(crate) fn before_primary(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, keep: bool) -> Vec<Action> {
    let rules = turn.seen.rules.synchronous.clone();
    if rules.mode == SyncMode::Off {
        return Vec::new();
    }
    let ours = cluster.sync.as_ref().filter(|key| key.is_led_by(&turn.seen.me));
    let kept = ours.filter(|_| keep).map(|key| key.promise.clone()).unwrap_or_default();
    let change = &turn.memory.sync;
    // What may still arrive must not: another value over the same revision.
    let sure = change.term == Some(term) && change.sent.is_none();
    let there = sure && ours.is_some_and(|key| key.promise == kept);
    let mut actions = Vec::new();
    if !there {
        actions.push(put(turn, cluster, term, kept.clone()));
    }
    actions.push(set(turn, names_for(kept, &rules)));
    actions
}

/// The names that keep this promise.
pub(crate) fn names_for(promise: Promise, rules: &Synchronous) -> StandbyNames {
    let any = rules.mode == SyncMode::Quorum || promise.quorum > 0;
    let count = promise.voters.len().saturating_sub(promise.quorum);
    Goal { names: promise.voters, count, any, strict: rules.strict }.names()
}

/// Commits wait for nobody: `/sync` goes, so that nobody is kept from the lead, or let to it, by what it said before.
pub(crate) fn switch_off(turn: &mut Turn<'_>, cluster: &Cluster, term: Term) -> Option<Answer> {
    let Some(key) = &cluster.sync else {
        if turn.memory.sync == SyncChange::default() {
            return None;
        }
        turn.memory.sync = SyncChange::default();
        return Some(Answer::because(Why::SwitchesOff).act(Action::SetSynchronous(None)));
    };
    let over = key.revision;
    let sent = turn.memory.sync.sent.as_ref().filter(|sent| sent.over == over && sent.term == term);
    if let Some(again) = sent.map(|sent| sent.at.after(PROMISE_AGAIN)).filter(|again| turn.now < *again) {
        return Some(Answer::because(Why::WaitsForKey).wake_at(again));
    }
    let sent = SyncSent { term, promise: Promise::default(), others: BTreeSet::new(), over, at: turn.now };
    turn.memory.sync = SyncChange { sent: Some(sent), ..SyncChange::default() };
    let answer = Answer::because(Why::SwitchesOff).act(Action::DeleteSync { over, term });
    Some(soon(turn, answer.act(Action::SetSynchronous(None))))
}

/// A value of `/sync` on its way: until it is seen, nothing else is done but to write it again.
fn await_key(turn: &mut Turn<'_>, cluster: &Cluster, term: Term) -> Option<Answer> {
    let sent = turn.memory.sync.sent.clone()?;
    if sent.term != term {
        turn.memory.sync = SyncChange::default();
        return None;
    }
    if sent.over != revision(cluster) {
        let ours = |key: &SyncKey| key.is_led_by(&turn.seen.me) && key.promise == sent.promise;
        let known = cluster.sync.as_ref().is_some_and(ours);
        turn.memory.sync.sent = None;
        turn.memory.sync.term = known.then_some(term);
        return None;
    }
    let again = sent.at.after(PROMISE_AGAIN);
    if turn.now < again {
        return Some(Answer::because(Why::WaitsForKey).wake_at(again));
    }
    // What fitted when it was sent, unless somebody else has changed the names since.
    let fitting = turn.seen.replication.as_ref().is_none_or(|now| fits(&sent.promise, &now.names));
    let promise = if fitting { sent.promise.clone() } else { Promise::default() };
    let put = put(turn, cluster, term, promise);
    let names = turn.memory.sync.asked.clone().map(|(names, _)| names);
    let names = names.filter(|names| fits(&sent.promise, names));
    let set: Vec<Action> = names.into_iter().map(|names| set(turn, names)).collect();
    Some(soon(turn, Answer::because(Why::WritesAgain).act(put).act_all(set)))
}

/// Notes whether the names that were asked for are in effect; returns those to reckon with.
fn note_names(turn: &mut Turn<'_>, replication: &Replication, lsn: Lsn) -> StandbyNames {
    let now = turn.now;
    let change = &mut turn.memory.sync;
    let (asked, at) = change.asked.get_or_insert_with(|| (replication.names.clone(), now)).clone();
    if asked != replication.names {
        change.seen = None;
        change.barrier = None;
        // Set by somebody else since, or not taken up by PostgreSQL.
        let late = replication.asked >= at.after(NAMES_AGAIN);
        return if late { replication.names.clone() } else { asked };
    }
    if replication.asked < at {
        return asked;
    }
    let seen = *change.seen.get_or_insert(replication.asked);
    if replication.settled && replication.asked >= seen.after(SETTLE) {
        change.barrier.get_or_insert(lsn);
    }
    asked
}

/// The standbys that shall be synchronous.
fn goal(turn: &Turn<'_>, cluster: &Cluster, replication: &Replication, promise: &Promise, lsn: Lsn) -> Goal {
    let rules = &turn.seen.rules.synchronous;
    let chosen = match turn.memory.sync.asked.as_ref().map(|(names, _)| names) {
        Some(StandbyNames::First { names, .. } | StandbyNames::Any { names, .. }) => names.clone(),
        Some(StandbyNames::Nobody | StandbyNames::Everybody { .. } | StandbyNames::Other(_)) | None => {
            BTreeSet::new()
        }
    };
    let mut fit = Vec::new();
    for standby in &replication.standbys {
        let Some(name) = member(cluster, standby).filter(|name| **name != turn.seen.me) else { continue };
        let Some(facts) = cluster.members.get(name) else { continue };
        let near = rules.maximum_lag.is_none_or(|limit| lsn.bytes_since(standby.flushed) <= limit);
        // Its connection may be there while it is not, and its disk may hang: commits do not wait for that.
        let moves = standby
            .stalled
            .is_none_or(|since| replication.asked.since(since) < turn.seen.rules.stall_limit());
        let near = near && moves;
        if standby.streaming && facts.running && !facts.primary && facts.sync_priority > 0 && near {
            let now = promise.voters.contains(name) || chosen.contains(name);
            let rank = (facts.nofailover, Reverse((facts.sync_priority, now, standby.flushed)));
            fit.push((rank, name.clone()));
        }
    }
    fit.sort();
    fit.dedup_by(|one, other| one.1 == other.1);
    let any = rules.mode == SyncMode::Quorum;
    let wanted = rules.count.max(1);
    let most = if any { fit.len() } else { wanted };
    let names: BTreeSet<NodeName> = fit.into_iter().take(most).map(|(_, name)| name).collect();
    let count = wanted.min(names.len());
    Goal { names, count, any, strict: rules.strict }
}

/// The member that streams under this name.
fn member<'a>(cluster: &'a Cluster, standby: &Standby) -> Option<&'a NodeName> {
    cluster.members.keys().find(|name| same(name, &standby.name))
}

fn revision(cluster: &Cluster) -> i64 {
    cluster.sync.as_ref().map_or(0, |key| key.revision)
}

fn put(turn: &mut Turn<'_>, cluster: &Cluster, term: Term, promise: Promise) -> Action {
    let over = revision(cluster);
    let before = turn.memory.sync.sent.take().filter(|sent| sent.over == over && sent.term == term);
    let mut others = before.map_or_else(BTreeSet::new, |sent| {
        sent.others.into_iter().chain([sent.promise]).collect::<BTreeSet<Promise>>()
    });
    others.remove(&promise);
    turn.memory.sync.sent = Some(SyncSent { term, promise: promise.clone(), others, over, at: turn.now });
    Action::PutSync { promise, over, term }
}

fn set(turn: &mut Turn<'_>, names: StandbyNames) -> Action {
    turn.memory.sync.asked = Some((names.clone(), turn.now));
    turn.memory.sync.seen = None;
    turn.memory.sync.barrier = None;
    Action::SetSynchronous(Some(names))
}

/// What comes of it shows in a moment; a standby that takes long to confirm is looked at less often.
fn soon(turn: &Turn<'_>, answer: Answer) -> Answer {
    let asked = turn.memory.sync.asked.as_ref().map(|(_, at)| *at);
    let fresh = asked.is_none_or(|at| turn.now.since(at) < Duration::from_secs(2));
    answer.wake_at(turn.now.after(Duration::from_millis(if fresh { 50 } else { 500 })))
}
