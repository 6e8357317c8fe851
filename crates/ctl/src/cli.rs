//! The whole grammar of the command line: every command, argument and option, and nothing that acts.
//!
//! Called through a link named `patronictl` the grammar is the same; through one named `patroni` it is that of
//! `baton agent`. Options may stand before or after arguments.

#[cfg(test)]
mod documented;
mod member_sql;
mod restore;
mod standby_cluster;
#[cfg(test)]
mod tests;
mod what_if;

pub(crate) use member_sql::{DsnArgs, QueryArgs, RowFormat};
pub(crate) use restore::RestoreArgs;
pub(crate) use standby_cluster::{DemoteClusterArgs, PromoteClusterArgs};
pub(crate) use what_if::{EventArg, WhatIfArgs};

use crate::render::Format;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Keeps a PostgreSQL cluster with exactly one leader, always.
#[derive(Debug, Parser)]
#[command(name = "baton", version, after_long_help = crate::exit_codes::help(), disable_help_subcommand = false, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub reach: Reach,
    #[command(subcommand)]
    pub command: Command,
}

/// How the commands for a cluster find it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Reach {
    /// Configuration file of the commands; else ~/.config/patroni/patronictl.yaml
    #[arg(short, long, global = true, env = "PATRONICTL_CONFIG_FILE", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Where etcd is: etcd3://host:port,host:port/namespace
    #[arg(short, long, alias = "dcs", global = true, env = "DCS_URL", value_name = "URL")]
    pub dcs_url: Option<String>,
    /// Do not verify the certificates of the members' REST APIs
    #[arg(short = 'k', long, global = true)]
    pub insecure: bool,
    /// The group of a Citus cluster; refused
    #[arg(long, global = true, hide = true, value_name = "GROUP")]
    pub group: Option<String>,
}

/// What `baton` does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run beside PostgreSQL and keep this member in its cluster
    Agent(AgentArgs),
    /// Run the router: one address whose ports lead to the primary and the replicas
    Router(RouterArgs),
    /// Show what a router does with sessions and why; give it orders
    Route(RouteArgs),
    /// Print the services of a router as a configuration of HAProxy
    HaproxyConfig(RouterArgs),
    /// Hold virtual addresses while this host's member is the primary, beside an agent that holds none itself
    Vip(VipArgs),
    /// Tell the cluster's names: answer DNS, keep a hosts file, update other name servers
    Dns(DnsArgs),
    /// Print what BIRD needs to announce the virtual addresses by BGP
    BirdConfig(BgpArgs),
    /// Print what FRR needs to announce the virtual addresses by BGP
    FrrConfig(BgpArgs),
    /// Hold the deadline of the lead over PostgreSQL; the agent starts this itself
    #[command(hide = true)]
    Guard(GuardArgs),
    /// Show a whole cluster on this machine, real PostgreSQL and etcd included
    Demo(DemoArgs),
    /// Read a configuration and say what it means and what is wrong with it; starts nothing
    Check(CheckArgs),
    /// Print a configuration to begin with
    GenerateConfig(GenerateConfigArgs),
    /// List the members of a cluster
    List(ListArgs),
    /// Show who replicates from whom
    Topology(TopologyArgs),
    /// Hand the lead to a replica in good order
    Switchover(SwitchoverArgs),
    /// Make a replica lead, also when the leader is lost
    Failover(FailoverArgs),
    /// Stop managing: nothing is started, stopped or promoted by itself
    Pause(PauseArgs),
    /// Manage again after a pause
    Resume(PauseArgs),
    /// Restart PostgreSQL on members
    Restart(RestartArgs),
    /// Make members read their configuration files again
    Reload(ReloadArgs),
    /// Throw away a replica's data and clone it again
    Reinit(ReinitArgs),
    /// Take back a scheduled restart or switchover
    Flush(FlushArgs),
    /// Forget a cluster: remove everything that etcd holds of it
    Remove(RemoveArgs),
    /// Print how to connect to a member
    Dsn(DsnArgs),
    /// Run SQL on a member
    Query(QueryArgs),
    /// Make the cluster follow another one
    DemoteCluster(DemoteClusterArgs),
    /// Make a cluster that follows another one stand alone
    PromoteCluster(PromoteClusterArgs),
    /// Show the timelines and who led them
    History(HistoryArgs),
    /// Draw the tree of timelines: who led, who is where, what was lost, which backups lie where
    Timelines(TimelinesArgs),
    /// Restore a point in time from pgBackRest, into a new directory or in place
    Restore(RestoreArgs),
    /// Show how etcd itself is, and what needs attention: space, alarms, compaction, certificates
    Etcd(EtcdArgs),
    /// Show the dynamic configuration
    ShowConfig(ClusterArg),
    /// Change the dynamic configuration
    EditConfig(EditConfigArgs),
    /// Tell in plain words what the members decided lately, and why
    Why(WhyArgs),
    /// Print what makes a shell complete the words of this program
    Completions(CompletionsArgs),
    /// Write the manual pages into a directory; packages are made with it
    #[command(hide = true)]
    Manual(ManualArgs),
    /// Tell what would happen if a host died now, or something else: who would lead, when, what would be lost
    WhatIf(WhatIfArgs),
    /// Show the version of this program, and of the members
    Version(VersionArgs),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ManualArgs {
    /// Where the pages go
    pub directory: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct AgentArgs {
    // Not clap's own `env`: a file that is only to be written must be named.
    /// The YAML file, or a directory of them; else BATON_CONFIG, PATRONI_CONFIGURATION or PATRONI_* variables
    pub file: Option<PathBuf>,
    /// Start nothing: check the configuration and this host, silent and 0 when they are right
    #[arg(long, group = "instead")]
    pub validate_config: bool,
    /// Start nothing: print the example with every usual setting, or write it to FILE
    #[arg(long, group = "instead")]
    pub generate_sample_config: bool,
    /// Start nothing: print the configuration of a running PostgreSQL, or write it to FILE
    #[arg(long, group = "instead")]
    pub generate_config: bool,
    /// The running PostgreSQL, as libpq writes it; needs a superuser
    #[arg(long, value_name = "DSN", requires = "generate_config")]
    pub dsn: Option<String>,
    /// With --validate-config: ports to listen on may be taken
    #[arg(short, long, requires = "validate_config")]
    pub ignore_listen_port: bool,
    /// With --validate-config: print the settings
    #[arg(short, long, requires = "validate_config")]
    pub print: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RouterArgs {
    /// The YAML file, or a directory of them
    #[arg(env = "BATON_CONFIG")]
    pub file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RouteArgs {
    /// The YAML file of the router, which says where its API is
    #[arg(env = "BATON_CONFIG")]
    pub file: PathBuf,
    #[command(subcommand)]
    pub order: Option<RouteOrder>,
    /// List every session as well
    #[arg(short, long)]
    pub sessions: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a router is told.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RouteOrder {
    /// No new sessions for a member; those it has go on. Until undrain, or a restart of the router
    Drain(RouteMember),
    /// Sessions for the member again
    Undrain(RouteMember),
    /// All new sessions of a service for a member, while it can serve them; those elsewhere go on. Until unpin, or a restart of the router
    Pin(RoutePin),
    /// The service is no longer sent to the member alone
    Unpin(RoutePin),
    /// Read the configuration again, as SIGHUP does; open sessions go on
    Reload,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RouteMember {
    /// The member
    pub member: String,
    /// Its cluster, when the router has several; else that of `scope`
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RoutePin {
    /// The member
    pub member: String,
    /// The service, any but one of the primary
    pub service: String,
    /// Their cluster, when the router has several; else that of `scope`
    #[arg(long)]
    pub cluster: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VipArgs {
    /// The YAML file, or a directory of them
    #[arg(env = "BATON_CONFIG", required_unless_present_any = ["config", "set"])]
    pub file: Option<PathBuf>,
    /// A file of vip-manager, used as it is, together with its VIP_ variables
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// A setting of vip-manager over its file and variables; vip-manager's own options mean the same
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// When told to stop, leave the addresses to their lifetimes, for a successor that comes at once
    #[arg(long)]
    pub keep_vip: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DnsArgs {
    /// The YAML file, or a directory of them
    #[arg(env = "BATON_CONFIG")]
    pub file: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BgpArgs {
    /// The YAML file with the section vip, or a directory of them
    #[arg(env = "BATON_CONFIG")]
    pub file: PathBuf,
    /// The number of our own autonomous system
    #[arg(long = "as", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub asn: u32,
    /// Our own number among routers, usually this host's IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub router_id: std::net::Ipv4Addr,
    /// A neighbor and its autonomous system; may be given several times
    #[arg(long, required = true, value_name = "ADDRESS=NUMBER", value_parser = neighbor)]
    pub neighbor: Vec<(std::net::IpAddr, u32)>,
    /// Seconds of silence after which neighbors drop the routes
    #[arg(long, default_value_t = 3, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(3..))]
    pub hold_time: u16,
}

fn neighbor(text: &str) -> Result<(std::net::IpAddr, u32), String> {
    let parsed = text.split_once('=').and_then(|(ip, asn)| Some((ip.parse().ok()?, asn.parse().ok()?)));
    parsed.filter(|(_, asn)| *asn > 0).ok_or_else(|| "write it like 10.0.0.1=65000".to_owned())
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GuardArgs {
    /// The memory that it shares with the agent
    pub path: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CheckArgs {
    /// The YAML file, or a directory of them; else PATRONI_CONFIGURATION or PATRONI_* variables
    #[arg(env = "BATON_CONFIG")]
    pub file: Option<PathBuf>,
    /// Read it as `baton router` would
    #[arg(long)]
    pub router: bool,
    /// Print only what is wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// Check this host as well, and end as `patroni --validate-config` does: silent and 0, or 1
    #[arg(long)]
    pub validate_config: bool,
    /// With --validate-config: ports to listen on may be taken
    #[arg(short, long, requires = "validate_config")]
    pub ignore_listen_port: bool,
    /// With --validate-config: print the settings
    #[arg(short, long, requires = "validate_config")]
    pub print: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateConfigArgs {
    /// The example with every usual setting
    #[arg(long)]
    pub sample: bool,
    /// The running PostgreSQL that the settings are taken from, as libpq writes it; needs a superuser
    #[arg(long, value_name = "DSN", conflicts_with = "sample")]
    pub dsn: Option<String>,
    /// Where it is written; else printed
    pub file: Option<PathBuf>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoArgs {
    /// Let the demo break its own cluster, count what clients lost, and end
    #[arg(long)]
    pub drive: bool,
    /// Where everything is kept while it runs
    #[arg(long, value_name = "DIRECTORY")]
    pub directory: Option<PathBuf>,
    /// Every commit waits for a synchronous standby
    #[arg(long)]
    pub synchronous: bool,
    /// Another lease time than a new cluster gets
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u32>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ClusterArg {
    /// The cluster; else the scope of the configuration
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
}

/// How often the screen is drawn anew.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Repeat {
    /// Draw the screen anew every 2 seconds
    #[arg(short = 'W')]
    pub watch: bool,
    /// Draw it anew every so many seconds
    #[arg(short = 'w', long = "watch", value_name = "SECONDS", value_parser = seconds)]
    pub every: Option<f64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListArgs {
    /// The clusters; else the scope of the configuration
    #[arg(value_name = "CLUSTER")]
    pub clusters: Vec<String>,
    /// Show all columns, the term and who is writable
    #[arg(short, long)]
    pub extended: bool,
    /// Print the time first
    #[arg(short, long)]
    pub timestamp: bool,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    #[command(flatten)]
    pub repeat: Repeat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TopologyArgs {
    /// The clusters; else the scope of the configuration
    #[arg(value_name = "CLUSTER")]
    pub clusters: Vec<String>,
    #[command(flatten)]
    pub repeat: Repeat,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct SwitchoverArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The name of the current leader
    #[arg(long, alias = "primary", visible_alias = "primary", value_name = "MEMBER")]
    pub leader: Option<String>,
    /// The member that shall lead; else the best one
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// When, such as 2030-01-01T10:00+00:00; else now
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FailoverArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The member that shall lead
    #[arg(long, value_name = "MEMBER")]
    pub candidate: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Wait until every member has seen it
    #[arg(long)]
    pub wait: bool,
}

/// Members by role.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum RoleFilter {
    Leader,
    Primary,
    StandbyLeader,
    Replica,
    Standby,
    #[default]
    Any,
}

/// The members that a command is for.
#[derive(Clone, Debug, Args)]
pub(crate) struct MembersArg {
    /// The cluster; else the scope of the configuration
    #[arg(value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// The members; else all
    #[arg(value_name = "MEMBER")]
    pub members: Vec<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub members: MembersArg,
    /// Only members of this role
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Only one of them, whichever
    #[arg(long)]
    pub any: bool,
    /// When, such as 2030-01-01T10:00+00:00; else now
    #[arg(long, value_name = "TIME")]
    pub scheduled: Option<String>,
    /// Only where PostgreSQL is older than this
    #[arg(long, value_name = "VERSION")]
    pub pg_version: Option<String>,
    /// Only where a restart is pending
    #[arg(long)]
    pub pending: bool,
    /// Fail over when a restart takes longer than this, such as 30 or 1min
    #[arg(long, value_name = "TIME")]
    pub timeout: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReloadArgs {
    #[command(flatten)]
    pub members: MembersArg,
    /// Only members of this role
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ReinitArgs {
    #[command(flatten)]
    pub members: MembersArg,
    /// Clone from the leader, whatever the tags say
    #[arg(long)]
    pub from_leader: bool,
    /// Wait until it is done, and show how far it is
    #[arg(long)]
    pub wait: bool,
    /// Ask nothing, and cancel what the member is doing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FlushArgs {
    /// The cluster, then its members if not all, then `restart` or `switchover`
    #[arg(value_name = "CLUSTER [MEMBER]... restart|switchover", required = true, num_args = 2..)]
    pub words: Vec<String>,
    /// Only members of this role
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RemoveArgs {
    /// The cluster
    #[arg(value_name = "CLUSTER")]
    pub cluster: String,
    /// The form of the list of its members
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct HistoryArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// Only what was lost in failovers, as former leaders found when they came back
    #[arg(long)]
    pub losses: bool,
    /// Only what the archive holds of each promotion, as `baton.archive_check` told
    #[arg(long, conflicts_with = "losses")]
    pub archive: bool,
    /// Only who had which virtual address, from when to when
    #[arg(long, conflicts_with_all = ["losses", "archive"])]
    pub addresses: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TimelinesArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
    /// The stanza of pgBackRest whose backups are shown; else the one in the cluster's archive_command
    #[arg(long, value_name = "STANZA")]
    pub stanza: Option<String>,
    /// Do not ask pgBackRest
    #[arg(long, conflicts_with = "stanza")]
    pub no_backups: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EtcdArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct EditConfigArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Do not show the changes
    #[arg(short, long)]
    pub quiet: bool,
    /// Set a value, such as ttl=20 or postgresql.use_pg_rewind=true; an empty one removes the key
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Set a parameter of PostgreSQL
    #[arg(short, long, value_name = "PARAMETER=VALUE")]
    pub pg: Vec<String>,
    /// Merge this YAML file into the configuration; - is standard input
    #[arg(long, value_name = "FILE")]
    pub apply: Option<String>,
    /// Replace the configuration by this YAML file; - is standard input
    #[arg(long, value_name = "FILE")]
    pub replace: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WhyArgs {
    /// The member; else all
    #[arg(value_name = "MEMBER")]
    pub member: Option<String>,
    /// The cluster; else the scope of the configuration
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// How many decisions of each member
    #[arg(short = 'n', long, default_value_t = 10, value_name = "COUNT")]
    pub count: usize,
    /// Print what the members said as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct VersionArgs {
    #[command(flatten)]
    pub members: MembersArg,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) | Err(_) => Err("expected seconds from 0.1 to 86400".to_owned()),
    }
}
