//! Many seeds, and what came of them.

use crate::clock::{SECOND, Time};
use crate::config::Twist;
use crate::faults::Kind;
use crate::invariants::Broken;
use crate::world::World;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A broken law.
#[derive(Clone, Debug)]
pub struct Finding {
    pub seed: u64,
    pub broken: Broken,
}

/// What came of some seeds.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub simulated: Time,
    pub events: u64,
    pub faults: BTreeMap<Kind, u64>,
    /// How often one began while the other lasted.
    pub pairs: BTreeMap<(Kind, Kind), u64>,
    pub checked: BTreeMap<u8, u64>,
    pub acknowledged: u64,
    /// Of those: in a synchronous mode.
    pub promised: u64,
    pub refused: u64,
    /// Acknowledged writes that the last primary does not have: what asynchronous replication costs.
    pub lost: u64,
    /// Runs that ended with disks on which nobody may lead without a person's word.
    pub waits: u64,
    pub findings: Vec<Finding>,
}

impl Report {
    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.simulated as f64 / (3600 * SECOND) as f64
    }

    fn add(&mut self, other: Report) {
        self.seeds += other.seeds;
        self.simulated += other.simulated;
        self.events += other.events;
        for (kind, count) in other.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (pair, count) in other.pairs {
            *self.pairs.entry(pair).or_default() += count;
        }
        for (law, count) in other.checked {
            *self.checked.entry(law).or_default() += count;
        }
        self.acknowledged += other.acknowledged;
        self.promised += other.promised;
        self.refused += other.refused;
        self.lost += other.lost;
        self.waits += other.waits;
        self.findings.extend(other.findings);
    }
}

fn one(seed: u64, twist: Twist) -> Report {
    let mut world = World::new(seed, twist, false);
    world.run();
    let primary = world.nodes.iter().find(|node| node.postgres.accepts_writes());
    let last = primary.and_then(|node| node.postgres.disk.database());
    let lost =
        last.map_or(0, |last| world.router.writes.iter().filter(|write| !last.wal.has(**write)).count());
    Report {
        seeds: 1,
        simulated: world.now,
        events: world.events,
        faults: world.chaos.count,
        pairs: world.chaos.pairs,
        checked: world.laws.checked,
        acknowledged: world.router.acknowledged,
        promised: world.laws.promised.count,
        refused: world.router.refused,
        lost: lost as u64,
        waits: u64::from(world.laws.healing.waits),
        findings: world.laws.broken.map(|broken| Finding { seed, broken }).into_iter().collect(),
    }
}

/// Runs the seeds from `first` on, on so many threads; ends early after `enough` findings.
#[must_use]
pub fn run_seeds(first: u64, count: u64, threads: usize, twist: Twist, enough: usize) -> Report {
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                let mut sum = Report::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count {
                        break;
                    }
                    sum.add(one(seed, twist));
                    if sum.findings.len() >= enough {
                        stop.store(true, Ordering::Relaxed);
                    }
                }
                if let Ok(mut total) = total.lock() {
                    total.add(sum);
                }
            });
        }
    });
    let mut report = total.into_inner().unwrap_or_default();
    report.findings.sort_by_key(|finding| finding.seed);
    report
}

/// Runs one seed again and tells its story.
#[must_use]
pub fn story(seed: u64, twist: Twist) -> World {
    let mut world = World::new(seed, twist, true);
    let head = format!("seed {seed}: {:?}", world.config);
    world.note(None, &head);
    world.run();
    world
}
