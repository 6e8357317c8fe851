//! Virtual addresses: each is held only as long as the right to it lasts.
//!
//! ```text
//!   agent: term, deadline, writable ──┐ Rights
//!   or etcd: the leader key, its lease┤   │
//!   claims: a key for each other role ┘   │
//!                                         ▼
//!                     holder ──► hold (pure) ──► links (netlink): address with a lifetime that ends before the right
//!                        │
//!                        ├────► announce (pure) ──► frames ──► packets: ARP and neighbour advertisements
//!                        └────► hook: a command that moves it, in clouds
//! ```
//! What enforces the end is the kernel: an agent that is killed, frozen or starved renews nothing, and the address goes.

mod address;
mod announce;
mod claims;
mod elect;
mod frames;
mod hold;
mod holder;
mod hook;
mod links;
mod metrics;
mod packets;
mod subnet;
mod trigger;

pub use address::{Role, Unusable, Wanted};
pub use claims::{Claims, LEAST_CLAIM};
pub use frames::Mac;
pub use hold::{Right, Why};
pub use holder::{Conflict, Counts, Held, Holder, Rights, colons};
pub use hook::{Hook, HookState};
pub use links::Error;
pub use metrics::metrics;
pub use trigger::Trigger;
