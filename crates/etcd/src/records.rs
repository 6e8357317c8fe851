//! The value of each key: Patroni's JSON, written compactly and in its field order, read in any order, with unknown
//! fields, and with numbers that are written as strings.

mod address;
mod bgp;
mod continuity;
mod failover;
mod handover;
mod history;
mod json;
mod leader;
mod loss;
mod member;
mod or_text;
mod schedule;
mod status;
mod sync;
mod writable;

pub use address::{AddressHolder, AddressRow};
pub use bgp::BgpNeighbor;
pub use continuity::{ArchiveRow, Continuity};
pub use failover::Failover;
pub use handover::{Handover, Router};
pub use history::HistoryRow;
pub use leader::{ConfigKey, Initialize, Leader};
pub use loss::{Loss, LostIn};
pub use member::{Member, PendingChange};
pub use or_text::OrText;
pub use schedule::{NoSchedule, Schedule};
pub use status::Status;
pub use sync::Sync;
pub use writable::Writable;

pub(crate) use address::{address_rows_json, parse_address_rows};
pub(crate) use bgp::{bgp_json, parse_bgp};
pub(crate) use continuity::{archive_json, parse_archive};
pub(crate) use history::{history_json, parse_history};
pub(crate) use leader::{failsafe_json, parse_failsafe};
pub(crate) use loss::{losses_json, parse_losses};
