//! What the tests of several crates need. Tests only: it panics where a test cannot go on.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot set itself up fails")]

mod account;
mod authority;
mod etcdctl;
mod mutation;
mod port;
mod running;

pub use account::run_as;
pub use authority::{Authority, KEY, SEALED_KEY};
pub use etcdctl::etcdctl;
pub use mutation::{Dice, seeds};
pub use port::{free_port, free_port_for_both};
pub use running::Running;
