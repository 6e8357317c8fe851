//! Commits that wait for a standby which they need not wait for any more.
//!
//! ```text
//!   synchronous_standby_names: a ─► b     b has confirmed the waiting commits already, and was not asked for them then
//!   a new word of b                       only this makes PostgreSQL look at who waits: it comes with new WAL,
//!                                         or every wal_receiver_status_interval, 10 s by default
//! ```

use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use std::time::Duration;

/// Writes a few bytes of WAL, which no table shows, so that the standbys confirm again. Itself it waits for none of them.
pub async fn release(to: &ConnectTo, within: Duration) -> Result<(), SqlError> {
    let settings = [("search_path", "pg_catalog"), ("synchronous_commit", "local")];
    let mut connection = Connection::open(to, Mode::Sql, &settings, within).await?;
    // As a transaction: only its commit forces the WAL out.
    connection.query("SELECT pg_logical_emit_message(true, 'baton', '')", within).await.map(drop)
}
