//! The domains: a few values of everything a turn starts from.

use crate::chooser::Chooser;
use ha::{
    Authority, Cluster, Contact, Control, Crash, CrashRule, Data, Disk, Due, Etcd, Failover, Failsafe,
    FailsafePromise, FailsafeRound, Finished, Guard, Initialize, Job, Last, LeaderHistory, LeaderKey, Member,
    Memory, Observation, Order, Ordered, Pace, PeerAnswer, PeerFacts, Peers, PlannedRestart, Postgres, Pulse,
    Race, Retry, Router, Rules, Running, Signs, StepAside, StepAsideWhy, StopMode, Synchronous, Unmet,
    Upstream, Watchdog, Work, Writable,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use types::{History, HistoryLine, Lsn, Moment, NodeName, SystemId, Tags, Term, Timeline};

/// The moment of every turn.
pub(crate) const NOW: Moment = Moment(1_000_000);
pub(crate) const OURS: SystemId = SystemId(7_000_000_000_000_000_001);
pub(crate) const TERM: Term = Term(10);
const RESTART: Order = Order::Restart { within: None };
const REINITIALIZE: Order = Order::Reinitialize { from_leader: false };

/// Which dimensions are walked beside the ones that always are.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slice {
    /// What a member does by itself.
    Alone,
    /// With wishes in `/failover` and what the peers say.
    Wishes,
    /// With orders to this agent.
    Orders,
    /// With jobs, running and done.
    Jobs,
    /// With retries, histories and the odd setting.
    Rejoin,
    /// In a cluster that follows a remote one.
    Remote,
    /// With failsafe mode: rounds of questions, and promises to others.
    Failsafe,
    /// With a PostgreSQL that hangs, and disks that do or are full.
    Grey,
    /// With what the operator wants before a promotion: a command, a watchdog; and a crash that is never waited for.
    Conditions,
    /// With a crash of a primary that others could take over from.
    Crash,
}

impl Slice {
    pub(crate) const ALL: [Slice; 10] = [
        Slice::Alone,
        Slice::Wishes,
        Slice::Orders,
        Slice::Jobs,
        Slice::Rejoin,
        Slice::Remote,
        Slice::Failsafe,
        Slice::Grey,
        Slice::Conditions,
        Slice::Crash,
    ];
}

pub(crate) fn name(text: &str) -> NodeName {
    NodeName::from(text)
}

pub(crate) fn ago(millis: u64) -> Moment {
    NOW.before(Duration::from_millis(millis))
}

/// One case.
pub(crate) fn case(chooser: &mut Chooser, slice: Slice) -> (Observation, Memory) {
    let postgres = postgres(chooser, slice);
    let data = data(chooser, slice, &postgres);
    let cluster_etcd = etcd(chooser, slice);
    let far = NOW.after(Duration::from_secs(3));
    let near = NOW.after(Duration::from_millis(100));
    let held = |deadline| Authority::Held { term: TERM, deadline };
    let orders = [None, Some(Order::Shutdown), Some(RESTART), Some(REINITIALIZE), Some(Order::LoadSlots)];
    let order = match slice {
        Slice::Orders => chooser.pick(&orders),
        // Whoever leaves has to see to it that somebody may lead.
        Slice::Failsafe => chooser.pick(&orders[..2]),
        Slice::Alone
        | Slice::Wishes
        | Slice::Jobs
        | Slice::Rejoin
        | Slice::Remote
        | Slice::Conditions
        | Slice::Grey
        | Slice::Crash => None,
    };
    let authority = match slice {
        Slice::Failsafe if order.is_some() => held(far),
        Slice::Failsafe => {
            let soon = NOW.after(Duration::from_millis(1500));
            chooser.pick(&[Authority::None, held(soon), held(near)])
        }
        Slice::Crash => chooser.pick(&[Authority::None, held(far)]),
        _ => chooser.pick(&[Authority::None, held(far), held(near), held(ago(1))]),
    };
    let guard = chooser.pick_if(
        matches!(slice, Slice::Alone | Slice::Wishes),
        &[Guard::Armed, Guard::Disarmed, Guard::Absent],
    );
    let pause = chooser.pick_if(
        !matches!(slice, Slice::Rejoin | Slice::Jobs | Slice::Failsafe | Slice::Crash),
        &[false, true],
    );
    let (job, finished) = job(chooser, slice, &postgres);
    let memory = memory(chooser, slice);
    let peers = peers(chooser, slice);
    let planned = chooser.pick_if(slice == Slice::Orders && order.is_none(), &planned());
    let leader_history = history(chooser, slice);
    let may_bootstrap = chooser.pick_if(slice == Slice::Rejoin, &[true, false]);
    let crash =
        chooser.pick_if(slice == Slice::Crash, &[CrashRule::Auto, CrashRule::Restart, CrashRule::Failover]);
    let rules = Rules {
        crash,
        // Whoever doubts whether somebody leads without etcd does so only where one may.
        failsafe: slice == Slice::Failsafe || peers.answers.values().any(is_in_doubt),
        standby_cluster: slice == Slice::Remote,
        pre_promote: slice == Slice::Conditions,
        await_routers: Duration::from_secs(if slice == Slice::Conditions { 2 } else { 0 }),
        pooler: slice == Slice::Conditions,
        may_copy_without_leader: chooser.pick_if(slice == Slice::Rejoin, &[false, true]),
        ..rules(
            pause,
            may_bootstrap,
            match slice {
                Slice::Rejoin => chooser.pick(&[300, 1]),
                Slice::Conditions => 0,
                Slice::Crash => chooser.pick(&[300, 0, 1]),
                Slice::Alone
                | Slice::Wishes
                | Slice::Orders
                | Slice::Jobs
                | Slice::Remote
                | Slice::Grey
                | Slice::Failsafe => 300,
            },
        )
    };
    let watchdog = chooser.pick_if(slice == Slice::Conditions, &[Watchdog::Fine, Watchdog::Failed]);
    let failsafe = failsafe(chooser, slice);
    let slow = Pace { end: Some(Lsn(6000)), to_replay: Some(8 << 30), ..Pace::default() };
    let pace = chooser.pick_if(slice == Slice::Crash, &[Pace::default(), slow]);
    let signs = signs(chooser, slice);
    let seen = Observation {
        me: name("a"),
        tags: Tags::default(),
        rules,
        etcd: cluster_etcd,
        authority,
        data,
        postgres,
        replication: None,
        pace,
        job,
        finished,
        guard,
        watchdog,
        signs,
        peers,
        leader_history,
        order,
        planned,
        failsafe,
        vouched: None,
    };
    (seen, memory)
}

pub(crate) fn rules(pause: bool, may_bootstrap: bool, start_timeout: u64) -> Rules {
    Rules {
        ttl: Duration::from_secs(5),
        loop_wait: Duration::from_secs(1),
        retry_timeout: Duration::from_secs(2),
        maximum_lag_on_failover: 1 << 20,
        pause,
        failsafe: false,
        check_timeline: false,
        primary_start_timeout: Duration::from_secs(start_timeout),
        primary_stop_timeout: Duration::from_secs(5),
        synchronous: Synchronous::default(),
        pre_promote: false,
        await_routers: Duration::ZERO,
        pooler: false,
        may_bootstrap,
        may_rewind: may_bootstrap,
        may_copy_without_leader: false,
        standby_cluster: false,
        crash: CrashRule::Auto,
    }
}

fn postgres(chooser: &mut Chooser, slice: Slice) -> Postgres {
    let (timeline, lsn) = (Timeline(2), Lsn(5000));
    let standby =
        |streaming, upstream| Postgres::Running(Running::Standby { timeline, lsn, streaming, upstream });
    let b = || Some(Upstream::Member(name("b")));
    let mut all = vec![
        Postgres::Stopped,
        Postgres::Starting { since: ago(20_000) },
        Postgres::Running(Running::Primary { timeline, lsn }),
        standby(true, b()),
        standby(false, b()),
        standby(false, None),
        Postgres::Stopping { since: ago(100) },
        Postgres::Unresponsive { since: ago(60_000), primary: true },
        Postgres::Unresponsive { since: ago(100), primary: false },
    ];
    if slice == Slice::Crash {
        all.truncate(2);
    }
    if slice == Slice::Remote {
        all.extend([true, false].map(|streaming| standby(streaming, Some(Upstream::Remote))));
    }
    chooser.pick(&all)
}

fn data(chooser: &mut Chooser, slice: Slice, postgres: &Postgres) -> Data {
    let control = |standby, clean, system_id| {
        let (checkpoint, reached) = (Lsn(4000), Lsn(5000));
        Data::Present(Control {
            system_id,
            timeline: Timeline(2),
            checkpoint,
            reached,
            clean,
            standby,
            rewindable: true,
        })
    };
    let foreign = control(false, true, SystemId(6_000_000_000_000_000_001));
    let mut all = match postgres {
        Postgres::Running(Running::Primary { .. }) => vec![control(false, false, OURS)],
        Postgres::Running(Running::Standby { .. }) => vec![control(true, false, OURS)],
        Postgres::Stopped => vec![
            control(false, false, OURS),
            control(false, true, OURS),
            control(true, true, OURS),
            Data::Empty,
            Data::Incomplete,
            Data::Unusable,
        ],
        Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => {
            vec![control(false, false, OURS), control(true, false, OURS)]
        }
    };
    if matches!(slice, Slice::Orders | Slice::Jobs) {
        all.push(foreign);
    }
    // A mark that appears, or a disk that goes away, under what runs.
    match postgres {
        Postgres::Running(Running::Primary { .. }) if slice == Slice::Conditions => all.push(Data::Unusable),
        Postgres::Running(Running::Standby { .. }) if slice == Slice::Conditions => {
            all.push(Data::Incomplete);
        }
        _ => {}
    }
    chooser.pick(&all)
}

fn etcd(chooser: &mut Chooser, slice: Slice) -> Etcd {
    let contacts = [Some(Contact::Live), Some(Contact::Lost { since: ago(3000) }), None];
    let contact = chooser.pick_if(slice != Slice::Crash, &contacts);
    let Some(contact) = contact else {
        return Etcd::Never { since: ago(3000) };
    };
    let us = |ours, term| LeaderKey::Held { name: name("a"), term, ours };
    let leaders = [
        us(true, TERM),
        LeaderKey::Held { name: name("b"), term: Term(12), ours: false },
        LeaderKey::Free,
        us(false, TERM),
        LeaderKey::Spoiled { term: TERM },
    ];
    let leader = chooser.pick(if slice == Slice::Crash { &leaders[..2] } else { &leaders[..] });
    let claim = |ours| Initialize::InProgress { ours };
    let all = [Initialize::Done(OURS), Initialize::Absent, claim(false), claim(true), Initialize::Spoiled];
    let initialize = match slice {
        Slice::Jobs => chooser.pick(&all),
        Slice::Rejoin | Slice::Remote | Slice::Conditions => chooser.pick(&all[..2]),
        Slice::Alone | Slice::Wishes | Slice::Orders | Slice::Failsafe | Slice::Grey | Slice::Crash => all[0],
    };
    let wish = |leader: Option<&str>, candidate: Option<&str>, due| {
        Some(Failover { leader: leader.map(name), candidate: candidate.map(name), due, revision: 40 })
    };
    let wishes = [
        None,
        wish(Some("a"), Some("b"), Due::Now),
        wish(Some("a"), None, Due::Now),
        wish(None, Some("a"), Due::Now),
        wish(Some("b"), None, Due::Now),
        wish(Some("a"), Some("b"), Due::At(NOW.after(Duration::from_secs(60)))),
        wish(Some("a"), Some("b"), Due::At(ago(500))),
        wish(Some("a"), Some("b"), Due::At(ago(60_000))),
        wish(Some("a"), None, Due::Unreadable),
    ];
    let failover = match slice {
        Slice::Wishes => chooser.pick(&wishes),
        Slice::Remote => chooser.pick(&wishes[..2]),
        Slice::Conditions => chooser.pick(&[None, wishes[3].clone()]),
        Slice::Alone
        | Slice::Orders
        | Slice::Jobs
        | Slice::Rejoin
        | Slice::Grey
        | Slice::Failsafe
        | Slice::Crash => None,
    };
    let b = |primary, running, timeline| Member {
        primary,
        running,
        reachable: true,
        nofailover: false,
        sick: false,
        clonefrom: false,
        replicatefrom: None,
        sync_priority: 1,
        timeline: Some(timeline),
        lsn: Some(Lsn(5200)),
    };
    let (mut members, newer) = (BTreeMap::new(), slice == Slice::Rejoin);
    let other = chooser.pick(&[Some(b(true, true, Timeline(3))), Some(b(false, true, Timeline(2))), None]);
    if let Some(other) = other {
        members.insert(name("b"), other);
    }
    let last = |guarded, node, timeline| Some(Last { name: name(node), term: TERM, timeline, guarded });
    let last = chooser.pick_if(
        slice == Slice::Alone,
        &[
            None,
            last(true, "a", Timeline(2)),
            last(false, "a", Timeline(2)),
            last(false, "b", Timeline(2)),
            last(true, "b", Timeline(4)),
        ],
    );
    let writable = last.as_ref().filter(|last| last.name == name("a")).map(|last| Writable {
        name: last.name.clone(),
        term: last.term,
        timeline: last.timeline,
    });
    // What is planned is told by a leader that everybody knows to accept writes.
    let told = writable.is_some() && last.as_ref().is_some_and(|last| last.guarded);
    let failover = if told { chooser.pick(&[None, wishes[5].clone()]) } else { failover };
    let listed = |names: &[&str]| Some(names.iter().map(|no| name(no)).collect::<BTreeSet<_>>());
    let failsafe = chooser
        .pick_if(slice == Slice::Failsafe, &[listed(&["a", "b"]), listed(&["a"]), listed(&["b"]), None]);
    let ended = chooser.pick_if(newer, &[None, Some((Timeline(2), Lsn(4500)))]);
    let history = ended.into_iter().collect();
    // One with transactions left, where a hand-over that was begun waits for it.
    let busy = vec![Router { id: "r1".to_owned(), quiet: None, term: None, over: None, pooled: false }];
    let routers = if slice == Slice::Wishes && failover.is_none() { busy.clone() } else { Vec::new() };
    // One that has not heard of the term, where promotions wait for it; it leads to a pooler, and what was a primary waits for it as well.
    let pooled = busy.into_iter().map(|router| Router { pooled: true, ..router }).collect();
    let routers = if slice == Slice::Conditions { chooser.pick(&[routers, pooled]) } else { routers };
    let cluster = Cluster {
        revision: 50,
        initialize,
        leader,
        members,
        optime: Some(Lsn(5000)),
        failover,
        sync: None,
        writable,
        last,
        history,
        failsafe: failsafe.filter(|_| matches!(slice, Slice::Failsafe | Slice::Wishes)),
        routers,
        handed_over: None,
    };
    Etcd::Seen { cluster, contact }
}

fn job(chooser: &mut Chooser, slice: Slice, postgres: &Postgres) -> (Job, Option<Finished>) {
    if !matches!(slice, Slice::Jobs | Slice::Conditions | Slice::Crash) {
        return (Job::Idle, None);
    }
    let b = || Upstream::Member(name("b"));
    let rewind = Work::Rewind { from: b(), fork: None };
    let remote = || Upstream::Remote;
    let works = match postgres {
        _ if slice == Slice::Conditions => vec![Work::PrePromote(TERM)],
        _ if slice == Slice::Crash => {
            vec![Work::HandTail { to: name("b"), term: TERM, within: Duration::from_secs(5) }]
        }
        Postgres::Stopped => {
            vec![Work::Bootstrap, Work::Clone(b()), Work::Clone(remote()), Work::ArchiveTail, rewind]
        }
        _ => vec![Work::Checkpoint],
    };
    let work = chooser.pick(&works);
    let ways: &[u8] =
        if matches!(slice, Slice::Conditions | Slice::Crash) { &[0, 1, 2, 3] } else { &[0, 1, 2] };
    match chooser.pick(ways) {
        3 => (Job::Idle, None),
        0 => (Job::Running { work, since: ago(900) }, None),
        ok => (Job::Idle, Some(Finished { work, ok: ok == 1 })),
    }
}

/// A restart that is planned: none, overtaken, for later, due, too late, with a condition that does not hold.
fn planned() -> [Option<PlannedRestart>; 6] {
    let plan = |at, overtaken, unmet| Some(PlannedRestart { at, overtaken, unmet, within: None });
    [
        None,
        plan(NOW.after(Duration::from_secs(9)), true, None),
        plan(NOW.after(Duration::from_secs(9)), false, None),
        plan(ago(200), false, None),
        plan(ago(60_000), false, None),
        plan(ago(200), false, Some(Unmet::NotPending)),
    ]
}

fn memory(chooser: &mut Chooser, slice: Slice) -> Memory {
    let base = Memory::default();
    let race = |asked| Some(Race { since: ago(900), asked, refusal: None });
    let aside = |checkpointed: bool| {
        let (since, why, candidate) = (ago(100), StepAsideWhy::Switchover, Some(name("b")));
        let announced = checkpointed.then(|| ago(50));
        Some(StepAside { since, why, candidate, checkpointed, announced })
    };
    let tired = Retry { failures: 4, not_before: Some(NOW.after(Duration::from_secs(9))) };
    let rested = Retry { failures: 4, not_before: Some(ago(5)) };
    let mut all = vec![
        base.clone(),
        Memory { race: race(Some(ago(300))), ..base.clone() },
        Memory { race: race(Some(ago(3000))), ..base.clone() },
        Memory { stopping: Some((StopMode::Fast, ago(100))), ..base.clone() },
        Memory { stopping: Some((StopMode::Immediate, ago(90_000))), expected_stop: true, ..base.clone() },
    ];
    match slice {
        Slice::Alone | Slice::Jobs => all.extend([
            Memory { created: true, expected_stop: true, ..base.clone() },
            Memory { matched: true, term: Some(TERM), promoting: Some((TERM, ago(100))), ..base.clone() },
            Memory { promoting: Some((TERM, ago(900_000))), term: Some(TERM), ..base.clone() },
            Memory { crashes: vec![ago(9000), ago(6000), ago(3000)], ..base.clone() },
            Memory { bootstrap_failed: true, ..base },
        ]),
        Slice::Wishes => all.extend([
            Memory { step_aside: aside(false), ..base.clone() },
            Memory {
                step_aside: aside(true),
                no_race_before: Some(NOW.after(Duration::from_secs(2))),
                ..base.clone()
            },
            Memory { asked_for: Some((40, ago(300))), ..base.clone() },
            Memory { returning: true, ..base.clone() },
            Memory { asked_for: Some((40, ago(60_000))), ..base },
        ]),
        Slice::Orders => {
            let done = |order, stopped| Some(Ordered { order, stopped });
            all.extend([
                Memory { ordered: done(RESTART, false), ..base.clone() },
                Memory { ordered: done(RESTART, true), ..base.clone() },
                Memory { ordered: done(Order::LoadSlots, false), ..base.clone() },
                Memory { ordered: done(Order::LoadSlots, true), ..base.clone() },
                Memory { ordered: done(REINITIALIZE, false), ..base.clone() },
                Memory { ordered: done(REINITIALIZE, true), ..base.clone() },
                Memory {
                    ordered: done(REINITIALIZE, true),
                    reconciled: Some(Upstream::Member(name("b"))),
                    ..base
                },
            ]);
        }
        Slice::Remote => all.extend([
            Memory { step_aside: aside(true), ..base.clone() },
            Memory { created: true, expected_stop: true, ..base.clone() },
            Memory { must_rewind: true, tail_archived: true, ..base.clone() },
            Memory { dry_since: Some(ago(9000)), ..base.clone() },
            Memory { dry_since: Some(ago(9000)), history_asked: Some(ago(8000)), ..base },
        ]),
        Slice::Failsafe => {
            all.truncate(2);
            all.extend([
                Memory { failsafe_asked: Some(ago(700)), ..base.clone() },
                Memory { failsafe_until: Some(NOW.after(Duration::from_secs(3))), ..base },
            ]);
        }
        Slice::Conditions => {
            all.truncate(2);
            all.extend([
                Memory { expected_stop: true, ..base.clone() },
                Memory { created: true, ..base.clone() },
                Memory { pre_promoted: Some((TERM, true)), ..base.clone() },
                Memory { pre_promoted: Some((TERM, false)), ..base },
            ]);
        }
        Slice::Crash => {
            all.truncate(1);
            let b = || name("b");
            let crash =
                |number, handed, failed| Some(Crash { number, asked: Some(ago(300)), handed, failed });
            let loops = vec![ago(9000), ago(6000), ago(3000), ago(300)];
            all.extend([
                Memory { crash: crash(1, None, vec![]), crashes: vec![ago(300)], ..base.clone() },
                Memory { crash: crash(1, Some(b()), vec![]), ..base.clone() },
                Memory { crash: crash(1, None, vec![b()]), ..base.clone() },
                Memory { crashes: loops[..3].to_vec(), ..base.clone() },
                Memory { crash: crash(4, None, vec![]), crashes: loops.clone(), ..base.clone() },
                Memory { crash: crash(4, None, vec![b()]), crashes: loops, ..base.clone() },
                Memory { start: rested, down_since: Some(ago(400_000)), ..base },
            ]);
        }
        Slice::Grey => {
            all.truncate(2);
            let sick = Some(ha::Ailment::DiskFull { of: ha::Volume::Wal });
            let stopping = Some((StopMode::Immediate, ago(600)));
            all.extend([
                Memory { leaves_for: sick, stopping, ..base.clone() },
                Memory { step_aside: aside(false), ..base },
            ]);
        }
        Slice::Rejoin => all.extend([
            Memory { start: tired, down_since: Some(ago(400_000)), ..base.clone() },
            Memory { start: rested, down_since: Some(ago(400_000)), ..base.clone() },
            Memory { rewind: tired, clone: tired, must_rewind: true, ..base.clone() },
            Memory { rewind: Retry { failures: 1, ..tired }, must_rewind: true, ..base.clone() },
            Memory {
                rewind: rested,
                must_rewind: true,
                reconciled: Some(Upstream::Member(name("b"))),
                ..base.clone()
            },
            Memory { dry_since: Some(ago(9000)), ..base.clone() },
            Memory { dry_since: Some(ago(9000)), history_asked: Some(ago(9000)), ..base },
        ]),
    }
    chooser.pick(&all)
}

fn is_in_doubt(answer: &PeerAnswer) -> bool {
    matches!(answer, PeerAnswer::Said(facts) if facts.failsafe_active)
}

fn peers(chooser: &mut Chooser, slice: Slice) -> Peers {
    let said = |primary, lsn, asked| {
        let facts = PeerFacts {
            primary,
            timeline: Some(Timeline(2)),
            lsn: Lsn(lsn),
            nofailover: false,
            failover_priority: 1,
            replayed: Some(Lsn(lsn)),
            takes_wal: true,
            unprotected: false,
            sick: false,
            failsafe_active: false,
        };
        Peers { asked: Some(asked), answers: BTreeMap::from([(name("b"), PeerAnswer::Said(facts))]) }
    };
    let silent = Peers { asked: Some(ago(100)), answers: BTreeMap::from([(name("b"), PeerAnswer::Silent)]) };
    let mut in_doubt = said(false, 4900, ago(100));
    for answer in in_doubt.answers.values_mut() {
        if let PeerAnswer::Said(facts) = answer {
            facts.failsafe_active = true;
        }
    }
    let all = [
        Peers::default(),
        said(false, 4900, ago(100)),
        said(false, 5900, ago(100)),
        said(true, 1, ago(100)),
        silent,
        said(false, 1, ago(9000)),
        in_doubt,
    ];
    if slice == Slice::Failsafe {
        return chooser.pick(&[all[1].clone(), all[4].clone()]);
    }
    chooser.pick_if(matches!(slice, Slice::Wishes | Slice::Crash), &all)
}

fn failsafe(chooser: &mut Chooser, slice: Slice) -> Failsafe {
    let round = |over, names: &[&str]| {
        let accepted = names.iter().map(|no| name(no)).collect();
        Some(FailsafeRound { term: TERM, asked: ago(600), over, accepted })
    };
    let round = chooser.pick_if(slice == Slice::Failsafe, &[None, round(true, &[]), round(true, &["b"])]);
    let promise = FailsafePromise { to: name("b"), until: NOW.after(Duration::from_secs(2)) };
    let (old, new) = (ago(100_000), ago(1000));
    let (promise, began) =
        chooser.pick_if(slice == Slice::Failsafe, &[(None, old), (None, new), (Some(promise), old)]);
    // What counts until etcd was read.
    let kept = Some(BTreeSet::from([name("a"), name("b")]));
    Failsafe { began, listed: BTreeSet::new(), kept, round, promise }
}

fn signs(chooser: &mut Chooser, slice: Slice) -> Signs {
    let bad = ago(60_000);
    let signs = |wal_disk, pulse| Signs { wal_disk, pulse, ..Signs::default() };
    let all = [
        Signs::default(),
        signs(Disk::Full { since: bad }, Pulse::Beats),
        signs(Disk::Low { since: bad }, Pulse::Beats),
        signs(Disk::Hung { since: bad }, Pulse::Blocked { since: bad }),
        signs(Disk::Hung { since: ago(100) }, Pulse::Halted { since: ago(100) }),
        signs(Disk::Fine, Pulse::Halted { since: bad }),
        Signs { late: Some(ago(100)), ..signs(Disk::Fine, Pulse::Rests { since: bad }) },
        Signs { killed: Some(bad), ..Signs::default() },
    ];
    chooser.pick_if(slice == Slice::Grey, &all)
}

fn history(chooser: &mut Chooser, slice: Slice) -> LeaderHistory {
    let known = |of, lines: &[(u32, u64)]| LeaderHistory::Known {
        of,
        history: History {
            timeline: Timeline(3),
            lines: lines
                .iter()
                .map(|(timeline, end)| HistoryLine {
                    timeline: Timeline(*timeline),
                    end: Lsn(*end),
                    reason: String::new(),
                })
                .collect(),
        },
        asked: ago(8000),
    };
    let of = || match slice {
        Slice::Remote => Upstream::Remote,
        _ => Upstream::Member(name("b")),
    };
    chooser.pick_if(
        matches!(slice, Slice::Rejoin | Slice::Remote),
        &[
            LeaderHistory::Unknown,
            known(of(), &[(1, 900), (2, 5500)]),
            known(of(), &[(1, 900), (2, 4500)]),
            known(of(), &[(1, 900)]),
        ],
    )
}
