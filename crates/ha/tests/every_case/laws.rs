//! What holds in every single turn.

use crate::world::NOW;
use ha::duties::recover;
use ha::sync_quorum::{Promise, fits};
use ha::{
    Action, Authority, Contact, Data, Decision, Etcd, Guard, LeaderKey, Memory, Observation, Postgres,
    Reason, Running, Work,
};

/// The law that this decision breaks.
pub(crate) fn broken(seen: &Observation, memory: &Memory, decision: &Decision) -> Option<&'static str> {
    if decision.wake_at <= NOW {
        return Some("the next turn lies in the future");
    }
    writes(seen, decision)
        .or_else(|| paused(seen, memory, decision))
        .or_else(|| ends_without_authority(seen, decision))
        .or_else(|| jobs(seen, decision))
        .or_else(|| synchronous(seen, decision))
        .or_else(|| leader_key(seen, decision))
        .or_else(|| promises(seen, decision))
        .or_else(|| conditions(seen, memory, decision))
        .or_else(|| crash(seen, memory, decision))
}

/// A crashed primary gives nothing away that it need not.
fn crash(seen: &Observation, memory: &Memory, decision: &Decision) -> Option<&'static str> {
    let handed = |to: &types::NodeName| {
        let before = memory.crash.as_ref().and_then(|crash| crash.handed.clone());
        let now = seen.finished.as_ref().is_some_and(|finished| {
            finished.ok && matches!(&finished.work, Work::HandTail { to: handed, .. } if handed == to)
        });
        now || before.as_ref() == Some(to)
    };
    let hasty = |action: &Action| matches!(action, Action::HandLeadTo { to, .. } if !handed(to));
    if has(decision, hasty) {
        return Some("the lead is handed only to one that has all WAL");
    }
    match &decision.reason {
        Reason::Recover(recover::Why::GivesLeadAway { cost: recover::Cost::UpTo { bytes }, .. })
            if *bytes > seen.rules.maximum_lag_on_failover =>
        {
            Some("no more is given up than the settings allow")
        }
        _ => None,
    }
}

/// What the operator wants before a promotion.
fn conditions(seen: &Observation, memory: &Memory, decision: &Decision) -> Option<&'static str> {
    let unprotected = |action: &Action| {
        matches!(action, Action::Promote(_) | Action::StartPrimary | Action::AcquireLeader)
            || *action == Action::Begin(Work::Bootstrap)
    };
    if seen.unprotected() && has(decision, unprotected) {
        return Some("nothing leads without the watchdog that is required");
    }
    let promotes = |action: &Action| matches!(action, Action::Promote(_));
    let silent = seen.cluster().is_some_and(|cluster| !cluster.routers.is_empty());
    if !seen.rules.await_routers.is_zero() && silent && memory.promoting.is_none() && has(decision, promotes)
    {
        return Some("routers are waited for before a promotion");
    }
    let reads = |action: &Action| matches!(action, Action::StartStandby(_));
    let was_primary = matches!(&seen.data, Data::Present(control) if !control.standby);
    let led_to = seen.rules.pooler
        && (silent || matches!(seen.etcd, Etcd::Seen { contact: Contact::Lost { .. }, .. }));
    if led_to && was_primary && memory.stopped_leading.is_none() && has(decision, reads) {
        return Some(
            "what was a primary does not come up for reading while sessions in a pooler may be led there",
        );
    }
    let passed = |term| decision.memory.pre_promoted == Some((term, true)) || memory.promoting.is_some();
    let unasked = |action: &Action| matches!(action, Action::Promote(term) if !passed(*term));
    (seen.rules.pre_promote && has(decision, unasked)).then_some("pre_promote comes before a promotion")
}

fn has(decision: &Decision, wanted: impl Fn(&Action) -> bool) -> bool {
    decision.actions.iter().any(wanted)
}

fn writes(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let writes = |action: &Action| matches!(action, Action::Promote(_) | Action::StartPrimary);
    if seen.rules.standby_cluster && has(decision, writes) {
        return Some("a standby cluster never writes");
    }
    let mut armed = seen.guard == Guard::Armed;
    for action in &decision.actions {
        match action {
            Action::ArmGuard(_) => armed = true,
            Action::DisarmGuard => armed = false,
            Action::Promote(term) if seen.leads(NOW) != Some(*term) => {
                return Some("a promotion needs the lead in this term");
            }
            Action::StartPrimary if seen.leads(NOW).is_none() => {
                return Some("a primary start needs the lead");
            }
            Action::Promote(_) | Action::StartPrimary if !armed => return Some("the guard is armed first"),
            _ => {}
        }
    }
    if !seen.rules.pause && seen.may_be_primary() && has(decision, |action| *action == Action::DisarmGuard) {
        return Some("the guard of what may be a primary stays armed");
    }
    let unconfessed =
        seen.cluster().and_then(|cluster| cluster.last.as_ref()).is_none_or(|last| last.guarded);
    if seen.may_be_primary() && unconfessed && has(decision, |action| *action == Action::DisarmGuard) {
        return Some("nobody is left unguarded in secret");
    }
    None
}

fn paused(seen: &Observation, memory: &Memory, decision: &Decision) -> Option<&'static str> {
    let wished = seen.cluster().is_some_and(|cluster| cluster.failover.is_some());
    let begun = memory.step_aside.is_some()
        || memory.promoting.is_some()
        || memory.ordered.is_some()
        || memory.returning;
    let touches = |action: &Action| {
        matches!(
            action,
            Action::StartPrimary
                | Action::StartStandby(_)
                | Action::Stop(_)
                | Action::Promote(_)
                | Action::Begin(_)
        )
    };
    let alone = seen.rules.pause && !wished && !begun && seen.order.is_none();
    (alone && has(decision, touches)).then_some("in pause nothing is done by itself")
}

fn ends_without_authority(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let primary = matches!(seen.postgres, Postgres::Running(Running::Primary { .. }));
    if seen.rules.pause || !primary {
        return None;
    }
    let extends = has(decision, |action| matches!(action, Action::ExtendLead { .. }));
    let near = match seen.authority {
        Authority::Held { deadline, .. } => NOW >= deadline.before(seen.rules.stop_budget()),
        Authority::None => false,
    };
    let replaced = seen.other_leader().is_some() && seen.leads(NOW).is_none();
    let stops = decision.memory.stopping.is_some();
    (((near && !extends) || replaced) && !stops).then_some("a primary without authority is stopped")
}

/// Who must confirm a commit and who may be promoted fit, after each action that may be the last to have an effect.
fn synchronous(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let primary = matches!(seen.postgres, Postgres::Running(Running::Primary { .. }));
    let replication = seen.replication.as_ref().filter(|_| primary && seen.leads(NOW).is_some())?;
    let key = seen.cluster()?.sync.as_ref().filter(|key| key.is_led_by(&seen.me));
    let mut promise = key.map(|key| key.promise.clone()).unwrap_or_default();
    let mut names = replication.names.clone();
    let sound = fits(&promise, &names);
    for action in &decision.actions {
        match action {
            Action::PutSync { promise: after, .. } => promise = after.clone(),
            Action::DeleteSync { .. } => promise = Promise::default(),
            Action::SetSynchronous(after) => names = after.clone().unwrap_or_default(),
            _ => continue,
        }
        if sound && !fits(&promise, &names) {
            return Some("whoever can be elected has every acknowledged commit");
        }
    }
    None
}

fn jobs(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let begins: Vec<&Work> = decision
        .actions
        .iter()
        .filter_map(|action| if let Action::Begin(work) = action { Some(work) } else { None })
        .collect();
    if begins.len() > 1 || (!begins.is_empty() && seen.job != ha::Job::Idle) {
        return Some("one job at a time");
    }
    let writes_data = begins.iter().any(|work| !matches!(work, Work::Checkpoint | Work::PrePromote(_)));
    (writes_data && seen.postgres != Postgres::Stopped).then_some("no job writes under a running PostgreSQL")
}

fn promises(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let promised = seen.failsafe.promise.as_ref().is_some_and(|promise| NOW < promise.until);
    let idle = match seen.peers.answers.get(&types::NodeName::from("b")) {
        Some(ha::PeerAnswer::Said(facts)) => !facts.primary,
        Some(ha::PeerAnswer::Down) => true,
        Some(ha::PeerAnswer::Silent) | None => false,
    };
    let primary = matches!(seen.postgres, Postgres::Running(Running::Primary { .. }));
    if promised && has(decision, |action| matches!(action, Action::Promote(_))) {
        return Some("nothing is promoted against a promise");
    }
    let races =
        !primary && !decision.memory.created && has(decision, |action| *action == Action::AcquireLeader);
    (promised && !idle && races).then_some("nobody races against a promise")
}

fn leader_key(seen: &Observation, decision: &Decision) -> Option<&'static str> {
    let releases =
        has(decision, |action| matches!(action, Action::ReleaseLeader(_) | Action::HandLeadTo { .. }));
    if releases && seen.may_be_primary() {
        return Some("the lead is not given away while PostgreSQL may be a primary");
    }
    let there = seen.signs.killed.is_some() && seen.may_be_primary();
    if there && has(decision, |action| matches!(action, Action::AdoptLeader(_) | Action::AcquireLeader)) {
        return Some("nothing is led by whoever could not end its old primary");
    }
    let free = seen.cluster().is_some_and(|cluster| cluster.leader == LeaderKey::Free);
    if !free && has(decision, |action| *action == Action::AcquireLeader) {
        return Some("only a free lead is taken");
    }
    let foreign = match (&seen.data, seen.cluster().map(|cluster| cluster.initialize)) {
        (Data::Present(control), Some(ha::Initialize::Done(cluster))) => control.system_id != cluster,
        (Data::Present(_) | Data::Empty | Data::Incomplete | Data::Unusable, _) => false,
    };
    let leads =
        |action: &Action| matches!(action, Action::AcquireLeader | Action::Promote(_) | Action::StartPrimary);
    let unfinished = matches!(seen.data, Data::Incomplete | Data::Unusable);
    if unfinished && has(decision, leads) {
        return Some("data that are not whole never lead");
    }
    (foreign && has(decision, leads)).then_some("data of another cluster never lead")
}
