//! Accidents of other systems, re-created: each can be switched on, and the laws must find it again.
//!
//! ```text
//!   what the agent sees ──[distorted]──► ha::decide ──► actions ──[some left out, or done badly]──► the world
//! ```
//! The decisions know nothing of it: a bug is made of what they are shown and of what becomes of their actions. The list, with what
//! each models, is in `docs/simulation.md`; a test finds each of them within the number of seeds that is stated here.

use crate::agent::Agent;
use ha::{Authority, Contact, Etcd, Observation, PeerAnswer, PeerFacts, Postgres, Running, Standby};
use std::collections::BTreeMap;
use types::{Lsn, NodeName};

/// An accident that happened to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KnownBug {
    StalePrimary,
    OldReplica,
    HalfCopied,
    SameTimeline,
    IsolatedPrimary,
    TailThrownAway,
    PreferredDurability,
    QuorumOfOne,
    StuckSyncList,
    PauseForgotten,
    SlotLeftBehind,
    SlotGap,
    HalfRewound,
    EarlyRewind,
    HastyDemotion,
    VipStays,
    SilentRefusal,
    HungPostmaster,
    EarlyReader,
}

/// What is known of an accident.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub bug: KnownBug,
    /// The word for the command line.
    pub name: &'static str,
    /// Where it happened.
    pub seen: &'static str,
    pub models: &'static str,
    /// The laws that find it.
    pub laws: &'static [u8],
    /// Within so many seeds, from 0 on.
    pub seeds: u64,
}

/// All of them.
pub const KNOWN_BUGS: [Entry; 19] = [
    Entry {
        bug: KnownBug::StalePrimary,
        name: "stale-primary",
        seen: "patroni #2787",
        models: "who takes the lead compares no timelines: neither with those of the peers nor with what the cluster remembers of its last leader",
        laws: &[2, 5],
        seeds: 800,
    },
    Entry {
        bug: KnownBug::OldReplica,
        name: "old-replica",
        seen: "stolon #783",
        models: "who takes the lead compares no positions: a replica that is days behind is as good as any",
        laws: &[2, 3],
        seeds: 100,
    },
    Entry {
        bug: KnownBug::HalfCopied,
        name: "half-copied",
        seen: "stolon #917",
        models: "a data directory whose copy was broken off is taken for a complete one and started",
        laws: &[8],
        seeds: 100,
    },
    Entry {
        bug: KnownBug::SameTimeline,
        name: "same-timeline",
        seen: "patroni #890",
        models: "a promotion takes the next timeline number, whoever may have used it before",
        laws: &[5, 11],
        seeds: 200,
    },
    Entry {
        bug: KnownBug::IsolatedPrimary,
        name: "isolated-primary",
        seen: "cloudnative-pg #7407, #11280; fly postgres-flex #55",
        models: "a primary that is cut off goes on: its agent does not stop it at the deadline, and nothing else does",
        laws: &[1],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::TailThrownAway,
        name: "tail-thrown-away",
        seen: "canonical postgresql-operator #1173",
        models: "a rewind or a new copy throws the diverged WAL away",
        laws: &[8],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::PreferredDurability,
        name: "preferred-durability",
        seen: "cloudnative-pg #8790",
        models: "without a standby commits wait for nobody, and those that may be promoted are not told",
        laws: &[2, 4],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::QuorumOfOne,
        name: "quorum-of-one",
        seen: "cloudnative-pg #1688",
        models: "in quorum mode one standby that is seen is enough for an election",
        laws: &[2],
        seeds: 2000,
    },
    Entry {
        bug: KnownBug::StuckSyncList,
        name: "stuck-sync-list",
        seen: "cloudnative-pg #5257",
        models: "a synchronous standby that has gone stays in synchronous_standby_names: commits wait for it for ever",
        laws: &[11],
        seeds: 400,
    },
    Entry {
        bug: KnownBug::PauseForgotten,
        name: "pause-forgotten",
        seen: "patroni #768, #2834",
        models: "a pause that is not one: the agent acts as if there were none",
        laws: &[6],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::SlotLeftBehind,
        name: "slot-left-behind",
        seen: "cloudnative-pg #9969",
        models: "slots are not brought to the standbys, and nobody hears of it before the next switchover",
        laws: &[10],
        seeds: 400,
    },
    Entry {
        bug: KnownBug::SlotGap,
        name: "slot-gap",
        seen: "patroni #1749",
        models: "a slot on a standby is moved to what is replayed there, wherever its consumer is",
        laws: &[10],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::HalfRewound,
        name: "half-rewound",
        seen: "patroni #3652",
        models: "a data directory whose rewind was broken off is started",
        laws: &[8],
        seeds: 200,
    },
    Entry {
        bug: KnownBug::EarlyRewind,
        name: "early-rewind",
        seen: "patroni #2073, #3367",
        models: "a rewind before the new primary's first checkpoint sees its old timeline and finds nothing to do",
        laws: &[8],
        seeds: 100,
    },
    Entry {
        bug: KnownBug::HastyDemotion,
        name: "hasty-demotion",
        seen: "patroni #1195, #2167; GitLab 2019",
        models: "a primary is demoted because etcd did not answer once, although its lease is good",
        laws: &[7],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::VipStays,
        name: "vip-stays",
        seen: "vip-manager #354",
        models: "the virtual address has no lifetime and is removed only when etcd says that another leads",
        laws: &[9],
        seeds: 50,
    },
    Entry {
        bug: KnownBug::SilentRefusal,
        name: "silent-refusal",
        seen: "patroni #1894",
        models: "no standby qualifies, and none says why",
        laws: &[12],
        seeds: 100,
    },
    Entry {
        bug: KnownBug::HungPostmaster,
        name: "hung-postmaster",
        seen: "patroni #1371",
        models: "an old connection still answers, so a PostgreSQL that hangs seems to run",
        laws: &[11],
        seeds: 1200,
    },
    Entry {
        bug: KnownBug::EarlyReader,
        name: "early-reader",
        seen: "pgbouncer #1311",
        models: "an old primary comes up for reading at once, while sessions are still led to the pooler beside it",
        laws: &[13],
        seeds: 100,
    },
];

impl KnownBug {
    /// What is known of it.
    #[must_use]
    pub fn entry(self) -> Entry {
        KNOWN_BUGS.into_iter().find(|entry| entry.bug == self).unwrap_or(KNOWN_BUGS[0])
    }

    /// What the decision is shown instead of what is there.
    #[must_use]
    pub fn distorts(self, agent: &Agent) -> Observation {
        let mut seen = agent.seen.clone();
        match self {
            KnownBug::StalePrimary => {
                if let Etcd::Seen { cluster, .. } = &mut seen.etcd {
                    cluster.last = None;
                    cluster.history.clear();
                }
                each_peer(&mut seen, |facts| facts.timeline = None);
            }
            KnownBug::OldReplica => {
                if let Etcd::Seen { cluster, .. } = &mut seen.etcd {
                    cluster.optime = None;
                }
                each_peer(&mut seen, |facts| facts.lsn = Lsn(0));
            }
            KnownBug::QuorumOfOne => {
                let leads = seen.authority != Authority::None;
                if let (Etcd::Seen { cluster, .. }, false) = (&mut seen.etcd, leads)
                    && let Some(key) = &mut cluster.sync
                {
                    key.promise.quorum = 0;
                }
            }
            KnownBug::StuckSyncList => {
                if let Some(replication) = &mut seen.replication {
                    replication.standbys.extend(gone(&agent.ghosts, &replication.standbys));
                }
                if let Etcd::Seen { cluster, .. } = &mut seen.etcd {
                    for (name, (_, member)) in &agent.ghosts {
                        cluster.members.entry(name.clone()).or_insert_with(|| member.clone());
                    }
                }
            }
            KnownBug::PauseForgotten => seen.rules.pause = false,
            KnownBug::HastyDemotion => {
                if let Etcd::Seen { contact: Contact::Lost { .. }, .. } = &seen.etcd {
                    seen.authority = Authority::None;
                }
            }
            KnownBug::EarlyReader => {
                seen.rules.pooler = false;
                if let Etcd::Seen { cluster, .. } = &mut seen.etcd {
                    cluster.routers.iter_mut().for_each(|router| router.pooled = false);
                }
            }
            KnownBug::HungPostmaster => {
                if let (Postgres::Unresponsive { .. }, Some(before)) = (&seen.postgres, &agent.ran) {
                    seen.postgres = Postgres::Running(before.clone());
                }
            }
            KnownBug::HalfCopied
            | KnownBug::HalfRewound
            | KnownBug::SameTimeline
            | KnownBug::IsolatedPrimary
            | KnownBug::TailThrownAway
            | KnownBug::PreferredDurability
            | KnownBug::SlotLeftBehind
            | KnownBug::SlotGap
            | KnownBug::EarlyRewind
            | KnownBug::VipStays
            | KnownBug::SilentRefusal => {}
        }
        seen
    }
}

fn each_peer(seen: &mut Observation, change: impl Fn(&mut PeerFacts)) {
    for answer in seen.peers.answers.values_mut() {
        if let PeerAnswer::Said(facts) = answer {
            change(facts);
        }
    }
}

fn gone(ghosts: &Ghosts, there: &[Standby]) -> Vec<Standby> {
    let missing = ghosts.values().filter(|(ghost, _)| there.iter().all(|one| one.name != ghost.name));
    missing.map(|(ghost, _)| ghost.clone()).collect()
}

/// Standbys as they were when they were last there.
pub type Ghosts = BTreeMap<NodeName, (Standby, ha::Member)>;

impl Agent {
    /// Remembers what a bug may show later.
    pub fn keep_ghosts(&mut self) {
        if let Postgres::Running(running @ Running::Primary { .. }) = &self.seen.postgres {
            self.ran = Some(running.clone());
        }
        let (Some(replication), Etcd::Seen { cluster, .. }) = (&self.seen.replication, &self.seen.etcd)
        else {
            return;
        };
        for standby in &replication.standbys {
            if let Some(member) = cluster.members.get(&standby.name) {
                self.ghosts.insert(standby.name.clone(), (standby.clone(), member.clone()));
            }
        }
    }
}
