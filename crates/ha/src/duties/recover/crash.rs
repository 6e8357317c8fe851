//! A primary has crashed, or cannot be started: restart it here, or let another member lead, by numbers.
//!
//! ```text
//!   the restart is about as fast, or nobody could take over ─► restart it here, at once, which loses nothing
//!   a failover is clearly faster, or the primary must go (it crashes again and again, primary_start_timeout)
//!      └► ask the others
//!           synchronous:  enough of those in /sync answer ─► release the key: whoever wins has what was acknowledged
//!           asynchronous: the one that is furthest is handed our last WAL, a job ─► release the key, naming it
//!           nobody can, or it failed ─► restart it here; one that must go goes, if maximum_lag_on_failover allows what it may cost
//! ```

use super::{Cause, Cost, Stays, Why};
use crate::action::{Action, StopMode, Work};
use crate::decision::{Answer, Turn};
use crate::memory::Crash;
use crate::observation::{Cluster, Control, Data};
use crate::peers::{PeerAnswer, PeerFacts};
use crate::reason::Refusal;
use crate::rules::CrashRule;
use crate::standing;
use std::time::Duration;
use types::{NodeName, Term, Timeline};

/// So many crashes within `CRASH_WINDOW` and the lead goes to somebody else.
const CRASHES_TOLERATED: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(120);

/// Counts a crash, once; how many there were lately.
pub(super) fn count(turn: &mut Turn<'_>) -> usize {
    if let Some(crash) = &turn.memory.crash {
        return crash.number;
    }
    turn.memory.crashes.push(turn.now);
    let number = lately(turn);
    turn.memory.crash = Some(Crash { number, ..Crash::default() });
    number
}

/// How many crashes there were lately, when those are more than a leader may have: promotions that ended PostgreSQL are among them.
pub(super) fn too_many(turn: &mut Turn<'_>) -> Option<usize> {
    Some(lately(turn)).filter(|crashes| *crashes > CRASHES_TOLERATED)
}

fn lately(turn: &mut Turn<'_>) -> usize {
    let oldest = turn.now.before(CRASH_WINDOW);
    turn.memory.crashes.retain(|crash| *crash >= oldest);
    turn.memory.crashes.len()
}

/// Lets another member lead, if that is better; else says why not.
pub(super) fn answer(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    control: &Control,
    term: Term,
    crashes: Option<usize>,
) -> Result<Answer, Stays> {
    let Some(cause) = cause(turn, crashes) else { return Err(Stays::Fine) };
    if control.standby || turn.seen.rules.standby_cluster {
        // It has written nothing: what it has, others have or can get.
        let leaves = cause.must_go() && super::super::another_could_lead(turn.seen, cluster);
        return if leaves {
            Ok(give_away(turn, cause, None, Cost::Unknown, term))
        } else {
            Err(Stays::Alone)
        };
    }
    hand_over(turn, cluster, control, cause, term)
}

/// Gives the lead to somebody who has, or is handed, all that this member has.
fn hand_over(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    control: &Control,
    cause: Cause,
    term: Term,
) -> Result<Answer, Stays> {
    if !super::super::another_could_take_over(turn.seen, cluster) {
        return Err(Stays::Alone);
    }
    if let Some(to) = turn.memory.crash.as_ref().and_then(|crash| crash.handed.clone()) {
        return Ok(give_away(turn, cause, Some(to), Cost::Nothing, term));
    }
    if let Some(asking) = ask(turn, cluster, &cause) {
        return Ok(asking);
    }
    choose(turn, cluster, control, cause, term)
}

/// This member gives the lead away anyway, and PostgreSQL did not end cleanly: whoever leads next is handed our last WAL first, when
/// somebody can be. `None`: nobody can, or there is no need.
pub(in crate::duties) fn leave(turn: &mut Turn<'_>, cause: Cause) -> Option<Answer> {
    let term = turn.leads()?;
    let cluster = turn.seen.cluster()?.clone();
    let control = match &turn.seen.data {
        Data::Present(control) => *control,
        Data::Empty | Data::Incomplete | Data::Unusable => return None,
    };
    let needless = control.clean || control.standby || turn.seen.rules.standby_cluster;
    // What was acknowledged in a synchronous mode others have.
    if needless || standing::synchronous(turn.seen, &cluster).is_some() {
        return None;
    }
    hand_over(turn, &cluster, &control, cause, term).ok()
}

/// A process of the running primary has died, and the postmaster recovers by itself: it is ended when another member leads sooner, as
/// if all of it had crashed. The others are asked before, because a recovery that is ended begins anew.
pub(in crate::duties) fn while_recovering(turn: &mut Turn<'_>, cluster: &Cluster) -> Option<Answer> {
    turn.seen.pace.end?;
    let crashes = count(turn);
    let cause = cause(turn, Some(crashes))?;
    if !super::super::another_could_take_over(turn.seen, cluster) {
        return None;
    }
    if let Some(asking) = ask(turn, cluster, &cause) {
        return Some(asking);
    }
    let control = match &turn.seen.data {
        Data::Present(control) => *control,
        Data::Empty | Data::Incomplete | Data::Unusable => return None,
    };
    let (fit, _) = judged(turn, cluster, control.timeline, &cause);
    let wanted = standing::synchronous(turn.seen, cluster).map_or(1, |key| key.promise.quorum + 1);
    if fit.len() < wanted {
        return None;
    }
    let patience = turn.seen.rules.stop_budget();
    Some(Answer::because(Why::EndsRecovery { cause }).act_all(turn.stop(StopMode::Immediate, patience)))
}

/// Why another member shall lead; `crashes` is how often it crashed lately, when this was a crash.
fn cause(turn: &Turn<'_>, crashes: Option<usize>) -> Option<Cause> {
    let limit = turn.start_limit();
    let down = turn.memory.down_since.map_or(Duration::ZERO, |since| turn.now.since(since));
    if crashes.is_some() && limit.is_zero() {
        return Some(Cause::AtOnce);
    }
    if down >= limit && turn.memory.start.failures > 0 {
        return Some(Cause::FailedStarts { down });
    }
    let crashes = crashes?;
    if crashes > CRASHES_TOLERATED {
        return Some(Cause::Crashes { crashes });
    }
    match turn.seen.rules.crash {
        CrashRule::Restart => None,
        CrashRule::Failover => Some(Cause::Preferred),
        CrashRule::Auto => {
            let estimate = turn.seen.pace.estimate().filter(|estimate| estimate.is_clearly_slower(0));
            estimate.map(Cause::Faster)
        }
    }
}

/// Asks the others, once, and waits for their answers.
fn ask(turn: &mut Turn<'_>, cluster: &Cluster, cause: &Cause) -> Option<Answer> {
    let patience = turn.seen.rules.peer_patience();
    let number = turn.memory.crashes.len();
    let now = turn.now;
    let crash = turn.memory.crash.get_or_insert(Crash { number, ..Crash::default() });
    let answer = Answer::because(Why::AsksWhoCouldTakeOver { cause: cause.clone() });
    match crash.asked {
        None => {
            crash.asked = Some(now);
            let names = standing::reachable(&turn.seen.me, cluster);
            Some(answer.act(Action::AskPeers(names)).wake_at(now.after(patience)))
        }
        Some(asked) if turn.seen.peers.asked < Some(asked) && now.since(asked) < patience => {
            Some(answer.wake_at(asked.after(patience)))
        }
        Some(_) => None,
    }
}

/// The others have answered: who takes over?
fn choose(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    control: &Control,
    cause: Cause,
    term: Term,
) -> Result<Answer, Stays> {
    let sync = standing::synchronous(turn.seen, cluster);
    let (mut fit, mut refusals) = judged(turn, cluster, control.timeline, &cause);
    if let Some(key) = sync {
        let (votes, wanted) = (fit.len(), key.promise.quorum + 1);
        if votes >= wanted {
            return Ok(give_away(turn, cause, None, Cost::Nothing, term));
        }
        let unheard = refusals.iter().filter(|(_, refusal)| *refusal == Refusal::Silent);
        let silent: Vec<NodeName> = unheard.map(|(name, _)| name.clone()).collect();
        let few = |(name, _): (&NodeName, _)| {
            (name.clone(), Refusal::TooFewVotes { votes, wanted, silent: silent.clone() })
        };
        refusals.extend(fit.into_iter().map(few));
        return settle(turn, cluster, cause, term, Stays::NobodyFit { refusals });
    }
    let failed = turn.memory.crash.as_ref().map(|crash| crash.failed.clone()).unwrap_or_default();
    let chosen = turn.memory.step_aside.as_ref().and_then(|aside| aside.candidate.clone());
    fit.retain(|(name, _)| !failed.contains(name) && chosen.as_ref().is_none_or(|chosen| chosen == *name));
    let best = fit.into_iter().max_by_key(|(_, facts)| (facts.lsn, facts.failover_priority));
    match best.map(|(name, _)| name.clone()) {
        Some(to) => {
            let within = cause.patience();
            let work = Work::HandTail { to: to.clone(), term, within };
            Ok(Answer::because(Why::HandsTail { to, cause }).act(Action::Begin(work)))
        }
        None => {
            let stays = match failed.last().cloned() {
                Some(to) => Stays::NotHanded { to },
                None => Stays::NobodyFit { refusals },
            };
            settle(turn, cluster, cause, term, stays)
        }
    }
}

/// Those that could take over, with what they said.
type Fit<'a> = Vec<(&'a NodeName, &'a PeerFacts)>;

/// Who could take over, and what speaks against the others.
fn judged<'a>(
    turn: &'a Turn<'_>,
    cluster: &'a Cluster,
    timeline: Timeline,
    cause: &Cause,
) -> (Fit<'a>, Vec<(NodeName, Refusal)>) {
    let (mut fit, mut refusals) = (Vec::new(), Vec::new());
    for name in cluster.members.keys().filter(|name| **name != turn.seen.me) {
        match judge(turn, cluster, name, timeline, cause) {
            Ok(facts) => fit.push((name, facts)),
            Err(refusal) => refusals.push((name.clone(), refusal)),
        }
    }
    (fit, refusals)
}

/// What a member said of itself, or what speaks against it as the one that takes over without a loss.
fn judge<'a>(
    turn: &'a Turn<'_>,
    cluster: &Cluster,
    name: &NodeName,
    timeline: Timeline,
    cause: &Cause,
) -> Result<&'a PeerFacts, Refusal> {
    let sync = standing::synchronous(turn.seen, cluster);
    if sync.is_some_and(|key| !key.lists(name)) {
        return Err(Refusal::NotSynchronous { leader: turn.seen.me.clone() });
    }
    if turn.seen.is_unlisted(cluster, name) {
        return Err(Refusal::NotInFailsafe);
    }
    let facts = match turn.seen.peers.answers.get(name) {
        Some(PeerAnswer::Said(facts)) => facts,
        Some(PeerAnswer::Down) => return Err(Refusal::NotRunning),
        Some(PeerAnswer::Silent) | None => return Err(Refusal::Silent),
    };
    if facts.primary {
        return Err(Refusal::IsPrimary);
    }
    if facts.nofailover {
        return Err(Refusal::NoFailoverTag);
    }
    if facts.unprotected {
        return Err(Refusal::Unprotected);
    }
    match facts.timeline {
        None => return Err(Refusal::NotRunning),
        Some(theirs) if theirs != timeline => {
            return Err(Refusal::OldTimeline { mine: theirs, newest: timeline });
        }
        Some(_) => {}
    }
    if sync.is_none() && !facts.takes_wal {
        return Err(Refusal::TakesNoWal);
    }
    let lag = facts.replayed.map_or(0, |replayed| facts.lsn.bytes_since(replayed));
    match cause {
        Cause::Faster(estimate) if !estimate.is_clearly_slower(lag) => {
            Err(Refusal::HasToReplay { bytes: lag })
        }
        Cause::Faster(_)
        | Cause::Preferred
        | Cause::Crashes { .. }
        | Cause::AtOnce
        | Cause::Leaves
        | Cause::Sick(_)
        | Cause::FailedStarts { .. } => Ok(facts),
    }
}

/// Nobody takes over without a loss: the settings decide what becomes of a primary that must go.
fn settle(
    turn: &mut Turn<'_>,
    cluster: &Cluster,
    cause: Cause,
    term: Term,
    stays: Stays,
) -> Result<Answer, Stays> {
    let cost = cost(turn, cluster);
    let allowed = match cost {
        Cost::UpTo { bytes } => bytes <= turn.seen.rules.maximum_lag_on_failover,
        Cost::Nothing | Cost::Unknown => true,
    };
    if cause.must_go() && allowed && super::super::another_could_lead(turn.seen, cluster) {
        return Ok(give_away(turn, cause, None, cost, term));
    }
    Err(stays)
}

/// How much of our WAL nobody else was seen to have.
fn cost(turn: &Turn<'_>, cluster: &Cluster) -> Cost {
    if standing::synchronous(turn.seen, cluster).is_some() {
        return Cost::Nothing;
    }
    let said = |name: &NodeName| match turn.seen.peers.answers.get(name) {
        Some(PeerAnswer::Said(facts)) => Some(facts.lsn),
        Some(PeerAnswer::Down | PeerAnswer::Silent) | None => None,
    };
    let others = cluster.members.iter().filter(|(name, member)| **name != turn.seen.me && !member.nofailover);
    let furthest = others.filter_map(|(name, member)| said(name).max(member.lsn)).max();
    match (turn.seen.pace.end, furthest) {
        (Some(end), Some(furthest)) => Cost::UpTo { bytes: end.bytes_since(furthest) },
        (Some(_) | None, _) => Cost::Unknown,
    }
}

fn give_away(turn: &mut Turn<'_>, cause: Cause, to: Option<NodeName>, cost: Cost, term: Term) -> Answer {
    turn.memory.no_race_before = Some(turn.now.after(turn.seen.rules.ttl));
    turn.memory.down_since = None;
    turn.memory.start = Default::default();
    turn.memory.crash = None;
    let action = match to.clone() {
        Some(to) => Action::HandLeadTo { term, to },
        None => Action::ReleaseLeader(term),
    };
    Answer::because(Why::GivesLeadAway { cause, to, cost }).act(action)
}
