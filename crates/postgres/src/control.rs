//! `global/pg_control`, read without PostgreSQL's help: who these data are, where their WAL ends, how they were left.
//!
//! The file is the C structure `ControlFileData` in the byte order of this machine, followed by its CRC-32C. The
//! layouts of PostgreSQL 13 to 18 differ in one place: version 1800 put a byte before the nonce, which moves the
//! checksum. Any other version is refused by number.

use crate::error::Error;
use std::fmt;
use std::fs;
use std::path::Path;
use types::{Lsn, SystemId, Timeline};

/// How the data directory was left, or what its server is doing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ControlState {
    /// Being created, or starting.
    StartingUp,
    /// Stopped cleanly as a primary.
    ShutDown,
    /// Stopped cleanly as a standby.
    ShutDownInRecovery,
    /// Stopping as a primary.
    ShuttingDown,
    /// Replaying after a crash.
    InCrashRecovery,
    /// Running as a standby, or stopped uncleanly as one.
    InArchiveRecovery,
    /// Running as a primary, or stopped uncleanly as one.
    InProduction,
}

impl ControlState {
    fn of(number: u32) -> Option<ControlState> {
        match number {
            0 => Some(ControlState::StartingUp),
            1 => Some(ControlState::ShutDown),
            2 => Some(ControlState::ShutDownInRecovery),
            3 => Some(ControlState::ShuttingDown),
            4 => Some(ControlState::InCrashRecovery),
            5 => Some(ControlState::InArchiveRecovery),
            6 => Some(ControlState::InProduction),
            _ => None,
        }
    }

    /// The text that `pg_controldata` prints.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ControlState::StartingUp => "starting up",
            ControlState::ShutDown => "shut down",
            ControlState::ShutDownInRecovery => "shut down in recovery",
            ControlState::ShuttingDown => "shutting down",
            ControlState::InCrashRecovery => "in crash recovery",
            ControlState::InArchiveRecovery => "in archive recovery",
            ControlState::InProduction => "in production",
        }
    }

    /// Whether the data were left by a server that stopped in an orderly way.
    #[must_use]
    pub fn is_clean(self) -> bool {
        matches!(self, ControlState::ShutDown | ControlState::ShutDownInRecovery)
    }

    /// Whether the data were last served by a standby.
    #[must_use]
    pub fn is_standby(self) -> bool {
        matches!(self, ControlState::ShutDownInRecovery | ControlState::InArchiveRecovery)
    }
}

impl fmt::Display for ControlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What the control file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Control {
    pub system_id: SystemId,
    /// The version of the file's format: 1300, 1700 or 1800.
    pub control_version: u32,
    pub state: ControlState,
    /// When the file was last written, in seconds since 1970.
    pub time: i64,
    /// The position of the last checkpoint's record.
    pub checkpoint: Lsn,
    /// Where crash recovery from that checkpoint begins.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: Timeline,
    /// The timeline before it, when that checkpoint ended a recovery; otherwise the same.
    pub prev_timeline: Timeline,
    /// When that checkpoint was made, in seconds since 1970.
    pub checkpoint_time: i64,
    /// A standby must replay up to here before its data are consistent; also the position it was stopped at.
    pub min_recovery_end: Lsn,
    /// The timeline of `min_recovery_end`; 0 when there is none.
    pub min_recovery_timeline: Timeline,
    /// The start of the backup that these data are restored from, while its end has not been replayed.
    pub backup_start: Lsn,
    /// The end of that backup, when it was taken from a standby.
    pub backup_end: Lsn,
    /// Whether the end of the backup must be seen in the WAL before the data are consistent.
    pub backup_end_required: bool,
    pub wal_log_hints: bool,
    pub data_checksums: bool,
    pub wal_segment_size: u32,
    pub max_connections: u32,
    pub max_worker_processes: u32,
    pub max_wal_senders: u32,
    pub max_prepared_xacts: u32,
    pub max_locks_per_xact: u32,
}

/// PostgreSQL always writes this many bytes, the tail being zero.
const FILE_SIZE: usize = 8192;
/// How often a file is read again that changes while it is read.
const ATTEMPTS: usize = 10;

/// Reads and checks the control file of `data_dir`. The server may be running: a read in the middle of a write is
/// noticed by the checksum and repeated.
pub fn read(data_dir: &Path) -> Result<Control, Error> {
    let path = data_dir.join("global/pg_control");
    let mut before = Vec::new();
    let mut attempt = 1;
    loop {
        let bytes = fs::read(&path).map_err(|error| Error::io("read", &path, error))?;
        match parse(&bytes) {
            Ok(control) => return Ok(control),
            // The same bytes twice are not a write in progress.
            Err(why) if before == bytes || attempt == ATTEMPTS => return Err(Error::Control { path, why }),
            Err(_) => before = bytes,
        }
        attempt += 1;
        std::thread::yield_now();
    }
}

/// Reads the content of a control file.
pub fn parse(bytes: &[u8]) -> Result<Control, String> {
    let fields = Fields(bytes);
    let version = fields.u32(8).ok_or_else(|| too_short(bytes.len()))?;
    let checksum_at = match version {
        1300 | 1700 => 288,
        1800 => 292,
        other => return Err(format!("its format {other} belongs to no PostgreSQL from 13 to 18")),
    };
    let covered = bytes.get(..checksum_at).ok_or_else(|| too_short(bytes.len()))?;
    let stored = fields.u32(checksum_at).ok_or_else(|| too_short(bytes.len()))?;
    if crc32c::crc32c(covered) != stored {
        let advice = "the file is damaged; make a new copy of this node (baton reinit) or restore a backup";
        return Err(format!("its checksum does not match: {advice}"));
    }
    fields.control(version).ok_or_else(|| too_short(bytes.len()))?
}

fn too_short(length: usize) -> String {
    format!("it has {length} bytes instead of {FILE_SIZE}; make a new copy of this node or restore a backup")
}

/// Fields of the C structure by their offsets; `None` past the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        self.0.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    fn u32(&self, at: usize) -> Option<u32> {
        self.bytes(at).map(u32::from_ne_bytes)
    }

    fn u64(&self, at: usize) -> Option<u64> {
        self.bytes(at).map(u64::from_ne_bytes)
    }

    fn i64(&self, at: usize) -> Option<i64> {
        self.bytes(at).map(i64::from_ne_bytes)
    }

    fn flag(&self, at: usize) -> Option<bool> {
        self.0.get(at).map(|byte| *byte != 0)
    }

    fn lsn(&self, at: usize) -> Option<Lsn> {
        self.u64(at).map(Lsn)
    }

    fn timeline(&self, at: usize) -> Option<Timeline> {
        self.u32(at).map(Timeline)
    }

    /// The offsets up to 256 are the same in all supported versions: 40 is the copy of the last checkpoint, which
    /// is 88 bytes long.
    fn control(&self, control_version: u32) -> Option<Result<Control, String>> {
        let number = self.u32(16)?;
        let Some(state) = ControlState::of(number) else {
            return Some(Err(format!("its state {number} is unknown")));
        };
        Some(Ok(Control {
            system_id: SystemId(self.u64(0)?),
            control_version,
            state,
            time: self.i64(24)?,
            checkpoint: self.lsn(32)?,
            redo: self.lsn(40)?,
            timeline: self.timeline(48)?,
            prev_timeline: self.timeline(52)?,
            checkpoint_time: self.i64(104)?,
            min_recovery_end: self.lsn(136)?,
            min_recovery_timeline: self.timeline(144)?,
            backup_start: self.lsn(152)?,
            backup_end: self.lsn(160)?,
            backup_end_required: self.flag(168)?,
            wal_log_hints: self.flag(176)?,
            max_connections: self.u32(180)?,
            max_worker_processes: self.u32(184)?,
            max_wal_senders: self.u32(188)?,
            max_prepared_xacts: self.u32(192)?,
            max_locks_per_xact: self.u32(196)?,
            wal_segment_size: self.u32(228)?,
            data_checksums: self.u32(252)? != 0,
        }))
    }
}
