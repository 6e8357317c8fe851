//! Times that routers keep and agents count on.

use std::time::Duration;

/// So long a router without etcd believes its agent's word that it leads.
pub const ROUTER_BELIEVES_AGENT: Duration = Duration::from_secs(3);

/// The time to live of a router's key in etcd: one that says nothing is gone after it.
pub const ROUTER_LEASE: Duration = Duration::from_secs(10);
