//! The settings: Patroni's YAML as typed, then as meant.

pub mod address;
mod etcd;
mod nearest;
mod node;
mod postgresql;
mod problem;
mod router;
mod secret;
mod settings;
mod yaml;

pub use etcd::Etcd;
pub use nearest::nearest;
pub use postgresql::{Authentication, Login, Postgresql};
pub use problem::{Place, Problem, Problems};
pub use router::{Fallback, Router, Service, ServiceRole};
pub use secret::{Credentials, MASK, Secret};
pub use settings::{
    Bootstrap, Ctl, CtlSettings, Log, RestApi, RouterSettings, ServerTokens, Settings, VerifyClient,
    Watchdog, WatchdogMode,
};
pub use yaml::to_json;
