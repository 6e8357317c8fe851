//! The settings as meant: what the YAML and the environment say, checked, with every default filled in.

use crate::bgp::Bgp;
use crate::dns::Dns;
use crate::etcd::Etcd;
use crate::log_format::LogFormat;
use crate::methods::BootstrapMethod;
use crate::postgresql::Postgresql;
use crate::router::Router;
use crate::secret::{Credentials, Secret};
use crate::vip::VirtualAddress;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use types::{NodeName, Tags};

/// Everything the agent of one node needs to know before it has read etcd.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster's name.
    pub scope: String,
    /// The first part of every etcd key, without slashes around it; `service` unless said.
    pub namespace: String,
    /// This member's name.
    pub name: NodeName,
    pub restapi: RestApi,
    pub ctl: Ctl,
    pub etcd: Etcd,
    pub bootstrap: Bootstrap,
    pub postgresql: Postgresql,
    pub tags: Tags,
    pub log: Log,
    pub watchdog: Watchdog,
    /// Present when the file has a `router:` section: the agent then runs a router as well.
    pub router: Option<Router>,
    /// The virtual addresses that this member may hold.
    pub vip: Vec<VirtualAddress>,
    /// Present when the file has a `vip.bgp:` section: the addresses are then announced by BGP.
    pub bgp: Option<Bgp>,
    /// Present when the file has a `dns:` section: the agent then tells the cluster's names.
    pub dns: Option<Dns>,
}

impl Settings {
    /// Where the others reach this member's PostgreSQL.
    #[must_use]
    pub fn conn_url(&self) -> String {
        format!("postgres://{}/{}", self.postgresql.connect_address(), self.postgresql.database)
    }

    /// Where the others reach this member's REST API.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("{}://{}/patroni", self.restapi.protocol(), self.restapi.connect_address)
    }
}

/// What `baton vip` needs.
#[derive(Clone, Debug)]
pub struct VipSettings {
    pub scope: String,
    pub namespace: String,
    /// The member whose lead counts.
    pub name: NodeName,
    pub etcd: Etcd,
    pub vip: Vec<VirtualAddress>,
    pub bgp: Option<Bgp>,
    /// Where metrics and health are told, as `host:port`.
    pub api: Option<String>,
    pub log: Log,
}

/// What `baton dns` needs.
#[derive(Clone, Debug)]
pub struct DnsSettings {
    pub scope: String,
    pub namespace: String,
    pub etcd: Etcd,
    pub dns: Dns,
    pub log: Log,
}

/// What `baton router` needs.
#[derive(Clone, Debug)]
pub struct RouterSettings {
    pub scope: String,
    pub namespace: String,
    pub etcd: Etcd,
    pub router: Router,
    pub log: Log,
    /// For the router's questions to the agents' REST API.
    pub ctl: Ctl,
}

/// What the command line needs.
#[derive(Clone, Debug)]
pub struct CtlSettings {
    /// The default cluster of commands without one.
    pub scope: Option<String>,
    pub namespace: String,
    /// Missing where the file says nothing of etcd: the command line then wants `--dcs-url`.
    pub etcd: Option<Etcd>,
    pub ctl: Ctl,
}

/// `restapi:`
#[derive(Clone, Debug)]
pub struct RestApi {
    /// `host:port` as written; the host may be `*`.
    pub listen: String,
    /// The host of `listen`; empty or `*` means every address.
    pub listen_host: String,
    pub listen_port: u16,
    /// `host:port` under which the others reach this API.
    pub connect_address: String,
    pub authentication: Option<Credentials>,
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    pub keyfile_password: Option<Secret>,
    pub cafile: Option<PathBuf>,
    pub ciphers: Option<String>,
    pub verify_client: VerifyClient,
    /// Addresses, networks and host names that may use unsafe verbs; empty means everybody.
    pub allowlist: Vec<String>,
    /// Whether the members of the cluster are on the allowlist by themselves.
    pub allowlist_include_members: bool,
    pub http_extra_headers: BTreeMap<String, String>,
    pub https_extra_headers: BTreeMap<String, String>,
    pub request_queue_size: u32,
    pub server_tokens: ServerTokens,
    /// `baton.strict_primary`: whether `/primary` means that PostgreSQL accepts writes, and not the lead alone.
    pub strict_primary: bool,
}

impl RestApi {
    /// `https` where a certificate is configured, else `http`.
    #[must_use]
    pub fn protocol(&self) -> &'static str {
        if self.certfile.is_some() { "https" } else { "http" }
    }
}

/// `restapi.verify_client`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VerifyClient {
    /// Nobody needs a certificate.
    None,
    /// Unsafe verbs need one.
    Optional,
    /// Every request needs one.
    Required,
}

/// `restapi.server_tokens`: what the `Server` header says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ServerTokens {
    Original,
    Minimal,
    ProductOnly,
}

/// `ctl:`, also used by agents and routers for their calls to members. What it leaves out was taken from `restapi`.
#[derive(Clone, Debug, Default)]
pub struct Ctl {
    /// Whether server certificates go unverified.
    pub insecure: bool,
    pub cacert: Option<PathBuf>,
    pub certfile: Option<PathBuf>,
    pub keyfile: Option<PathBuf>,
    pub keyfile_password: Option<Secret>,
    pub authentication: Option<Credentials>,
}

/// `bootstrap:`
#[derive(Clone, Debug)]
pub struct Bootstrap {
    /// Whether the file has the section at all.
    pub present: bool,
    /// `bootstrap.dcs` as written, for `born_with_baton` and `/config`.
    pub dcs: Value,
    /// Options of initdb without the dashes: `data-checksums`, or `encoding` with a value.
    pub initdb: Vec<(String, Option<String>)>,
    pub pg_hba: Vec<String>,
    /// `post_bootstrap`, or its old name `post_init`.
    pub post_bootstrap: Option<String>,
    /// `initdb` unless said.
    pub method: String,
    /// The section of that method, when it is not `initdb`.
    pub custom: Option<BootstrapMethod>,
}

/// `log:`
#[derive(Clone, Debug)]
pub struct Log {
    /// `DEBUG`, `INFO`, `WARNING`, `ERROR` or `CRITICAL`.
    pub level: String,
    pub traceback_level: String,
    pub json: bool,
    pub format: LogFormat,
    /// For strftime; `None` is `%Y-%m-%d %H:%M:%S` with milliseconds after a comma.
    pub dateformat: Option<String>,
    pub static_fields: Map<String, Value>,
    pub max_queue_size: u64,
    /// The directory of `patroni.log`; standard error when missing.
    pub dir: Option<PathBuf>,
    /// The permissions of the file, such as 0o644.
    pub mode: Option<u32>,
    pub file_num: u32,
    pub file_size: u64,
    pub loggers: BTreeMap<String, String>,
    pub deduplicate_heartbeat_logs: bool,
}

/// `watchdog:`
#[derive(Clone, Debug)]
pub struct Watchdog {
    pub mode: WatchdogMode,
    pub device: PathBuf,
    pub driver: WatchdogDriver,
    /// Seconds; -1 means half of the ttl.
    pub safety_margin: i64,
}

/// `watchdog.driver`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchdogDriver {
    /// The kernel's device, by its ioctls.
    Default,
    /// A pipe or file that hears what the device would be told, for tests.
    Testing,
}

/// `watchdog.mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WatchdogMode {
    Off,
    Automatic,
    Required,
}
