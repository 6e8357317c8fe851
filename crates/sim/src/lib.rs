//! The simulated world: the real decisions of `ha` in a world of nodes, etcd, network, clocks and clients, with faults, against
//! the laws of the house. One seed is one run, the same on every machine.
//!
//! ```text
//!   seed ─► world ─► chaos (safety) ─► all faults taken back ─► health (liveness) ─► report
//!                      └── after every event: the laws, one file each in `invariants/`
//! ```
//! The model of the world is here; what decides in it is not: `ha::decide`, the code that runs in production.

pub mod agent;
pub mod clock;
pub mod config;
pub mod etcd;
pub mod event;
pub mod faults;
pub mod guard;
pub mod host;
pub mod invariants;
pub mod known_bugs;
pub mod link;
pub mod net;
pub mod postgres;
pub mod report;
pub mod rng;
pub mod router;
pub mod slots;
pub mod synchronous;
pub mod trace;
pub mod vip;
pub mod wal;
pub mod world;

pub use config::{Twist, Without};
pub use known_bugs::{KNOWN_BUGS, KnownBug};
pub use report::{Finding, Report, run_seeds, story};
