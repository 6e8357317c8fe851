//! What all connections of one router share.

use crate::config::Config;
use crate::metrics::{Count, ServiceCounts};
use crate::sessions::Sessions;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tokio::sync::Semaphore;

pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) sessions: Arc<Sessions>,
    /// One for each service, in the order of the configuration.
    pub(crate) counts: Vec<ServiceCounts>,
    /// Places for connections that wait for a target.
    pub(crate) waiting: Arc<Semaphore>,
    pub(crate) etcd_lost: AtomicBool,
    /// Changes of the primary or its term.
    pub(crate) changes: Count,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Arc<Shared> {
        Arc::new(Shared {
            sessions: Sessions::new(&config),
            counts: config.services.iter().map(|_| ServiceCounts::default()).collect(),
            waiting: Arc::new(Semaphore::new(config.hold.limit.min(Semaphore::MAX_PERMITS))),
            etcd_lost: AtomicBool::new(false),
            changes: Count::default(),
            config,
        })
    }
}
