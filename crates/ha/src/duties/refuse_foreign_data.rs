//! A data directory of another cluster never takes part in this one.

use crate::action::{Action, ExitWhy, StopMode, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Data, Initialize, Postgres};
use crate::upstream::Upstream;
use std::fmt;
use types::{NodeName, SystemId};

/// Whose data they are.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    ForeignData { ours: SystemId, cluster: SystemId },
    NewbornTooLate { ours: SystemId, cluster: SystemId },
    InitializeChangedUnderUs { ours: SystemId, cluster: SystemId },
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::ForeignData { ours, cluster } => write!(
                f,
                "the data directory has the system identifier {ours} and the cluster has {cluster}: it belongs to another cluster and takes no part here; check scope and data_dir, or move the directory away to have the leader copied"
            ),
            Why::NewbornTooLate { ours, cluster } => write!(
                f,
                "the cluster was created here with the system identifier {ours}, but another member was faster with {cluster}: what was created here is moved aside and the leader is copied"
            ),
            Why::InitializeChangedUnderUs { ours, cluster } => write!(
                f,
                "the key /initialize says {cluster}, but our data with {ours} matched it before: somebody changed the key, and nothing is done until it is right again"
            ),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    let (ours, cluster) = identifiers(turn)?;
    if ours == cluster {
        turn.memory.matched = true;
        return None;
    }
    if turn.memory.created {
        return Some(newborn(turn, ours, cluster));
    }
    if turn.memory.matched {
        // Our data matched before: it is the key that somebody changed. Acting on it would be rash: what runs goes on, nothing new begins.
        return Some(Answer::because(Why::InitializeChangedUnderUs { ours, cluster }));
    }
    let mut answer = Answer::because(Why::ForeignData { ours, cluster });
    // What runs is left to its deadline: the lead is not given away over a primary.
    if let Some(term) = turn.leads().filter(|_| !turn.seen.may_be_primary()) {
        answer = answer.act(Action::ReleaseLeader(term));
    }
    Some(answer.act(Action::Exit(ExitWhy::ForeignData)))
}

/// We created a cluster, never led it, and another member's became the cluster: nothing of value is in ours.
fn newborn(turn: &mut Turn<'_>, ours: SystemId, cluster: SystemId) -> Answer {
    let answer = Answer::because(Why::NewbornTooLate { ours, cluster });
    if turn.seen.postgres != Postgres::Stopped {
        let patience = turn.seen.rules.stop_budget();
        return answer.act_all(turn.stop(StopMode::Immediate, patience)).wake_at(turn.now.after(patience));
    }
    let leader = turn.seen.other_leader().cloned();
    let ready = |name: &NodeName| super::leading_timeline(turn, name).is_some();
    match leader.filter(ready) {
        Some(leader) if turn.memory.clone.due(turn.now) => {
            answer.act(Action::Begin(Work::Clone(Upstream::Member(leader))))
        }
        Some(_) | None => answer,
    }
}

/// Whether our data belong to this cluster; `None` when that cannot be told.
pub(crate) fn verdict(turn: &Turn<'_>) -> Option<bool> {
    identifiers(turn).map(|(ours, cluster)| ours == cluster)
}

/// The system identifiers of our data and of the cluster; `None` when they cannot be told.
pub(crate) fn identifiers(turn: &Turn<'_>) -> Option<(SystemId, SystemId)> {
    let ours = match &turn.seen.data {
        Data::Present(control) => control.system_id,
        Data::Empty | Data::Incomplete | Data::Unusable => return None,
    };
    match turn.seen.cluster()?.initialize {
        Initialize::Done(cluster) => Some((ours, cluster)),
        Initialize::Absent | Initialize::InProgress { .. } | Initialize::Spoiled => None,
    }
}
