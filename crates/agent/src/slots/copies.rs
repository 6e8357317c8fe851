//! Copies of the primary's logical slots on this standby.
//!
//! ```text
//!   missing here ─ read from the primary ─► staged ─ order: load slots ─► stopped, placed, started ─► there
//!        ▲                                                                                             │
//!        └── the WAL it needs is gone: dropped ◄── moved with /status ◄── proven: ready to be promoted ◄─┘
//! ```

use crate::configure::{self, Upstream};
use crate::local::Local;
use crate::orders::Orders;
use crate::wake::Cell;
use etcd::Snapshot;
use ha::Order;
use ha::slots::{Evidence, Readiness, readiness};
use postgres::connection::{ConnectTo, Connection, Mode};
use postgres::probe::{Facts, SlotKind};
use postgres::slots::{CopiedSlot, FoundSlot, install, read_logical};
use settings::{Dynamic, Settings};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use types::{Moment, NodeName, PermanentSlot, Role, SlotWish, slot_name};

const SQL_WITHIN: Duration = Duration::from_secs(5);
/// A copy that did not come to be is not tried again sooner: each try restarts PostgreSQL.
const RESTART_AGAIN: Duration = Duration::from_secs(120);

/// Fetches copies and follows what becomes of them.
pub(super) struct Copies {
    settings: Cell<Arc<Settings>>,
    local: Local,
    orders: Orders,
    state: Cell<State>,
}

#[derive(Default)]
struct State {
    readiness: BTreeMap<String, Readiness>,
    restarted: Option<Moment>,
    /// Why there is no copy yet, as last told.
    told: BTreeMap<String, String>,
}

impl Copies {
    pub(super) fn new(settings: Arc<Settings>, local: Local, orders: Orders) -> Copies {
        Copies { settings: Cell::new(settings), local, orders, state: Cell::new(State::default()) }
    }

    /// The file was read again.
    pub(super) fn use_settings(&self, settings: &Arc<Settings>) {
        self.settings.with(|kept| kept.clone_from(settings));
    }

    /// Copies of which it is not proven that the primary kept all the rows they need.
    pub(super) fn unready(&self) -> Vec<String> {
        self.state.with(|state| {
            let unready = state.readiness.iter().filter(|(_, readiness)| **readiness != Readiness::Ready);
            unready.map(|(name, _)| name.clone()).collect()
        })
    }

    /// Reads what is missing from the primary and has PostgreSQL restarted to load it.
    pub(super) async fn fetch(
        &self,
        missing: &[(String, SlotWish)],
        facts: &Facts,
        dynamic: &Dynamic,
        leader: Option<&NodeName>,
        snapshot: &Snapshot,
    ) {
        let Some(primary) = leader.and_then(|leader| self.primary(leader, snapshot)) else { return };
        let streams = facts.receiver.as_ref().is_some_and(|receiver| receiver.status == "streaming");
        let lately = self.state.with(|state| state.restarted);
        let lately = lately.is_some_and(|at| clock::now().since(at) < RESTART_AGAIN);
        if !streams || lately {
            return;
        }
        let names: Vec<String> = missing.iter().map(|(name, _)| name.clone()).collect();
        let found = match read_logical(&primary, &names, SQL_WITHIN).await {
            Ok(found) => found,
            Err(error) => {
                self.tell("", format!("failed to read the primary's logical slots: {error}"));
                return;
            }
        };
        let mut copies = Vec::new();
        for (name, wish) in missing {
            let found = found.iter().find(|found| found.name == *name && meets(found, wish));
            match found.map(|found| self.obstacle(found, facts, dynamic, copies.len())) {
                // Not made there yet, or PostgreSQL copies it by itself.
                None | Some(Err(None)) => {}
                Some(Err(Some(why))) => {
                    self.tell(name, format!("logical slot {name} is not copied yet: {why}"))
                }
                Some(Ok(copy)) => copies.push(copy),
            }
        }
        if copies.is_empty() {
            return;
        }
        let names: Vec<&str> = copies.iter().map(|copy| copy.name.as_str()).collect();
        tracing::info!(
            slots = names.join(", "),
            "copied logical replication slots from the primary: PostgreSQL is restarted to load them"
        );
        self.state.with(|state| {
            state.restarted = Some(clock::now());
            state.told.clear();
        });
        self.local.stage(copies);
        // Whatever is in the way restarts PostgreSQL as well, or will be gone in the next round.
        let _ = self.orders.give(Order::LoadSlots);
    }

    /// The copy, or what speaks against making it now.
    fn obstacle(
        &self,
        found: &FoundSlot,
        facts: &Facts,
        dynamic: &Dynamic,
        before: usize,
    ) -> Result<CopiedSlot, Option<String>> {
        if found.failover && facts.slot_sync {
            return Err(None);
        }
        let effective = configure::effective(&self.settings.get(), dynamic, &self.local);
        let given = |name: &str| {
            let pair = effective.command_line.iter().find(|(given, _)| given == name);
            pair.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        // PostgreSQL would not start with it.
        if given("wal_level") != "logical" {
            return Err(Some("wal_level is not logical in the dynamic configuration".to_owned()));
        }
        let most = given("max_replication_slots").parse::<usize>().unwrap_or(0);
        if facts.slots.len() + before >= most {
            return Err(Some(format!("max_replication_slots ({most}) leaves no place for it")));
        }
        match found.restart_lsn.filter(|lsn| self.local.has_wal(*lsn)) {
            Some(_) => Ok(CopiedSlot { name: found.name.clone(), state: found.state.clone() }),
            None => Err(Some(
                "this standby no longer has the WAL that it needs; it has once the consumer went on"
                    .to_owned(),
            )),
        }
    }

    /// Follows the proof that copies can be used, slot by slot; `wanted` is missing while this member leads.
    pub(super) async fn prove(
        &self,
        facts: &Facts,
        wanted: Option<&BTreeMap<String, PermanentSlot>>,
        leader: Option<&NodeName>,
        snapshot: &Snapshot,
    ) {
        let copies = facts.slots.iter().filter(|slot| {
            let permanent = wanted.is_some_and(|wanted| wanted.contains_key(&slot.name));
            slot.kind == SlotKind::Logical && !slot.synced && permanent
        });
        let here: BTreeMap<String, Option<u32>> =
            copies.map(|slot| (slot.name.clone(), slot.catalog_xmin)).collect();
        self.state.with(|state| {
            state.readiness.retain(|name, _| here.contains_key(name));
            for name in here.keys() {
                state.readiness.entry(name.clone()).or_insert(Readiness::NotHeld);
            }
        });
        if self.unready().is_empty() {
            return;
        }
        let Some(primary) = leader.and_then(|leader| self.primary(leader, snapshot)) else { return };
        let there = match catalog_xmins(&primary).await {
            Ok(there) => there,
            Err(why) => {
                tracing::debug!(why, "failed to ask the primary for the rows it keeps for slots");
                return;
            }
        };
        let own = slot_name(&self.settings.get().name);
        let xmin = |name: &str| there.get(name).copied().flatten();
        let ready: Vec<String> = self.state.with(|state| {
            let mut ready = Vec::new();
            for (name, before) in &mut state.readiness {
                let evidence = Evidence {
                    held_for_standby: xmin(&own),
                    on_primary: xmin(name),
                    here: here.get(name).copied().flatten(),
                };
                let now = readiness(*before, evidence);
                if now == Readiness::Ready && *before != now {
                    ready.push(name.clone());
                }
                *before = now;
            }
            ready
        });
        for slot in ready {
            tracing::info!(
                slot,
                "the copy of a logical replication slot is ready: its consumer can go on here after a failover"
            );
        }
    }

    /// The primary, for someone who may read its files.
    fn primary(&self, leader: &NodeName, snapshot: &Snapshot) -> Option<ConnectTo> {
        let member = snapshot.members.get(leader)?;
        if member.role.known() != Some(Role::Primary) {
            return None;
        }
        let upstream = Upstream::of(leader, member.conn_url.as_deref()?)?;
        let settings = self.settings.get();
        let authentication = &settings.postgresql.authentication;
        let login = authentication.rewind.as_ref().unwrap_or(&authentication.superuser);
        let database = &settings.postgresql.database;
        Some(configure::connect_to(login, &upstream.host, upstream.port, database, "baton slots"))
    }

    /// Says it unless it was said last.
    fn tell(&self, slot: &str, words: String) {
        let news =
            self.state.with(|state| state.told.insert(slot.to_owned(), words.clone())) != Some(words.clone());
        if news {
            tracing::info!("{words}");
        }
    }
}

fn meets(found: &FoundSlot, wish: &SlotWish) -> bool {
    match wish {
        SlotWish::Physical => false,
        SlotWish::Logical { database, plugin, .. } => found.database == *database && found.plugin == *plugin,
    }
}

/// From which transaction on each slot of the primary keeps rows of the catalogs.
async fn catalog_xmins(primary: &ConnectTo) -> Result<BTreeMap<String, Option<u32>>, String> {
    let connection = Connection::open(primary, Mode::Sql, &[("search_path", "pg_catalog")], SQL_WITHIN).await;
    let mut connection = connection.map_err(|error| error.to_string())?;
    let sql = "SELECT slot_name, catalog_xmin::text FROM pg_replication_slots LIMIT 1000";
    let rows = connection.query(sql, SQL_WITHIN).await.map_err(|error| error.to_string())?;
    let row = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(name), xmin] => Some((name.clone(), xmin.as_ref().and_then(|xmin| xmin.parse().ok()))),
        _ => None,
    };
    Ok(rows.rows.iter().filter_map(row).collect())
}

/// Places what was staged, while PostgreSQL is stopped; a primary has its slots already.
pub(crate) async fn place_copies(local: &Local, standby: bool) {
    let copies = local.take_staged();
    if copies.is_empty() || !standby {
        return;
    }
    let data_dir = local.data_dir().to_owned();
    let placed = tokio::task::spawn_blocking(move || install(&data_dir, &copies));
    match tokio::time::timeout(Duration::from_secs(10), placed).await {
        Ok(Ok(Ok(_))) => {}
        Ok(Ok(Err(error))) => tracing::warn!(%error, "failed to place copies of logical replication slots"),
        Ok(Err(error)) => tracing::warn!(%error, "failed to place copies of logical replication slots"),
        Err(_) => {
            tracing::warn!("failed to place copies of logical replication slots: the disk does not answer")
        }
    }
}
