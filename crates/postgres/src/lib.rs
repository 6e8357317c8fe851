//! The PostgreSQL on this host: its processes, its files, its programs, and the protocol spoken to it.
//!
//!     files        data_dir (what is there) · control (pg_control) · config_files (written, never destroyed)
//!     programs     installation · initdb · basebackup · rewind · loss (what only we had) · handover (of the last WAL) · script (an operator's) · archive (archive_command)
//!     processes    postmaster (start, adopt, watch, stop, kill)
//!     connections  probe · replication · wal_sources (who has what a standby needs) · users · slots · waiters
//!
//! Nothing here decides anything: each function does one thing it is told to do, or says why it could not.

pub mod archive;
pub mod archiver;
pub mod basebackup;
pub mod config_files;
pub mod connection;
pub mod continuity;
pub mod control;
pub mod data_dir;
pub mod error;
mod files;
pub mod handover;
pub mod initdb;
pub mod installation;
mod job;
pub mod loss;
mod parameter;
mod passfile;
pub mod postmaster;
pub mod probe;
pub mod replication;
pub mod rewind;
mod room;
pub mod script;
pub mod slots;
pub mod users;
pub mod waiters;
mod wal;
pub mod wal_sources;
mod wire;

pub use error::Error;
pub use parameter::is_decided;
pub use types::Secret;
