//! The two replication commands that Baton needs: who are you, and how did your timeline come about.

use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use std::time::Duration;
use tokio::time::Instant;
use types::{History, Lsn, SystemId, Timeline};

/// The answer to `IDENTIFY_SYSTEM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub system_id: SystemId,
    /// Of a primary the timeline it writes, also right after its promotion; of a standby the one it replays.
    pub timeline: Timeline,
    /// Of a primary the end of its flushed WAL, of a standby the end of what it replayed or received.
    pub xlogpos: Lsn,
}

/// Asks for the system identifier, the timeline and the position.
pub async fn identify_system(to: &ConnectTo, within: Duration) -> Result<Identity, SqlError> {
    let deadline = Instant::now() + within;
    let mut connection = Connection::open(to, Mode::Replication, &[], within).await?;
    identify(&mut connection, to, left(deadline)).await
}

/// Asks for the history of `timeline`. The first timeline has none and is not asked for.
pub async fn timeline_history(
    to: &ConnectTo,
    timeline: Timeline,
    within: Duration,
) -> Result<History, SqlError> {
    if timeline.0 <= 1 {
        return Ok(History::first());
    }
    let deadline = Instant::now() + within;
    let mut connection = Connection::open(to, Mode::Replication, &[], within).await?;
    history(&mut connection, to, timeline, left(deadline)).await
}

/// Both in one session: who it is, and the history of the timeline it is on.
pub async fn identify_with_history(
    to: &ConnectTo,
    within: Duration,
) -> Result<(Identity, History), SqlError> {
    let deadline = Instant::now() + within;
    let mut connection = Connection::open(to, Mode::Replication, &[], within).await?;
    let identity = identify(&mut connection, to, left(deadline)).await?;
    if identity.timeline.0 <= 1 {
        return Ok((identity, History::first()));
    }
    let history = history(&mut connection, to, identity.timeline, left(deadline)).await?;
    Ok((identity, history))
}

async fn identify(
    connection: &mut Connection,
    to: &ConnectTo,
    within: Duration,
) -> Result<Identity, SqlError> {
    let rows = connection.query("IDENTIFY_SYSTEM", within).await?;
    let part = |column: &str| {
        rows.first(column).ok_or_else(|| nonsense(to, format!("IDENTIFY_SYSTEM without {column}")))
    };
    let bad = |what: String| nonsense(to, what);
    let timeline: u32 =
        part("timeline")?.parse().map_err(|_| bad("a timeline that is no number".to_owned()))?;
    Ok(Identity {
        system_id: part("systemid")?.parse().map_err(|error| bad(format!("{error}")))?,
        timeline: Timeline(timeline),
        xlogpos: part("xlogpos")?.parse().map_err(|error| bad(format!("{error}")))?,
    })
}

async fn history(
    connection: &mut Connection,
    to: &ConnectTo,
    timeline: Timeline,
    within: Duration,
) -> Result<History, SqlError> {
    let rows = connection.query(&format!("TIMELINE_HISTORY {timeline}"), within).await?;
    let content =
        rows.first("content").ok_or_else(|| nonsense(to, "TIMELINE_HISTORY without content".to_owned()))?;
    History::parse(timeline, content).map_err(|error| nonsense(to, error.to_string()))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn nonsense(to: &ConnectTo, what: String) -> SqlError {
    SqlError::Nonsense { place: to.place(), what }
}
