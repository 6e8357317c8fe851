//! One connection to a PostgreSQL, for SQL or for replication commands, always with a deadline on our side.
//!
//! ```text
//! ConnectTo ── open(within) ──> Connection ── query(sql, within) ──> Rows
//!                  │                 │
//!                  └── SqlError <────┘   after NoAnswer, Lost and Nonsense the connection is not used again
//! ```
//!
//! The simple query protocol alone: one round trip, no prepared statements, the same for SQL and for
//! `IDENTIFY_SYSTEM`. There is no background task: whoever holds the connection reads it, and dropping it closes the
//! socket at once, also when the server hangs.

use crate::config_files::conninfo;
use crate::wire::{self, Wire};
use postgres_protocol::message::backend::Message;
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::Secret;

/// More than this in one answer is refused, so that a hostile or broken server cannot fill our memory.
const ANSWER_LIMIT: usize = 8 << 20;

/// Where to connect, and as whom. The `Debug` text holds no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectTo {
    /// The directory of the Unix socket when it begins with `/`, else an address or a host name.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub dbname: String,
    /// Shown in `pg_stat_activity` and in `pg_stat_replication`.
    pub application_name: String,
    /// `sslmode`, `sslrootcert` and the like, in the words of libpq.
    pub tls: BTreeMap<String, String>,
    /// The password of an encrypted `sslkey`.
    pub sslpassword: Option<Secret>,
}

impl ConnectTo {
    /// The place, for messages: `/run/postgresql:5432` or `10.0.0.7:5432`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The same place under another application name.
    #[must_use]
    pub fn named(&self, application_name: &str) -> ConnectTo {
        ConnectTo { application_name: application_name.to_owned(), ..self.clone() }
    }

    /// The pairs of a libpq connection string, without the passwords.
    #[must_use]
    pub fn pairs(&self) -> Vec<(String, String)> {
        let mut pairs = vec![
            ("host".to_owned(), self.host.clone()),
            ("port".to_owned(), self.port.to_string()),
            ("user".to_owned(), self.user.clone()),
            ("dbname".to_owned(), self.dbname.clone()),
            ("application_name".to_owned(), self.application_name.clone()),
        ];
        pairs.extend(self.tls.iter().map(|(name, value)| (name.clone(), value.clone())));
        pairs
    }

    /// The libpq connection string, without the password, for programs: a connection that dies silently is noticed.
    #[must_use]
    pub(crate) fn conninfo(&self) -> String {
        let mut pairs = self.pairs();
        let watch = [("connect_timeout", "10"), ("keepalives_idle", "10"), ("keepalives_interval", "5")];
        pairs.extend(watch.map(|(name, value)| (name.to_owned(), value.to_owned())));
        conninfo(&pairs)
    }
}

/// What kind of session the server is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// SQL.
    Sql,
    /// SQL over one of the connections that are kept for standbys (`max_wal_senders`): there may be one when clients have taken
    /// all others.
    SqlAsSender,
    /// Replication commands; needs the `REPLICATION` attribute.
    Replication,
}

/// Why a conversation with a PostgreSQL failed.
#[derive(Debug, thiserror::Error)]
pub enum SqlError {
    /// Nobody accepts connections there.
    #[error(
        "connect to PostgreSQL at {place}: {source}; check that it is running and that host and port are right"
    )]
    Unreachable { place: String, source: io::Error },
    /// The deadline passed first. The statement may still be running over there.
    #[error(
        "get an answer from PostgreSQL at {place} within {within:?}; it may be overloaded, stopped or cut off"
    )]
    NoAnswer { place: String, within: Duration },
    /// The server answered with an error.
    #[error("get PostgreSQL at {place} to agree: {answer}")]
    Refused { place: String, answer: ServerError },
    /// The connection ended in the middle.
    #[error("keep the connection to PostgreSQL at {place}: {source}")]
    Lost { place: String, source: io::Error },
    /// What came is not what a PostgreSQL says.
    #[error("understand the answer of {place}: {what}; check that this is a PostgreSQL server")]
    Nonsense { place: String, what: String },
    /// The two sides cannot agree on an encrypted connection.
    #[error(
        "agree with PostgreSQL at {place} on TLS: {what}; check sslmode, sslrootcert, sslcert and sslkey"
    )]
    Tls { place: String, what: String },
    /// The server wants something that we do not have.
    #[error("log in to PostgreSQL at {place} as {user}: {what}")]
    Login { place: String, user: String, what: &'static str },
}

impl SqlError {
    /// The SQLSTATE, when the server answered with an error.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            SqlError::Refused { answer, .. } => Some(&answer.sqlstate),
            SqlError::Unreachable { .. }
            | SqlError::NoAnswer { .. }
            | SqlError::Lost { .. }
            | SqlError::Nonsense { .. }
            | SqlError::Tls { .. }
            | SqlError::Login { .. } => None,
        }
    }
}

/// An ErrorResponse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerError {
    pub severity: String,
    pub sqlstate: String,
    pub message: String,
    pub detail: Option<String>,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.sqlstate)?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// What a statement returned: the last result that has columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub columns: Vec<String>,
    /// The type of each column, as `pg_type.oid`.
    pub types: Vec<u32>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// The value in the first row under this column; `None` also when it is NULL.
    #[must_use]
    pub fn first(&self, column: &str) -> Option<&str> {
        let at = self.columns.iter().position(|name| name == column)?;
        self.rows.first()?.get(at)?.as_deref()
    }

    /// The first column of each row, without NULLs.
    #[must_use]
    pub fn first_column(&self) -> Vec<&str> {
        self.rows.iter().filter_map(|row| row.first().and_then(Option::as_deref)).collect()
    }

    /// The value in the first row and the first column.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        self.rows.first()?.first()?.as_deref()
    }
}

/// An open session.
pub struct Connection {
    wire: Wire,
    place: String,
    /// False from the first sign that the two sides no longer agree where in the conversation they are.
    usable: bool,
    answer_limit: usize,
}

impl Connection {
    /// Connects and logs in, with `settings` (`name`, `value`) in force from the start.
    pub async fn open(
        to: &ConnectTo,
        mode: Mode,
        settings: &[(&str, &str)],
        within: Duration,
    ) -> Result<Connection, SqlError> {
        let deadline = Instant::now() + within;
        match timeout_at(deadline, wire::open(to, mode, settings)).await {
            Ok(Ok(wire)) => {
                Ok(Connection { wire, place: to.place(), usable: true, answer_limit: ANSWER_LIMIT })
            }
            Ok(Err(error)) => Err(error.at(to, within)),
            Err(_) => Err(SqlError::NoAnswer { place: to.place(), within }),
        }
    }

    /// The same with room for longer answers, for a person who asked for them.
    #[must_use]
    pub fn with_answers_up_to(self, bytes: usize) -> Connection {
        Connection { answer_limit: bytes, ..self }
    }

    /// Whether another query may be sent.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.usable
    }

    /// The process that serves us over there.
    #[must_use]
    pub fn backend_pid(&self) -> u32 {
        self.wire.backend_pid
    }

    /// Sends `sql` (or a replication command) and collects the answer. When the answer does not come in time, or
    /// when the future is dropped before, the connection is spent.
    pub async fn query(&mut self, sql: &str, within: Duration) -> Result<Rows, SqlError> {
        let place = || self.place.clone();
        if !self.usable {
            let source = io::Error::other("an earlier query on this connection never ended");
            return Err(SqlError::Lost { place: place(), source });
        }
        self.usable = false;
        match timeout_at(Instant::now() + within, converse(&mut self.wire, sql, self.answer_limit)).await {
            Err(_) => Err(SqlError::NoAnswer { place: place(), within }),
            Ok(Err(wire::Failure::Refused(answer))) => {
                // After an ERROR the server is ready again; after a FATAL it hangs up.
                self.usable = answer.severity == "ERROR";
                Err(SqlError::Refused { place: place(), answer })
            }
            Ok(Err(failure)) => Err(failure.after_login(place())),
            Ok(Ok(rows)) => {
                self.usable = true;
                Ok(rows)
            }
        }
    }

    /// Sends a replication command that begins to copy in both directions, and waits until the server has something to copy or
    /// refuses. The connection is spent.
    pub(crate) async fn begin_copy(mut self, command: &str, within: Duration) -> Result<(), SqlError> {
        let place = self.place.clone();
        match timeout_at(Instant::now() + within, copying(&mut self.wire, command)).await {
            Err(_) => Err(SqlError::NoAnswer { place, within }),
            Ok(Err(wire::Failure::Refused(answer))) => Err(SqlError::Refused { place, answer }),
            Ok(Err(failure)) => Err(failure.after_login(place)),
            Ok(Ok(())) => Ok(()),
        }
    }
}

/// What came of a knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knock {
    /// Somebody is at home.
    Greeted,
    /// Nothing came in time, or so many wait at the door already that no more may.
    Silent,
    /// Nobody listens there, or it hung up without a word.
    Closed,
}

/// Connects and waits for the first byte, without logging in: PostgreSQL's postmaster and a new process of it answer that before
/// they read a table or take a lock.
pub async fn knock(to: &ConnectTo, within: Duration) -> Knock {
    match timeout_at(Instant::now() + within, wire::greeting(to)).await {
        Ok(Ok(())) => Knock::Greeted,
        Ok(Err(wire::Failure::Silent)) | Err(_) => Knock::Silent,
        Ok(Err(_)) => Knock::Closed,
    }
}

/// A copy begins, which the server says before it looks for what it shall send; the first piece of it shows that it found that.
async fn copying(wire: &mut Wire, command: &str) -> Result<(), wire::Failure> {
    wire.send_query(command).await?;
    loop {
        match wire.receive_kind().await? {
            wire::COPY_BOTH => {}
            // There is nothing more on this timeline: it has sent what there was.
            wire::COPY_DATA | wire::COPY_DONE | wire::COMMAND_COMPLETE => return Ok(()),
            _ => return Err(wire::Failure::Nonsense("a message that no replication begins with".to_owned())),
        }
    }
}

/// One query and its answer, up to ReadyForQuery.
async fn converse(wire: &mut Wire, sql: &str, limit: usize) -> Result<Rows, wire::Failure> {
    wire.send_query(sql).await?;
    let mut rows = Rows::default();
    let mut refused = None;
    let mut size = 0;
    loop {
        match wire.receive().await? {
            Message::RowDescription(body) => {
                let (columns, types) = wire::columns(&body)?;
                rows = Rows { columns, types, rows: Vec::new() };
            }
            Message::DataRow(body) => {
                // Counted with the bookkeeping of each cell, which for many empty cells outweighs the text.
                size += body.buffer().len() + 32 * (1 + rows.columns.len());
                if size > limit {
                    return Err(wire::Failure::Nonsense(format!("an answer of more than {limit} bytes")));
                }
                rows.rows.push(wire::cells(&body)?);
            }
            Message::ErrorResponse(body) => {
                let answer = wire::server_error(&body);
                if answer.severity != "ERROR" {
                    return Err(wire::Failure::Refused(answer));
                }
                refused = Some(answer);
            }
            Message::ReadyForQuery(_) => break,
            Message::CommandComplete(_) | Message::EmptyQueryResponse => {}
            _ => return Err(wire::Failure::Nonsense("a message that no query of ours asks for".to_owned())),
        }
    }
    match refused {
        Some(answer) => Err(wire::Failure::Refused(answer)),
        None => Ok(rows),
    }
}
