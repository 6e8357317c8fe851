//! `etcd3:` (or `etcd:`) in all its spellings, as a list of URLs.

use crate::secret::Credentials;
use std::path::PathBuf;

/// How etcd is reached.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Etcd {
    /// `http://10.0.0.1:2379`, at least one.
    pub endpoints: Vec<String>,
    /// Whether the list is fixed (`use_proxies`), so that other members are not to be discovered.
    pub fixed: bool,
    pub cacert: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub authentication: Option<Credentials>,
}
