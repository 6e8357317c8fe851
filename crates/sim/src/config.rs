//! What a world is like: drawn from its seed, so that the seeds differ in more than their luck.

use crate::clock::{SECOND, Time};
use crate::faults::Kind;
use crate::known_bugs::KnownBug;
use crate::rng::Rng;
use crate::world::NodeNo;
use ha::{CrashRule, Rules, SyncMode, Synchronous};
use std::time::Duration;
use types::{TagValue, Tags};

/// A protection that is taken away, to see that its law is missed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Without {
    /// The guard does not kill.
    Guard,
    /// The clock is not read again before a promotion or the start of a primary.
    Door,
    /// Transactions do not compare the term.
    Terms,
    /// What the peers say about their positions is not heard in a race.
    Peers,
    /// A promotion takes the next timeline number, whoever may have used it before.
    Claims,
    /// The deadline counts from the answer to a renewal, and without a margin.
    SentTime,
    /// Every standby seems to have confirmed everything, so `/sync` promises too early.
    Confirmation,
    /// Who agrees that another leads on without etcd forgets it at once.
    Promises,
    /// A keep-alive that is answered counts as a renewal, whoever answers it.
    ProvenRenewals,
}

impl Without {
    /// All of them, with the word for the command line.
    pub const ALL: [(&'static str, Without); 9] = [
        ("guard", Without::Guard),
        ("door", Without::Door),
        ("terms", Without::Terms),
        ("peers", Without::Peers),
        ("claims", Without::Claims),
        ("sent-time", Without::SentTime),
        ("confirmation", Without::Confirmation),
        ("promises", Without::Promises),
        ("proven-renewals", Without::ProvenRenewals),
    ];
}

/// How a world differs from one in which all is done as it should be: not at all, unless somebody wants to see a law broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Twist {
    pub without: Option<Without>,
    pub bug: Option<KnownBug>,
}

impl From<Without> for Twist {
    fn from(without: Without) -> Twist {
        Twist { without: Some(without), bug: None }
    }
}

impl From<KnownBug> for Twist {
    fn from(bug: KnownBug) -> Twist {
        Twist { without: None, bug: Some(bug) }
    }
}

/// The settings of a world.
#[derive(Clone, Debug)]
pub struct Config {
    pub nodes: usize,
    pub rules: Rules,
    pub without: Option<Without>,
    pub bug: Option<KnownBug>,
    /// No fault before this.
    pub calm: Time,
    /// The end of the chaos.
    pub chaos: Time,
    /// The mean rest between two faults is half of this.
    pub fault_every: Time,
    pub faults: Vec<Kind>,
    /// Clocks drift by up to so many parts in a million.
    pub drift: u64,
    pub recovery: Time,
    pub promotion: Time,
    pub clone: Time,
    /// So many of a thousand jobs fail while there is chaos.
    pub job_failures: u64,
    pub tagged: bool,
    /// As the cluster begins; a fault changes it.
    pub synchronous: Synchronous,
    pub write_every: Time,
    pub write_bytes: u64,
    /// There are slots that shall survive a failover.
    pub slots: bool,
    /// A primary takes a standby that fell silent for one that is there for so long.
    pub walsender_patience: Time,
    /// The guard's kill takes up to so long.
    pub kill_takes: Time,
}

impl Config {
    /// Draws one.
    pub fn draw(rng: &mut Rng, twist: Twist) -> Config {
        let (ttl, loop_wait, retry_timeout) = *rng
            .pick(&[(5, 1, 2), (5, 1, 2), (2, 1, 1), (10, 2, 3), (20, 5, 5), (30, 10, 10)])
            .unwrap_or(&(5, 1, 2));
        let secs = Duration::from_secs;
        let rules = Rules {
            ttl: secs(ttl),
            loop_wait: secs(loop_wait),
            retry_timeout: secs(retry_timeout),
            maximum_lag_on_failover: *rng.pick(&[1 << 20, 1 << 20, 1 << 14]).unwrap_or(&(1 << 20)),
            pause: false,
            failsafe: rng.chance(500),
            check_timeline: rng.chance(300),
            primary_start_timeout: secs(*rng.pick(&[300, 300, 10, 0]).unwrap_or(&300)),
            primary_stop_timeout: secs(*rng.pick(&[0, 5, 30]).unwrap_or(&5)),
            synchronous: Synchronous::default(),
            pre_promote: ttl == 20,
            await_routers: secs(if ttl == 10 { 2 } else { 0 }),
            pooler: ttl == 5 || ttl == 30,
            may_bootstrap: true,
            may_rewind: rng.chance(800),
            may_copy_without_leader: false,
            standby_cluster: false,
            crash: *rng
                .pick(&[CrashRule::Auto, CrashRule::Auto, CrashRule::Restart, CrashRule::Failover])
                .unwrap_or(&CrashRule::Auto),
        };
        let faults: Vec<Kind> = Kind::ALL.into_iter().filter(|_| rng.chance(550)).collect();
        // A remote cluster counts its own timelines: after it, `check_timeline` waits for one that is gone, until a person names a member.
        let follows = faults.contains(&Kind::StandbyCluster);
        let rules = Rules { check_timeline: rules.check_timeline && !follows, ..rules };
        // Ten minutes without etcd want their time.
        let long = faults.contains(&Kind::EtcdGone) && rng.chance(150);
        let chaos = if long { rng.between(660, 900) } else { rng.between(60, 300) } * SECOND;
        Config {
            nodes: *rng.pick(&[2, 3, 3, 3, 3, 4, 5]).unwrap_or(&3),
            rules,
            without: twist.without,
            bug: twist.bug,
            calm: if rng.chance(800) { 20 * SECOND } else { 0 },
            chaos,
            fault_every: rng.between(1, 30) * SECOND,
            faults,
            drift: *rng.pick(&[0, 200, 5000]).unwrap_or(&0),
            recovery: rng.between(1, 15) * SECOND,
            promotion: rng.between(20, 1000) * 1000,
            clone: rng.between(1, 15) * SECOND,
            job_failures: *rng.pick(&[0, 100, 500]).unwrap_or(&0),
            tagged: rng.chance(200),
            synchronous: synchronous(rng),
            write_every: rng.between(20, 500) * 1000,
            write_bytes: *rng.pick(&[200, 8192, 100_000]).unwrap_or(&200),
            slots: rng.chance(500),
            walsender_patience: *rng.pick(&[2, 10, 60]).unwrap_or(&10) * SECOND,
            kill_takes: *rng
                .pick(&[SECOND / 100, crate::clock::span(Rules::margin(secs(ttl))) * 6 / 10])
                .unwrap_or(&(SECOND / 100)),
        }
    }

    /// What a recovery replays a second, as an agent would have measured it.
    #[must_use]
    pub fn redo_rate(&self) -> u64 {
        self.write_bytes * 4
    }

    /// The tags of a node; the first two may always lead.
    pub fn tags(&self, node: NodeNo, rng: &mut Rng) -> Tags {
        let mut tags = Tags::default();
        if self.tagged && node >= 2 && rng.chance(500) {
            tags.0.insert("nofailover".to_owned(), TagValue::Bool(true));
        }
        if self.tagged && rng.chance(200) {
            tags.0.insert("nosync".to_owned(), TagValue::Bool(true));
        }
        if self.tagged && rng.chance(300) {
            tags.0.insert("failover_priority".to_owned(), TagValue::Int(rng.between(1, 3) as i64));
        }
        if self.tagged && rng.chance(300) {
            let name = ["a", "b", "c", "d", "e"].get(rng.below(self.nodes as u64) as usize);
            let name = name.copied().unwrap_or_default().to_owned();
            tags.0.insert("replicatefrom".to_owned(), TagValue::Text(name));
        }
        if self.tagged && rng.chance(300) {
            tags.0.insert("clonefrom".to_owned(), TagValue::Bool(true));
        }
        tags
    }

    /// A promotion takes the next timeline number without asking.
    #[must_use]
    pub fn skips_claims(&self) -> bool {
        self.without == Some(Without::Claims) || self.bug == Some(KnownBug::SameTimeline)
    }

    /// Nobody kills a primary whose deadline has passed.
    #[must_use]
    pub fn lacks_guard(&self) -> bool {
        self.without == Some(Without::Guard) || self.bug == Some(KnownBug::IsolatedPrimary)
    }

    /// Another mode than now, or the same.
    pub fn flip(&self, rng: &mut Rng) -> Synchronous {
        synchronous(rng)
    }

    /// The cluster must be healthy so long after the last fault is gone: a lease that ends, the longest rest between two tries,
    /// two copies, two recoveries, and some turns.
    #[must_use]
    pub fn bound(&self) -> Time {
        let rules = &self.rules;
        let turns =
            rules.ttl * 4 + rules.loop_wait * 4 + rules.retry_timeout * 4 + rules.primary_stop_timeout;
        crate::clock::span(turns) + 2 * (self.clone + self.recovery) + 95 * SECOND
    }
}

fn synchronous(rng: &mut Rng) -> Synchronous {
    let modes =
        [SyncMode::Off, SyncMode::Off, SyncMode::On, SyncMode::On, SyncMode::Quorum, SyncMode::Quorum];
    Synchronous {
        mode: *rng.pick(&modes).unwrap_or(&SyncMode::Off),
        strict: rng.chance(400),
        count: *rng.pick(&[1, 1, 1, 2]).unwrap_or(&1),
        maximum_lag: rng.chance(200).then_some(1 << 14),
    }
}
