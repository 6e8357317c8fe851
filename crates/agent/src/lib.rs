//! The agent: observe, decide, act; REST API; guard.
//!
//! ```text
//!   keeper     the lease, renewed beside everything          local     the PostgreSQL of this host: prober, pidfd
//!   publish    what this member says in etcd                 jobs      bootstrap, clone, rewind, checkpoint
//!   upstream   whom a standby follows, with address
//!   peers      what the others say                           guard     kills a primary whose deadline has passed
//!   planned    a restart that has its time (conditions: and its conditions)
//!   slots      replication slots of this PostgreSQL
//!   failsafe   leading on without etcd, by their word        signs     probes for what is half broken
//!   what_if    what the last turn saw, for questions about imagined events
//!   failsafe   leading on without etcd, by their word
//!   observe ─► agent (the loop, ha::decide) ─► act           api       REST, on threads of its own
//! ```

mod act;
mod addresses;
mod agent;
mod api;
mod archiving;
mod before_stop;
mod callbacks;
mod conditions;
mod config_cache;
mod configure;
mod continuity;
mod error;
mod failsafe;
mod failsafe_cache;
pub mod guard;
mod in_force;
mod jobs;
mod journal;
mod keeper;
mod local;
mod losses;
mod lost_wal;
mod notify;
mod observe;
mod orders;
mod pace;
mod peers;
mod planned;
mod publish;
mod readiness;
mod reload;
mod senders;
mod signals;
mod signs;
mod slots;
mod stalls;
mod surroundings;
mod sync_names;
mod telling;
mod timelines;
mod upstream;
mod wake;
mod wal_growth;
mod watchdog;
mod what_if;

pub use agent::{CONTRACT_VERSION, run};
pub use error::Error;
pub use surroundings::{Log, Surroundings};
pub use telling::Telling;
