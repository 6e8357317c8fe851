//! Real clusters on one machine: the demo, the bench, the campaign of faults and the stories run on it.
//!
//! ```text
//!   demo   bench, bench_router,  faults   stories (tests/)
//!     │      bench_bgp         │        │
//!     └── lab ───┴─────────────┴────────┘     directories, addresses, configuration files, start and stop, faults
//!          ├ node, etcd_member     the hosts; daemon and processes start, find and end what runs there
//!          ├ agent_kind, haproxy   real Patroni in the place of an agent, and what stands before it
//!          ├ client                a paced workload: pauses, failed statements, lost rows
//!          ├ netns                 hosts with networks of their own, whose cables can be pulled
//!          ├ wal_disk              disks for WAL that can be filled
//!          ├ pgbackrest            a repository for backups and WAL; restores: to before and after failovers, row by row
//!          ├ golden                what Patroni answers and writes, against what Baton does
//!          ├ primaries             who really takes writes, asked behind the router's back
//!          └ keys → view           what etcd says, read without Baton's own client
//! ```

mod account;
mod agent_kind;
pub mod bench;
pub mod bench_bgp;
pub mod bench_router;
pub mod bench_vip;
mod binaries;
mod client;
mod config;
mod daemon;
pub mod demo;
mod etcd_member;
pub mod faults;
pub mod golden;
mod haproxy;
mod keys;
mod lab;
pub mod netns;
mod node;
mod pgbackrest;
mod place;
mod primaries;
pub mod processes;
pub mod rest;
pub mod restores;
mod view;
pub mod wait;
mod wal_disk;

pub use account::Account;
pub use agent_kind::AgentKind;
pub use binaries::{
    Binaries, ansible_bin, baton_of_this_build, etcd_bins, haproxy_binary, patroni_bin, pgbackrest_binary,
    postgres_bins,
};
pub use client::{Failure, FailureKind, Plan, Target, WorkReport, Workload};
pub use config::{NAMESPACE, SCOPE, SUPERUSER};
pub use daemon::tail;
pub use etcd_member::EtcdMember;
pub use keys::{Entry, Gateway};
pub use lab::{Lab, Progress, Spec};
pub use node::Node;
pub use pgbackrest::PgBackRest;
pub use primaries::{Primaries, PrimariesReport};
pub use view::{Member, View};
