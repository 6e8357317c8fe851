//! What the adapters found, in the words of the decisions.

use crate::jobs::pre_promote;
use crate::keeper::Lease;
use crate::local::{Answer, Local};
use crate::planned;
use etcd::{Contact, Schedule, Snapshot, View};
use ha::{
    Cluster, Control, CrashRule, Data, Due, Etcd, Failover, Initialize, Last, LeaderKey, Member, Postgres,
    Replication, Router, Rules, Running, Standby, SyncKey, SyncMode, Synchronous, Writable,
    sync_quorum::Promise,
};
use postgres::data_dir::DataDir;
use postgres::probe::Facts;
use settings::{Dynamic, Settings, SynchronousMode};
use std::time::Duration;
use types::{Moment, NodeName, PostgresState, Role, StandbyNames, Term, Timeline};

/// The data directory; and what is wrong with it when it cannot be used.
pub(crate) fn data(found: DataDir) -> (Data, Option<String>) {
    match found {
        DataDir::Missing | DataDir::Empty => (Data::Empty, None),
        DataDir::Incomplete { .. } => (Data::Incomplete, None),
        DataDir::Foreign { why } => (Data::Unusable, Some(why)),
        DataDir::Present { control, standby_signal, recovery_signal, .. } => {
            let standby = standby_signal || recovery_signal;
            // Between a promotion and the first checkpoint after it only the second of the two knows the new timeline.
            let timeline = control.timeline.max(control.min_recovery_timeline);
            let present = Control {
                system_id: control.system_id,
                timeline,
                checkpoint: control.checkpoint,
                reached: control.checkpoint.max(control.min_recovery_end),
                clean: control.state.is_clean(),
                standby,
                rewindable: control.data_checksums || control.wal_log_hints,
            };
            (Data::Present(present), None)
        }
    }
}

/// A running PostgreSQL.
pub(crate) fn running(facts: &Facts, upstream: Option<ha::Upstream>) -> Running {
    let timeline = facts.timeline.unwrap_or(Timeline(1));
    if facts.in_recovery {
        Running::Standby {
            timeline,
            lsn: facts.received_lsn.max(facts.replayed_lsn).unwrap_or_default(),
            streaming: facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming"),
            upstream,
        }
    } else {
        Running::Primary { timeline, lsn: facts.flush_lsn.unwrap_or_default() }
    }
}

/// Who streams from the running primary.
pub(crate) fn replication(local: &Local) -> Option<Replication> {
    let seen = local.seen();
    let (facts, asked) = seen.facts.filter(|(facts, _)| !facts.in_recovery)?;
    let all = facts.flush_lsn.unwrap_or_default();
    let standby = |standby: &postgres::probe::Standby| Standby {
        name: NodeName::from(standby.application_name.as_str()),
        streaming: standby.state.as_deref() == Some("streaming"),
        flushed: standby.flush_lsn.unwrap_or_default(),
        stalled: seen.stalls.since(standby.pid, standby.flush_lsn.unwrap_or_default(), all),
    };
    Some(Replication {
        asked,
        names: StandbyNames::parse(&facts.synchronous_standby_names),
        settled: facts.checkpointer_rests,
        standbys: facts.replication.iter().map(standby).collect(),
    })
}

/// The process.
pub(crate) fn postgres(local: &Local) -> Postgres {
    let life = local.life();
    if let (None, Some(since)) = (&life.postmaster, life.killed) {
        return Postgres::Stopping { since };
    }
    if life.postmaster.is_none() {
        return Postgres::Stopped;
    }
    if let Some(since) = life.stopping {
        return Postgres::Stopping { since };
    }
    let seen = local.seen();
    match (seen.now, &seen.facts) {
        (Answer::Running | Answer::Crowded, Some((facts, _))) => {
            Postgres::Running(running(facts, life.upstream))
        }
        (Answer::Silent, facts) => Postgres::Unresponsive {
            since: seen.silent_since.unwrap_or(life.since),
            primary: facts.as_ref().is_none_or(|(facts, _)| !facts.in_recovery),
        },
        (Answer::None | Answer::NotYet | Answer::Running | Answer::Crowded, _) => {
            Postgres::Starting { since: seen.recovers_since.unwrap_or(life.since) }
        }
    }
}

/// The cluster's keys. `now` is the wall clock, for schedules.
pub(crate) fn etcd(view: &View, me: &NodeName, lease: &Lease, began: Moment) -> Etcd {
    let Some(snapshot) = &view.snapshot else {
        return Etcd::Never { since: began };
    };
    let contact = match &view.contact {
        Contact::Live { .. } => ha::Contact::Live,
        Contact::Never { since, .. } | Contact::Lost { since, .. } => ha::Contact::Lost { since: *since },
    };
    Etcd::Seen { cluster: cluster(snapshot, me, lease), contact }
}

fn cluster(snapshot: &Snapshot, me: &NodeName, lease: &Lease) -> Cluster {
    let spoiled = |name: &str| snapshot.spoiled.iter().any(|row| row.key.ends_with(name));
    Cluster {
        revision: snapshot.revision,
        initialize: match snapshot.initialize {
            _ if spoiled("/initialize") => Initialize::Spoiled,
            None => Initialize::Absent,
            Some(etcd::Initialize::Bootstrapping) => Initialize::InProgress {
                ours: snapshot.initialize_lease.is_some() && snapshot.initialize_lease == lease.id,
            },
            Some(etcd::Initialize::System(id)) => Initialize::Done(id),
        },
        leader: leader(snapshot, me, lease),
        members: snapshot.members.iter().map(|(name, found)| (name.clone(), member(found))).collect(),
        optime: snapshot.optime(),
        failover: snapshot.failover.as_ref().map(|failover| Failover {
            leader: failover.leader.clone(),
            candidate: failover.member.clone(),
            due: due(failover.scheduled_at.as_deref()),
            revision: failover.mod_revision,
        }),
        sync: snapshot.sync.as_ref().map(|sync| SyncKey {
            leader: sync.leader.clone(),
            promise: Promise {
                voters: sync.sync_standby.iter().cloned().collect(),
                quorum: sync.quorum as usize,
            },
            revision: sync.mod_revision,
        }),
        writable: snapshot.writable.as_ref().map(|writable| Writable {
            name: writable.name.clone(),
            term: writable.term,
            timeline: writable.timeline,
        }),
        last: snapshot.last.as_ref().map(|last| Last {
            name: last.name.clone(),
            term: last.term,
            timeline: last.timeline,
            guarded: last.guarded,
        }),
        failsafe: snapshot.failsafe.as_ref().map(|members| members.keys().cloned().collect()),
        routers: snapshot.routers.iter().map(|(id, router)| self::router(id, router)).collect(),
        handed_over: snapshot.handover.as_ref().map(|handover| handover.term),
        history: snapshot.history.iter().map(|row| (row.timeline, row.lsn)).collect(),
    }
}

fn leader(snapshot: &Snapshot, me: &NodeName, lease: &Lease) -> LeaderKey {
    let spoiled = snapshot.spoiled.iter().any(|row| row.key.ends_with("/leader"));
    let Some(leader) = &snapshot.leader else {
        return if spoiled { LeaderKey::Spoiled { term: Term(0) } } else { LeaderKey::Free };
    };
    // A name that no member has, on no lease: nobody holds this key, and it never expires.
    if spoiled && leader.name != *me && !snapshot.members.contains_key(&leader.name) {
        return LeaderKey::Spoiled { term: leader.term };
    }
    let ours = lease.id == Some(leader.lease);
    LeaderKey::Held { name: leader.name.clone(), term: leader.term, ours }
}

fn member(found: &etcd::Member) -> Member {
    Member {
        primary: found.role.known() == Some(Role::Primary),
        running: found.state.known() == Some(PostgresState::Running),
        reachable: found.api_url.is_some(),
        nofailover: found.tags.nofailover(),
        sick: found.sick.is_some(),
        clonefrom: found.tags.clonefrom(),
        replicatefrom: found.tags.replicatefrom().map(NodeName::from),
        sync_priority: if found.tags.nosync() { 0 } else { found.tags.sync_priority() },
        timeline: found.timeline,
        lsn: found.xlog_location,
    }
}

fn router(id: &str, says: &etcd::Router) -> Router {
    Router { id: id.to_owned(), quiet: says.quiet, term: says.term, over: says.over, pooled: says.pooled }
}

/// When a switchover is to take place.
fn due(scheduled_at: Option<&str>) -> Due {
    match scheduled_at.map(Schedule::read) {
        None => Due::Now,
        Some(Ok(schedule)) => Due::At(planned::moment(&schedule)),
        Some(Err(_)) => Due::Unreadable,
    }
}

/// Which standbys commits wait for; in a standby cluster there are no commits.
pub(crate) fn synchronous(dynamic: &Dynamic) -> Synchronous {
    let mode = match dynamic.synchronous_mode {
        _ if dynamic.standby_cluster.is_some() => SyncMode::Off,
        SynchronousMode::Off => SyncMode::Off,
        SynchronousMode::On => SyncMode::On,
        SynchronousMode::Quorum => SyncMode::Quorum,
    };
    Synchronous {
        mode,
        strict: dynamic.synchronous_mode_strict,
        count: dynamic.synchronous_node_count as usize,
        maximum_lag: dynamic.maximum_lag_on_syncnode,
    }
}

/// The settings that decisions depend on.
pub(crate) fn rules(settings: &Settings, dynamic: &Dynamic) -> Rules {
    let local = &settings.postgresql;
    let listed = local.create_replica_methods.as_ref().or(dynamic.create_replica_methods.as_ref());
    let needs_no_leader = |name: &String| {
        let section = local.replica_methods.get(name).or_else(|| dynamic.replica_methods.get(name));
        section.is_some_and(|method| method.no_leader)
    };
    let seconds = |value: u32| Duration::from_secs(value.into());
    Rules {
        ttl: seconds(dynamic.ttl),
        loop_wait: seconds(dynamic.loop_wait),
        retry_timeout: seconds(dynamic.retry_timeout),
        maximum_lag_on_failover: dynamic.maximum_lag_on_failover,
        pause: dynamic.pause,
        failsafe: dynamic.failsafe_mode,
        check_timeline: dynamic.check_timeline,
        primary_start_timeout: seconds(dynamic.primary_start_timeout),
        primary_stop_timeout: seconds(dynamic.primary_stop_timeout),
        pre_promote: pre_promote::command(settings, dynamic).is_some(),
        may_bootstrap: settings.bootstrap.present,
        may_rewind: settings.postgresql.use_pg_rewind.unwrap_or(dynamic.use_pg_rewind),
        may_copy_without_leader: listed.is_some_and(|names| names.iter().any(needs_no_leader)),
        standby_cluster: dynamic.standby_cluster.is_some(),
        crash: match dynamic.crash {
            settings::Crash::Auto => CrashRule::Auto,
            settings::Crash::Restart => CrashRule::Restart,
            settings::Crash::Failover => CrashRule::Failover,
        },
        await_routers: dynamic.await_routers,
        pooler: settings.postgresql.proxy_address.is_some(),
        synchronous: synchronous(dynamic),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ha::{Rules, Synchronous};
    use std::time::Duration;

    /// Those of a cluster that was born under Baton.
    pub(crate) fn rules() -> Rules {
        Rules {
            ttl: Duration::from_secs(5),
            loop_wait: Duration::from_secs(1),
            retry_timeout: Duration::from_secs(2),
            maximum_lag_on_failover: 1 << 20,
            pause: false,
            failsafe: true,
            check_timeline: false,
            primary_start_timeout: Duration::from_secs(300),
            primary_stop_timeout: Duration::ZERO,
            pre_promote: false,
            may_bootstrap: true,
            synchronous: Synchronous::default(),
            may_rewind: true,
            may_copy_without_leader: false,
            standby_cluster: false,
            crash: ha::CrashRule::Auto,
            await_routers: Duration::ZERO,
            pooler: false,
        }
    }
}
