//! The router: clients know one address and a few ports, and reach the right member.
//!
//! ```text
//!   etcd ──► steer ──► truth (pure) ──► sessions: cuts what must end, holds before a switchover, wakes what waits
//!                                          │
//!   listener ──► client ──► startup ──► hold ──► choose, balance (pure) ──► connect ──► proof ──► relay
//!                   └──► cancel
//!   api: /health, /metrics, /services; drain, pin, reload            handover: the sockets go to the next process
//!                                                                    elders: what the one before still serves
//! ```
//!
//! The rules: nothing is routed before the first consistent state was read. A session on the primary carries the term
//! of the leader key; when that term is over, it is cut in the same step in which the router learns of it, and no
//! session is opened to the holder of an older term. While there is nowhere to go, new connections wait.
//!
//! A session (`sessions`), where it stands in the protocol (`conversation`) and its backend (`hold`) are things apart.

mod api;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "a fuzzer wants to be told by a panic")]
pub mod bad_input;
mod balance;
mod bulk;
mod cancel;
mod carrier;
mod choose;
mod client;
mod config;
mod conversation;
mod cut_reason;
mod descriptors;
mod elders;
mod error;
mod events;
mod handover;
mod hello;
mod hold;
mod lag;
mod leash;
mod listener;
mod metrics;
mod presence;
mod proof;
mod proxy;
mod pump;
mod relay;
mod seen;
mod server;
mod sessions;
mod shared;
mod spin;
mod startup;
mod steer;
mod stream;
mod survey;
mod tcp;
mod truth;
mod verdict;
mod vouch;
mod wire;
mod workers;

pub use config::{
    Backend, Balance, Cluster, Config, Destination, Drain, DrainEnd, Fallback, Handshake, Hold, Io, LagLimit,
    Network, Role, Service, Tcp, TruthLimits,
};
pub use error::Error;
pub use handover::Inherited;
pub use server::{Order, Reread, Router};
