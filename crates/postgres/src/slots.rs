//! Physical replication slots: made, dropped and moved forward as told.

use crate::connection::{Connection, SqlError};
use postgres_protocol::escape::escape_literal;
use std::time::Duration;
use types::Lsn;

/// What to do with the slots of this PostgreSQL, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotPlan {
    /// To be there, keeping WAL from now on.
    pub create: Vec<String>,
    /// To be gone. One that is in use stays.
    pub drop: Vec<String>,
    /// To let go of the WAL before a position. Never goes back, and never touches one that is in use.
    pub advance: Vec<(String, Lsn)>,
}

impl SlotPlan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.drop.is_empty() && self.advance.is_empty()
    }
}

/// What came of a plan. A slot that needed nothing is in no list.
#[derive(Debug, Default)]
pub struct SlotsDone {
    pub created: Vec<String>,
    pub dropped: Vec<String>,
    pub advanced: Vec<String>,
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

/// Makes the slots that are missing and returns their names. They keep WAL from this moment, also on a standby.
pub async fn ensure_physical(
    connection: &mut Connection,
    wanted: &[String],
    within: Duration,
) -> Result<Vec<String>, SqlError> {
    let mut created = Vec::new();
    for name in wanted {
        if create(connection, name, within).await? {
            created.push(name.clone());
        }
    }
    Ok(created)
}

/// Carries a plan out, each step within `within`. An error ends it only when the connection is spent.
pub async fn execute(
    connection: &mut Connection,
    plan: &SlotPlan,
    within: Duration,
) -> Result<SlotsDone, SqlError> {
    let mut done = SlotsDone::default();
    for name in &plan.create {
        match create(connection, name, within).await {
            Ok(true) => done.created.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(connection, &mut done.failed, name, "create", error)?,
        }
    }
    for name in &plan.drop {
        match drop_slot(connection, name, within).await {
            Ok(true) => done.dropped.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(connection, &mut done.failed, name, "drop", error)?,
        }
    }
    for (name, to) in &plan.advance {
        match advance(connection, name, *to, within).await {
            Ok(true) => done.advanced.push(name.clone()),
            Ok(false) => {}
            Err(error) => keep(connection, &mut done.failed, name, "advance", error)?,
        }
    }
    Ok(done)
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
