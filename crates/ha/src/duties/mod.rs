//! The duties, one file each, with the reasons each can give. They are asked in this order and the first that answers wins.

pub mod bootstrap_or_clone;
pub mod carry_out_order;
mod certainty;
pub mod follow;
pub mod keep_deadline;
pub mod keep_schedule;
pub mod lead;
pub mod lead_standby_cluster;
pub mod live_on;
pub mod need_health;
pub mod need_watchdog;
pub mod not_fenced;
pub mod race;
pub mod recover;
pub mod refuse_foreign_data;
mod routers;
pub mod stand_still;
pub mod step_aside;
pub mod survive_without_etcd;
pub mod synchronize;
pub mod wait_for_job;

use crate::action::Action;
use crate::decision::{Answer, Turn};
use crate::memory::Announced;
use crate::observation::{Authority, Cluster, LeaderKey, Observation, same};
use crate::standing;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, Term, Timeline};

type Ask = fn(&mut Turn<'_>) -> Option<Answer>;

const DUTIES: [Ask; 17] = [
    not_fenced::answer,
    live_on::answer,
    keep_deadline::answer,
    need_health::answer,
    wait_for_job::answer,
    carry_out_order::answer,
    stand_still::answer,
    need_watchdog::answer,
    refuse_foreign_data::answer,
    survive_without_etcd::answer,
    bootstrap_or_clone::answer,
    step_aside::answer,
    keep_schedule::answer,
    recover::answer,
    lead_standby_cluster::answer,
    lead::answer,
    race::answer,
];

/// Asks the duties; following is what remains when nothing else is to be done.
pub(crate) fn ask(turn: &mut Turn<'_>) -> Answer {
    DUTIES.into_iter().find_map(|ask| ask(turn)).unwrap_or_else(|| follow::answer(turn))
}

/// Whether another member looks able to lead: it runs, is well, can be asked and is allowed to.
pub(crate) fn another_could_lead(seen: &Observation, cluster: &Cluster) -> bool {
    another_within(seen, cluster, seen.rules.maximum_lag_on_failover)
}

/// The same, if it were given what it lacks.
fn another_could_take_over(seen: &Observation, cluster: &Cluster) -> bool {
    another_within(seen, cluster, u64::MAX)
}

fn another_within(seen: &Observation, cluster: &Cluster, most: u64) -> bool {
    let sync = standing::synchronous(seen, cluster);
    cluster.members.iter().any(|(name, member)| {
        let able = !member.nofailover && !member.sick && !seen.is_unlisted(cluster, name);
        let allowed = able && sync.is_none_or(|key| key.lists(name));
        // In a synchronous mode `/sync` says who has everything, however much the leader wrote that nobody confirmed.
        let behind = cluster.optime.zip(member.lsn).map_or(0, |(optime, lsn)| optime.bytes_since(lsn));
        let near = sync.is_some() || behind <= most || streams(seen, cluster, name, most);
        *name != seen.me && member.running && member.reachable && allowed && near && !member.primary
    })
}

/// Whether our own PostgreSQL last saw this member near: the member keys are written once in a while, and a busy primary is far ahead
/// of what they say.
fn streams(seen: &Observation, cluster: &Cluster, name: &NodeName, limit: u64) -> bool {
    let standbys = seen.replication.iter().flat_map(|replication| &replication.standbys);
    let near = |flushed: Lsn| cluster.optime.map_or(0, |optime| optime.bytes_since(flushed)) <= limit;
    standbys
        .filter(|standby| same(name, &standby.name))
        .any(|standby| standby.streaming && near(standby.flushed))
}

/// The timeline on which the holder of the leader key can be followed; `None` while it cannot. In a standby cluster it is a
/// standby itself.
fn leading_timeline(turn: &Turn<'_>, leader: &NodeName) -> Option<Timeline> {
    let cluster = turn.seen.cluster()?;
    if turn.seen.rules.standby_cluster {
        let member = cluster.members.get(leader)?;
        return if member.running { member.timeline } else { None };
    }
    primary_timeline(cluster, leader)
}

/// The timeline on which the holder of the leader key runs as a primary; `None` while it does not.
fn primary_timeline(cluster: &Cluster, leader: &NodeName) -> Option<Timeline> {
    let term = match &cluster.leader {
        LeaderKey::Held { name, term, .. } if name == leader => *term,
        LeaderKey::Held { .. } | LeaderKey::Free | LeaderKey::Spoiled { .. } => return None,
    };
    if let Some(writable) = cluster.writable.as_ref().filter(|w| w.term == term && w.name == *leader) {
        return Some(writable.timeline);
    }
    let member = cluster.members.get(leader)?;
    if member.primary && member.running { member.timeline } else { None }
}

/// Whether everybody can see that we accept writes in this term on this timeline, and whether we are guarded.
fn announced(turn: &Turn<'_>, cluster: &Cluster, term: Term, timeline: Timeline, guarded: bool) -> bool {
    let me = &turn.seen.me;
    let writable = cluster.writable.as_ref();
    writable.is_some_and(|said| said.term == term && said.timeline == timeline && said.name == *me)
        && cluster.last.as_ref().map_or(guarded, |last| {
            last.term == term && last.timeline == timeline && last.name == *me && last.guarded == guarded
        })
}

/// Announces it. The same is not said again before a moment has passed: it may only not be seen yet.
fn announce(
    turn: &mut Turn<'_>,
    answer: Answer,
    (term, timeline, lsn): (Term, Timeline, Lsn),
    guarded: bool,
) -> Answer {
    let pause = turn.seen.rules.race_pause();
    let said = Announced { term, timeline, guarded, at: turn.now };
    let before = turn.memory.announced.filter(|before| Announced { at: turn.now, ..*before } == said);
    match before.filter(|before| turn.now.since(before.at) < pause) {
        Some(before) => answer.wake_at(before.at.after(pause)),
        None => {
            turn.memory.announced = Some(said);
            answer
                .act(Action::AnnounceWritable { term, timeline, lsn, guarded })
                .wake_at(turn.now.after(pause))
        }
    }
}

/// So long a key may still seem to be as it was before we wrote, released or adopted it.
const SEEN_LATE: Duration = Duration::from_millis(500);

/// The leader key names us: attach it to our lease. When it hangs there already and only the authority has run out, the
/// next renewal decides; it is not asked for again before that.
fn adopt(turn: &mut Turn<'_>, answer: Answer, term: Term) -> Answer {
    if let Some(late) = not_seen_yet(turn, turn.memory.released, term) {
        return answer.wake_at(late);
    }
    let attached = match turn.seen.cluster().map(|cluster| &cluster.leader) {
        Some(LeaderKey::Held { ours, .. }) => *ours,
        Some(LeaderKey::Free | LeaderKey::Spoiled { .. }) | None => false,
    };
    match turn.seen.authority {
        Authority::Held { term: held, .. } if held == term && attached => answer,
        Authority::Held { .. } | Authority::None => {
            if let Some(again) = not_seen_yet(turn, turn.memory.adopted, term) {
                return answer.wake_at(again);
            }
            turn.memory.adopted = Some((term, turn.now));
            answer.act(Action::AdoptLeader(term))
        }
    }
}

/// Until when what was done to the key of this term may not show in our view of etcd.
fn not_seen_yet(turn: &Turn<'_>, done: Option<(Term, Moment)>, term: Term) -> Option<Moment> {
    let (_, at) = done.filter(|(of, _)| *of == term)?;
    Some(at.after(SEEN_LATE)).filter(|shows| turn.now < *shows)
}

/// Whichever duty writes the system identifier goes on asking until it sees it in etcd: what was written a moment ago is not written
/// again before it can show. Returns when it may be.
pub(crate) fn pace_initialize(turn: &mut Turn<'_>, actions: &mut Vec<Action>) -> Option<Moment> {
    let confirms = |action: &Action| matches!(action, Action::ConfirmInitialize(_));
    if !actions.iter().any(confirms) {
        return None;
    }
    let again = turn.memory.confirmed.map(|at| at.after(SEEN_LATE)).filter(|again| turn.now < *again);
    match again {
        Some(_) => actions.retain(|action| !confirms(action)),
        None => turn.memory.confirmed = Some(turn.now),
    }
    again
}
