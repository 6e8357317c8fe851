//! Stories on real parts: real PostgreSQL, real etcd, the real binary. One file per kind of trouble.
//!
//! A story fails on any line of WARNING or above of an agent or the router that it did not name beforehand. No more than
//! two run at once, whatever the test runner starts side by side: each has a whole cluster.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says where"
)]
#![expect(
    clippy::print_stdout,
    reason = "the place of the logs, which the test runner shows when a story fails"
)]

mod addresses;
mod agent;
mod archive;
mod backups;
mod bad_input;
mod bgp;
mod cables;
mod clients;
mod come_up;
mod crash;
mod crash_failover;
mod ctl;
mod document;
mod etcd_trouble;
mod failover_slots;
mod golden;
mod grey;
mod hardware;
mod hooks;
mod host;
mod idle_connections;
mod migration;
mod mixed;
mod mixed_failsafe;
mod mixed_synchronous;
mod monitoring;
mod pause;
mod pgbackrest;
mod poolers;
mod reads;
mod reinit;
mod rejoin;
mod reload;
mod rest_api;
mod schedules;
mod slots;
mod standby_cluster;
mod story;
mod switchover;
mod synchronous;
mod tools;
mod ways_to_make_data;
mod what_if;
mod witnesses;
