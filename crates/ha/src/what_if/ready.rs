//! Whether the cluster would survive the loss of its leader now, as one member sees it without asking anybody.

use super::imagine;
use super::{Event, What};
use crate::decision::Turn;
use crate::memory::Memory;
use crate::observation::{Cluster, LeaderKey, Member, Observation};
use crate::peers::{PeerAnswer, PeerFacts, Peers};
use crate::reason::Refusal;
use crate::standing;
use types::{Lsn, Moment, NodeName};

/// The answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Of a leader: somebody could take over. Of another member: it could.
    Ready,
    /// This member could not.
    Refused(Refusal),
    /// Nobody could take over from this leader: the reason of the fittest, if there is another member at all.
    NobodyElse(Option<(NodeName, Refusal)>),
}

impl Readiness {
    /// As one word; empty when nothing speaks against it.
    #[must_use]
    pub fn code(&self) -> String {
        let refusal = match self {
            Readiness::Ready => return String::new(),
            Readiness::NobodyElse(None) => return "NobodyElse".to_owned(),
            Readiness::Refused(refusal) | Readiness::NobodyElse(Some((_, refusal))) => refusal,
        };
        format!("{refusal:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
    }
}

/// Whether somebody could take over from this member while it leads; else whether this member could take over.
#[must_use]
pub fn ready(seen: &Observation, memory: &Memory, now: Moment) -> Readiness {
    let Some(cluster) = seen.cluster() else { return Readiness::Refused(Refusal::ClusterUnknown) };
    let leader = match &cluster.leader {
        LeaderKey::Held { name, .. } => Some(name.clone()),
        LeaderKey::Free | LeaderKey::Spoiled { .. } => None,
    };
    if leader.as_ref() == Some(&seen.me) {
        return somebody_else(seen, cluster);
    }
    let event = Event { what: What::Dies, member: leader };
    let Some(scene) = imagine::scene(seen, memory, &event, now) else { return Readiness::Ready };
    let turn = Turn { seen: &scene.seen, memory: scene.memory.clone(), now: scene.at };
    let refusal = match (scene.seen.cluster(), standing::position(&scene.seen)) {
        (Some(cluster), Some(_)) => standing::own_refusal(&turn, cluster),
        (Some(_), None) => Some(Refusal::NotRunning),
        (None, _) => Some(Refusal::ClusterUnknown),
    };
    refusal.map_or(Readiness::Ready, Readiness::Refused)
}

fn somebody_else(seen: &Observation, cluster: &Cluster) -> Readiness {
    let answers = cluster.members.iter().map(|(name, member)| (name.clone(), as_published(member))).collect();
    let told = Observation { peers: Peers { asked: None, answers }, ..seen.clone() };
    let sync = standing::synchronous(seen, cluster);
    // What it published is compared, as in a race.
    let lsn = cluster.optime.or(standing::position(seen).map(|(_, lsn)| lsn)).unwrap_or_default();
    let others = cluster.members.keys().filter(|name| **name != seen.me);
    let verdicts: Vec<(NodeName, Option<Refusal>)> = others
        .map(|name| (name.clone(), standing::successor_refusal(&told, cluster, name, lsn, sync)))
        .collect();
    let votes = verdicts.iter().filter(|(_, refusal)| refusal.is_none()).count();
    let wanted = sync.map_or(1, |key| key.promise.quorum + 1);
    if votes >= wanted {
        return Readiness::Ready;
    }
    let silent = Vec::new();
    let too_few =
        |refusal: Option<Refusal>| refusal.unwrap_or(Refusal::TooFewVotes { votes, wanted, silent });
    let nearest = verdicts.into_iter().min_by_key(|(_, refusal)| refusal.is_some());
    Readiness::NobodyElse(nearest.map(|(name, refusal)| (name, too_few(refusal))))
}

/// What a member's key says, as if it had been asked.
fn as_published(member: &Member) -> PeerAnswer {
    if !member.running {
        return PeerAnswer::Down;
    }
    PeerAnswer::Said(PeerFacts {
        primary: member.primary,
        timeline: member.timeline,
        lsn: member.lsn.unwrap_or(Lsn::INVALID),
        nofailover: member.nofailover,
        failover_priority: 1,
        replayed: None,
        takes_wal: false,
        unprotected: false,
        sick: member.sick,
        failsafe_active: false,
    })
}
