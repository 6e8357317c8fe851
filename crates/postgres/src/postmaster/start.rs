//! Starting the postmaster.

use super::processes::Process;
use super::{Postmaster, clear_the_way, spawn};
use crate::error::Error;
use crate::installation::Installation;
use crate::parameter;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Command;
use types::Moment;

/// How to start.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StartOptions {
    /// Parameters for the command line, which nothing in a configuration file overrides.
    pub args: Vec<(String, String)>,
    /// The configuration file, when it is not in the data directory.
    pub config_file: Option<PathBuf>,
    /// Where its output goes until (and unless) it collects its log itself.
    pub log_file: PathBuf,
    /// The port, when it is not in `args` or the configuration.
    pub port: Option<u16>,
    /// Additional variables of its environment.
    pub env: Vec<(String, String)>,
    /// It does not begin to run at this moment or later, whatever stood still meanwhile.
    pub not_after: Option<Moment>,
}

impl Postmaster {
    /// Starts a postmaster on `data_dir` that does not depend on this process in any way, after ending what a dead one
    /// left behind. Returns as soon as it exists: whether it becomes ready is for the caller to watch.
    pub async fn start(
        installation: &Installation,
        data_dir: &Path,
        options: &StartOptions,
    ) -> Result<Postmaster, Error> {
        let data_dir =
            std::path::absolute(data_dir).map_err(|error| Error::io("resolve", data_dir, error))?;
        clear_the_way(&data_dir).await?;
        let command = command(installation, &data_dir, options)?;
        let program = PathBuf::from(command.get_program());
        let failed = |error: std::io::Error| match options.not_after {
            Some(_) if spawn::is_too_late(&error) => Error::Refused(
                "start PostgreSQL: the time until which it may be started has passed; nothing was started"
                    .to_owned(),
            ),
            _ => Error::io("run", &program, error),
        };
        let not_after = options.not_after;
        let started = tokio::task::spawn_blocking(move || spawn::detached(command, not_after)).await;
        let pid = started.map_err(|error| failed(error.into()))?.map_err(failed)?;
        if let Some(process) = Process::read(pid).filter(Process::is_postgres)
            && let Some(pidfd) = process.open()?
        {
            return Postmaster::of(&process, pidfd, &data_dir);
        }
        Err(Error::Program {
            program: program.display().to_string(),
            how: "ended at once".to_owned(),
            last_words: last_log_lines(&options.log_file, 5).join("\n"),
        })
    }
}

fn command(installation: &Installation, data_dir: &Path, options: &StartOptions) -> Result<Command, Error> {
    let mut command = installation.command("postgres").into_std();
    command.arg("-D").arg(data_dir);
    if let Some(file) = &options.config_file {
        command.arg(format!("--config_file={}", file.display()));
    }
    if let Some(port) = options.port {
        command.arg(format!("--port={port}"));
    }
    for (name, value) in &options.args {
        parameter::check(name, value)?;
        command.arg(format!("--{name}={value}"));
    }
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    let log = open_log(&options.log_file, installation.run_as)?;
    let fail = |error| Error::io("open", &options.log_file, error);
    command.stderr(log.try_clone().map_err(fail)?).stdout(log);
    Ok(command)
}

fn open_log(path: &Path, owner: Option<(u32, u32)>) -> Result<File, Error> {
    let fail = |error| Error::io("open", path, error);
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(path).map_err(fail)?;
    if let Some((uid, gid)) = owner {
        fchown(&log, Some(uid), Some(gid)).map_err(fail)?;
    }
    Ok(log)
}

/// The last lines of a log file, at most `count` and 64 KiB; none when it cannot be read.
#[must_use]
pub fn last_log_lines(log_file: &Path, count: usize) -> Vec<String> {
    const ENOUGH: u64 = 64 << 10;
    let mut text = Vec::new();
    let read = File::open(log_file).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(ENOUGH)))?;
        file.take(ENOUGH).read_to_end(&mut text)
    });
    if read.is_err() {
        return Vec::new();
    }
    let text = String::from_utf8_lossy(&text);
    let mut lines: Vec<String> = text.lines().rev().take(count).map(str::to_owned).collect();
    lines.reverse();
    lines
}
