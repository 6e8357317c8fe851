//! Which program keeps a node: Baton's agent or Patroni, from the same configuration file.

use crate::binaries::patroni_bin;
use crate::daemon::Program;
use crate::netns::Host;
use crate::node::place_binary;
use anyhow::Result;
use std::fmt;
use std::path::{Path, PathBuf};

/// Which program keeps a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AgentKind {
    #[default]
    Baton,
    Patroni,
}

impl fmt::Display for AgentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            AgentKind::Baton => "Baton",
            AgentKind::Patroni => "Patroni",
        })
    }
}

/// How both are started on one node. They share its directory, its log and its configuration file.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub baton: Program,
    pub patroni: Option<Program>,
}

impl Programs {
    /// The programs of the node `name` in `dir`, which run on `host`; Patroni's only where `patroni` says that the lab needs it.
    pub(crate) fn of(
        name: &str,
        dir: &Path,
        baton: &Path,
        patroni: bool,
        config: &Path,
        host: Option<&Host>,
        network_rights: bool,
    ) -> Result<Programs> {
        let program = |path: PathBuf, arguments: &[&str]| Program {
            name: format!("agent {name}"),
            path,
            arguments: arguments
                .iter()
                .map(|word| (*word).to_owned())
                .chain([config.display().to_string()])
                .collect(),
            directory: dir.to_owned(),
            log: dir.join("agent.log"),
            host: host.cloned(),
            network_rights: false,
        };
        let patroni = match patroni {
            true => Some(program(patroni_bin()?.join("patroni"), &[])),
            false => None,
        };
        let baton = program(place_binary(dir, baton)?, &["agent"]);
        Ok(Programs { baton: Program { network_rights, ..baton }, patroni })
    }
}
