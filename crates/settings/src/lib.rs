//! The settings: Patroni's YAML as typed, then as meant.
//!
//! ```text
//! file(s) ──yaml──> tree with places ──env──> tree ──check against the table──> values ──build──> Settings
//! /config in etcd ──────────────────────────> tree ──check against the table──> values ─────────> Dynamic
//! Settings + Dynamic ──effective──> the parameters and files of PostgreSQL
//! ```
//!
//! Reads files and nothing else: no clock, no network, no process. Every problem is collected with its place; no value
//! of a secret is ever in a message, a `Debug` or an origin.

pub mod address;
mod bgp;
mod build;
mod callbacks;
mod check;
mod dns;
mod dynamic;
mod effective;
mod env;
mod etcd;
mod guc;
mod kind;
mod load;
mod log_format;
mod merge;
mod methods;
mod nearest;
mod node;
mod origin;
mod postgresql;
mod problem;
mod router;
mod secret;
mod settings;
mod slots;
mod standby_cluster;
mod table;
mod values;
mod vip;
mod vip_manager;
mod yaml;

pub use bgp::{Bgp, BgpNeighbor};
pub use callbacks::Callbacks;
pub use dns::{Dns, DnsKey, DnsUpdate};
pub use dynamic::{Crash, Dynamic, SynchronousMode, dynamic, dynamic_origins, keep_good, validate_dynamic};
pub use effective::{Effective, FAILOVER_SLOTS_SINCE, Raised, ShmemMinimums, effective};
pub use env::{CONFIGURATION, Env, ProcessEnv, environment};
pub use etcd::{BadEndpoint, Etcd, endpoint};
pub use guc::{controlled_default, is_controlled};
pub use kind::Kind;
pub use load::{Loaded, load, load_ctl, load_dns, load_environment, load_router, load_vip, load_vip_manager};
pub use log_format::{DEFAULT_LOG_FORMAT, LogField, LogFormat, LogPiece};
pub use merge::{born_with_baton, patch};
pub use methods::{BootstrapMethod, ReplicaMethod};
pub use nearest::nearest;
pub use origin::Origin;
pub use postgresql::{Authentication, Login, Postgresql};
pub use problem::{Place, Problem, Problems};
pub use router::{Cluster as RouterCluster, Fallback, Router, Service, ServiceBalance, ServiceRole};
pub use secret::{Credentials, MASK, Secret};
pub use settings::{
    Bootstrap, Ctl, CtlSettings, DnsSettings, Log, RestApi, RouterSettings, ServerTokens, Settings,
    VerifyClient, VipSettings, Watchdog, WatchdogDriver, WatchdogMode,
};
pub use standby_cluster::StandbyCluster;
pub use table::{Row, Scope, Support, rows};
pub use vip::VirtualAddress;
pub use yaml::to_json;
