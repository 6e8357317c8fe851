//! An operator's own command that makes a data directory: split like a shell does, run without one, with its end, its last words
//! and its cancelling. It runs in a process group of its own, so that nothing of it outlives a cancelled job.

use crate::error::Error;
use crate::installation::{self, Installation};
use crate::job::{self, JobError};
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum ScriptError {
    #[error("run {command:?}: cancelled")]
    Cancelled { command: String },
    #[error("run {command:?}: its quotes do not match; correct the command in the configuration")]
    Unreadable { command: String },
    #[error("run {command:?}: it failed ({how}): {last_words}")]
    Failed { command: String, how: String, last_words: String },
    #[error(transparent)]
    Local(#[from] Error),
}

/// An operator's program that has nothing to do with PostgreSQL's, in the agent's environment without its secrets.
#[must_use]
pub fn command(program: &str) -> Command {
    let mut command = installation::without_secrets(Command::new(program));
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Runs `command` with these arguments after its own, and these variables in its environment.
pub async fn run(
    installation: &Installation,
    command: &str,
    arguments: &[String],
    environment: &[(&str, &Path)],
    cancel: &CancellationToken,
) -> Result<(), ScriptError> {
    let named = || command.to_owned();
    let words = shlex::split(command).filter(|words| !words.is_empty());
    let words = words.ok_or_else(|| ScriptError::Unreadable { command: named() })?;
    let (program, own) = words.split_first().ok_or_else(|| ScriptError::Unreadable { command: named() })?;
    let mut process = installation.script(program);
    process.args(own).args(arguments).envs(environment.iter().copied());
    judge(command, job::run(process, cancel, |_| false).await)
}

/// Runs `command` in a shell, in the data directory, as PostgreSQL runs its `archive_command`.
pub(crate) async fn run_in_shell(
    installation: &Installation,
    data_dir: &Path,
    command: &str,
    cancel: &CancellationToken,
) -> Result<(), ScriptError> {
    let mut process = installation.script("/bin/sh");
    process.arg("-c").arg(command).current_dir(data_dir);
    judge(command, job::run(process, cancel, |_| false).await)
}

fn judge(command: &str, outcome: Result<(), JobError>) -> Result<(), ScriptError> {
    let command = command.to_owned();
    match outcome {
        Ok(()) => Ok(()),
        Err(JobError::Cancelled) => Err(ScriptError::Cancelled { command }),
        Err(JobError::System(error)) => Err(error.into()),
        Err(JobError::Failed { how, last_words }) => Err(ScriptError::Failed { command, how, last_words }),
    }
}
