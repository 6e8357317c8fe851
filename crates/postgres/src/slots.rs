//! Replication slots: made, dropped, cleared and moved forward as told.
//!
//! A logical slot belongs to a database, and only a session there may make it or move it. Its copy on a standby is a file, placed
//! while PostgreSQL is stopped (`copy`).

mod copy;

pub use copy::{CopiedSlot, FoundSlot, install, read_logical};

use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use postgres_protocol::escape::{escape_identifier, escape_literal};
use std::time::Duration;
use types::{Lsn, SlotWish};

/// What to do with the slots of this PostgreSQL, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPlan {
    /// To be gone. One that is in use stays.
    pub drop: Vec<String>,
    /// To be there, keeping WAL from now on.
    pub create: Vec<(String, SlotWish)>,
    /// Physical ones that nobody uses: to let go of the dead rows they hold. They are made anew.
    pub clear: Vec<String>,
    /// To let go of the WAL before a position. Never goes back, and never touches one that is in use.
    pub advance: Vec<(String, Lsn)>,
    /// Logical ones that standbys shall get from PostgreSQL 17 and later itself.
    pub mark: Vec<String>,
}

impl SlotPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let logical = self.create.is_empty() && self.mark.is_empty();
        logical && self.drop.is_empty() && self.clear.is_empty() && self.advance.is_empty()
    }
}

/// What came of a plan. A slot that needed nothing is in no list.
#[derive(Debug, Default)]
pub struct SlotsDone {
    pub created: Vec<String>,
    pub dropped: Vec<String>,
    pub cleared: Vec<String>,
    pub advanced: Vec<String>,
    pub marked: Vec<String>,
    /// The others are done all the same.
    pub failed: Vec<SlotFailure>,
}

/// What PostgreSQL would not do, and its words.
#[derive(Debug, thiserror::Error)]
#[error("{step} replication slot {slot}: {source}")]
pub struct SlotFailure {
    pub slot: String,
    pub step: &'static str,
    pub source: SqlError,
}

/// Carries a plan out on the PostgreSQL at `to`, each step within `within`. An error ends it only when the connection is spent.
pub async fn execute(to: &ConnectTo, plan: &SlotPlan, within: Duration) -> Result<SlotsDone, SqlError> {
    let mut connection = open(to, within).await?;
    let mut done = SlotsDone::default();
    for name in &plan.drop {
        match drop_slot(&mut connection, name, within).await {
            Ok(true) => done.dropped.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(&connection, &mut done.failed, name, "drop", error)?,
        }
    }
    for (name, wish) in &plan.create {
        let created = match wish {
            SlotWish::Physical => create(&mut connection, name, within).await,
            SlotWish::Logical { database, plugin, failover } => {
                create_logical(to, database, name, (plugin, *failover), within).await
            }
        };
        match created {
            Ok(true) => done.created.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(&connection, &mut done.failed, name, "create", error)?,
        }
    }
    for name in &plan.clear {
        match clear(&mut connection, name, within).await {
            Ok(true) => done.cleared.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(&connection, &mut done.failed, name, "clear", error)?,
        }
    }
    for (name, to) in &plan.advance {
        match advance(&mut connection, name, *to, within).await {
            Ok(true) => done.advanced.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(&connection, &mut done.failed, name, "advance", error)?,
        }
    }
    for name in &plan.mark {
        match mark_failover(to, name, within).await {
            Ok(()) => done.marked.push(name.clone()),
            Err(error) => keep(&connection, &mut done.failed, name, "mark as failover", error)?,
        }
    }
    Ok(done)
}

/// Only a replication connection can. It fails when the slot is in use, and waits for nobody.
async fn mark_failover(to: &ConnectTo, name: &str, within: Duration) -> Result<(), SqlError> {
    let mut connection = Connection::open(to, Mode::Replication, &[], within).await?;
    connection
        .query(&format!("ALTER_REPLICATION_SLOT {} (FAILOVER true)", escape_identifier(name)), within)
        .await?;
    Ok(())
}

/// Moves a logical slot forward, in a session in its database. PostgreSQL decodes all WAL on the way: it can take long.
pub async fn advance_logical(
    to: &ConnectTo,
    database: &str,
    name: &str,
    position: Lsn,
    within: Duration,
) -> Result<bool, SqlError> {
    let mut connection = open(&ConnectTo { dbname: database.to_owned(), ..to.clone() }, within).await?;
    let sql = format!(
        "SELECT pg_replication_slot_advance(slot_name, '{position}') FROM pg_replication_slots \
         WHERE slot_name = {} AND slot_type = 'logical' AND NOT active AND confirmed_flush_lsn < '{position}'",
        escape_literal(name)
    );
    Ok(!connection.query(&sql, within).await?.rows.is_empty())
}

async fn open(to: &ConnectTo, within: Duration) -> Result<Connection, SqlError> {
    // Nobody's commits wait for a slot; and its session waits for no standby either.
    let settings =
        [("search_path", "pg_catalog"), ("statement_timeout", "0"), ("synchronous_commit", "local")];
    Connection::open(to, Mode::Sql, &settings, within).await
}

async fn create_logical(
    to: &ConnectTo,
    database: &str,
    name: &str,
    (plugin, failover): (&str, bool),
    within: Duration,
) -> Result<bool, SqlError> {
    let mut connection = open(&ConnectTo { dbname: database.to_owned(), ..to.clone() }, within).await?;
    let sql = format!(
        "SELECT pg_create_logical_replication_slot({0}, {1}{2}) \
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {0})",
        escape_literal(name),
        escape_literal(plugin),
        // Not temporary, no two-phase commits.
        if failover { ", false, false, true" } else { "" }
    );
    match connection.query(&sql, within).await {
        Ok(rows) => Ok(!rows.rows.is_empty()),
        // Somebody was faster.
        Err(error) if error.sqlstate() == Some("42710") => Ok(false),
        Err(error) => Err(error),
    }
}

/// Only a new slot holds no transactions. It keeps WAL from the last checkpoint or restart point on.
async fn clear(connection: &mut Connection, name: &str, within: Duration) -> Result<bool, SqlError> {
    match drop_slot(connection, name, within).await {
        Ok(true) => create(connection, name, within).await,
        Ok(false) => Ok(false),
        // Its user came back.
        Err(error) if error.sqlstate() == Some("55006") => Ok(false),
        Err(error) => Err(error),
    }
}

fn keep(
    connection: &Connection,
    failed: &mut Vec<SlotFailure>,
    slot: &str,
    step: &'static str,
    source: SqlError,
) -> Result<(), SqlError> {
    if !connection.usable() {
        return Err(source);
    }
    failed.push(SlotFailure { slot: slot.to_owned(), step, source });
    Ok(())
}

async fn create(connection: &mut Connection, name: &str, within: Duration) -> Result<bool, SqlError> {
    let name = escape_literal(name);
    let sql = format!(
        "SELECT pg_create_physical_replication_slot({name}, true) \
         WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = {name})"
    );
    match connection.query(&sql, within).await {
        Ok(rows) => Ok(!rows.rows.is_empty()),
        // Somebody was faster.
        Err(error) if error.sqlstate() == Some("42710") => Ok(false),
        Err(error) => Err(error),
    }
}

async fn drop_slot(connection: &mut Connection, name: &str, within: Duration) -> Result<bool, SqlError> {
    let sql = format!(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = {}",
        escape_literal(name)
    );
    match connection.query(&sql, within).await {
        Ok(rows) => Ok(!rows.rows.is_empty()),
        Err(error) if error.sqlstate() == Some("42704") => Ok(false),
        Err(error) => Err(error),
    }
}

async fn advance(
    connection: &mut Connection,
    name: &str,
    to: Lsn,
    within: Duration,
) -> Result<bool, SqlError> {
    let sql = format!(
        "SELECT pg_replication_slot_advance(slot_name, '{to}') FROM pg_replication_slots \
         WHERE slot_name = {} AND slot_type = 'physical' AND NOT active AND restart_lsn < '{to}'",
        escape_literal(name)
    );
    Ok(!connection.query(&sql, within).await?.rows.is_empty())
}
