//! One etcd server of a lab.

use crate::account::Account;
use crate::daemon::{Daemon, Program};
use crate::netns::Host;
use anyhow::{Context, Result};
use rustix::process::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One member of the lab's etcd.
#[derive(Debug)]
pub struct EtcdMember {
    /// `e1`, `e2`, …
    pub name: String,
    /// The URL of its clients.
    pub endpoint: String,
    dir: PathBuf,
    program: Program,
    account: Account,
    daemon: Option<Daemon>,
}

/// Where a member listens.
pub struct Addresses {
    pub client: String,
    pub peer: String,
    /// `e1=http://…,e2=http://…`: all peers.
    pub cluster: String,
    /// The host it runs on, where hosts have networks of their own.
    pub host: Option<Host>,
}

impl EtcdMember {
    /// Prepares a member under `base`, not started yet.
    pub fn create(
        index: usize,
        base: &Path,
        binary: &Path,
        at: &Addresses,
        account: &Account,
    ) -> Result<EtcdMember> {
        let name = format!("e{}", index + 1);
        let dir = base.join(&name);
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
        account.own(&dir)?;
        let option = |key: &str, value: &str| format!("--{key}={value}");
        let arguments = vec![
            option("name", &name),
            option("data-dir", &dir.join("data").display().to_string()),
            option("listen-client-urls", &at.client),
            option("advertise-client-urls", &at.client),
            option("listen-peer-urls", &at.peer),
            option("initial-advertise-peer-urls", &at.peer),
            option("initial-cluster", &at.cluster),
            option("initial-cluster-state", "new"),
            option("initial-cluster-token", &base.display().to_string()),
            // A lab writes little and keeps nothing.
            option("auto-compaction-retention", "1"),
            option("quota-backend-bytes", "268435456"),
            option("logger", "zap"),
            option("log-outputs", "stderr"),
        ];
        let log = dir.join("etcd.log");
        let program = Program {
            name: format!("etcd {name}"),
            path: binary.to_owned(),
            arguments,
            directory: dir.clone(),
            log,
            host: at.host.clone(),
            network_rights: false,
        };
        Ok(EtcdMember {
            name,
            endpoint: at.client.clone(),
            dir,
            program,
            account: account.clone(),
            daemon: None,
        })
    }

    /// Starts it; it finds its peers by itself.
    pub fn start(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.program, &self.account)?);
        Ok(())
    }

    /// Starts it as a cluster of its own with the keys it has: the others are lost for good.
    pub fn start_alone(&mut self) -> Result<()> {
        let mut program = self.program.clone();
        program.arguments.push("--force-new-cluster".to_owned());
        self.daemon = Some(Daemon::start(&program, &self.account)?);
        Ok(())
    }

    /// Its log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.program.log
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fails when it has ended by itself.
    pub fn must_run(&mut self) -> Result<()> {
        match &mut self.daemon {
            Some(daemon) => daemon.must_run(&self.program.log),
            None => Ok(()),
        }
    }

    /// Whether it runs; a frozen one does.
    pub fn running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::running)
    }

    /// Stops its execution: its port still accepts connections, and nobody answers.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen one go on.
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    /// Kills it; its port refuses connections.
    pub fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// Asks it to end, and kills it if it does not.
    pub async fn stop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.stop(Duration::from_secs(2)).await;
        }
    }

    fn signal(&mut self, what: Signal) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(what);
        }
    }
}
