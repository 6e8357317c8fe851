//! etcd over gRPC: endpoints, keys, records, compare-and-swap, lease, watch.
//!
//! ```text
//!   read, write, lease, watch        what the agent, the router and the command line call
//!        │ commit                    a write is sent, or looked after when its answer was lost; never repeated blindly
//!        │ rounds                    which endpoint next, how long it may take, when to pause, when to give up
//!        ▼ endpoints                 one etcd_client::Client pinned to each endpoint, connected when first needed
//!      etcd
//!        │ keys, records             Patroni's layout and JSON
//!        ▼ snapshot                  what is under the prefix, as values; built by a read, carried on by the watch
//! ```
//!
//! Every call takes the moment by which it must have ended. An answer counts only when it came from a majority: reads
//! are linearizable, and all requests demand that the member has a leader.

mod commit;
mod config;
mod endpoints;
mod error;
mod failure;
mod health;
mod keys;
mod lease;
mod read;
mod records;
mod rounds;
mod snapshot;
mod watch;
mod write;

pub use config::{Config, Credentials, Tls};
pub use error::{Attempt, Error};
pub use health::{
    Alarm, Certificate, Endpoint, Health, Holder, Listed, Status as MemberStatus, Warning, Whole,
};
pub use keys::{Key, Keys};
pub use lease::{Claimed, Granted, Renewed};
pub use records::{
    AddressHolder, AddressRow, ArchiveRow, BgpNeighbor, ConfigKey, Continuity, Failover, Handover,
    HistoryRow, Initialize, Leader, Loss, LostIn, Member, NoSchedule, OrText, PendingChange, Router,
    Schedule, Status, Sync, Writable,
};
pub use snapshot::{Limits, Snapshot, Spoiled};
pub use watch::{Contact, View, Watcher, watch};
pub use write::Grounds;

use endpoints::Endpoints;
use std::sync::Arc;

/// etcd as one cluster's keys. A cheap clone: all clones share the pin and the connections.
#[derive(Clone)]
pub struct Etcd {
    inner: Arc<Inner>,
}

struct Inner {
    endpoints: Endpoints,
    keys: Keys,
}

impl Etcd {
    /// Checks the configuration; connects to nothing yet.
    pub fn new(config: Config, keys: Keys) -> Result<Etcd, Error> {
        let endpoints = Endpoints::new(config)?;
        Ok(Etcd { inner: Arc::new(Inner { endpoints, keys }) })
    }

    /// The keys of this cluster.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.inner.keys
    }

    /// The endpoint that answered last, for status texts.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        self.inner.endpoints.pinned_url()
    }

    pub(crate) fn endpoints(&self) -> &Endpoints {
        &self.inner.endpoints
    }
}

impl std::fmt::Debug for Etcd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Etcd").field("keys", &self.inner.keys).finish_non_exhaustive()
    }
}
