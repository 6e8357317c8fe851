//! How the PostgreSQL on this host is doing, in one round trip.
//!
//! ```text
//!            ┌── connection kept ──┐
//! probe ──> query ── answer ──> Running(Facts)
//!            ├── it broke ──> connect anew, once ──> Running | Starting | NotAccepting | Failed
//!            └── no answer in time ──> Unresponsive, connection dropped
//! clients have all connections ──> one of those kept for standbys ──> Running | Crowded
//! ```
//!
//! The connection lives as long as it answers; a `probe` never takes longer than its caller allows.

mod query;

use crate::connection::{ConnectTo, Connection, Mode, Rows, SqlError};
use query::{QUERY, parse};
use std::time::Duration;
use tokio::time::Instant;
use types::{Lsn, SystemId, Timeline};
pub use types::{Slot, SlotKind};

/// In force on the connection of the probe. The server's own limit ends a statement that we no longer wait for.
const SETTINGS: [(&str, &str); 4] = [
    ("statement_timeout", "2s"),
    ("search_path", "pg_catalog"),
    ("jit", "off"),
    ("default_transaction_isolation", "read committed"),
];

/// The name of the connection in `pg_stat_activity`.
const HEARTBEAT: &str = "baton heartbeat";

/// `too_many_connections`
const CROWDED: &str = "53300";

/// What a probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answers queries.
    Running(Box<Facts>),
    /// It exists but does not take connections yet, or no longer (SQLSTATE 57P03).
    Starting { why: String },
    /// Nobody listens, or it hangs up on us.
    NotAccepting { why: String },
    /// It lives, and all of its connections are taken (SQLSTATE 53300).
    Crowded { why: String },
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
    /// Standby: it has a `restore_command`, so that WAL which nobody sends comes from an archive.
    pub restores: bool,
    pub receiver: Option<Receiver>,
    /// `2026-11-23 00:07:28.123456+00:00`
    pub postmaster_start_time: String,
    /// 150018
    pub server_version: u32,
    pub system_id: SystemId,
    /// Who streams from it.
    pub replication: Vec<Standby>,
    pub slots: Vec<Slot>,
    /// Without the targets of a recovery: they leave the file with a promotion and mean nothing to a primary.
    pub pending_restart: Vec<Pending>,
    /// PostgreSQL 17 and later: it copies failover slots from its primary by itself (`sync_replication_slots`).
    pub slot_sync: bool,
    pub synchronous_standby_names: String,
    /// The checkpointer rests: it has put a change of `synchronous_standby_names` into effect. While it forces files to the
    /// disk it has not heard of the change, and commits do not wait yet.
    pub checkpointer_rests: bool,
    /// So many more clients can connect; 0 or less: nobody but superusers.
    pub free_slots: i64,
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

/// A parameter that takes effect at the next restart only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    pub name: String,
    /// In effect, as `SHOW` prints it.
    pub running: Option<String>,
    /// In the configuration files; the default where they no longer name it.
    pub wanted: Option<String>,
}

/// Asks one PostgreSQL again and again.
pub struct Prober {
    to: ConnectTo,
    connection: Option<Connection>,
    /// The connection is one of those kept for standbys.
    as_sender: bool,
}

impl Prober {
    /// For the PostgreSQL at `to`; connects with the first probe.
    #[must_use]
    pub fn new(to: ConnectTo) -> Prober {
        Prober { to: to.named(HEARTBEAT), connection: None, as_sender: false }
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
        // Taken out, so that a probe that is dropped half-way takes its connection along. One that was kept for standbys is theirs
        // again as soon as there is another.
        let kept = self.connection.take().filter(|_| !self.as_sender);
        self.as_sender = false;
        let again = kept.is_some();
        match self.ask(kept, deadline, within).await {
            Ok(facts) => Probe::Running(Box::new(facts)),
            // The kept connection may have ended with the server's previous life; what counts is a new one. And a
            // promotion may end recovery between two functions of the query.
            Err(error) if again && is_worth_another(&error) || is_promoted_meanwhile(&error) => {
                match self.ask(None, deadline, within).await {
                    Ok(facts) => Probe::Running(Box::new(facts)),
                    Err(error) => self.crowded(error, deadline, within).await,
                }
            }
            Err(error) => self.crowded(error, deadline, within).await,
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

    /// Clients have taken all connections, those for superusers too: there are others, for standbys.
    async fn crowded(&mut self, error: SqlError, deadline: Instant, within: Duration) -> Probe {
        if error.sqlstate() != Some(CROWDED) {
            return judge(&error);
        }
        self.as_sender = true;
        match self.ask(None, deadline, within).await {
            Ok(facts) => Probe::Running(Box::new(Facts { free_slots: facts.free_slots.min(0), ..facts })),
            Err(_) => judge(&error),
        }
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
        let mode = if self.as_sender { Mode::SqlAsSender } else { Mode::Sql };
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(&self.to, mode, &SETTINGS, left(deadline)).await.map_err(full)?,
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
        | SqlError::Tls { .. }
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
            CROWDED => Probe::Crowded { why },
            "57P01" | "57P02" => Probe::NotAccepting { why },
            // Its own time limit: as silent as no answer at all.
            "57014" => Probe::Unresponsive { why },
            _ => Probe::Failed { why },
        },
        SqlError::Nonsense { .. } | SqlError::Tls { .. } | SqlError::Login { .. } => Probe::Failed { why },
    }
}
