//! The arguments of the commands that make a cluster follow another one, and stand alone again.

use super::ClusterArg;
use clap::Args;

#[derive(Clone, Debug, Args)]
pub(crate) struct DemoteClusterArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Address of the node to follow
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
    /// Its port
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Command that fetches WAL of the cluster to follow
    #[arg(long, value_name = "COMMAND")]
    pub restore_command: Option<String>,
    /// Slot to use on the node to follow
    #[arg(long, value_name = "SLOT")]
    pub primary_slot_name: Option<String>,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PromoteClusterArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Ask nothing
    #[arg(long)]
    pub force: bool,
}
