//! `baton agent FILE`: run beside PostgreSQL until told to stop.

use super::daemon;
use crate::cli::AgentArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{Env, ProcessEnv};

/// Runs the agent, which takes its signals itself.
pub(crate) fn run(args: &AgentArgs) -> Outcome {
    let loaded = match &args.file {
        Some(file) => settings::load(file, &ProcessEnv),
        None if configured_by_environment() => settings::load_environment(&ProcessEnv),
        None => return Err(Failure::new(Code::Usage, "which configuration? `baton agent FILE`")),
    };
    let loaded = loaded.map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let log = daemon::start(&loaded.settings.log, "patroni.log", &loaded.warnings)?;
    let surroundings = agent::Surroundings { file: args.file.clone(), log: log.clone() };
    let work = async { Box::pin(agent::run(loaded.settings, surroundings)).await.map_err(Failure::from) };
    daemon::run(&log, work)
}

fn configured_by_environment() -> bool {
    ProcessEnv.names().iter().any(|name| name.starts_with("PATRONI_"))
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Failure {
        let code = match &error {
            agent::Error::Installation(_) => Code::MissingBinaries,
            agent::Error::AddressInUse { .. } => Code::AddressInUse,
            agent::Error::Certificate(_) => Code::Configuration,
            agent::Error::DataDirectory { .. } | agent::Error::ForeignData => Code::DataDirectory,
            agent::Error::NameTaken { .. } => Code::NameTaken,
            agent::Error::Guard(_) => Code::GuardFailed,
            agent::Error::BootstrapFailed | agent::Error::Etcd(_) | agent::Error::System(_) => Code::Failed,
        };
        match &error {
            // As Patroni says it: log readers look for this.
            agent::Error::NameTaken { .. } => Failure::new(code, error.to_string()),
            _ => Failure::new(code, format!("failed to {error}")),
        }
    }
}
