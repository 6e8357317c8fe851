//! No usable data: create the cluster if there is none, else copy the leader's.

use crate::action::{Action, ExitWhy, Work};
use crate::decision::{Answer, Turn};
use crate::observation::{Cluster, Data, Initialize, LeaderKey, Member, Postgres};
use crate::upstream::{self, Upstream};
use std::fmt;
use types::{Moment, NodeName};

/// What is done without data.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Why {
    CreatesCluster,
    CreatesStandbyCluster,
    BeginsAnew,
    BootstrapFailed,
    WaitsForBootstrap,
    InitializeSpoiled,
    LeaderKeySpoiled,
    WaitsForLeaderToClone,
    MayNotBootstrap,
    MayNotBootstrapUnprotected,
    ClonesFrom { source: NodeName },
    RestoresBackup,
    CloneRetryLater { failures: u32, at: Moment },
    DataUnusable,
    ReleasesLeadWithoutData,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::CreatesCluster => f.write_str("there is no cluster yet and no data here: this member creates the cluster"),
            Why::CreatesStandbyCluster => f.write_str("there is no cluster yet and no data here: this member copies the remote cluster, and becomes the leader of a standby cluster"),
            Why::BeginsAnew => f.write_str("the claim to create the cluster is this member's own, and what it was for has not begun: the answer to it was lost"),
            Why::BootstrapFailed => f.write_str("the cluster could not be created: what there is of it is kept aside as .failed, the claim is given back, and the agent ends; its log says why"),
            Why::WaitsForBootstrap => f.write_str("another member is creating the cluster"),
            Why::InitializeSpoiled => f.write_str("the key /initialize holds something that is no system identifier: put the right one there, or delete it if there is no cluster yet"),
            Why::LeaderKeySpoiled => f.write_str("the key /leader holds something that names nobody: delete it, and a fit member will take the lead"),
            Why::WaitsForLeaderToClone => f.write_str("there are no data here and no running leader to copy from yet"),
            Why::MayNotBootstrap => f.write_str("there is no cluster yet, and this member may not create one (no bootstrap section, or nofailover)"),
            Why::MayNotBootstrapUnprotected => f.write_str("there is no cluster yet, and this member may not create one: its watchdog is required (watchdog.mode) and does not work, its log says why"),
            Why::ClonesFrom { source } => write!(f, "there are no data here: the data directory of {source} is copied"),
            Why::RestoresBackup => f.write_str("there are no data here and nobody leads: a method that needs no leader (no_leader) makes a data directory"),
            Why::CloneRetryLater { failures, .. } => write!(f, "copying the data directory failed {failures} times; it is tried again in a moment, the log says what went wrong"),
            Why::DataUnusable => f.write_str("the data directory cannot be used: see the agent's log for what is wrong with it"),
            Why::ReleasesLeadWithoutData => f.write_str("this member holds the leader key but has no data: it gives the key back"),
        }
    }
}

pub(crate) fn answer(turn: &mut Turn<'_>) -> Option<Answer> {
    if turn.memory.bootstrap_failed {
        let in_progress = |cluster: &Cluster| matches!(cluster.initialize, Initialize::InProgress { .. });
        let claimed = turn.seen.cluster().is_some_and(in_progress);
        let remove = claimed.then_some(Action::RemoveInitialize).into_iter().collect();
        let answer = Answer::because(Why::BootstrapFailed).act_all(remove);
        return Some(answer.act(Action::Exit(ExitWhy::BootstrapFailed)));
    }
    // What runs is not judged by a look at its files; it does not lead anew with them (`standing::not_whole`).
    if turn.seen.postgres != Postgres::Stopped {
        return None;
    }
    match &turn.seen.data {
        Data::Present(_) => return None,
        Data::Empty | Data::Incomplete | Data::Unusable => {}
    }
    if let Some(term) = turn.leads() {
        let answer = Answer::because(Why::ReleasesLeadWithoutData);
        return Some(answer.act(Action::ReleaseLeader(term)));
    }
    if turn.seen.data == Data::Unusable {
        return Some(Answer::because(Why::DataUnusable));
    }
    let cluster = turn.seen.cluster()?;
    Some(match &cluster.leader {
        LeaderKey::Free | LeaderKey::Spoiled { .. } => create(turn, cluster),
        LeaderKey::Held { name, .. } => clone(turn, cluster, name),
    })
}

fn create(turn: &Turn<'_>, cluster: &Cluster) -> Answer {
    match cluster.initialize {
        Initialize::InProgress { ours: true } => {
            Answer::because(Why::BeginsAnew).act(Action::Begin(creation(turn)))
        }
        Initialize::InProgress { ours: false } => Answer::because(Why::WaitsForBootstrap),
        Initialize::Spoiled => Answer::because(Why::InitializeSpoiled),
        Initialize::Done(_) => without_leader(turn, Why::WaitsForLeaderToClone),
        Initialize::Absent if cluster.leader != LeaderKey::Free => Answer::because(Why::LeaderKeySpoiled),
        Initialize::Absent if !turn.seen.rules.may_bootstrap || turn.seen.tags.nofailover() => {
            without_leader(turn, Why::MayNotBootstrap)
        }
        Initialize::Absent if turn.seen.unprotected() => {
            without_leader(turn, Why::MayNotBootstrapUnprotected)
        }
        Initialize::Absent => {
            let standby_cluster = turn.seen.rules.standby_cluster;
            let why = if standby_cluster { Why::CreatesStandbyCluster } else { Why::CreatesCluster };
            Answer::because(why).act(Action::CreateInitialize).act(Action::Begin(creation(turn)))
        }
    }
}

/// How the first data directory of the cluster is made.
fn creation(turn: &Turn<'_>) -> Work {
    if turn.seen.rules.standby_cluster { Work::Clone(Upstream::Remote) } else { Work::Bootstrap }
}

/// A backup helps when there is nobody to copy from, if a method can do without.
fn without_leader(turn: &Turn<'_>, otherwise: Why) -> Answer {
    if !turn.seen.rules.may_copy_without_leader {
        return Answer::because(otherwise);
    }
    later(turn).unwrap_or_else(|| {
        Answer::because(Why::RestoresBackup).act(Action::Begin(Work::Clone(Upstream::Archive)))
    })
}

fn clone(turn: &Turn<'_>, cluster: &Cluster, leader: &NodeName) -> Answer {
    let standby_cluster = turn.seen.rules.standby_cluster;
    let ready = |member: &Member| member.running && (member.primary || standby_cluster);
    if !cluster.members.get(leader).is_some_and(ready) || *leader == turn.seen.me {
        return Answer::because(Why::WaitsForLeaderToClone);
    }
    later(turn).unwrap_or_else(|| {
        let from = upstream::copied(turn, cluster, leader);
        let source = from.member().unwrap_or(leader).clone();
        Answer::because(Why::ClonesFrom { source }).act(Action::Begin(Work::Clone(from)))
    })
}

/// The rest after a copy that failed.
fn later(turn: &Turn<'_>) -> Option<Answer> {
    let retry = turn.memory.clone;
    let at = retry.not_before.filter(|_| !retry.due(turn.now))?;
    Some(Answer::because(Why::CloneRetryLater { failures: retry.failures, at }).wake_at(at))
}
