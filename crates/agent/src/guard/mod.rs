//! The guard: a tiny process that kills a primary whose deadline has passed, whatever has become of the agent.
//!
//! ```text
//!   agent ──arm(term, deadline)──► shared memory ◄──reads── guard
//!         ──move_deadline──────────►      │                     │ deadline passed while armed
//!         ──disarm───────────────►      │                     ▼
//!   agent started again: finds its lease and term here        SIGKILL to every PostgreSQL process of the data directory
//! ```
//!
//! The memory is a file in /dev/shm, so it outlives both processes and ends with the host, as PostgreSQL does. The guard holds a
//! lock on the file while it lives: that is how an agent knows that it has one. The guard allocates nothing after its start,
//! reads no disk, is locked in memory and runs with real-time priority where that is allowed.

mod kill;
mod memory;
mod process;
mod warden;

pub use process::main;
pub use warden::{GuardError, Resumed, Warden};
