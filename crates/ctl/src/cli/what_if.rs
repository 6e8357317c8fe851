//! The grammar of `what-if`.

use crate::render::Format;
use clap::{Args, ValueEnum};

/// What is imagined.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum EventArg {
    /// The host of MEMBER is gone, at once and for good
    #[default]
    Dies,
    /// PostgreSQL of MEMBER ends; its agent lives
    PostgresCrashes,
    /// The host of MEMBER reaches nobody any more
    Unplugged,
    /// The lead is handed over in good order, to MEMBER or the fittest
    Switchover,
    /// Nobody reaches etcd any more
    EtcdAway,
}

impl EventArg {
    /// As the members are asked.
    pub(crate) fn word(self) -> &'static str {
        match self {
            EventArg::Dies => "dies",
            EventArg::PostgresCrashes => "postgres-crashes",
            EventArg::Unplugged => "unplugged",
            EventArg::Switchover => "switchover",
            EventArg::EtcdAway => "etcd-away",
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct WhatIfArgs {
    /// Whom it befalls; else the leader. In a switchover who shall lead
    #[arg(value_name = "MEMBER")]
    pub member: Option<String>,
    /// What happens
    #[arg(long, value_enum, default_value_t, conflicts_with = "all")]
    pub event: EventArg,
    /// Every event, for every member, a line each
    #[arg(long, conflicts_with = "member")]
    pub all: bool,
    /// The cluster; else the scope of the configuration
    #[arg(long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// The form of the output
    #[arg(short, long, value_enum, default_value_t)]
    pub format: Format,
}
