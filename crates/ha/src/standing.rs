//! Who may lead: what speaks against this member, and against another one.
//!
//! A position is compared first by timeline, then by LSN: what was written on the newer timeline was acknowledged by a later
//! leader. WAL beyond the point where the cluster left its timeline is not part of the cluster's history at all.

use crate::decision::Turn;
use crate::failsafe::FailsafePromise;
use crate::observation::{Cluster, Data, Failover, Guard, Observation, Postgres, Running, SyncKey, same};
use crate::peers::{PeerAnswer, PeerFacts};
use crate::reason::Refusal;
use crate::rules::SyncMode;
use types::{Lsn, NodeName, Timeline};

/// The members that can be asked.
pub(crate) fn reachable(me: &NodeName, cluster: &Cluster) -> Vec<NodeName> {
    let others = cluster.members.iter().filter(|(name, member)| *name != me && member.reachable);
    others.map(|(name, _)| name.clone()).collect()
}

/// The same, and while one of `/failsafe` may lead on without etcd, all of those: their member keys may be gone.
pub(crate) fn to_be_asked(turn: &Turn<'_>, cluster: &Cluster) -> Vec<NodeName> {
    let mut names = reachable(&turn.seen.me, cluster);
    if failsafe_doubt(turn, cluster).is_some() {
        let listed = cluster.failsafe.iter().flatten().filter(|name| **name != turn.seen.me);
        names.extend(listed.filter(|name| !cluster.members.contains_key(*name)).cloned());
    }
    names
}

/// The newest timeline the cluster is known to have been on.
pub(crate) fn newest_timeline(cluster: &Cluster) -> Option<Timeline> {
    let after = cluster.history.keys().next_back().map(|last| Timeline(last.0.saturating_add(1)));
    after.max(cluster.last.as_ref().map(|last| last.timeline))
}

/// Why a position is not part of the cluster's history; `None` while it is, or may be.
fn off_the_line(cluster: &Cluster, timeline: Timeline, lsn: Lsn) -> Option<Refusal> {
    if let Some(end) = cluster.history.get(&timeline).copied() {
        return (lsn > end).then_some(Refusal::Diverged { timeline, lsn, end });
    }
    // Timeline numbers are not used twice: a smaller one that is no ancestor of the last leader's leads nowhere.
    let newest = cluster.last.as_ref().map(|last| last.timeline)?;
    (timeline < newest).then_some(Refusal::DeadTimeline { mine: timeline, newest })
}

/// What a peer answered in this race; what it said in an earlier one counts no more.
fn answer<'a>(turn: &'a Turn<'_>, peer: &NodeName) -> Option<&'a PeerAnswer> {
    let asked = turn.memory.race.as_ref()?.asked?;
    let fresh = turn.seen.peers.asked.is_some_and(|answered| answered >= asked);
    turn.seen.peers.answers.get(peer).filter(|_| fresh)
}

/// Whether a peer says nothing in this race.
fn is_silent(turn: &Turn<'_>, peer: &NodeName) -> bool {
    match answer(turn, peer) {
        Some(PeerAnswer::Said(_) | PeerAnswer::Down) => false,
        Some(PeerAnswer::Silent) | None => true,
    }
}

/// The members, and the voters of `/sync`, that say nothing in this race: it may be won in spite of them, but not unnoticed.
pub(crate) fn silent(turn: &Turn<'_>, cluster: &Cluster) -> Vec<NodeName> {
    let voters = synchronous(turn.seen, cluster).into_iter().flat_map(|key| key.promise.voters.iter());
    let mut names: Vec<NodeName> = cluster.members.keys().chain(voters).cloned().collect();
    names.sort();
    names.dedup_by(|one, other| same(one, other));
    names.retain(|name| !same(name, &turn.seen.me) && is_silent(turn, name));
    names
}

/// A primary that was left unguarded in pause and may still run: its silence says nothing.
pub(crate) fn unguarded(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    let last = cluster.last.as_ref().filter(|last| !last.guarded && last.name != turn.seen.me)?;
    let ended = match answer(turn, &last.name) {
        Some(PeerAnswer::Said(facts)) => !facts.primary,
        Some(PeerAnswer::Down) => true,
        Some(PeerAnswer::Silent) | None => false,
    };
    (!ended).then(|| Refusal::UnguardedPrimary { peer: last.name.clone() })
}

/// `/sync`, while it says who may be promoted.
pub(crate) fn synchronous<'a>(seen: &Observation, cluster: &'a Cluster) -> Option<&'a SyncKey> {
    let key = cluster.sync.as_ref().filter(|key| key.leader.is_some())?;
    (seen.rules.synchronous.mode != SyncMode::Off).then_some(key)
}

/// The same, unless a person ordered a failover to this member, whatever it may lack.
fn binding<'a>(turn: &Turn<'_>, cluster: &'a Cluster) -> Option<&'a SyncKey> {
    let accepted =
        is_named(turn, cluster) && cluster.failover.as_ref().is_some_and(|wish| wish.leader.is_none());
    synchronous(turn.seen, cluster).filter(|_| !accepted)
}

/// In the mode `on` only those that `/sync` names may lead.
fn unlisted(seen: &Observation, key: &SyncKey) -> Option<Refusal> {
    let listed = key.lists(&seen.me) || key.is_led_by(&seen.me);
    let leader = key.leader.clone().filter(|_| seen.rules.synchronous.mode == SyncMode::On && !listed)?;
    Some(Refusal::NotSynchronous { leader })
}

/// Those whose position counts against `/sync`: so many that every acknowledged commit is among what they have.
fn too_few_votes(
    turn: &Turn<'_>,
    cluster: &Cluster,
    key: &SyncKey,
    mine: (Timeline, Lsn),
) -> Option<Refusal> {
    if key.is_led_by(&turn.seen.me) {
        return None;
    }
    let not_ahead = |voter: &&NodeName| match answer(turn, voter) {
        Some(PeerAnswer::Said(facts)) => facts.timeline.is_some_and(|theirs| {
            off_the_line(cluster, theirs, facts.lsn).is_none() && (theirs, facts.lsn) <= mine
        }),
        Some(PeerAnswer::Silent | PeerAnswer::Down) | None => false,
    };
    let others = key.promise.voters.iter().filter(|voter| !same(voter, &turn.seen.me));
    let votes = others.filter(not_ahead).count() + usize::from(key.lists(&turn.seen.me));
    let wanted = key.promise.quorum + 1;
    let silent = key.promise.voters.iter().filter(|voter| !same(voter, &turn.seen.me));
    let silent = silent.filter(|voter| is_silent(turn, voter)).cloned().collect();
    (votes < wanted).then_some(Refusal::TooFewVotes { votes, wanted, silent })
}

/// The member that leads without etcd because we, and all others, agreed.
pub(crate) fn promise<'a>(turn: &'a Turn<'_>) -> Option<&'a FailsafePromise> {
    let promise = turn.seen.failsafe.promise.as_ref()?;
    (turn.now < promise.until && promise.to != turn.seen.me).then_some(promise)
}

/// A member may lead on without etcd as far as this one knows: it promised, is not listed, or began a moment ago.
///
/// It does so only by the word of all others in `/failsafe`, and had to get it before its lease, and with it the key, ended. So one
/// member of `/failsafe` that gave no word is enough to know that nobody does.
fn failsafe_doubt(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    if let Some(FailsafePromise { to, until }) = promise(turn) {
        return Some(Refusal::PromisedTo { peer: to.clone(), until: *until });
    }
    let all = cluster.failsafe.as_ref().filter(|_| turn.seen.rules.failsafe)?;
    if !all.contains(&turn.seen.me) {
        return Some(Refusal::NotInFailsafe);
    }
    let until = turn.seen.failsafe.began.after(turn.seen.rules.ttl);
    let alone = all.iter().all(|name| *name == turn.seen.me);
    (turn.now < until && !alone).then_some(Refusal::MayHavePromised { until })
}

/// The same, when no answer shows that nobody leads on without etcd.
pub(crate) fn failsafe(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    let refusal = failsafe_doubt(turn, cluster)?;
    let idle = |name: &NodeName| match answer(turn, name) {
        Some(PeerAnswer::Said(facts)) => !facts.primary && !facts.failsafe_active,
        Some(PeerAnswer::Silent | PeerAnswer::Down) | None => false,
    };
    let listed = cluster.failsafe.iter().flatten().filter(|name| **name != turn.seen.me);
    let mut all = listed.chain(promise(turn).map(|promise| &promise.to));
    (!all.any(idle)).then_some(refusal)
}

/// Data that were half copied or half rewound, or cannot be looked at, are nobody's: whatever runs on them does not lead.
pub(crate) fn not_whole(seen: &Observation) -> Option<Refusal> {
    match &seen.data {
        Data::Incomplete => Some(Refusal::Unfinished),
        Data::Unusable => Some(Refusal::Unusable),
        Data::Empty | Data::Present(_) => None,
    }
}

/// What speaks against this member as a leader, without asking anybody.
pub(crate) fn own_refusal(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    if turn.seen.tags.nofailover() {
        return Some(Refusal::NoFailoverTag);
    }
    if let Some(until) = turn.memory.no_race_before.filter(|until| turn.now < *until) {
        return Some(Refusal::SteppedAside { until });
    }
    if turn.seen.guard == Guard::Absent {
        return Some(Refusal::NoGuard);
    }
    if turn.seen.unprotected() {
        return Some(Refusal::Unprotected);
    }
    // Better a member with a full disk than none.
    if turn.seen.sick_disk(turn.now).is_some() && crate::duties::another_could_lead(turn.seen, cluster) {
        return Some(Refusal::Sick);
    }
    if let Some(refusal) = not_whole(turn.seen) {
        return Some(refusal);
    }
    match crate::duties::refuse_foreign_data::identifiers(turn) {
        None => return Some(Refusal::ClusterUnknown),
        Some((ours, cluster)) if ours != cluster => return Some(Refusal::NotOurCluster { ours, cluster }),
        Some(_) => {}
    }
    let (timeline, lsn) = position(turn.seen)?;
    if let Some(refusal) = off_the_line(cluster, timeline, lsn) {
        return Some(refusal);
    }
    let sync = binding(turn, cluster);
    if let Some(refusal) = sync.and_then(|key| unlisted(turn.seen, key)) {
        return Some(refusal);
    }
    // A person who names a member has seen how far behind it is.
    let named = is_named(turn, cluster);
    // The remote cluster counts its timelines. Without the leader that `/sync` names nothing was acknowledged since.
    let followed =
        named || turn.seen.rules.standby_cluster || sync.is_some_and(|key| key.is_led_by(&turn.seen.me));
    let strict = turn.seen.rules.check_timeline && !followed;
    if let Some(newest) = newest_timeline(cluster).filter(|newest| strict && timeline < *newest) {
        return Some(Refusal::OldTimeline { mine: timeline, newest });
    }
    let by = cluster.optime.map_or(0, |optime| optime.bytes_since(lsn));
    let limit = turn.seen.rules.maximum_lag_on_failover;
    // What `/sync` promises it has, however much the leader wrote that nobody confirmed.
    (by > limit && !named && sync.is_none()).then_some(Refusal::BehindTooFar { by, limit })
}

/// What the peers' answers say against this member.
pub(crate) fn peers_refusal(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    let (timeline, lsn) = position(turn.seen)?;
    let race = turn.memory.race.as_ref();
    let patient = race.is_some_and(|race| turn.now.since(race.since) < turn.seen.rules.peer_patience());
    let stepping_down = pressing(turn, cluster).and_then(|wish| wish.leader.as_ref());
    let named = is_named(turn, cluster);
    let sync = binding(turn, cluster);
    let well = turn.seen.sick_disk(turn.now).is_none();
    for (name, member) in &cluster.members {
        if *name == turn.seen.me || Some(name) == stepping_down {
            continue;
        }
        // One that could not lead itself may be ahead by what was never acknowledged.
        if sync.is_some_and(|key| !key.lists(name) && !key.is_led_by(name)) {
            match answer(turn, name) {
                Some(PeerAnswer::Said(facts)) if facts.primary => {
                    return Some(Refusal::PeerIsPrimary { peer: name.clone() });
                }
                Some(PeerAnswer::Said(_) | PeerAnswer::Silent | PeerAnswer::Down) | None => continue,
            }
        }
        let refusal = match answer(turn, name) {
            Some(PeerAnswer::Said(facts)) => {
                let lost = facts.timeline.and_then(|theirs| off_the_line(cluster, theirs, facts.lsn));
                let lost = lost.is_some() && !facts.primary;
                // One that is sick does not lead while this one is well.
                let yields = facts.sick && well && !facts.primary;
                let counts = !lost && !yields;
                if counts { compare(turn.seen, name, facts, (timeline, lsn), named) } else { None }
            }
            Some(PeerAnswer::Silent | PeerAnswer::Down) | None => member
                .lsn
                .filter(|theirs| {
                    let may_lead = !(member.nofailover || member.sick && well);
                    patient && (member.timeline, *theirs) > (Some(timeline), lsn) && may_lead
                })
                .map(|theirs| Refusal::PeerSilentAndAhead { peer: name.clone(), theirs, mine: lsn }),
        };
        if refusal.is_some() {
            return refusal;
        }
    }
    sync.and_then(|key| too_few_votes(turn, cluster, key, (timeline, lsn)))
}

/// Whether a person named this member as the next leader, for now.
fn is_named(turn: &Turn<'_>, cluster: &Cluster) -> bool {
    pressing(turn, cluster).is_some_and(|wish| wish.candidate.as_ref() == Some(&turn.seen.me))
}

/// A switchover or failover that is to be carried out now, and not at another time.
fn pressing<'a>(turn: &Turn<'_>, cluster: &'a Cluster) -> Option<&'a Failover> {
    let tolerated = turn.seen.rules.plan_tolerance();
    cluster.failover.as_ref().filter(|wish| wish.due.presses(turn.now, tolerated))
}

fn compare(
    seen: &Observation,
    peer: &NodeName,
    facts: &PeerFacts,
    (timeline, mine): (Timeline, Lsn),
    named: bool,
) -> Option<Refusal> {
    let peer = peer.clone();
    if facts.primary {
        return Some(Refusal::PeerIsPrimary { peer });
    }
    if facts.nofailover || facts.unprotected || named {
        return None;
    }
    let theirs = facts.timeline.unwrap_or(timeline);
    if theirs > timeline {
        return Some(Refusal::PeerOnNewerTimeline { peer, theirs, mine: timeline });
    }
    if theirs < timeline || facts.lsn < mine {
        return None;
    }
    if facts.lsn > mine {
        return Some(Refusal::PeerAhead { peer, theirs: facts.lsn, mine });
    }
    let ours = seen.tags.failover_priority();
    let preferred = facts.failover_priority > ours;
    preferred.then_some(Refusal::PeerPreferred { peer, theirs: facts.failover_priority, mine: ours })
}

/// Another member that a person named as the next leader and that looks fit: this one gives way, for the time of a lease.
///
/// Who leads may have begun a planned switchover by a clock that is ahead of ours. So one that was named for another time is given
/// way to as well, but only when that loses nothing.
pub(crate) fn gives_way(turn: &Turn<'_>, cluster: &Cluster) -> Option<Refusal> {
    let failover = cluster.failover.as_ref()?;
    let presses = pressing(turn, cluster).is_some();
    let mine = position(turn.seen);
    let candidate = failover.candidate.as_ref().filter(|name| **name != turn.seen.me)?;
    let race = turn.memory.race.as_ref()?;
    let switchover = failover.leader.is_some();
    let listed = synchronous(turn.seen, cluster).is_none_or(|key| key.lists(candidate));
    if switchover && !listed {
        return None;
    }
    if turn.now.since(race.since) >= turn.seen.rules.ttl {
        return None;
    }
    let fit = match answer(turn, candidate)? {
        PeerAnswer::Said(facts) => {
            let behind = facts.timeline.map(|timeline| (timeline, facts.lsn)) < mine;
            !facts.nofailover
                && !facts.unprotected
                && !facts.sick
                && facts.timeline.is_some()
                && (presses || !behind)
        }
        PeerAnswer::Silent | PeerAnswer::Down => false,
    };
    fit.then(|| Refusal::GivesWayTo { candidate: candidate.clone() })
}

/// What speaks against another member as the successor of this leader, which is at `lsn`.
pub(crate) fn successor_refusal(
    seen: &Observation,
    cluster: &Cluster,
    name: &NodeName,
    lsn: Lsn,
    sync: Option<&SyncKey>,
) -> Option<Refusal> {
    let Some(member) = cluster.members.get(name) else {
        return Some(Refusal::Absent);
    };
    if member.nofailover {
        return Some(Refusal::NoFailoverTag);
    }
    if seen.is_unlisted(cluster, name) {
        return Some(Refusal::NotInFailsafe);
    }
    if sync.is_some_and(|key| !key.lists(name)) {
        return Some(Refusal::NotSynchronous { leader: seen.me.clone() });
    }
    let facts = match seen.peers.answers.get(name) {
        Some(PeerAnswer::Said(facts)) => facts,
        Some(PeerAnswer::Down) => return Some(Refusal::NotRunning),
        Some(PeerAnswer::Silent) | None => return Some(Refusal::Silent),
    };
    if facts.primary {
        return Some(Refusal::IsPrimary);
    }
    if facts.nofailover {
        return Some(Refusal::NoFailoverTag);
    }
    if facts.unprotected {
        return Some(Refusal::Unprotected);
    }
    if facts.sick {
        return Some(Refusal::Sick);
    }
    // Only what streams from us is on our timeline; anything else may have gone another way.
    let ours = position(seen).map(|(timeline, _)| timeline);
    if let (Some(newest), Some(theirs)) = (ours, facts.timeline)
        && newest != theirs
    {
        return Some(Refusal::OldTimeline { mine: theirs, newest });
    }
    if facts.timeline.is_none() {
        return Some(Refusal::NotRunning);
    }
    let by = lsn.bytes_since(facts.lsn);
    let limit = seen.rules.maximum_lag_on_failover;
    (by > limit).then_some(Refusal::BehindTooFar { by, limit })
}

/// Timeline and furthest position of our running standby.
pub(crate) fn position(seen: &Observation) -> Option<(Timeline, Lsn)> {
    match &seen.postgres {
        Postgres::Running(Running::Standby { timeline, lsn, .. } | Running::Primary { timeline, lsn }) => {
            Some((*timeline, *lsn))
        }
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => None,
    }
}
