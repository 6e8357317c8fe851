//! The leader hands the lead over: a switchover, a failover with a living leader, or the end of its agent.
//!
//! ```text
//!   wish in /failover ─► ask the candidates ─► nobody fit: refuse, with every candidate's reason
//!      └► checkpoint ─► routers let transactions end ─► tell the routers, stop (fast) ─► stopped: release the key
//!                                                                                          └► another leads: done
//! ```
//! PostgreSQL's fast stop waits until every connected standby has all WAL, the shutdown checkpoint included; so the key is
//! released only when PostgreSQL has ended, and then at once.

use super::recover::Cause;
use super::{another_could_lead, certainty};
use crate::action::{Action, StopMode, Work};
use crate::decision::{Answer, Turn};
use crate::memory::{StepAside, StepAsideWhy};
use crate::observation::{Cluster, Data, Failover, Postgres, Running};
use crate::peers::PeerAnswer;
use crate::plans::Due;
use crate::reason::Refusal;
use crate::standing;
use std::fmt;
use std::time::Duration;
use types::{Lsn, NodeName, Term};

/// How far the hand-over has come.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    NamesAnotherLeader { named: NodeName },
    NamesUs,
    TimeUnreadable,
    TooLate { late: Duration },
    AsksCandidates,
    AwaitsCertainty,
    Refused { refusals: Vec<(NodeName, Refusal)> },
    AwaitsListing { members: Vec<NodeName> },
    Checkpoints { candidate: Option<NodeName> },
    Drains { candidate: Option<NodeName>, routers: usize },
    Stops { candidate: Option<NodeName> },
    HandsOver { candidate: Option<NodeName>, clean: bool },
    Stays,
    InVain,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = |candidate: &Option<NodeName>| {
            candidate.as_ref().map_or("the fittest standby".to_owned(), ToString::to_string)
        };
        match self {
            Why::NamesAnotherLeader { named } => {
                write!(f, "the switchover in /failover is from {named}, which does not lead: it is dropped")
            }
            Why::NamesUs => {
                f.write_str("the switchover in /failover is to this member, which leads: it is done")
            }
            Why::TimeUnreadable => f.write_str(
                "the switchover in /failover is dropped: nobody can read the time for which it was scheduled",
            ),
            Why::TooLate { late } => write!(
                f,
                "the switchover in /failover is dropped: it was scheduled for {late:?} ago and could not be done then"
            ),
            Why::AsksCandidates => {
                f.write_str("a switchover was asked for: the candidates are asked for their state")
            }
            Why::AwaitsCertainty => f.write_str(certainty::WAITS),
            Why::Refused { refusals } if refusals.is_empty() => {
                f.write_str("the switchover is refused: there is no other member")
            }
            Why::Refused { refusals } => {
                f.write_str("the switchover is refused, nobody could take over:")?;
                for (name, refusal) in refusals {
                    write!(f, " {name}: {refusal};")?;
                }
                Ok(())
            }
            Why::AwaitsListing { members } => {
                let names = members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                write!(f, "this agent ends, and nobody who could lead next is in /failsafe yet: the stop waits a moment until {names} can be written there")
            }
            Why::Checkpoints { candidate } => {
                write!(f, "the lead goes to {}: a checkpoint first, so that the stop is short", to(candidate))
            }
            Why::Drains { candidate, routers } => write!(
                f,
                "the lead goes to {}: transactions get a few seconds to end (routers that still have some: {routers})",
                to(candidate)
            ),
            Why::Stops { candidate } => write!(
                f,
                "the lead goes to {}: PostgreSQL is being stopped, which waits until the standbys have everything",
                to(candidate)
            ),
            Why::HandsOver { candidate, clean: true } => write!(
                f,
                "nothing more is written here and everything is sent: the leader key is released for {}",
                to(candidate)
            ),
            Why::HandsOver { candidate, clean: false } => write!(
                f,
                "nothing more is written here, but PostgreSQL did not end cleanly and the standbys may lack what it wrote last: the leader key is released for {}",
                to(candidate)
            ),
            Why::Stays => f.write_str("PostgreSQL did not end cleanly and nobody could be given what it wrote last: the switchover is given up, and it is started again here, which loses nothing"),
            Why::InVain => {
                f.write_str("the lead was released and nobody took it: this member takes part again")
            }
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    if let Some(aside) = turn.memory.step_aside.clone() {
        return proceed(turn, &aside);
    }
    turn.leads()?;
    let lsn = match &turn.seen.postgres {
        Postgres::Running(Running::Primary { lsn, .. }) => *lsn,
        Postgres::Running(Running::Standby { lsn, .. }) if turn.seen.rules.standby_cluster => *lsn,
        Postgres::Running(Running::Standby { .. })
        | Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => return None,
    };
    let cluster = turn.seen.cluster()?.clone();
    let failover = cluster.failover.clone()?;
    let clear = Action::ClearFailover(failover.revision);
    if let Some(named) = failover.leader.clone().filter(|named| *named != turn.seen.me) {
        return Some(Answer::because(Why::NamesAnotherLeader { named }).act(clear));
    }
    if failover.candidate.as_ref() == Some(&turn.seen.me) {
        return Some(Answer::because(Why::NamesUs).act(clear));
    }
    if let Some(why) = untimely(turn, &failover) {
        return Some(Answer::because(why).act(clear));
    }
    if turn.seen.rules.pause && failover.due != Due::Now || !failover.due.has_come(turn.now) {
        return None;
    }
    let refusals = nobody_fit(turn, &cluster, &failover, lsn);
    if let Some(asking) = ask(turn, &cluster, &failover, refusals.is_none()) {
        return Some(asking);
    }
    turn.memory.asked_for = None;
    if let Some(refusals) = refusals {
        return Some(Answer::because(Why::Refused { refusals }).act(clear));
    }
    let why = if failover.leader.is_some() { StepAsideWhy::Switchover } else { StepAsideWhy::Failover };
    let aside = StepAside {
        since: turn.now,
        why,
        candidate: failover.candidate,
        checkpointed: false,
        announced: None,
    };
    turn.memory.step_aside = Some(aside.clone());
    proceed(turn, &aside)
}

/// Why nothing can become of the time for which it was scheduled; one that was begun in time may take longer.
fn untimely(turn: &Turn<'_>, failover: &Failover) -> Option<Why> {
    if turn.seen.rules.pause {
        return None;
    }
    if failover.due == Due::Unreadable {
        return Some(Why::TimeUnreadable);
    }
    let late = failover.due.late(turn.now, turn.seen.rules.plan_tolerance())?;
    let begun = turn.memory.asked_for.is_some_and(|(revision, _)| revision == failover.revision);
    (!begun).then_some(Why::TooLate { late })
}

/// Asks the candidates for this wish and waits for their answers; those that are silent are asked again for a while, and longer
/// who is fit but could not take the lead that is released.
fn ask(turn: &mut Turn<'_>, cluster: &Cluster, failover: &Failover, fit: bool) -> Option<Answer> {
    let patience = turn.seen.rules.peer_patience();
    let names = standing::reachable(&turn.seen.me, cluster);
    if names.is_empty() {
        return None;
    }
    let asked = turn.memory.asked_for.filter(|(revision, _)| *revision == failover.revision);
    let Some((_, at)) = asked else {
        turn.memory.asked_for = Some((failover.revision, turn.now));
        return Some(ask_now(turn, Why::AsksCandidates, names, patience));
    };
    let uncertain = fit && certainty::is_lacking(turn, cluster);
    if turn.now.since(at) >= if uncertain { turn.seen.rules.ttl } else { patience } {
        return None;
    }
    let last = turn.memory.asked_last.unwrap_or(at);
    let why = if uncertain { Why::AwaitsCertainty } else { Why::AsksCandidates };
    let waits = Answer::because(why.clone());
    if turn.seen.peers.asked < Some(last) {
        return Some(waits.wake_at(at.after(patience)));
    }
    let listed = |name: &NodeName| !turn.seen.is_unlisted(cluster, name);
    if !uncertain && !is_silent(turn, failover) && failover.candidate.as_ref().is_none_or(listed) {
        return None;
    }
    let again = last.after(turn.seen.rules.race_pause());
    if turn.now < again { Some(waits.wake_at(again)) } else { Some(ask_now(turn, why, names, patience)) }
}

fn ask_now(turn: &mut Turn<'_>, why: Why, names: Vec<NodeName>, patience: Duration) -> Answer {
    turn.memory.asked_last = Some(turn.now);
    let answer = Answer::because(why).act(Action::AskPeers(names));
    answer.wake_at(turn.now.after(patience))
}

/// Whether nothing was heard from anybody who could take over.
fn is_silent(turn: &Turn<'_>, failover: &Failover) -> bool {
    let silent = |answer: Option<&PeerAnswer>| matches!(answer, None | Some(PeerAnswer::Silent));
    let answers = &turn.seen.peers.answers;
    match &failover.candidate {
        Some(candidate) => silent(answers.get(candidate)),
        None => answers.values().all(|answer| silent(Some(answer))),
    }
}

/// Why nobody could take over; `None` when somebody can.
fn nobody_fit(
    turn: &Turn<'_>,
    cluster: &Cluster,
    failover: &Failover,
    lsn: Lsn,
) -> Option<Vec<(NodeName, Refusal)>> {
    let names: Vec<NodeName> = match &failover.candidate {
        Some(candidate) => vec![candidate.clone()],
        None => cluster.members.keys().filter(|name| **name != turn.seen.me).cloned().collect(),
    };
    // A person who orders a failover, and not a switchover, accepts a successor that lacks something.
    let sync = standing::synchronous(turn.seen, cluster).filter(|_| failover.leader.is_some());
    // Whoever takes over must see so many others, unless a person named it.
    let wanted = sync.filter(|_| failover.candidate.is_none()).map_or(1, |key| key.promise.quorum + 1);
    let mut refusals = Vec::new();
    let mut fit = Vec::new();
    for name in names {
        match standing::successor_refusal(turn.seen, cluster, &name, lsn, sync) {
            Some(refusal) => refusals.push((name, refusal)),
            None => fit.push(name),
        }
    }
    if fit.len() >= wanted {
        return None;
    }
    let votes = fit.len();
    let silent = |name: &NodeName| turn.seen.peers.answers.get(name) == Some(&PeerAnswer::Silent);
    let silent: Vec<NodeName> = cluster.members.keys().filter(|name| silent(name)).cloned().collect();
    let too_few = || Refusal::TooFewVotes { votes, wanted, silent: silent.clone() };
    refusals.extend(fit.into_iter().map(|name| (name, too_few())));
    Some(refusals)
}

/// Goes on with a hand-over that was begun.
fn proceed(turn: &mut Turn<'_>, aside: &StepAside) -> Option<Answer> {
    let candidate = aside.candidate.clone();
    let patience = turn.stop_patience();
    match &turn.seen.postgres {
        Postgres::Running(Running::Primary { .. }) if !aside.checkpointed => {
            turn.leads()?;
            if let Some(waits) = await_listing(turn, aside) {
                return Some(waits);
            }
            Some(Answer::because(Why::Checkpoints { candidate }).act(Action::Begin(Work::Checkpoint)))
        }
        Postgres::Running(Running::Primary { .. }) => {
            let term = turn.leads()?;
            if let Some(draining) = drain(turn, aside, term) {
                return Some(draining);
            }
            let mut answer = Answer::because(Why::Stops { candidate });
            if turn.memory.stopping.is_none() {
                answer = answer.act(Action::WithdrawWritable(term));
            }
            turn.memory.expected_stop = true;
            Some(answer.act_all(turn.stop(StopMode::Fast, patience)))
        }
        Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => {
            let actions = turn.stop(StopMode::Fast, patience);
            Some(Answer::because(Why::Stops { candidate }).act_all(actions))
        }
        Postgres::Stopped => match super::recover::leave(turn, Cause::Leaves) {
            Some(handing) => Some(handing),
            None => Some(release(turn, aside)),
        },
        Postgres::Running(Running::Standby { .. }) if turn.seen.rules.standby_cluster => {
            if aside.why == StepAsideWhy::Shutdown && turn.leads().is_some() {
                let actions = turn.stop(StopMode::Fast, patience);
                return Some(Answer::because(Why::Stops { candidate }).act_all(actions));
            }
            // All get the same from the remote cluster: there is nothing to stop for.
            Some(release(turn, aside))
        }
        // The lead was won and nothing is promoted yet: it is for somebody who stays.
        Postgres::Running(Running::Standby { .. })
            if aside.why == StepAsideWhy::Shutdown
                && turn.leads().is_some()
                && turn.memory.promoting.is_none() =>
        {
            Some(release(turn, aside))
        }
        Postgres::Running(Running::Standby { .. }) => {
            turn.memory.step_aside = None;
            None
        }
    }
}

/// An agent that ends leaves the lead to somebody: a member that has just come is written into `/failsafe` by the leader only, and
/// without that it would not take the lead that is released, however long nobody led.
fn await_listing(turn: &Turn<'_>, aside: &StepAside) -> Option<Answer> {
    let until = aside.since.after(turn.seen.rules.peer_patience());
    if aside.why != StepAsideWhy::Shutdown || turn.now >= until {
        return None;
    }
    let cluster = turn.seen.cluster()?;
    if another_could_lead(turn.seen, cluster) {
        return None;
    }
    let sync = standing::synchronous(turn.seen, cluster);
    let comes = |name: &NodeName| {
        let member = cluster.members.get(name);
        let able = member.is_some_and(|member| member.running && member.reachable && !member.nofailover);
        able && sync.is_none_or(|key| key.lists(name))
            && *name != turn.seen.me
            && turn.seen.is_unlisted(cluster, name)
    };
    let members: Vec<NodeName> = cluster.members.keys().filter(|name| comes(name)).cloned().collect();
    (!members.is_empty()).then(|| Answer::because(Why::AwaitsListing { members }).wake_at(until))
}

/// How long routers get to let transactions end.
const DRAIN: Duration = Duration::from_secs(5);

/// Waits until the routers that are there have no transaction left, but not for long.
fn drain(turn: &mut Turn<'_>, aside: &StepAside, term: Term) -> Option<Answer> {
    if turn.memory.stopping.is_some() {
        return None;
    }
    let busy = turn.seen.cluster()?.routers.iter().filter(|router| router.quiet != Some(term)).count();
    let why = Why::Drains { candidate: aside.candidate.clone(), routers: busy };
    match aside.announced {
        None if busy > 0 => {
            let told = StepAside { announced: Some(turn.now), ..aside.clone() };
            turn.memory.step_aside = Some(told);
            let tell = Action::AnnounceHandover(term);
            Some(Answer::because(why).act(tell).wake_at(turn.now.after(DRAIN)))
        }
        Some(at) if busy > 0 && turn.now < at.after(DRAIN) => {
            Some(Answer::because(why).wake_at(at.after(DRAIN)))
        }
        None | Some(_) => None,
    }
}

/// PostgreSQL has ended: release the key, then wait for somebody to take it, but not for ever.
fn release(turn: &mut Turn<'_>, aside: &StepAside) -> Answer {
    let candidate = aside.candidate.clone();
    let clean = match &turn.seen.data {
        Data::Present(control) => control.clean,
        Data::Empty | Data::Incomplete | Data::Unusable => false,
    };
    if !clean && aside.why == StepAsideWhy::Switchover && turn.leads().is_some() && loses(turn) {
        return stay(turn);
    }
    let answer = Answer::because(Why::HandsOver { candidate, clean });
    if let Some(term) = turn.leads() {
        let until = turn.now.after(turn.seen.rules.ttl);
        turn.memory.no_race_before = Some(until);
        return answer.act(Action::ReleaseLeader(term)).wake_at(until);
    }
    match turn.memory.no_race_before {
        Some(until) if turn.now < until => answer.wake_at(until),
        Some(_) | None => {
            turn.memory.step_aside = None;
            turn.memory.returning = true;
            // The wish is not tried again and again: the person who had it hears that it came to nothing.
            let wish = turn.seen.cluster().and_then(|cluster| cluster.failover.as_ref());
            let clear = wish.map(|failover| Action::ClearFailover(failover.revision));
            Answer::because(Why::InVain).act_all(clear.into_iter().collect()).wake_at(turn.now)
        }
    }
}

/// Whether whoever led next could lack what was acknowledged here.
fn loses(turn: &Turn<'_>) -> bool {
    let Some(cluster) = turn.seen.cluster() else { return false };
    standing::synchronous(turn.seen, cluster).is_none() && !turn.seen.rules.standby_cluster
}

/// A planned switchover costs no rows: this member leads on, and the person hears that it came to nothing.
fn stay(turn: &mut Turn<'_>) -> Answer {
    turn.memory.step_aside = None;
    turn.memory.expected_stop = false;
    turn.memory.crash = None;
    let wish = turn.seen.cluster().and_then(|cluster| cluster.failover.as_ref());
    let clear = wish.map(|failover| Action::ClearFailover(failover.revision));
    Answer::because(Why::Stays).act_all(clear.into_iter().collect()).wake_at(turn.now)
}
