//! One long-running process that the lab started: an agent, a router, an etcd member.

use crate::account::Account;
use crate::netns::Host;
use crate::processes::{self, signal};
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// How to start it.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Its name in messages, such as `agent n1`.
    pub name: String,
    pub path: PathBuf,
    pub arguments: Vec<String>,
    /// Its working directory.
    pub directory: PathBuf,
    /// Where its output is appended.
    pub log: PathBuf,
    /// The host it runs on, where hosts have networks of their own.
    pub host: Option<Host>,
    /// It may set addresses and send frames, and nothing else that its account may not.
    pub network_rights: bool,
}

/// A started one. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Daemon {
    /// Starts `program` with a small environment and in a process group of its own, so that a Ctrl-C at the terminal reaches the lab alone.
    pub(crate) fn start(program: &Program, account: &Account) -> Result<Daemon> {
        let name = &program.name;
        let log = OpenOptions::new().create(true).append(true).open(&program.log);
        let log = log.with_context(|| format!("open the log {}", program.log.display()))?;
        account.own(&program.log)?;
        let mut command = match program.network_rights {
            true => account.with_network_rights(&program.path),
            false => Command::new(&program.path),
        };
        command
            .args(&program.arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", &program.directory)
            .current_dir(&program.directory)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the log")?)
            .stderr(log)
            .process_group(0);
        if !program.network_rights {
            account.apply(&mut command);
        }
        let spawned = match &program.host {
            None => command.spawn(),
            Some(host) => host.within(|| command.spawn())?,
        };
        let child = spawned.with_context(|| format!("start {name} ({})", program.path.display()))?;
        Ok(Daemon { name: name.clone(), child, ended: None })
    }

    /// Its process id.
    #[must_use]
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or_default()
    }

    /// Whether it still runs (a stopped one does).
    pub(crate) fn running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// How it ended, if it did.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Sends a signal.
    pub(crate) fn signal(&mut self, what: Signal) {
        // A process that was waited for has given its id back; the id may be somebody else's by now.
        if self.running() {
            signal(self.pid(), what);
        }
    }

    /// Kills it and waits until it is gone. Its own children live on.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.ended = self.child.wait().ok().or(self.ended);
    }

    /// Asks it to end, waits at most for `grace`, then kills it. Returns whether it ended by itself.
    pub(crate) async fn stop(&mut self, grace: Duration) -> bool {
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        let end = clock::now().after(grace);
        while self.running() && clock::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let ended = !self.running();
        self.kill();
        ended
    }

    /// An error that says how it ended, with the end of its log, if it does not run any more.
    pub(crate) fn must_run(&mut self, log: &Path) -> Result<()> {
        match self.exit_status() {
            None => Ok(()),
            Some(status) => {
                anyhow::bail!(
                    "{} ended with {status}; the end of {}:\n{}",
                    self.name,
                    log.display(),
                    tail(log, 15)
                )
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.running() && processes::alive(self.pid()) {
            self.kill();
        }
    }
}

/// The last lines of a file; empty when it cannot be read.
#[must_use]
pub fn tail(path: &Path, lines: usize) -> String {
    let content = std::fs::read(path).unwrap_or_default();
    let content = String::from_utf8_lossy(&content);
    let all: Vec<&str> = content.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
