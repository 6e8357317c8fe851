//! What PostgreSQL's archiver has done and what waits for it.

use crate::connection::{self, ConnectTo, Connection, SqlError};
use std::time::Duration;

/// `.ready` stands for what waits; the server reads the directory itself, wherever pg_wal is.
const QUERY: &str = "SELECT current_setting('archive_mode') AS mode, s.archived_count, s.failed_count, coalesce(s.last_failed_wal, '') AS failed, \
     coalesce(s.last_failed_time > coalesce(s.last_archived_time, '-infinity'), false) AS fails, w.waiting \
     FROM pg_stat_archiver s, (SELECT count(*) AS waiting FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready') w";

/// `archive_mode`, for as long as the server runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    Off,
    /// Only a primary archives.
    On,
    Always,
}

/// Where it stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Archiver {
    /// Since the statistics were reset.
    pub archived: u64,
    pub failed: u64,
    /// The file at which it failed last, when it has archived nothing since.
    pub fails_at: Option<String>,
    /// Files that wait.
    pub waiting: u64,
}

/// Asks a server, version 12 or later.
pub async fn look(to: &ConnectTo, within: Duration) -> Result<(Mode, Archiver), SqlError> {
    let mut connection =
        Connection::open(to, connection::Mode::Sql, &[("search_path", "pg_catalog")], within).await?;
    let rows = connection.query(QUERY, within).await?;
    let mode = match rows.first("mode") {
        Some("always") => Mode::Always,
        Some("on") => Mode::On,
        Some(_) | None => Mode::Off,
    };
    let number = |column| rows.first(column).and_then(|text| text.parse().ok()).unwrap_or_default();
    let fails_at = rows.first("failed").filter(|_| rows.first("fails") == Some("t")).map(str::to_owned);
    let archiver = Archiver {
        archived: number("archived_count"),
        failed: number("failed_count"),
        fails_at,
        waiting: number("waiting"),
    };
    Ok((mode, archiver))
}
