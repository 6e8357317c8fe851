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

use super::Why;
use crate::action::{Action, Work};
use crate::decision::{Answer, Turn};
use crate::memory::Crash;
use crate::observation::{Cluster, Control};
use crate::pace::{Bytes, Estimate, Rough};
use crate::peers::{PeerAnswer, PeerFacts};
use crate::reason::Refusal;
use crate::rules::CrashRule;
use crate::standing;
use std::fmt;
use std::time::Duration;
use types::{NodeName, Term, Timeline};

/// So many crashes within `CRASH_WINDOW` and the lead goes to somebody else.
const CRASHES_TOLERATED: usize = 3;
const CRASH_WINDOW: Duration = Duration::from_secs(120);
/// The longest that a primary waits for its WAL to be handed over.
const HANDED_WITHIN: Duration = Duration::from_secs(30);
/// The same where a person wants the lead to move at once.
const HANDED_AT_ONCE_WITHIN: Duration = Duration::from_secs(5);

/// Why another member shall lead.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Cause {
    /// That is clearly faster.
    Faster(Estimate),
    /// The settings want it.
    Preferred,
    Crashes {
        crashes: usize,
    },
    /// `primary_start_timeout` is 0.
    AtOnce,
    FailedStarts {
        down: Duration,
    },
}

/// What a failover costs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Cost {
    Nothing,
    /// About so many bytes of WAL that the fittest other member was not seen to have.
    UpTo {
        bytes: u64,
    },
    Unknown,
}

/// Why PostgreSQL is restarted where it crashed.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Stays {
    /// Nothing speaks against it.
    #[default]
    Fine,
    /// No other member could lead now.
    Alone,
    /// The others were asked: nobody can take over without a loss.
    NobodyFit { refusals: Vec<(NodeName, Refusal)> },
    /// That one could not be given our last WAL.
    NotHanded { to: NodeName },
}

impl Stays {
    /// Whether another member would lead, if one could.
    pub(super) fn for_want_of_another(&self) -> bool {
        match self {
            Stays::Fine => false,
            Stays::Alone | Stays::NobodyFit { .. } | Stays::NotHanded { .. } => true,
        }
    }
}

impl Cause {
    /// Whether the lead goes even when that costs something.
    fn must_go(&self) -> bool {
        match self {
            Cause::Faster(_) | Cause::Preferred => false,
            Cause::Crashes { .. } | Cause::AtOnce | Cause::FailedStarts { .. } => true,
        }
    }

    /// How long the hand-over of the WAL may take: it must leave time for what comes instead.
    fn patience(&self) -> Duration {
        match self {
            Cause::Faster(estimate) => {
                (estimate.restart.saturating_sub(estimate.failover) / 2).min(HANDED_WITHIN)
            }
            Cause::AtOnce => HANDED_AT_ONCE_WITHIN,
            Cause::Preferred | Cause::Crashes { .. } | Cause::FailedStarts { .. } => HANDED_WITHIN,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Faster(estimate) => write!(f, "PostgreSQL crashed while it led: restarting it takes {estimate}, a failover about {}", Rough(estimate.failover)),
            Cause::Preferred => f.write_str("PostgreSQL crashed while it led, and baton.crash prefers a failover that loses nothing"),
            Cause::Crashes { crashes } => write!(f, "PostgreSQL crashed {crashes} times in two minutes"),
            Cause::AtOnce => f.write_str("PostgreSQL crashed while it led, and primary_start_timeout is 0: it is not restarted as the primary"),
            Cause::FailedStarts { down } => write!(f, "PostgreSQL could not be brought up as the primary for {down:?} (primary_start_timeout, or the timeout of the restart)"),
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cost::Nothing => f.write_str(", which loses nothing"),
            Cost::UpTo { bytes } => write!(
                f,
                ", which may lose up to {} of WAL that no other member was seen to have (maximum_lag_on_failover allows it; it stays in this data directory, and is kept when that is rewound)",
                Bytes(*bytes)
            ),
            Cost::Unknown => Ok(()),
        }
    }
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stays::Fine => Ok(()),
            Stays::Alone => f.write_str("; no other member could lead now"),
            Stays::NobodyFit { refusals } => {
                f.write_str("; nobody can take over without a loss:")?;
                for (name, refusal) in refusals {
                    write!(f, " {name}: {refusal};")?;
                }
                Ok(())
            }
            Stays::NotHanded { to } => {
                write!(f, "; {to} could not be given the last WAL in time, the agent's log says why")
            }
        }
    }
}

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
    let (mut fit, mut refusals) = (Vec::new(), Vec::new());
    for name in cluster.members.keys().filter(|name| **name != turn.seen.me) {
        match judge(turn, cluster, name, control.timeline, &cause) {
            Ok(facts) => fit.push((name, facts)),
            Err(refusal) => refusals.push((name.clone(), refusal)),
        }
    }
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
    fit.retain(|(name, _)| !failed.contains(name));
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
