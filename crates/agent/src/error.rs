//! Why the agent ends with an error: each kind has an exit code of its own.

use std::path::PathBuf;

/// Why the agent could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("find PostgreSQL's programs: {0}")]
    Installation(#[source] postgres::Error),
    #[error(
        "listen on {address} for the REST API: {source}; another process uses it, or the address is not of this host"
    )]
    AddressInUse { address: String, source: std::io::Error },
    #[error("serve the REST API over TLS: could not {0}")]
    Certificate(#[source] tls::Error),
    #[error("use the data directory {path}: {why}")]
    DataDirectory { path: PathBuf, why: String },
    #[error(
        "take part in the cluster: the data directory belongs to another cluster (see the last lines of the log)"
    )]
    ForeignData,
    #[error("create the cluster (see the last lines of the log)")]
    BootstrapFailed,
    #[error(
        "Can't start; there is already a node named '{name}' running, at {api_url}: give this one another name, or stop that one"
    )]
    NameTaken { name: String, api_url: String },
    #[error("use the virtual addresses: failed to {0}")]
    VirtualAddress(String),
    #[error("tell the cluster's names: failed to {0}")]
    Names(String),
    #[error("use etcd: {0}")]
    Etcd(#[from] etcd::Error),
    #[error("start the guard: {0}")]
    Guard(#[from] crate::guard::GuardError),
    #[error("start the agent: {0}")]
    System(#[from] std::io::Error),
}
