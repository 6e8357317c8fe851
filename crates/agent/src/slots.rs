//! The replication slots of this PostgreSQL: looked after beside the loop, which never waits for them.
//!
//! ```text
//!   every loop_wait, and at once when roles, members, configuration or /status change:
//!   Round + slots that are there ──ha::slots::plan──► SQL here ─► /status.retain_slots (publish)
//!                                                 ├─► logical: moved in a task of its own, it can take long
//!                                                 └─► copies: read from the primary, placed at a restart (copies.rs)
//! ```

mod copies;

pub(crate) use copies::place_copies;

use crate::failsafe::Failsafe;
use crate::local::Local;
use crate::orders::Orders;
use crate::wake::{Cell, Wake};
use copies::Copies;
use etcd::Snapshot;
use ha::slots::{self, Memory, Plan, Post, Report, Seen, Tenant};
use ha::{Observation, Postgres, Running};
use postgres::connection::SqlError;
use postgres::probe::Facts;
use postgres::slots::{SlotPlan, SlotsDone, advance_logical, execute};
use settings::{Dynamic, Settings};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, Moment, NodeName};

const SQL_WITHIN: Duration = Duration::from_secs(5);
const FACTS_WITHIN: Duration = Duration::from_secs(2);
/// PostgreSQL decodes all WAL between two positions of a logical slot.
const DECODING_WITHIN: Duration = Duration::from_secs(600);

/// What a round goes by.
#[derive(Clone)]
pub(crate) struct Round {
    leads: bool,
    leader: Option<NodeName>,
    pause: bool,
    loop_wait: Duration,
    dynamic: Arc<Dynamic>,
    config_revision: i64,
    snapshot: Arc<Snapshot>,
    /// Where the slots of a leader without etcd are, as it said when it asked for our word.
    told: BTreeMap<String, Lsn>,
    /// How far the members are that gave their word to us.
    reached: BTreeMap<NodeName, Lsn>,
}

impl Round {
    /// `None` while PostgreSQL runs as neither: then nobody's slots are touched.
    pub(crate) fn of(
        seen: &Observation,
        dynamic: &Arc<Dynamic>,
        config_revision: i64,
        snapshot: Option<Arc<Snapshot>>,
    ) -> Option<Round> {
        let leads = seen.leads(clock::now()).is_some();
        let serves = match &seen.postgres {
            Postgres::Running(Running::Primary { .. }) => leads,
            Postgres::Running(Running::Standby { .. }) => !leads || dynamic.standby_cluster.is_some(),
            Postgres::Stopped
            | Postgres::Starting { .. }
            | Postgres::Stopping { .. }
            | Postgres::Unresponsive { .. } => false,
        };
        let snapshot = snapshot.filter(|_| serves)?;
        Some(Round {
            leads,
            leader: seen.other_leader().cloned(),
            pause: seen.rules.pause,
            loop_wait: seen.rules.loop_wait,
            dynamic: dynamic.clone(),
            config_revision,
            snapshot,
            told: BTreeMap::new(),
            reached: BTreeMap::new(),
        })
    }

    /// What leader and members told each other while etcd is away takes the place of what they would have read there.
    pub(crate) fn with(mut self, failsafe: &Failsafe) -> Round {
        match failsafe.promised() {
            Some((_, slots)) if !self.leads => self.told = slots,
            Some(_) | None => {}
        }
        self.reached = failsafe.reached();
        self
    }

    /// Where the leader's slots are. What an earlier leader wrote is not heard: the consumers of its slots may have been further than
    /// the present one's WAL, and a slot that is moved there would lose what they get from it.
    fn promised(&self) -> BTreeMap<String, Lsn> {
        if !self.told.is_empty() {
            return self.told.clone();
        }
        let snapshot = &self.snapshot;
        let of_this_term = snapshot.leader.as_ref().is_some_and(|leader| snapshot.status_mod > leader.term.0);
        let status = snapshot.status.as_ref().filter(|_| of_this_term);
        status.map(|status| status.slots.clone()).unwrap_or_default()
    }

    /// What a change of makes a round due at once.
    fn shape(&self) -> Shape {
        let members = self.snapshot.members.iter();
        let tenant =
            |(name, member): (&NodeName, &etcd::Member)| (name.clone(), Tenant::of(&member.tags, None));
        Shape {
            leads: self.leads,
            leader: self.leader.clone(),
            config_revision: self.config_revision,
            members: members.map(tenant).collect(),
            promised: if self.leads { BTreeMap::new() } else { self.promised() },
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Shape {
    leads: bool,
    leader: Option<NodeName>,
    config_revision: i64,
    members: Vec<(NodeName, Tenant)>,
    promised: BTreeMap<String, Lsn>,
}

/// Looks after the slots; a cheap clone.
#[derive(Clone)]
pub(crate) struct Slots {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Cell<Arc<Settings>>,
    local: Local,
    copies: Copies,
    round: Cell<Option<Round>>,
    poke: Wake,
    /// `None` until a round was made as the leader.
    retained: Cell<Option<Vec<String>>>,
    /// A logical slot is being moved.
    moving: Cell<bool>,
    /// Copies that could not be moved for good: the WAL they need is gone here.
    broken: Cell<BTreeSet<String>>,
}

/// What the rounds remember.
#[derive(Default)]
struct Past {
    memory: Memory,
    done: Option<(Shape, Moment)>,
    reports: Vec<Report>,
    /// The last complaint about each slot.
    complaints: BTreeMap<(String, &'static str), String>,
}

impl Slots {
    pub(crate) fn new(settings: Arc<Settings>, local: Local, orders: Orders) -> Slots {
        Slots {
            inner: Arc::new(Inner {
                copies: Copies::new(settings.clone(), local.clone(), orders),
                settings: Cell::new(settings),
                local,
                round: Cell::new(None),
                poke: Wake::default(),
                retained: Cell::new(None),
                moving: Cell::new(false),
                broken: Cell::new(BTreeSet::new()),
            }),
        }
    }

    /// The file was read again.
    pub(crate) fn use_settings(&self, settings: &Arc<Settings>) {
        self.inner.settings.with(|kept| kept.clone_from(settings));
        self.inner.copies.use_settings(settings);
    }

    /// Replaces what the rounds go by.
    pub(crate) fn look_after(&self, round: Option<Round>) {
        self.inner.round.with(|kept| *kept = round);
        self.inner.poke.wake();
    }

    /// For `/status.retain_slots`; `None` while what the leader before has written there still holds.
    pub(crate) fn retained(&self) -> Option<Vec<String>> {
        self.inner.retained.get()
    }

    /// Copies of logical slots that are not proven to be usable after a promotion.
    pub(crate) fn unready(&self) -> Vec<String> {
        self.inner.copies.unready()
    }

    /// Right before a promotion: copies of logical slots that may lack rows of the catalogs.
    pub(crate) fn warn_of_unready(&self) {
        let unready = self.inner.copies.unready();
        if !unready.is_empty() {
            let slots = unready.join(", ");
            tracing::warn!(
                slots,
                "logical replication slots were copied too recently to be sure of: check their consumers after this promotion"
            );
        }
    }

    /// Looks after them for ever; ends when dropped.
    pub(crate) async fn run(self) {
        let mut past = Past::default();
        loop {
            let _ = tokio::time::timeout(Duration::from_secs(1), self.inner.poke.changed()).await;
            let Some(round) = self.inner.round.get() else {
                past.done = None;
                continue;
            };
            let shape = round.shape();
            let due = match &past.done {
                Some((done, at)) => *done != shape || clock::now().since(*at) >= round.loop_wait,
                None => true,
            };
            if due {
                past.done = Some((shape, clock::now()));
                self.one_round(&round, &mut past).await;
            }
        }
    }

    async fn one_round(&self, round: &Round, past: &mut Past) {
        let Some((facts, _)) = self.inner.local.fresh(FACTS_WITHIN).await.facts else { return };
        let standby_cluster = round.dynamic.standby_cluster.is_some();
        if facts.in_recovery == (round.leads && !standby_cluster) {
            // A promotion or a demotion is under way.
            past.done = None;
            return;
        }
        let seen = self.seen(round, &facts);
        let (plan, memory) = slots::plan(&seen, &past.memory, clock::now());
        past.memory = memory;
        let retain = round.leads.then(|| plan.retain.clone());
        self.inner.retained.with(|retained| *retained = retain);
        for report in plan.reports.iter().filter(|report| !past.reports.contains(report)) {
            tracing::warn!("{report}");
        }
        past.reports.clone_from(&plan.reports);
        self.inner.local.await_slots(plan.awaited.clone());
        self.carry_out(&plan, past).await;
        self.move_logical(&plan);
        let copies = &self.inner.copies;
        let wanted = (!round.leads).then_some(&round.dynamic.slots);
        copies.prove(&facts, wanted, round.leader.as_ref(), &round.snapshot).await;
        if !plan.copy.is_empty() {
            copies.fetch(&plan.copy, &facts, &round.dynamic, round.leader.as_ref(), &round.snapshot).await;
        }
    }

    fn seen(&self, round: &Round, facts: &Facts) -> Seen {
        let dynamic = &round.dynamic;
        let status = round.snapshot.status.clone().unwrap_or_default();
        let tenants = round.snapshot.members.iter();
        let mut there = facts.slots.clone();
        self.inner.broken.with(|broken| {
            for slot in there.iter_mut().filter(|slot| !round.leads && broken.remove(&slot.name)) {
                slot.wal_status = Some("lost".to_owned());
            }
        });
        Seen {
            me: self.inner.settings.get().name.clone(),
            nofailover: self.inner.settings.get().tags.nofailover(),
            post: if round.leads {
                Post::Leads
            } else {
                Post::Follows {
                    leader: round.leader.clone(),
                    replayed: facts.replayed_lsn,
                    slot_sync: facts.slot_sync,
                }
            },
            standby_cluster: dynamic.standby_cluster.is_some(),
            pause: round.pause,
            rules: slots::Rules {
                use_slots: dynamic.use_slots,
                ttl: Duration::from_secs(dynamic.member_slots_ttl.into()),
                grace: round.loop_wait,
                failover_slots: facts.server_version >= settings::FAILOVER_SLOTS_SINCE,
                patience: Duration::from_secs(dynamic.ttl.into()),
            },
            members: tenants
                .map(|(name, member)| {
                    let told = round.reached.get(name).copied();
                    (name.clone(), Tenant::of(&member.tags, member.xlog_location.max(told)))
                })
                .collect(),
            permanent: dynamic.slots.clone(),
            ignored: dynamic.ignore_slots.clone(),
            there,
            promised: round.promised(),
            retained: status.retain_slots,
            voters: voters(dynamic, &round.snapshot),
        }
    }

    async fn carry_out(&self, plan: &Plan, past: &mut Past) {
        let orders = SlotPlan {
            drop: plan.drop.iter().map(|drop| drop.name.clone()).collect(),
            create: plan.create.clone(),
            mark: plan.mark.clone(),
            clear: plan.clear.clone(),
            advance: plan.advance.clone(),
        };
        if orders.is_empty() {
            return;
        }
        let to = self.inner.local.connect().named("baton slots");
        match execute(&to, &orders, SQL_WITHIN).await {
            Ok(done) => tell(&done, plan, past),
            // It is asked for again in the next round; a PostgreSQL that ends is told of elsewhere.
            Err(error) => tracing::debug!(%error, "failed to look after the replication slots"),
        }
    }

    /// Moves logical slots in a task of its own: what they decode on the way can take long.
    fn move_logical(&self, plan: &Plan) {
        let busy = plan.advance_logical.is_empty()
            || self.inner.moving.with(|moving| std::mem::replace(moving, true));
        if busy {
            return;
        }
        let (slots, moves) = (self.clone(), plan.advance_logical.clone());
        tokio::spawn(async move {
            let to = slots.inner.local.connect().named("baton slots");
            for (database, name, lsn) in moves {
                match advance_logical(&to, &database, &name, lsn, DECODING_WITHIN).await {
                    Ok(_) => {}
                    Err(error) if is_for_good(&error) => {
                        tracing::info!(slot = name, %error, "a copied logical slot cannot be moved any more: it is copied anew");
                        slots.inner.broken.with(|broken| broken.insert(name));
                    }
                    Err(error) => tracing::debug!(slot = name, %error, "failed to move a logical slot"),
                }
            }
            slots.inner.moving.with(|moving| *moving = false);
        });
    }
}

/// In a synchronous mode those that `/sync` names.
fn voters(dynamic: &Dynamic, snapshot: &Snapshot) -> Option<BTreeSet<NodeName>> {
    let managed = dynamic.synchronous_mode != settings::SynchronousMode::Off;
    let sync = snapshot.sync.as_ref().filter(|sync| managed && sync.leader.is_some())?;
    Some(sync.sync_standby.iter().cloned().collect())
}

/// A file that is gone, or a slot that was invalidated.
fn is_for_good(error: &SqlError) -> bool {
    matches!(error.sqlstate(), Some("58P01" | "55000"))
}

/// Says what was done, and what could not be done when that is news.
fn tell(done: &SlotsDone, plan: &Plan, past: &mut Past) {
    for name in &done.created {
        tracing::info!(slot = name, "created a replication slot");
    }
    for name in &done.dropped {
        let why = plan.drop.iter().find(|drop| drop.name == *name).map(|drop| drop.why.to_string());
        tracing::info!(slot = name, "dropped a replication slot: {}", why.unwrap_or_default());
    }
    for name in &done.marked {
        tracing::info!(slot = name, "PostgreSQL keeps a logical replication slot on standbys from now on");
    }
    for name in &done.cleared {
        tracing::info!(
            slot = name,
            "a replication slot that nobody uses no longer holds back the removal of dead rows"
        );
    }
    let mut complaints = BTreeMap::new();
    for failure in &done.failed {
        let (key, words) = ((failure.slot.clone(), failure.step), failure.source.to_string());
        let in_use = failure.source.sqlstate() == Some("55006");
        if in_use {
            tracing::debug!("failed to {failure}");
        } else if past.complaints.get(&key) != Some(&words) {
            tracing::warn!("failed to {failure}");
        }
        complaints.insert(key, words);
    }
    past.complaints = complaints;
}
