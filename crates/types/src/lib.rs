//! Words that all crates share. No dependencies, no I/O, no clock: plain values with their text forms.

pub mod exposition;
mod history;
mod lsn;
mod member;
mod moment;
mod names;
mod routers;
mod secret;
mod slots;
mod standby_names;
mod tags;

pub use history::{History, HistoryLine, ParseHistoryError};
pub use lsn::{Lsn, ParseLsnError};
pub use member::{PostgresState, Role};
pub use moment::Moment;
pub use names::{LeaseId, NodeName, ParseSystemIdError, SystemId, Term, Timeline, slot_name};
pub use routers::{ROUTER_BELIEVES_AGENT, ROUTER_LEASE};
pub use secret::{MASK, Secret};
pub use slots::{ClusterType, PermanentSlot, Slot, SlotKind, SlotMatcher, SlotWish, is_slot_name};
pub use standby_names::StandbyNames;
pub use tags::{TagValue, Tags};
