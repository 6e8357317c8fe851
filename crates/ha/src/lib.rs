//! The decisions: what a member does, given what it sees.
//!
//! ```text
//!   Observation ─┐
//!   Memory ──────┼─► decide ─► Decision { memory, actions, wake_at, reason }
//!   Moment ──────┘
//! ```
//!
//! One pure, total function. It touches nothing: no I/O, no clock, no randomness, no logging, no errors. Each turn starts from a full
//! observation, so a missed event costs time and never correctness; `Memory` holds only what an observation cannot show
//! (since when something goes on, what was tried and failed). The duties are asked in order and the first that answers wins; its
//! answer carries a [`Reason`], which becomes the log line, the status, the metric label and the journal row.
//!
//! What the caller owes:
//! 1. perform the actions in their order and stop at the first that fails: the order is part of the proof;
//! 2. call again after every event, after every finished action, and at `wake_at` at the latest;
//! 3. keep the returned memory and hand it back, unchanged;
//! 4. give the authority up before `ReleaseLeader` or `HandLeadTo` is sent, whether an answer comes or not, and let it delete only the leader key
//!    that was seen: one that was adopted since stays;
//! 5. take a timeline number for each promotion that no member has used before;
//! 6. keep the mark of an unfinished directory after a bootstrap until `/initialize` names its system identifier, and let the
//!    empty `/initialize` vanish with the lease of the agent that wrote it;
//! 7. read the clock again right before `Promote` and `StartPrimary` and refuse them when the authority has run out;
//! 8. read the clock before the first question of `AskFailsafe` is sent, and carry out `ExtendLead` only in the same term;
//! 9. agree to such a question of another member only while no lead is held or being taken here, and from then on for a ttl (the
//!    longer of both members') refuse `AcquireLeader`, `AdoptLeader`, `Promote` and `StartPrimary`: never both, whatever is under way.

mod action;
mod decision;
pub mod duties;
mod failsafe;
mod memory;
mod observation;
mod pace;
mod peers;
mod plans;
mod reason;
mod rules;
mod signs;
pub mod slots;
mod standing;
pub mod sync_quorum;
mod upstream;
mod watchdog;
pub mod what_if;

pub use action::{Action, ExitWhy, StopMode, Work};
pub use decision::{Decision, decide};
pub use failsafe::{Failsafe, FailsafePromise, FailsafeRound};
pub use memory::{
    Announced, Crash, Memory, Ordered, Race, Retry, StepAside, StepAsideWhy, SyncChange, SyncSent,
};
pub use observation::{
    Authority, Cluster, Contact, Control, Data, Etcd, Failover, Finished, Guard, Initialize, Job, Last,
    LeaderHistory, LeaderKey, Member, Observation, Order, Postgres, Replication, Router, Running, Standby,
    SyncKey, Writable,
};
pub use pace::{Estimate, Pace};
pub use peers::{PeerAnswer, PeerFacts, Peers};
pub use plans::{Due, PlannedRestart, Unmet};
pub use reason::{Reason, Refusal};
pub use rules::{CrashRule, Rules, SyncMode, Synchronous};
pub use signs::{Ailment, Disk, Pulse, Signs, Volume};
pub use upstream::Upstream;
pub use watchdog::Watchdog;
