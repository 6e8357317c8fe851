//! `baton agent FILE`: run beside PostgreSQL until told to stop.

use super::daemon;
use super::{check, generate_config};
use crate::cli::{AgentArgs, CheckArgs, GenerateConfigArgs};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{Env, Loaded, Problems, ProcessEnv};
use std::path::{Path, PathBuf};

/// Runs the agent, which takes its signals itself; or what Patroni's daemon does instead when it is asked to.
pub(crate) fn run(args: &AgentArgs) -> Outcome {
    if args.generate_config || args.generate_sample_config {
        let (file, dsn) = (args.file.clone(), args.dsn.clone());
        return super::wait(async {
            generate_config::run(&GenerateConfigArgs { sample: args.generate_sample_config, dsn, file }).await
        });
    }
    let named = || std::env::var_os("BATON_CONFIG").filter(|file| !file.is_empty()).map(PathBuf::from);
    let file = args.file.clone().or_else(named);
    if args.validate_config {
        return check::run(&CheckArgs {
            file,
            router: false,
            quiet: false,
            validate_config: true,
            ignore_listen_port: args.ignore_listen_port,
            print: args.print,
        });
    }
    let loaded = load(file.as_deref())
        .ok_or_else(|| Failure::new(Code::Usage, "which configuration? `baton agent FILE`"))?;
    let loaded = loaded.map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let log = daemon::start(&loaded.settings.log, "patroni.log", &loaded.warnings)?;
    let surroundings = agent::Surroundings { file, log: log.clone() };
    let work = async { Box::pin(agent::run(loaded.settings, surroundings)).await.map_err(Failure::from) };
    daemon::run(&log, work)
}

/// The settings of the file, else of the environment; none when neither says anything.
pub(super) fn load(file: Option<&Path>) -> Option<Result<Loaded, Problems>> {
    match file {
        Some(file) => Some(settings::load(file, &ProcessEnv)),
        None => ProcessEnv
            .names()
            .iter()
            .any(|name| name.starts_with("PATRONI_"))
            .then(|| settings::load_environment(&ProcessEnv)),
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Failure {
        let code = match &error {
            agent::Error::Installation(_) => Code::MissingBinaries,
            agent::Error::AddressInUse { .. } => Code::AddressInUse,
            agent::Error::Certificate(_) | agent::Error::VirtualAddress(_) | agent::Error::Names(_) => {
                Code::Configuration
            }
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
