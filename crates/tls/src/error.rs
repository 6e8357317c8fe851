//! What can be wrong with certificates and keys, and what to do about it.

use std::path::PathBuf;

/// Why there is no configuration; completes "failed to …".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read, or is not what it should be.
    #[error("read {}: {why}", path.display())]
    File { path: PathBuf, why: String },
    /// No certificate authority to believe.
    #[error(
        "find a certificate authority to believe: this host has none; name one (cacert, cafile, sslrootcert)"
    )]
    NoAuthority,
    /// None of the wanted cipher suites is known.
    #[error(
        "find a cipher suite that {wanted:?} allows; of TLS 1.2 there are ECDHE with AES-GCM and with CHACHA20-POLY1305 (leave ciphers out to take them all)"
    )]
    Ciphers { wanted: String },
    /// Certificate and key do not make a pair, or the like.
    #[error("use certificate and key: {0}")]
    Unfit(String),
}

impl Error {
    pub(crate) fn file(path: &std::path::Path, why: impl std::fmt::Display) -> Error {
        Error::File { path: path.to_owned(), why: why.to_string() }
    }
}
