//! Where etcd is and how to be let in.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where etcd is and how to be let in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// Such as `http://10.0.0.1:2379`; without a scheme it is `http`, or `https` when `tls` is given.
    pub endpoints: Vec<String>,
    /// How long one attempt at one endpoint may take, such as 1 s.
    pub attempt: Duration,
    /// Certificates; without them `https` endpoints are checked against the system's authorities.
    pub tls: Option<Tls>,
    /// A user of etcd's own authentication.
    pub auth: Option<Credentials>,
}

/// PEM files. They are read again for every new connection, so replaced certificates are taken up by themselves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tls {
    /// The authority that signed the servers' certificates; the system's authorities when absent.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub cert: Option<PathBuf>,
    /// The key of the client certificate.
    pub key: Option<PathBuf>,
}

/// A user of etcd's own authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("user", &self.user).finish_non_exhaustive()
    }
}
