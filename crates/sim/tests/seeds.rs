//! A bounded number of seeds must be clean, and each protection that is taken away must be missed.

use ha::Rules;
use sim::clock::{SECOND, span};
use sim::faults::Kind;
use sim::world::World;
use sim::{Twist, Without, run_seeds, story};
use std::time::Duration;
use types::Timeline;

const THREADS: usize = 2;
/// A request that was lost is noticed, and the next one is answered, within this time.
const RENEWAL: Duration = Duration::from_millis(2700);

#[test]
fn no_seed_breaks_a_law() {
    let report = run_seeds(1_000_000, 400, THREADS, Twist::default(), 1);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(report.seeds, 400);
    let unlooked: Vec<u8> = (1..=13).filter(|law| !report.checked.contains_key(law)).collect();
    assert!(unlooked.is_empty(), "laws nobody looked at: {unlooked:?}");
    assert!(report.faults.len() >= 35, "faults of {} kinds only", report.faults.len());
    assert!(report.waits <= 2, "{} runs ended with nobody who may lead", report.waits);
    assert!(report.acknowledged > 10_000, "only {} writes", report.acknowledged);
}

/// Whether one of these laws is broken in up to so many seeds without this protection.
fn missed(without: Without, seeds: u64, laws: &[u8]) -> bool {
    (0..seeds).step_by(50).any(|from| {
        let report = run_seeds(from, 50, THREADS, without.into(), 50);
        report.findings.iter().any(|finding| laws.contains(&finding.broken.law))
    })
}

#[test]
fn without_the_guard_two_nodes_accept_writes() {
    assert!(missed(Without::Guard, 300, &[1]));
}

#[test]
fn every_other_protection_is_missed_too() {
    assert!(missed(Without::Peers, 500, &[2, 3]));
    assert!(missed(Without::Terms, 2000, &[1, 2, 3]));
    assert!(missed(Without::Claims, 1000, &[5, 11]));
    assert!(missed(Without::Confirmation, 2000, &[2]));
    assert!(missed(Without::Promises, 2000, &[1]));
    assert!(missed(Without::ProvenRenewals, 2000, &[1, 3, 9]));
}

/// The second look at the clock matters when something slow lies between the decision and the signal: seeds with other faults rarely show it.
#[test]
fn without_the_look_at_the_door_a_late_promotion_begins() {
    let found = (0..4000).any(|seed| {
        let mut world = World::new(seed, Without::Door.into(), false);
        world.config.faults =
            vec![Kind::SlowEtcd, Kind::LossyEtcd, Kind::Switchover, Kind::PostgresCrash, Kind::AgentKill];
        world.config.fault_every = 4 * SECOND;
        world.run();
        world.laws.broken.is_some_and(|broken| broken.law == 3)
    });
    assert!(found);
}

/// No law is broken, nobody was promoted, and PostgreSQL was started as often as where nothing happens: everywhere once, the first one
/// again after its bootstrap, and each standby once more to load its copies of logical slots.
fn undisturbed(seed: u64, world: &World) {
    assert!(world.laws.broken.is_none(), "seed {seed}: {:?}", world.laws.broken);
    assert_eq!(world.etcd.keys.claimed, Timeline(1), "seed {seed}: somebody was promoted");
    let starts: u32 = world.nodes.iter().map(|node| node.postgres.starts).sum();
    assert!(starts as usize <= 2 * world.nodes.len(), "seed {seed}: PostgreSQL was started {starts} times");
}

/// With failsafe mode nobody is stopped, promoted or replaced while all of etcd is away.
#[test]
fn an_outage_of_etcd_alone_changes_nothing() {
    for seed in 0..20 {
        let mut world = World::new(seed, Twist::default(), false);
        world.config.calm = 20 * SECOND;
        world.config.faults = vec![Kind::EtcdOutage];
        world.config.rules.failsafe = true;
        world.run();
        undisturbed(seed, &world);
    }
}

/// Ten minutes without any etcd: with failsafe mode the same member leads before and after, and PostgreSQL was never stopped.
#[test]
fn ten_minutes_without_etcd_change_nothing() {
    for seed in 0..10 {
        let mut world = World::new(seed, Twist::default(), false);
        world.config.calm = 20 * SECOND;
        world.config.chaos = 700 * SECOND;
        world.config.fault_every = 0;
        world.config.faults = Vec::new();
        world.config.rules.failsafe = true;
        world.outage(30 * SECOND, 600 * SECOND);
        world.run();
        undisturbed(seed, &world);
    }
}

/// The lead is never given up for an outage that is shorter than what is left of the lease, failsafe mode or not.
#[test]
fn an_outage_shorter_than_the_lease_changes_nothing() {
    for seed in 0..60 {
        let mut world = World::new(seed, Twist::default(), false);
        let rules = &mut world.config.rules;
        rules.failsafe = false;
        // The last renewal may be this old when the outage begins, and the first one after it takes a moment.
        let old = rules.renew_every() + rules.stop_budget() + Rules::margin(rules.ttl) + RENEWAL;
        let Some(short) = rules.ttl.checked_sub(old) else { continue };
        world.config.calm = 120 * SECOND;
        world.config.chaos = 100 * SECOND;
        world.config.faults = Vec::new();
        world.outage(40 * SECOND, span(short));
        world.run();
        undisturbed(seed, &world);
    }
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let lines = |seed| story(seed, Twist::default()).trace.lines().map(str::to_owned).collect::<Vec<_>>();
    let first = lines(11);
    assert!(first.len() > 100);
    assert_eq!(first, lines(11));
}
