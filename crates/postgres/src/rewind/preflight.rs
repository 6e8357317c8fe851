//! Whether a rewind would work if one were needed, found out while all is well.
//!
//! What is in the way is an [`Obstacle`]. What could not be asked is none: a leader that does not answer just now says
//! nothing about a later one.

use super::source;
use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use crate::control;
use crate::installation::Installation;
use crate::room;
use std::fmt;
use std::path::Path;
use std::time::Duration;
use types::Lsn;

const WITHIN: Duration = Duration::from_secs(5);
const MB: u64 = 1 << 20;

/// What a rewind would fail of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// `use_pg_rewind` is off.
    SwitchedOff,
    NoProgram {
        path: String,
    },
    /// Neither checksums nor `wal_log_hints`.
    NoHints,
    FullPageWritesOff,
    /// The other does not let the user for the rewind in.
    Login {
        why: String,
    },
    /// It may not execute this there.
    Rights {
        user: String,
        place: String,
        missing: String,
    },
    /// After a failover a checkpoint may remove WAL that pg_rewind reads.
    WalNotKept {
        kept: u64,
        needed: u64,
    },
    NoRoom {
        why: String,
    },
}

impl Obstacle {
    /// Every code, in the order in which obstacles are found.
    pub const CODES: [&'static str; 8] =
        ["use_pg_rewind", "program", "hints", "full_page_writes", "login", "grants", "wal", "room"];

    /// Whether it is sure to fail of this. The WAL is there unless a checkpoint comes between; and what somebody switched
    /// off is no fault.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        !matches!(self, Obstacle::SwitchedOff | Obstacle::WalNotKept { .. })
    }

    /// The word for metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Obstacle::SwitchedOff => "use_pg_rewind",
            Obstacle::NoProgram { .. } => "program",
            Obstacle::NoHints => "hints",
            Obstacle::FullPageWritesOff => "full_page_writes",
            Obstacle::Login { .. } => "login",
            Obstacle::Rights { .. } => "grants",
            Obstacle::WalNotKept { .. } => "wal",
            Obstacle::NoRoom { .. } => "room",
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Obstacle::SwitchedOff => f.write_str(
                "use_pg_rewind is off, so a member that went on alone is copied anew: set postgresql.use_pg_rewind \
                 in the dynamic configuration",
            ),
            Obstacle::NoProgram { path } => write!(
                f,
                "{path} cannot be run: install PostgreSQL's server package again, or correct postgresql.bin_dir"
            ),
            Obstacle::NoHints => f.write_str(
                "there are neither data checksums nor wal_log_hints: set wal_log_hints to on in the dynamic \
                 configuration and restart the members",
            ),
            Obstacle::FullPageWritesOff => {
                f.write_str("full_page_writes is off, which pg_rewind does not accept of its source: set it to on")
            }
            Obstacle::Login { why } => write!(
                f,
                "the user for the rewind cannot log in ({why}): correct postgresql.authentication.rewind, or pg_hba"
            ),
            Obstacle::Rights { user, place, missing } => write!(
                f,
                "user {user} may not execute {missing} at {place}: as a superuser, GRANT EXECUTE ON FUNCTION \
                 {missing} TO {user}"
            ),
            Obstacle::WalNotKept { kept, needed } => write!(
                f,
                "there have been {} MB of WAL since a checkpoint, wal_keep_size keeps {} MB, and no restore_command \
                 brings the rest back: raise wal_keep_size, or archive and set restore_command",
                needed / MB,
                kept / MB
            ),
            Obstacle::NoRoom { why } => f.write_str(why),
        }
    }
}

/// What the local PostgreSQL and its directory say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Here {
    pub obstacles: Vec<Obstacle>,
    /// WAL since the last checkpoint, and how much is kept beyond what PostgreSQL needs; `None`: an archive has it.
    pub wal: Option<(u64, u64)>,
}

/// Looks at the programs, the control file and the disk, and asks the PostgreSQL that runs here.
pub async fn here(
    installation: &Installation,
    data_dir: &Path,
    local: &ConnectTo,
    restores: bool,
) -> Result<Here, String> {
    let (dir, program) = (data_dir.to_owned(), installation.bin_dir.join("pg_rewind"));
    let looked = tokio::task::spawn_blocking(move || look(&dir, &program));
    let looked = tokio::time::timeout(2 * WITHIN, looked).await;
    let (mut obstacles, redo) = match looked {
        Ok(Ok(Ok(found))) => found,
        Ok(Ok(Err(error))) => return Err(error.to_string()),
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("the disk of the data directory does not answer".to_owned()),
    };
    let sql = "SELECT current_setting('full_page_writes') AS full_page_writes, \
               pg_size_bytes(current_setting('wal_keep_size')) AS kept, \
               CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn";
    let mut session =
        Connection::open(local, Mode::Sql, &[], WITHIN).await.map_err(|error| error.to_string())?;
    let rows = session.query(sql, WITHIN).await.map_err(|error| error.to_string())?;
    if rows.first("full_page_writes") == Some("off") {
        obstacles.push(Obstacle::FullPageWritesOff);
    }
    let kept = rows.first("kept").and_then(|bytes| bytes.parse().ok()).unwrap_or_default();
    let lsn: Option<Lsn> = rows.first("lsn").and_then(|lsn| lsn.parse().ok());
    let written = lsn.map_or(0, |lsn| lsn.bytes_since(redo));
    Ok(Here { obstacles, wal: (!restores).then_some((written, kept)) })
}

fn look(data_dir: &Path, program: &Path) -> Result<(Vec<Obstacle>, Lsn), crate::Error> {
    let mut obstacles = Vec::new();
    if rustix::fs::access(program, rustix::fs::Access::EXEC_OK).is_err() {
        obstacles.push(Obstacle::NoProgram { path: program.display().to_string() });
    }
    let control = control::read(data_dir)?;
    if !control.data_checksums && !control.wal_log_hints {
        obstacles.push(Obstacle::NoHints);
    }
    // The tail is copied, and so is the WAL of the other, which is about as much as there is here.
    if let Err(why) = room::check(data_dir, "a rewind", room::size(&data_dir.join("pg_wal"))) {
        obstacles.push(Obstacle::NoRoom { why });
    }
    Ok((obstacles, control.redo))
}

/// Logs in at another member as a rewind would.
pub async fn there(from: &ConnectTo) -> Result<Option<Obstacle>, SqlError> {
    let mut session = match Connection::open(from, Mode::Sql, &[("search_path", "pg_catalog")], WITHIN).await
    {
        Ok(session) => session,
        Err(error) => return login(error).map(Some),
    };
    let missing = source::missing_rights(&mut session).await?;
    let (user, place) = (from.user.clone(), from.place());
    Ok((!missing.is_empty()).then_some(Obstacle::Rights { user, place, missing }))
}

/// A wrong password, an unknown user or database, or a rule of pg_hba; everything else may pass.
fn login(error: SqlError) -> Result<Obstacle, SqlError> {
    let refused = error
        .sqlstate()
        .is_some_and(|state| state.starts_with("28") || state.starts_with("3D") || state == "42501");
    if refused || matches!(error, SqlError::Login { .. } | SqlError::Tls { .. }) {
        return Ok(Obstacle::Login { why: error.to_string() });
    }
    Err(error)
}
