//! The names of a cluster, as etcd tells who is what.
//!
//! ```text
//!   view of etcd ──► facts (pure: who is what) ──► zone (pure: names and records) ──► answer (pure: bytes to bytes) ◄── prepared ◄── udp
//!                                                       │                                        ▲──────────── server: TCP
//!                                                       ├──► hosts: a file for dnsmasq
//!                                                       └──► update: RFC 2136 with TSIG to another server, by terms
//! ```
//! A name moves new connections only, and as late as a cache lets it: what ends the old ones is PostgreSQL, the router or the address.

mod answer;
#[cfg(any(test, feature = "fuzzing"))]
#[expect(clippy::expect_used, reason = "what must hold is asserted")]
pub mod bad_input;
mod config;
mod facts;
mod feed;
mod hosts;
mod metrics;
mod prepared;
mod server;
mod udp;
mod update;
mod zone;

pub use answer::{Carrier, answer};
pub use facts::{Facts, Place};
pub use feed::{Config, Dns, Error};
pub use hosts::text as hosts_text;
pub use update::{Algorithm, Key, Record, Sent, Target, UpdateError, current, send};
pub use zone::{Origin, Zone};
