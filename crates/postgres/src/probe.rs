//! How the PostgreSQL on this host is doing, in one round trip.
//!
//! ```text
//!            ┌── connection kept ──┐
//! probe ──> query ── answer ──> Running(Facts)
//!            ├── it broke ──> connect anew, once ──> Running | Starting | NotAccepting | Failed
//!            └── no answer in time ──> Unresponsive, connection dropped
//! ```
//!
//! The connection lives as long as it answers; a `probe` never takes longer than its caller allows.

use crate::connection::{ConnectTo, Connection, Mode, Rows, SqlError};
use serde::Deserialize;
use std::time::Duration;
use tokio::time::Instant;
use types::{Lsn, SystemId, Timeline};

/// In force on the connection of the probe. The server's own limit ends a statement that we no longer wait for.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "2s"),
    ("search_path", "pg_catalog"),
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
];

/// The name of the connection in `pg_stat_activity`.
const HEARTBEAT: &str = "baton heartbeat";

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answers queries.
    Running(Box<Facts>),
    /// It exists but does not take connections yet, or no longer (SQLSTATE 57P03).
    Starting { why: String },
    /// Nobody listens, or it hangs up on us.
    NotAccepting { why: String },
    /// It exists, and no answer came in time.
    Unresponsive { why: String },
    /// It answered with an error: it is alive, and we cannot tell how it is.
    Failed { why: String },
}

/// What a running PostgreSQL says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    pub in_recovery: bool,
    /// Primary: the timeline it writes, from the first moment after its promotion. Standby: the one it receives; while
    /// nothing is received the one of its last restartpoint or consistent page, which can be older than the one it
    /// replays (`replication::identify_system` tells that one).
    pub timeline: Option<Timeline>,
    /// Primary: the end of the WAL on disk.
    pub flush_lsn: Option<Lsn>,
    /// Standby: the end of the WAL received since it started. May lie before `replayed_lsn`.
    pub received_lsn: Option<Lsn>,
    /// Standby: the end of the WAL replayed.
    pub replayed_lsn: Option<Lsn>,
    pub replay_paused: bool,
    /// Standby: when the last replayed transaction was committed, in microseconds since 1970.
    pub replayed_at: Option<i64>,
    pub receiver: Option<Receiver>,
    /// `2026-11-23 00:07:28.123456+00:00`
    pub postmaster_start_time: String,
    /// 150018
    pub server_version: u32,
    pub system_id: SystemId,
    /// Who streams from it.
    pub replication: Vec<Standby>,
    pub slots: Vec<Slot>,
    /// Names of settings that take effect at the next restart only.
    pub pending_restart: Vec<String>,
    pub synchronous_standby_names: String,
}

/// Where a standby streams from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// `streaming`, `starting`, `waiting`, …
    pub status: String,
    pub sender_host: Option<String>,
    pub sender_port: Option<u16>,
    pub slot_name: Option<String>,
    /// The end of the sender's WAL when it last said so.
    pub latest_end_lsn: Option<Lsn>,
    pub received_tli: Option<Timeline>,
}

/// One that streams from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standby {
    pub pid: u32,
    pub user: Option<String>,
    pub application_name: String,
    pub client_addr: Option<String>,
    /// `streaming`, `catchup`, `backup`, …
    pub state: Option<String>,
    /// `async`, `potential`, `sync`, `quorum`
    pub sync_state: Option<String>,
    pub sync_priority: Option<u32>,
    pub sent_lsn: Option<Lsn>,
    pub write_lsn: Option<Lsn>,
    pub flush_lsn: Option<Lsn>,
    pub replay_lsn: Option<Lsn>,
}

/// A replication slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    pub name: String,
    pub kind: SlotKind,
    pub active: bool,
    pub temporary: bool,
    pub restart_lsn: Option<Lsn>,
    /// Logical: what the subscriber has confirmed.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub plugin: Option<String>,
    pub database: Option<String>,
    /// `reserved`, `extended`, `unreserved`, `lost`
    pub wal_status: Option<String>,
    /// It holds back the removal of dead rows.
    pub holds_xmin: bool,
    /// PostgreSQL 17 and later: it is kept on standbys by PostgreSQL itself.
    pub failover: bool,
    /// PostgreSQL 17 and later: it is such a copy.
    pub synced: bool,
}

/// What a slot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotKind {
    Physical,
    Logical,
}

/// Asks one PostgreSQL again and again.
pub struct Prober {
    to: ConnectTo,
    connection: Option<Connection>,
}

impl Prober {
    /// For the PostgreSQL at `to`; connects with the first probe.
    #[must_use]
    pub fn new(to: ConnectTo) -> Prober {
        Prober { to: to.named(HEARTBEAT), connection: None }
    }

    /// Where it connects to.
    #[must_use]
    pub fn target(&self) -> &ConnectTo {
        &self.to
    }

    /// Uses another address, user or password from the next probe on.
    pub fn set_target(&mut self, to: &ConnectTo) {
        let to = to.named(HEARTBEAT);
        if self.to != to {
            self.connection = None;
            self.to = to;
        }
    }

    /// Asks how it is. Returns within `within`, whatever happens.
    pub async fn probe(&mut self, within: Duration) -> Probe {
        let deadline = Instant::now() + within;
        // Taken out, so that a probe that is dropped half-way takes its connection along.
        let kept = self.connection.take();
        let again = kept.is_some();
        match self.ask(kept, deadline, within).await {
            Ok(facts) => Probe::Running(Box::new(facts)),
            // The kept connection may have ended with the server's previous life; what counts is a new one. And a
            // promotion may end recovery between two functions of the query.
            Err(error) if again && is_worth_another(&error) || is_promoted_meanwhile(&error) => {
                match self.ask(None, deadline, within).await {
                    Ok(facts) => Probe::Running(Box::new(facts)),
                    Err(error) => judge(&error),
                }
            }
            Err(error) => judge(&error),
        }
    }

    /// Runs `sql` on a connection of its own, without a time limit on the server's side: for the few orders to the
    /// local PostgreSQL that may take longer than a probe.
    pub async fn execute(&self, sql: &str, within: Duration) -> Result<Rows, SqlError> {
        let deadline = Instant::now() + within;
        let settings = [("statement_timeout", "0"), ("search_path", "pg_catalog")];
        let mut connection = Connection::open(&self.to.named("baton"), Mode::Sql, &settings, within).await?;
        connection.query(sql, left(deadline)).await
    }

    /// Writes a checkpoint and waits for it.
    pub async fn checkpoint(&self, within: Duration) -> Result<(), SqlError> {
        self.execute("CHECKPOINT", within).await.map(drop)
    }

    async fn ask(
        &mut self,
        kept: Option<Connection>,
        deadline: Instant,
        within: Duration,
    ) -> Result<Facts, SqlError> {
        let place = self.to.place();
        let full = |error| match error {
            SqlError::NoAnswer { place, .. } => SqlError::NoAnswer { place, within },
            other => other,
        };
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.to, Mode::Sql, &SETTINGS, left(deadline)).await.map_err(full)?,
        };
        let rows = connection.query(QUERY, left(deadline)).await.map_err(full)?;
        let text = rows.single().unwrap_or_default();
        let facts = parse(text).map_err(|what| SqlError::Nonsense { place, what })?;
        self.connection = Some(connection);
        Ok(facts)
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn is_worth_another(error: &SqlError) -> bool {
    match error {
        SqlError::Lost { .. } => true,
        SqlError::Refused { answer, .. } => answer.severity != "ERROR",
        SqlError::Unreachable { .. }
        | SqlError::NoAnswer { .. }
        | SqlError::Nonsense { .. }
        | SqlError::Login { .. } => false,
    }
}

fn is_promoted_meanwhile(error: &SqlError) -> bool {
    error.sqlstate() == Some("55000")
}

fn judge(error: &SqlError) -> Probe {
    let why = error.to_string();
    match error {
        SqlError::Unreachable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            Probe::Failed { why }
        }
        SqlError::Unreachable { .. } | SqlError::Lost { .. } => Probe::NotAccepting { why },
        SqlError::NoAnswer { .. } => Probe::Unresponsive { why },
        SqlError::Refused { answer, .. } => match answer.sqlstate.as_str() {
            "57P03" => Probe::Starting { why },
            "57P01" | "57P02" => Probe::NotAccepting { why },
            // Its own time limit: as silent as no answer at all.
            "57014" => Probe::Unresponsive { why },
            _ => Probe::Failed { why },
        },
        SqlError::Nonsense { .. } | SqlError::Login { .. } => Probe::Failed { why },
    }
}

/// Everything at once, as one JSON text. `pg_is_in_recovery` is asked once and guards the functions that fail on the
/// other side of it; `to_jsonb(row)->>'column'` gives NULL for a column that this version does not have.
const QUERY: &str = "
SELECT row_to_json(facts)::text FROM (
 SELECT r AS in_recovery,
  CASE WHEN NOT r THEN substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END AS written_timeline,
  CASE WHEN r THEN (SELECT greatest(c.timeline_id, m.min_recovery_end_timeline)
                    FROM pg_control_checkpoint() c, pg_control_recovery() m) END AS replayed_timeline,
  CASE WHEN NOT r THEN pg_current_wal_flush_lsn() END AS flush_lsn,
  CASE WHEN r THEN pg_last_wal_receive_lsn() END AS received_lsn,
  CASE WHEN r THEN pg_last_wal_replay_lsn() END AS replayed_lsn,
  CASE WHEN r THEN pg_is_wal_replay_paused() ELSE false END AS replay_paused,
  CASE WHEN r THEN (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint END AS replayed_at,
  CASE WHEN r THEN (SELECT row_to_json(w) FROM (
    SELECT status, sender_host, sender_port, slot_name, latest_end_lsn, received_tli
    FROM pg_stat_wal_receiver) w LIMIT 1) END AS receiver,
  to_char(pg_postmaster_start_time() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US') || '+00:00'
    AS postmaster_start_time,
  current_setting('server_version_num')::int AS server_version,
  (SELECT system_identifier::text FROM pg_control_system()) AS system_id,
  (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT pid, usename AS \"user\", application_name, host(client_addr) AS client_addr, state, sync_state,
      sync_priority, sent_lsn, write_lsn, flush_lsn, replay_lsn
    FROM pg_stat_replication ORDER BY application_name, pid LIMIT 1000) s) AS replication,
  (SELECT coalesce(json_agg(s), '[]') FROM (
    SELECT slot_name AS name, slot_type = 'logical' AS logical, active, temporary, restart_lsn, confirmed_flush_lsn,
      plugin, database, wal_status, xmin IS NOT NULL OR catalog_xmin IS NOT NULL AS holds_xmin,
      coalesce((to_jsonb(p)->>'failover')::bool, false) AS failover,
      coalesce((to_jsonb(p)->>'synced')::bool, false) AS synced
    FROM pg_replication_slots p ORDER BY slot_name LIMIT 1000) s) AS slots,
  (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM pg_settings WHERE pending_restart) AS pending_restart,
  current_setting('synchronous_standby_names') AS synchronous_standby_names
 FROM (SELECT pg_is_in_recovery() AS r OFFSET 0) once
) facts";

#[derive(Deserialize)]
struct RawFacts {
    in_recovery: bool,
    written_timeline: Option<String>,
    replayed_timeline: Option<u32>,
    flush_lsn: Option<String>,
    received_lsn: Option<String>,
    replayed_lsn: Option<String>,
    replay_paused: bool,
    replayed_at: Option<i64>,
    receiver: Option<RawReceiver>,
    postmaster_start_time: String,
    server_version: u32,
    system_id: String,
    replication: Vec<RawStandby>,
    slots: Vec<RawSlot>,
    pending_restart: Vec<String>,
    synchronous_standby_names: String,
}

#[derive(Deserialize)]
struct RawReceiver {
    status: Option<String>,
    sender_host: Option<String>,
    sender_port: Option<u16>,
    slot_name: Option<String>,
    latest_end_lsn: Option<String>,
    received_tli: Option<u32>,
}

#[derive(Deserialize)]
struct RawStandby {
    pid: u32,
    user: Option<String>,
    application_name: Option<String>,
    client_addr: Option<String>,
    state: Option<String>,
    sync_state: Option<String>,
    sync_priority: Option<u32>,
    sent_lsn: Option<String>,
    write_lsn: Option<String>,
    flush_lsn: Option<String>,
    replay_lsn: Option<String>,
}

#[derive(Deserialize)]
struct RawSlot {
    name: String,
    logical: bool,
    active: bool,
    temporary: bool,
    restart_lsn: Option<String>,
    confirmed_flush_lsn: Option<String>,
    plugin: Option<String>,
    database: Option<String>,
    wal_status: Option<String>,
    holds_xmin: bool,
    failover: bool,
    synced: bool,
}

fn parse(text: &str) -> Result<Facts, String> {
    let raw: RawFacts = serde_json::from_str(text).map_err(|error| format!("its facts: {error}"))?;
    let receiver = raw.receiver.map(receiver).transpose()?;
    let timeline = if raw.in_recovery {
        let received = receiver.as_ref().and_then(|receiver| receiver.received_tli);
        // The receiver is ahead of the control file, unless it waits on an older timeline for a new order.
        received.max(raw.replayed_timeline.filter(|timeline| *timeline > 0).map(Timeline))
    } else {
        let digits = raw.written_timeline.as_deref().unwrap_or_default();
        let number = u32::from_str_radix(digits, 16).map_err(|_| format!("a timeline {digits:?}"))?;
        Some(Timeline(number))
    };
    Ok(Facts {
        in_recovery: raw.in_recovery,
        timeline,
        flush_lsn: lsn(raw.flush_lsn)?,
        received_lsn: lsn(raw.received_lsn)?,
        replayed_lsn: lsn(raw.replayed_lsn)?,
        replay_paused: raw.replay_paused,
        replayed_at: raw.replayed_at,
        receiver,
        postmaster_start_time: raw.postmaster_start_time,
        server_version: raw.server_version,
        system_id: system_id(&raw.system_id)?,
        replication: raw.replication.into_iter().map(standby).collect::<Result<_, _>>()?,
        slots: raw.slots.into_iter().map(slot).collect::<Result<_, _>>()?,
        pending_restart: raw.pending_restart,
        synchronous_standby_names: raw.synchronous_standby_names,
    })
}

fn receiver(raw: RawReceiver) -> Result<Receiver, String> {
    Ok(Receiver {
        status: raw.status.unwrap_or_default(),
        sender_host: raw.sender_host,
        sender_port: raw.sender_port,
        slot_name: raw.slot_name.filter(|name| !name.is_empty()),
        latest_end_lsn: lsn(raw.latest_end_lsn)?,
        received_tli: raw.received_tli.filter(|timeline| *timeline > 0).map(Timeline),
    })
}

fn standby(raw: RawStandby) -> Result<Standby, String> {
    Ok(Standby {
        pid: raw.pid,
        user: raw.user,
        application_name: raw.application_name.unwrap_or_default(),
        client_addr: raw.client_addr,
        state: raw.state,
        sync_state: raw.sync_state,
        sync_priority: raw.sync_priority,
        sent_lsn: lsn(raw.sent_lsn)?,
        write_lsn: lsn(raw.write_lsn)?,
        flush_lsn: lsn(raw.flush_lsn)?,
        replay_lsn: lsn(raw.replay_lsn)?,
    })
}

fn slot(raw: RawSlot) -> Result<Slot, String> {
    Ok(Slot {
        name: raw.name,
        kind: if raw.logical { SlotKind::Logical } else { SlotKind::Physical },
        active: raw.active,
        temporary: raw.temporary,
        restart_lsn: lsn(raw.restart_lsn)?,
        confirmed_flush_lsn: lsn(raw.confirmed_flush_lsn)?,
        plugin: raw.plugin,
        database: raw.database,
        wal_status: raw.wal_status,
        holds_xmin: raw.holds_xmin,
        failover: raw.failover,
        synced: raw.synced,
    })
}

fn lsn(text: Option<String>) -> Result<Option<Lsn>, String> {
    let lsn = text.map(|text| text.parse::<Lsn>()).transpose().map_err(|error| error.to_string())?;
    Ok(lsn.filter(|lsn| lsn.is_valid()))
}

/// The view shows the number as a signed one.
fn system_id(text: &str) -> Result<SystemId, String> {
    let number: i64 = text.parse().map_err(|_| format!("a system identifier {text:?}"))?;
    Ok(SystemId(number.cast_unsigned()))
}
