//! One database host of a lab: its directory, its agent, the PostgreSQL and the guard that the agent starts, and what can
//! happen to them.
//!
//! ```text
//!   <base>/n1/agent.yml  bin/baton  agent.log  data/  run/ (sockets)  pgpass
//! ```
//! Its agent is Baton's or a real Patroni, and one can be replaced by the other.

use crate::account::Account;
use crate::agent_kind::{AgentKind, Programs};
use crate::config::SUPERUSER;
use crate::daemon::{Daemon, Program};
use crate::netns::Host;
use crate::processes::{self, Process};
use crate::wal_disk::WalDisk;
use anyhow::{Context, Result, anyhow};
use rustix::process::Signal;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// One database host.
#[derive(Debug)]
pub struct Node {
    /// `n1`, `n2`, …
    pub name: String,
    pub address: Ipv4Addr,
    pub postgres_port: u16,
    /// Its agent's REST API.
    pub rest: SocketAddrV4,
    dir: PathBuf,
    kind: AgentKind,
    programs: Programs,
    account: Account,
    daemon: Option<Daemon>,
    /// Its WAL has a disk of its own.
    pub(crate) wal_disk: Option<WalDisk>,
}

/// What [`Node::create`] needs to know.
pub struct NodePlan {
    pub name: String,
    pub address: Ipv4Addr,
    pub postgres_port: u16,
    pub rest_port: u16,
    /// The content of `agent.yml`.
    pub config: String,
    /// Who keeps this node at first.
    pub kind: AgentKind,
    /// Whether Patroni is to be at hand.
    pub patroni: bool,
    /// Its host, where hosts have networks of their own.
    pub host: Option<Host>,
    /// Whether its agent may set addresses and send frames.
    pub network_rights: bool,
    /// The megabytes of a disk of its own for its WAL.
    pub wal_disk: Option<u32>,
}

impl Node {
    /// The directory of a node under `base`.
    #[must_use]
    pub fn dir_of(base: &Path, name: &str) -> PathBuf {
        base.join(name)
    }

    /// Prepares a node under `base`, not started yet. `baton` is linked into the node's directory, so that whatever
    /// runs from it is known to be this node's.
    pub fn create(base: &Path, baton: &Path, plan: &NodePlan, account: &Account) -> Result<Node> {
        let dir = Node::dir_of(base, &plan.name);
        for path in [dir.clone(), dir.join("run")] {
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
            account.own(&path)?;
        }
        let config = dir.join("agent.yml");
        write_private(&config, &plan.config, account)?;
        let programs = Programs::of(
            &plan.name,
            &dir,
            baton,
            plan.patroni,
            &config,
            plan.host.as_ref(),
            plan.network_rights,
        )?;
        let wal_disk =
            plan.wal_disk.map(|megabytes| WalDisk::create(&dir, megabytes, account)).transpose()?;
        Ok(Node {
            name: plan.name.clone(),
            address: plan.address,
            postgres_port: plan.postgres_port,
            rest: SocketAddrV4::new(plan.address, plan.rest_port),
            dir,
            kind: plan.kind,
            programs,
            account: account.clone(),
            daemon: None,
            wal_disk,
        })
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The directory of its PostgreSQL's socket.
    #[must_use]
    pub fn socket_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// The agent's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("agent.yml")
    }

    /// The agent's log.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.programs.baton.log
    }

    /// Who keeps this node, or did when its agent was last started.
    #[must_use]
    pub fn kind(&self) -> AgentKind {
        self.kind
    }

    fn program(&self) -> Result<&Program> {
        match self.kind {
            AgentKind::Baton => Ok(&self.programs.baton),
            AgentKind::Patroni => {
                self.programs.patroni.as_ref().ok_or_else(|| anyhow!("this lab was created without Patroni"))
            }
        }
    }

    /// Replaces the agent's configuration file.
    pub fn write_config(&self, content: &str) -> Result<()> {
        write_private(&self.config(), content, &self.account)
    }

    /// Starts the agent.
    pub fn start_agent(&mut self) -> Result<()> {
        if self.agent_runs() {
            anyhow::bail!("start the agent of {}: it runs already", self.name);
        }
        self.daemon = Some(Daemon::start(self.program()?, &self.account)?);
        Ok(())
    }

    /// What an administrator does who moves this node from one agent to the other: the service of the one is stopped, that of
    /// the other is started, with the same configuration file and on the same data directory.
    pub async fn replace_by(&mut self, kind: AgentKind, grace: Duration) -> Result<()> {
        if !self.stop_agent(grace).await {
            anyhow::bail!("replace the agent of {}: {} did not end within {grace:?}", self.name, self.kind);
        }
        self.kind = kind;
        self.start_agent()
    }

    /// Whether the agent runs; a frozen one does.
    pub fn agent_runs(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(Daemon::running)
    }

    /// The agent's process.
    #[must_use]
    pub fn agent_pid(&self) -> Option<i32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// The code the agent ended with, if it did.
    pub fn agent_exit(&mut self) -> Option<std::process::ExitStatus> {
        self.daemon.as_mut().and_then(Daemon::exit_status)
    }

    /// Fails when the agent has ended by itself.
    pub fn agent_must_run(&mut self) -> Result<()> {
        match &mut self.daemon {
            Some(daemon) => daemon.must_run(&self.programs.baton.log),
            None => Ok(()),
        }
    }

    /// SIGKILL to the agent alone: PostgreSQL and the guard live on.
    pub fn kill_agent(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    /// SIGTERM to the agent, as an administrator's stop does; kills it after `grace`. Whether it ended by itself.
    pub async fn stop_agent(&mut self, grace: Duration) -> bool {
        match self.daemon.take() {
            Some(mut daemon) => daemon.stop(grace).await,
            None => true,
        }
    }

    /// SIGTERM to the agent, without waiting for its end.
    pub fn tell_agent_to_end(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(Signal::TERM);
        }
    }

    /// SIGUSR2 to the agent, as an upgrade does: it ends and leaves PostgreSQL and the guard as they are.
    pub async fn detach_agent(&mut self, grace: Duration) -> bool {
        let Some(mut daemon) = self.daemon.take() else { return true };
        daemon.signal(Signal::USR2);
        let end = clock::now().after(grace);
        while daemon.running() && clock::now() < end {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        !daemon.running()
    }

    /// SIGSTOP to the agent alone.
    pub fn freeze_agent(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(Signal::STOP);
        }
    }

    /// SIGCONT to the agent.
    pub fn thaw_agent(&mut self) {
        if let Some(daemon) = &mut self.daemon {
            daemon.signal(Signal::CONT);
        }
    }

    /// The postmaster, if it runs.
    #[must_use]
    pub fn postmaster(&self) -> Option<Process> {
        let file = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        let pid = file.lines().next()?.trim().parse().ok()?;
        let process = Process::read(pid)?;
        (process.state != 'Z' && process.is_postgres() && process.directory.starts_with(&self.dir))
            .then_some(process)
    }

    /// `kill -9` of the postmaster.
    pub fn kill_postmaster(&self) -> Result<i32> {
        let postmaster =
            self.postmaster().ok_or_else(|| anyhow!("kill the postmaster of {}: none runs", self.name))?;
        processes::signal(postmaster.pid, Signal::KILL);
        Ok(postmaster.pid)
    }

    /// SIGSTOP to every process of PostgreSQL: its connections stay, and nothing answers.
    pub fn freeze_postgres(&self) {
        for process in self.processes().iter().filter(|process| process.is_postgres()) {
            processes::signal(process.pid, Signal::STOP);
        }
    }

    /// SIGCONT to all of them.
    pub fn thaw_postgres(&self) {
        for process in self.processes().iter().filter(|process| process.is_postgres()) {
            processes::signal(process.pid, Signal::CONT);
        }
    }

    /// `kill -9` of a process that serves a client; PostgreSQL then starts all of them anew. Whether there was one.
    pub fn kill_backend(&self) -> bool {
        let serves = |process: &&Process| {
            process.is_postgres() && process.command.contains(&format!(" {SUPERUSER} postgres "))
        };
        let found = self.processes().iter().find(serves).map(|process| process.pid);
        if let Some(pid) = found {
            processes::signal(pid, Signal::KILL);
        }
        found.is_some()
    }

    /// Leaves no room on the disk of its WAL.
    pub fn fill_wal(&self) -> Result<()> {
        self.wal_disk()?.fill()
    }

    /// Gives the room back.
    pub fn clear_wal(&self) -> Result<()> {
        self.wal_disk()?.clear()
    }

    fn wal_disk(&self) -> Result<&WalDisk> {
        self.wal_disk.as_ref().ok_or_else(|| anyhow!("the WAL of {} has no disk of its own", self.name))
    }

    /// Starts PostgreSQL as an administrator does by hand: with pg_ctl, and with the options of the last start.
    pub fn start_postgres_by_hand(&self, postgres: &Path) -> Result<()> {
        let options = fs::read_to_string(self.data_dir().join("postmaster.opts"))?;
        // The program, then each option in double quotes; the directory is pg_ctl's own.
        let options: Vec<&str> = options.trim().split('"').skip(1).step_by(2).collect();
        let own = ["-D", &self.data_dir().display().to_string()].map(str::to_owned);
        let options: Vec<String> = options
            .into_iter()
            .filter(|option| !own.iter().any(|own| own == option))
            .map(|option| format!("'{option}'"))
            .collect();
        let mut command = Command::new(postgres.join("pg_ctl"));
        command.arg("-D").arg(self.data_dir()).arg("-l").arg(self.dir.join("by-hand.log"));
        command.args(["-w", "-o", &options.join(" "), "start"]).current_dir(&self.dir);
        self.account.apply(&mut command);
        let output = command.output().context("run pg_ctl")?;
        if !output.status.success() {
            anyhow::bail!("start PostgreSQL by hand: {}", String::from_utf8_lossy(&output.stdout));
        }
        Ok(())
    }

    /// The processes of Baton on this host: the agent and its guard.
    #[must_use]
    pub fn baton_processes(&self) -> Vec<Process> {
        processes::under(&self.dir).into_iter().filter(|process| process.is_baton(&self.dir)).collect()
    }

    /// The guard.
    #[must_use]
    pub fn guard(&self) -> Option<Process> {
        let agent = self.agent_pid();
        self.baton_processes().into_iter().find(|process| Some(process.pid) != agent)
    }

    /// Everything that runs on this host.
    #[must_use]
    pub fn processes(&self) -> Vec<Process> {
        processes::under(&self.dir)
    }

    /// All processes of this host are killed, all at once.
    pub fn kill_host(&mut self) {
        processes::kill_under(&self.dir);
        self.kill_agent();
    }

    /// Ends everything that runs on this host, PostgreSQL before it is killed by a fast shutdown.
    pub async fn stop(&mut self, grace: Duration) {
        self.stop_agent(grace).await;
        if let Some(postmaster) = self.postmaster() {
            processes::signal(postmaster.pid, Signal::CONT);
            processes::signal(postmaster.pid, Signal::INT);
            let end = clock::now().after(grace);
            while processes::alive(postmaster.pid) && clock::now() < end {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        self.kill_host();
    }
}

/// Links the binary into `dir`, or copies it where a link is impossible.
pub(crate) fn place_binary(dir: &Path, baton: &Path) -> Result<PathBuf> {
    let bin = dir.join("bin");
    fs::create_dir_all(&bin).with_context(|| format!("create {}", bin.display()))?;
    let place = bin.join("baton");
    if fs::hard_link(baton, &place).is_err() {
        fs::copy(baton, &place)
            .with_context(|| format!("copy {} to {}", baton.display(), place.display()))?;
    }
    Ok(place)
}

/// Writes a file that only the account of the lab can read: it may hold passwords.
pub(crate) fn write_private(path: &Path, content: &str, account: &Account) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let file = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(content.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))?;
    account.own(path)
}
