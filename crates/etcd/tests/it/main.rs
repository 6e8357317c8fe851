//! Against real etcd servers, of every version that `BATON_TEST_ETCD_BINS` names.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the helpers of tests fail as tests do, and then show the end of etcd's log"
)]

mod auth;
mod cluster;
mod faults;
mod health;
mod lease;
mod lost_answers;
mod proxy;
mod spoiled;
mod tls;
mod watch;
mod writes;
