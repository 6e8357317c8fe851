//! What can go wrong with the PostgreSQL on this host, sorted by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the local PostgreSQL, its files or its programs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No usable installation: an operator must install something or correct `bin_dir`.
    #[error("find PostgreSQL: {0}")]
    Installation(String),
    /// The operating system refused something; the text says what and on which path.
    #[error("{what}: {source}")]
    Io {
        /// What was tried, such as `read /data/PG_VERSION`.
        what: String,
        /// The answer of the operating system.
        source: io::Error,
    },
    /// `pg_control` cannot be trusted: nothing may be started on this directory.
    #[error("read {path}: {why}")]
    Control {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
    /// The request makes no sense or would do harm; the text says which part and what to do instead.
    #[error("{0}")]
    Refused(String),
    /// Somebody else's postmaster runs on this data directory: adopt it or stop it.
    #[error("start PostgreSQL: process {pid} already serves this data directory; adopt it or stop it first")]
    AlreadyRunning {
        /// Its process id.
        pid: u32,
    },
    /// A program of PostgreSQL failed; the text has its last words.
    #[error("{program}: {how}: {last_words}")]
    Program {
        /// Its name.
        program: String,
        /// Its exit status, or what was expected of it.
        how: String,
        /// The end of what it printed.
        last_words: String,
    },
    /// It was not done when the caller's patience ended; trying again can help.
    #[error("{what}: not done within {within:?}; try again")]
    Timeout {
        /// What was tried.
        what: String,
        /// How long.
        within: std::time::Duration,
    },
}

impl Error {
    pub(crate) fn io(verb: &str, path: &Path, source: io::Error) -> Error {
        Error::Io { what: format!("{verb} {}", path.display()), source }
    }
}
