//! What pg_rewind needs of its source, asked before anything is changed.

use super::{Fork, RewindError};
use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use crate::users::REWIND_FUNCTIONS;
use postgres_protocol::escape::escape_literal;
use std::time::Duration;
use types::{History, SystemId, Timeline};

/// For each question; generous, because a promotion that is just happening answers late.
const PATIENCE: Duration = Duration::from_secs(10);

/// A source that is the right one.
pub(super) struct Source {
    pub(super) history: History,
    /// That of its last checkpoint; behind `history.timeline` until the first checkpoint after a promotion.
    checkpoint_timeline: Timeline,
    /// The size of its WAL, which pg_rewind copies.
    pub(super) wal_bytes: u64,
    /// The segments that it has; none when it did not say.
    segments: Vec<String>,
}

impl Source {
    /// Whether pg_rewind would find the timeline in its control file, which it trusts.
    pub(super) fn check_ready(&self, from: &ConnectTo) -> Result<(), RewindError> {
        if self.checkpoint_timeline != self.history.timeline {
            return Err(RewindError::SourceNotReady(format!(
                "{} has not written a checkpoint since it was promoted to timeline {}",
                from.place(),
                self.history.timeline
            )));
        }
        Ok(())
    }

    /// Whether it still has the WAL with which it went on after the fork: without, a rewound directory could never follow. It went on
    /// on a later timeline, unless it was the other one that began a new one.
    pub(super) fn has_wal_since(&self, fork: Fork, segment_size: u32) -> bool {
        let first = fork.lsn.0 / u64::from(segment_size.max(1));
        let per_id = (0x1_0000_0000 / u64::from(segment_size.max(1))).max(1);
        let (timeline, place) =
            (format!("{:08X}", fork.timeline.0), format!("{:08X}{:08X}", first / per_id, first % per_id));
        let stayed = self.history.timeline == fork.timeline;
        let is_it = |name: &String| {
            let went_on = |of: &str| of > timeline.as_str() || (stayed && of == timeline);
            name.split_at_checked(8).is_some_and(|(of, at)| at == place && went_on(of))
        };
        self.segments.is_empty() || self.segments.iter().any(is_it)
    }
}

/// Asks the source who it is and how it came about.
pub(super) async fn look(from: &ConnectTo, system_id: SystemId) -> Result<Source, RewindError> {
    let settings = [("statement_timeout", "0"), ("search_path", "pg_catalog")];
    let mut connection = Connection::open(from, Mode::Sql, &settings, PATIENCE).await?;
    let sql = format!(
        "SELECT r AS in_recovery, (SELECT system_identifier FROM pg_control_system()) AS system_id, \
         CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS timeline, \
         (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_timeline, \
         {} AS missing FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) once",
        missing()
    );
    let rows = connection.query(&sql, PATIENCE).await?;
    let nonsense =
        |what: &str| SqlError::Nonsense { place: from.place(), what: format!("no {what} in its answer") };
    if rows.first("in_recovery") != Some("f") {
        return Err(RewindError::SourceNotReady(format!("{} is still in recovery", from.place())));
    }
    let theirs: i64 =
        rows.first("system_id").and_then(|id| id.parse().ok()).ok_or_else(|| nonsense("system id"))?;
    if SystemId(theirs.cast_unsigned()) != system_id {
        let (place, theirs) = (from.place(), theirs.cast_unsigned());
        let why =
            format!("{place} is another cluster: its system identifier is {theirs}, ours is {system_id}");
        return Err(RewindError::NotAllowed(why));
    }
    let timeline = rows.first("timeline").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    let timeline = Timeline(timeline.ok_or_else(|| nonsense("timeline"))?);
    let checkpoint = rows.first("checkpoint_timeline").and_then(|number| number.parse().ok());
    let missing = rows.first("missing").unwrap_or_default();
    if !missing.is_empty() {
        let (user, dbname, place) = (&from.user, &from.dbname, from.place());
        return Err(RewindError::NotAllowed(format!(
            "user {user} may not execute {missing} in database {dbname} of {place}; \
             as a superuser: GRANT EXECUTE ON FUNCTION {missing} TO {user}"
        )));
    }
    let history = read_history(&mut connection, from, timeline).await?;
    let (wal_bytes, segments) = wal(&mut connection).await.unwrap_or_default();
    let checkpoint_timeline = Timeline(checkpoint.ok_or_else(|| nonsense("checkpoint"))?);
    Ok(Source { history, checkpoint_timeline, wal_bytes, segments })
}

/// An expression: what of pg_rewind's functions the user may not execute.
fn missing() -> String {
    let rights: Vec<String> = REWIND_FUNCTIONS
        .iter()
        .map(|function| {
            let name = escape_literal(function);
            format!("CASE WHEN NOT has_function_privilege({name}, 'EXECUTE') THEN {name} END")
        })
        .collect();
    format!("array_to_string(ARRAY[{}], ', ')", rights.join(", "))
}

/// The functions that pg_rewind needs and this user may not execute, as a list; empty when it may.
pub(super) async fn missing_rights(connection: &mut Connection) -> Result<String, SqlError> {
    let rows = connection.query(&format!("SELECT {}", missing()), PATIENCE).await?;
    Ok(rows.single().unwrap_or_default().to_owned())
}

/// The size and the names of its WAL segments; with the rights that pg_rewind needs anyway.
async fn wal(connection: &mut Connection) -> Result<(u64, Vec<String>), SqlError> {
    let sql = "SELECT name, (pg_stat_file('pg_wal/' || name, true)).size::text \
               FROM pg_ls_dir('pg_wal', true, false) AS name WHERE length(name) = 24";
    let rows = connection.query(sql, PATIENCE).await?;
    let size = |row: &Vec<Option<String>>| row.get(1)?.as_deref()?.parse::<u64>().ok();
    let bytes = rows.rows.iter().filter_map(size).sum();
    Ok((bytes, rows.first_column().into_iter().map(str::to_owned).collect()))
}

/// Over SQL, since the user for the rewind need not be allowed to replicate.
async fn read_history(
    connection: &mut Connection,
    from: &ConnectTo,
    timeline: Timeline,
) -> Result<History, SqlError> {
    if timeline.0 <= 1 {
        return Ok(History::first());
    }
    let sql = format!("SELECT encode(pg_read_binary_file('pg_wal/{:08X}.history'), 'escape')", timeline.0);
    let rows = connection.query(&sql, PATIENCE).await?;
    History::parse(timeline, rows.single().unwrap_or_default())
        .map_err(|error| SqlError::Nonsense { place: from.place(), what: error.to_string() })
}
