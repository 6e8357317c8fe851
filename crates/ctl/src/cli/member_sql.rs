//! The arguments of the commands that lead to a member's PostgreSQL.

use super::{ClusterArg, Repeat, RoleFilter};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Clone, Debug, Args)]
pub(crate) struct DsnArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    /// Any member of this role; else the leader
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// This member
    #[arg(short, long, value_name = "MEMBER")]
    pub member: Option<String>,
}

/// In which form the rows of a query are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum RowFormat {
    Pretty,
    #[default]
    Tsv,
    Json,
    #[value(alias = "yml")]
    Yaml,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct QueryArgs {
    #[command(flatten)]
    pub cluster: ClusterArg,
    // `-c` and `-d` of the whole program mean something else here: these two take their places, by their identifiers.
    /// Configuration file of the commands
    #[arg(id = "config_file", long = "config-file", value_name = "FILE")]
    pub config_file: Option<PathBuf>,
    /// Where etcd is
    #[arg(id = "dcs_url", long = "dcs-url", alias = "dcs", value_name = "URL")]
    pub dcs_url: Option<String>,
    /// The SQL
    #[arg(short, long, value_name = "SQL")]
    pub command: Option<String>,
    /// A file with the SQL; - is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<String>,
    /// The user of PostgreSQL; else PGUSER, else the user of this process
    #[arg(short = 'U', long, value_name = "USER")]
    pub username: Option<String>,
    /// Ask for a password; else PGPASSWORD, else the password file
    #[arg(long)]
    pub password: bool,
    /// The database; else PGDATABASE, else the one that the member names
    #[arg(short, long, value_name = "DATABASE")]
    pub dbname: Option<String>,
    /// A member of this role; else the leader
    #[arg(short, long, value_enum)]
    pub role: Option<RoleFilter>,
    /// This member
    #[arg(short, long, value_name = "MEMBER")]
    pub member: Option<String>,
    /// The form of the output
    #[arg(long, value_enum, default_value_t)]
    pub format: RowFormat,
    /// What separates the columns of tsv
    #[arg(long, default_value = "\t", value_name = "TEXT")]
    pub delimiter: String,
    #[command(flatten)]
    pub repeat: Repeat,
}
