//! The domain of the synchronous standbys: the leader that keeps them, the standby that leaves them, and those that race.

use crate::chooser::Chooser;
use crate::world::{NOW, OURS, TERM, ago, name, rules};
use ha::sync_quorum::Promise;
use ha::{
    Authority, Cluster, Contact, Control, Data, Etcd, Guard, Initialize, Job, Last, LeaderHistory, LeaderKey,
    Member, Memory, Observation, Order, PeerAnswer, PeerFacts, Peers, Postgres, Race, Replication, Running,
    Standby, SyncChange, SyncKey, SyncMode, SyncSent, Synchronous, Upstream, Writable,
};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Lsn, NodeName, StandbyNames, Tags, Term, Timeline};

const LSN: Lsn = Lsn(5000);

fn promise(voters: &[&str], quorum: usize) -> Promise {
    Promise { voters: voters.iter().copied().map(name).collect(), quorum }
}

fn first(names: &[&str]) -> StandbyNames {
    StandbyNames::First { count: names.len(), names: names.iter().copied().map(name).collect() }
}

/// One case.
pub(crate) fn case(chooser: &mut Chooser) -> (Observation, Memory) {
    let (timeline, lsn) = (Timeline(2), LSN);
    let standby =
        Running::Standby { timeline, lsn, streaming: true, upstream: Some(Upstream::Member(name("b"))) };
    let postgres = chooser.pick(&[
        Postgres::Running(Running::Primary { timeline, lsn }),
        Postgres::Running(standby),
        Postgres::Stopped,
    ]);
    let leads = chooser.pick(&[true, false]);
    let deadline = NOW.after(Duration::from_secs(3));
    let authority = if leads { Authority::Held { term: TERM, deadline } } else { Authority::None };
    let other = LeaderKey::Held { name: name("b"), term: Term(12), ours: false };
    let leader = match leads {
        true => LeaderKey::Held { name: name("a"), term: TERM, ours: true },
        false => chooser.pick(&[LeaderKey::Free, other]),
    };
    let led = leader != LeaderKey::Free;
    let mode = chooser.pick(&[SyncMode::On, SyncMode::Quorum, SyncMode::Off]);
    let synchronous = Synchronous { mode, strict: chooser.pick(&[false, true]), count: 1, maximum_lag: None };
    let key = |leader: &str, promise| Some(SyncKey { leader: Some(name(leader)), promise, revision: 40 });
    let sync = chooser.pick(&[
        None,
        key("a", promise(&[], 0)),
        key("a", promise(&["b"], 0)),
        key("a", promise(&["b", "c"], 1)),
        key("b", promise(&["a"], 0)),
        key("b", promise(&["a", "c"], 1)),
        key("b", promise(&["c"], 0)),
    ]);
    let replication = replication(chooser);
    let orders =
        [None, Some(Order::Restart { within: None }), Some(Order::Reinitialize { from_leader: false })];
    let order = chooser.pick(if leads { &orders[..2] } else { &orders });
    let memory = memory(chooser, leads, order.as_ref());
    let peers = peers(chooser, leads);
    let (who, term) = if leads { ("a", TERM) } else { ("b", Term(12)) };
    let said = Some(Writable { name: name(who), term, timeline });
    let last = Some(Last { name: name("a"), term: TERM, timeline, guarded: true });
    let members = ["a", "b", "c"].map(|who| (name(who), member(who == "a" && leads)));
    let cluster = Cluster {
        revision: 50,
        initialize: Initialize::Done(OURS),
        leader,
        members: members.into_iter().collect(),
        optime: Some(LSN),
        failover: None,
        sync,
        writable: said.filter(|_| led),
        last,
        history: BTreeMap::new(),
        failsafe: None,
        routers: Vec::new(),
        handed_over: None,
    };
    let seen = Observation {
        me: name("a"),
        tags: Tags::default(),
        rules: ha::Rules { synchronous, ..rules(false, true, 300) },
        etcd: Etcd::Seen { cluster, contact: Contact::Live },
        authority,
        data: Data::Present(control(&postgres)),
        postgres,
        replication,
        pace: ha::Pace::default(),
        job: Job::Idle,
        finished: None,
        guard: Guard::Armed,
        watchdog: ha::Watchdog::Fine,
        signs: ha::Signs::default(),
        peers,
        leader_history: LeaderHistory::Unknown,
        order,
        planned: None,
        failsafe: ha::Failsafe::default(),
        vouched: None,
    };
    (seen, memory)
}

fn control(postgres: &Postgres) -> Control {
    let standby = matches!(postgres, Postgres::Running(Running::Standby { .. }));
    let (timeline, checkpoint) = (Timeline(2), Lsn(4000));
    Control { system_id: OURS, timeline, checkpoint, reached: LSN, clean: true, standby, rewindable: true }
}

fn member(primary: bool) -> Member {
    Member {
        primary,
        running: true,
        reachable: true,
        nofailover: false,
        sick: false,
        clonefrom: false,
        replicatefrom: None,
        sync_priority: 1,
        timeline: Some(Timeline(2)),
        lsn: Some(LSN),
    }
}

fn replication(chooser: &mut Chooser) -> Option<Replication> {
    let names = chooser.pick(&[StandbyNames::Nobody, first(&["b"]), StandbyNames::Other("x, y".to_owned())]);
    let stalled = chooser.pick(&[None, Some(ago(20_000))]);
    let sender =
        |who: &str, flushed| Standby { name: name(who), streaming: true, flushed: Lsn(flushed), stalled };
    let standbys =
        chooser.pick(&[vec![], vec![sender("b", 5000)], vec![sender("b", 4000), sender("c", 5000)]]);
    Some(Replication { asked: NOW, names, settled: true, standbys })
}

fn memory(chooser: &mut Chooser, leads: bool, order: Option<&Order>) -> Memory {
    if !leads {
        let race = Some(Race { since: ago(900), asked: Some(ago(300)), refusal: None });
        let leaves = matches!(order, Some(Order::Reinitialize { .. }));
        let leaving_sync = chooser.pick_if(leaves, &[None, Some(ago(60_000))]);
        return Memory { race, leaving_sync, ..Memory::default() };
    }
    let known = SyncChange { term: Some(TERM), ..SyncChange::default() };
    let sent = |over, at| {
        let (term, promise) = (TERM, promise(&["b"], 0));
        Some(SyncSent { term, promise, others: std::collections::BTreeSet::new(), over, at })
    };
    let sync = chooser.pick(&[
        SyncChange::default(),
        SyncChange { asked: Some((first(&["b"]), ago(5000))), barrier: Some(Lsn(4500)), ..known.clone() },
        SyncChange { asked: Some((StandbyNames::Nobody, ago(5000))), ..known.clone() },
        SyncChange { asked: Some((first(&["b"]), ago(50))), ..known.clone() },
        SyncChange { sent: sent(40, ago(50)), ..known.clone() },
        SyncChange { sent: sent(40, ago(900)), ..known.clone() },
        SyncChange { sent: sent(30, ago(50)), ..known },
    ]);
    Memory { sync, term: Some(TERM), matched: true, ..Memory::default() }
}

fn peers(chooser: &mut Chooser, leads: bool) -> Peers {
    if leads {
        return Peers::default();
    }
    let said = |lsn| {
        PeerAnswer::Said(PeerFacts {
            primary: false,
            timeline: Some(Timeline(2)),
            lsn: Lsn(lsn),
            nofailover: false,
            failover_priority: 1,
            replayed: None,
            takes_wal: true,
            unprotected: false,
            sick: false,
            failsafe_active: false,
        })
    };
    let b = chooser.pick(&[said(4000), PeerAnswer::Silent]);
    let c = chooser.pick(&[said(5000), said(6000), PeerAnswer::Silent]);
    let answers: BTreeMap<NodeName, PeerAnswer> = [(name("b"), b), (name("c"), c)].into_iter().collect();
    Peers { asked: Some(ago(200)), answers }
}
