//! Virtual addresses across subnets: a BGP speaker that announces, imports nothing, and is trusted only while it talks.
//!
//! ```text
//!   rights (vip): until when ──┐
//!   holder (vip): is it here ──┴─► fence (pure): announce, withdraw ──► update (bytes) ─┐
//!                                                                                       ├─► neighbor: one task each ──► socket
//!   bytes ──► message (pure) ──► session (pure): OPEN, collisions, keepalives, hold ────┘
//! ```
//! Every message to a neighbour lets it keep the routes for the hold time. So none is sent that would let it keep one for longer than this
//! member's right to the address lasts: whatever stops this program, the neighbour's own clock takes the route away in time.

#[cfg(any(test, feature = "fuzzing"))]
pub mod bad_input;
mod config;
#[cfg(test)]
mod conversations;
mod fence;
mod message;
mod metrics;
mod neighbor;
mod open;
mod refusal;
mod session;
mod socket;
mod speaker;
mod update;

pub use config::{Config, longest_hold};
pub use metrics::metrics;
pub use neighbor::{Counts, Phase, State};
pub use speaker::{Error, Speaker};
