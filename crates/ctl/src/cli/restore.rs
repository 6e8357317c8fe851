//! The grammar of `restore`.

use clap::{ArgGroup, Args};
use std::path::PathBuf;

#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("target"))]
pub(crate) struct RestoreArgs {
    /// The YAML file of the agent: which data directory, which PostgreSQL, which cluster
    #[arg(env = "BATON_CONFIG")]
    pub file: PathBuf,
    /// Up to this time, with its offset, such as 2026-11-27T10:00:00+01:00; without a target to the end of the archive
    #[arg(long, group = "target", value_name = "TIME")]
    pub time: Option<String>,
    /// Up to this position, such as 0/3000060
    #[arg(long, group = "target", value_name = "LSN")]
    pub lsn: Option<String>,
    /// Up to the end of this transaction
    #[arg(long, group = "target", value_name = "XID")]
    pub xid: Option<u64>,
    /// Up to this restore point
    #[arg(long, group = "target", value_name = "NAME")]
    pub name: Option<String>,
    /// Only as far as the backup needs to be consistent
    #[arg(long, group = "target")]
    pub immediate: bool,
    /// Stop just before the time, position or transaction, not just after it
    #[arg(long, requires = "target", conflicts_with_all = ["name", "immediate"])]
    pub exclusive: bool,
    /// Follow this timeline; else the newest
    #[arg(long, value_name = "TIMELINE", value_parser = clap::value_parser!(u32).range(1..))]
    pub timeline: Option<u32>,
    /// From this backup; else from the newest that leads to the target
    #[arg(long, value_name = "LABEL")]
    pub set: Option<String>,
    /// The stanza of pgBackRest; else the one in the cluster's archive_command
    #[arg(long, value_name = "STANZA")]
    pub stanza: Option<String>,
    /// The configuration of pgBackRest, when it is not in its usual place
    #[arg(long, value_name = "FILE")]
    pub pgbackrest_config: Option<PathBuf>,
    /// Into this new directory; else into the agent's own
    #[arg(long, value_name = "DIRECTORY")]
    pub to: Option<PathBuf>,
    /// A database that is there is moved aside, never deleted; no agent of the cluster may run
    #[arg(long, conflicts_with = "to")]
    pub in_place: bool,
    /// Only print what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}
