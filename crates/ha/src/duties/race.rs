//! Nobody leads: find out whether this member is the fittest, and if so take the key.
//!
//! ```text
//!   a running primary ────────────► reclaims the lead, if its timeline is the newest
//!   own reasons against it ───────► does not race (and says which)
//!   peers not asked lately ───────► ask all at once, wait for the answers a short while
//!   a peer is better ─────────────► does not race, asks again soon
//!   nobody is better ─────────────► create the key; etcd lets exactly one succeed
//! ```

use crate::action::{Action, StopMode, listed};
use crate::decision::{Answer, Turn};
use crate::memory::Race;
use crate::observation::{Cluster, Guard, LeaderKey, Postgres, Running};
use crate::reason::{Refusal, unanswered};
use crate::standing;
use std::fmt;
use types::{Lsn, NodeName, Timeline};

/// How the race goes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    AsksPeers { peers: Vec<NodeName> },
    WaitsForPeers { peers: Vec<NodeName> },
    ReclaimsLead { timeline: Timeline },
    StalePrimary { timeline: Timeline, newest: Timeline },
    Refuses(Refusal),
    TakesLead { timeline: Timeline, lsn: Lsn, silent: Vec<NodeName> },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::AsksPeers { peers } if peers.is_empty() => {
                f.write_str("nobody leads, and there is no other member to ask")
            }
            Why::AsksPeers { peers } => {
                write!(f, "nobody leads: the other members are asked for their positions ({})", listed(peers))
            }
            Why::WaitsForPeers { peers } => {
                write!(f, "nobody leads: the answers of the other members are awaited ({})", listed(peers))
            }
            Why::ReclaimsLead { timeline } => write!(
                f,
                "nobody leads and PostgreSQL runs as a primary on the newest timeline {timeline}: this member takes the lead again"
            ),
            Why::StalePrimary { timeline, newest } => write!(
                f,
                "PostgreSQL runs as a primary on timeline {timeline}, but the cluster has gone on to {newest}: it is stopped"
            ),
            // The words that readers of Patroni's log look for.
            Why::Refuses(Refusal::NoFailoverTag) => f.write_str(
                "nobody leads: following a different leader because I am not allowed to promote (nofailover, or failover_priority 0)",
            ),
            Why::Refuses(refusal) => {
                write!(f, "nobody leads, and this member does not take the lead: {refusal}")
            }
            Why::TakesLead { timeline, lsn, silent } => write!(
                f,
                "nobody leads and nobody who answered is fitter{}: this member takes the lead, from timeline {timeline} at {lsn}",
                unanswered(silent)
            ),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let race = turn.memory.race.clone()?;
    let cluster = turn.seen.cluster()?.clone();
    if cluster.leader != LeaderKey::Free {
        return None;
    }
    match turn.seen.postgres.clone() {
        Postgres::Running(Running::Primary { timeline, .. }) => reclaim(turn, &cluster, timeline),
        Postgres::Running(Running::Standby { timeline, lsn, .. }) => {
            Some(run(turn, &cluster, race, timeline, lsn))
        }
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => None,
    }
}

/// A primary without a leader key: the key was deleted, or this agent found it running.
fn reclaim(turn: &mut Turn<'_>, cluster: &Cluster, timeline: Timeline) -> Option<Answer> {
    if turn.memory.stopping.is_some() {
        return None;
    }
    if let Some(newest) = standing::newest_timeline(cluster).filter(|newest| timeline < *newest) {
        let patience = turn.seen.rules.stop_budget();
        let actions = turn.stop(StopMode::Immediate, patience);
        return Some(Answer::because(Why::StalePrimary { timeline, newest }).act_all(actions));
    }
    if turn.seen.guard == Guard::Absent {
        return Some(Answer::because(Why::Refuses(Refusal::NoGuard)));
    }
    if let Some(refusal) = standing::not_whole(turn.seen) {
        return Some(Answer::because(Why::Refuses(refusal)));
    }
    match super::refuse_foreign_data::identifiers(turn) {
        Some((ours, cluster)) if ours == cluster => {
            Some(Answer::because(Why::ReclaimsLead { timeline }).act(Action::AcquireLeader))
        }
        Some((ours, cluster)) => {
            Some(Answer::because(Why::Refuses(Refusal::NotOurCluster { ours, cluster })))
        }
        None => super::recover::claim_running(turn, cluster),
    }
}

fn run(turn: &mut Turn<'_>, cluster: &Cluster, race: Race, timeline: Timeline, lsn: Lsn) -> Answer {
    let pause = turn.seen.rules.race_pause();
    if turn.memory.created
        && let Some(answer) = super::recover::claim_running(turn, cluster)
    {
        return answer;
    }
    if let Some(refusal) = standing::own_refusal(turn, cluster) {
        let answer = Answer::because(Why::Refuses(refusal));
        return answer.wake_at(turn.now.after(pause));
    }
    let peers = standing::to_be_asked(turn, cluster);
    let Some(asked) = race.asked else {
        return ask(turn, race, peers);
    };
    let answered = turn.seen.peers.asked >= Some(asked) || peers.is_empty();
    if !answered {
        let patience = turn.seen.rules.peer_patience();
        if turn.now.since(asked) >= patience {
            return ask(turn, race, peers);
        }
        let why = race.refusal.map_or(Why::WaitsForPeers { peers }, Why::Refuses);
        return Answer::because(why).wake_at(asked.after(patience));
    }
    let refusal = standing::unguarded(turn, cluster)
        .or_else(|| standing::failsafe(turn, cluster))
        .or_else(|| standing::gives_way(turn, cluster))
        .or_else(|| standing::peers_refusal(turn, cluster));
    match refusal {
        Some(refusal) if turn.now.since(asked) >= pause => {
            ask(turn, Race { refusal: Some(refusal), ..race }, peers)
        }
        Some(refusal) => {
            turn.memory.race = Some(Race { refusal: Some(refusal.clone()), ..race });
            Answer::because(Why::Refuses(refusal)).wake_at(asked.after(pause))
        }
        None => {
            let silent = standing::silent(turn, cluster);
            turn.memory.race = Some(Race { asked: None, refusal: None, ..race });
            Answer::because(Why::TakesLead { timeline, lsn, silent }).act(Action::AcquireLeader)
        }
    }
}

fn ask(turn: &mut Turn<'_>, race: Race, peers: Vec<NodeName>) -> Answer {
    let why = race.refusal.clone().map_or(Why::AsksPeers { peers: peers.clone() }, Why::Refuses);
    turn.memory.race = Some(Race { asked: Some(turn.now), ..race });
    let answer = Answer::because(why);
    if peers.is_empty() {
        return answer.wake_at(turn.now);
    }
    answer.act(Action::AskPeers(peers)).wake_at(turn.now.after(turn.seen.rules.peer_patience()))
}
