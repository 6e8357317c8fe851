//! A whole cluster on one machine: three etcd members, three nodes with agent and PostgreSQL, a router.
//!
//! ```text
//!   create   directories, files, addresses          nothing runs
//!   start    etcd → agents → router → writable      progress is told
//!   (faults, work, looking)
//!   stop     router → agents → PostgreSQL → etcd    then the directory is removed, and nothing must be left
//! ```
//!
//! Dropped without `stop` (a failed test, a panic), everything is killed instead.

use crate::account::Account;
use crate::agent_kind::AgentKind;
use crate::binaries::Binaries;
use crate::client::Target;
use crate::config::{self, NAMESPACE, Passwords, SCOPE, SUPERUSER, endpoint, etcd_hosts, node_name};
use crate::daemon::{Daemon, Program};
use crate::demo::LOCK;
use crate::etcd_member::{Addresses, EtcdMember};
use crate::haproxy::HaProxy;
use crate::keys::Gateway;
use crate::netns::{Host, Network};
use crate::node::{Node, NodePlan, place_binary, write_private};
use crate::place::{Block, check_depth, secret};
use crate::processes;
use crate::view::View;
use crate::wait::{try_until, until};
use crate::wal_disk::WalDisk;
use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;
use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What kind of lab.
#[derive(Clone, Debug)]
pub struct Spec {
    /// How many etcd members (1 or 3).
    pub etcd: usize,
    /// How many nodes (1 to 9).
    pub members: usize,
    pub router: bool,
    /// Its directory; must not exist yet.
    pub base: PathBuf,
    pub binaries: Binaries,
    /// Missing: what a cluster born under Baton gets.
    pub ttl: Option<u32>,
    /// Laid onto `bootstrap.dcs`.
    pub dynamic: Value,
    /// Laid onto every `agent.yml`.
    pub agent: Value,
    /// Laid onto `router.yml`.
    pub router_file: Value,
    /// Tags of the last node.
    pub tags: Value,
    /// `log.level` of agents and router.
    pub log_level: String,
    /// Who keeps the first node, the second, …; Baton, where the list ends. Nodes can change hands only in a lab that begins with
    /// a Patroni somewhere.
    pub agents: Vec<AgentKind>,
    /// Every host has a network of its own and a cable that can be pulled, see [`Lab::unplug`]. Needs root.
    pub cables: bool,
    /// The agents may set addresses and send frames. Needs root.
    pub network_rights: bool,
    /// The megabytes of a disk of its own for the WAL of every node. Needs root.
    pub wal_disk: Option<u32>,
}

impl Spec {
    /// Three of each and a router, in `base`.
    #[must_use]
    pub fn usual(base: PathBuf, binaries: Binaries) -> Spec {
        Spec {
            etcd: 3,
            members: 3,
            router: true,
            base,
            binaries,
            ttl: None,
            dynamic: Value::Null,
            agent: Value::Null,
            router_file: Value::Null,
            tags: Value::Null,
            log_level: "INFO".to_owned(),
            agents: Vec::new(),
            cables: false,
            network_rights: false,
            wal_disk: None,
        }
    }
}

/// A cluster.
pub struct Lab {
    pub etcd: Vec<EtcdMember>,
    pub nodes: Vec<Node>,
    router: Option<Daemon>,
    router_program: Option<Program>,
    haproxy: Option<HaProxy>,
    pub block: Block,
    passwords: Passwords,
    base: PathBuf,
    account: Account,
    gateway: Gateway,
    stopped: bool,
    /// Locked as long as this lab lives, so that the next one can tell a living lab from the remains of a killed one.
    _lock: File,
}

/// Told once for each step of the start.
pub type Progress<'a> = &'a mut (dyn FnMut(&str) + Send);

const ETCD_SPAN: Duration = Duration::from_secs(20);
const WRITABLE_SPAN: Duration = Duration::from_secs(60);
const HEALTHY_SPAN: Duration = Duration::from_secs(90);
const GRACE: Duration = Duration::from_secs(5);

impl Lab {
    /// Prepares everything; nothing runs yet.
    pub fn create(spec: &Spec) -> Result<Lab> {
        let account = Account::choose()?;
        let base = &spec.base;
        check_depth(base)?;
        fs::create_dir(base).with_context(|| format!("create {}; is another lab there?", base.display()))?;
        fs::set_permissions(base, fs::Permissions::from_mode(0o700))?;
        account.own(base)?;
        let lock = File::create(base.join(LOCK)).with_context(|| format!("write in {}", base.display()))?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).context("lock the lab")?;
        let block = match spec.cables {
            true => Block::with_cables(spec.etcd, spec.members)?,
            false => Block::take()?,
        };
        let passwords = Passwords { superuser: secret()?, replication: secret()?, rewind: secret()? };
        // One copy, linked to every node: the account may be unable to enter the directory the binary was built in.
        let copied = base.join("baton");
        fs::copy(&spec.binaries.baton, &copied)
            .with_context(|| format!("copy {}", spec.binaries.baton.display()))?;
        let endpoints = (0..spec.etcd).map(|at| SocketAddrV4::new(block.etcd(at), block.ports.etcd_client()));
        let gateway = Gateway::new(endpoints.collect(), NAMESPACE, SCOPE);
        let mut lab = Lab {
            etcd: Vec::new(),
            nodes: Vec::new(),
            router: None,
            router_program: None,
            haproxy: None,
            block,
            passwords,
            base: base.clone(),
            account,
            gateway,
            stopped: false,
            _lock: lock,
        };
        lab.create_etcd(spec)?;
        lab.create_nodes(spec, &copied)?;
        if spec.router {
            lab.create_router(spec, &copied)?;
        }
        Ok(lab)
    }

    /// Creates and starts a lab; returns when it takes writes through the router (or the first node leads).
    pub async fn start(spec: &Spec, progress: Progress<'_>) -> Result<Lab> {
        let mut lab = Lab::create(spec)?;
        progress(&format!("{} etcd members", spec.etcd));
        lab.start_etcd().await?;
        progress(&format!("{} agents, each with its own PostgreSQL", spec.members));
        lab.start_agents()?;
        if spec.router {
            progress("the router");
            lab.start_router()?;
        }
        progress("the first PostgreSQL: initdb, the leader's lock, promotion");
        lab.await_writable(WRITABLE_SPAN).await?;
        Ok(lab)
    }

    /// Starts all etcd members and waits until they answer together.
    pub async fn start_etcd(&mut self) -> Result<()> {
        for member in &mut self.etcd {
            member.start()?;
        }
        self.wait_for_etcd().await
    }

    /// Waits until a majority of etcd answers.
    pub async fn wait_for_etcd(&mut self) -> Result<()> {
        let gateway = self.gateway.clone();
        let etcd = &mut self.etcd;
        let end = clock::now().after(ETCD_SPAN);
        while let Err(error) = gateway.read().await {
            for member in etcd.iter_mut() {
                member.must_run()?;
            }
            if clock::now() >= end {
                return Err(error).context("wait for etcd");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Starts every agent that does not run.
    pub fn start_agents(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            if !node.agent_runs() {
                node.start_agent()?;
            }
        }
        Ok(())
    }

    /// Starts the router.
    pub fn start_router(&mut self) -> Result<()> {
        let program = self.router_program.as_ref().ok_or_else(|| anyhow!("this lab has no router"))?;
        self.router = Some(Daemon::start(program, &self.account)?);
        Ok(())
    }

    /// Starts HAProxy before all nodes, whoever keeps them.
    pub fn start_haproxy(&mut self) -> Result<()> {
        self.haproxy = Some(HaProxy::start(&self.base, &self.block, &self.nodes, &self.account)?);
        Ok(())
    }

    /// How clients reach the primary through HAProxy.
    #[must_use]
    pub fn through_haproxy(&self) -> Target {
        self.at(self.block.haproxy().to_string(), self.block.ports.primary())
    }

    /// Kills the router.
    pub fn kill_router(&mut self) {
        if let Some(mut router) = self.router.take() {
            router.kill();
        }
    }

    /// The router's process.
    #[must_use]
    pub fn router_pid(&self) -> Option<i32> {
        self.router.as_ref().map(Daemon::pid)
    }

    /// HAProxy's process.
    #[must_use]
    pub fn haproxy_pid(&self) -> Option<i32> {
        self.haproxy.as_ref().map(HaProxy::pid)
    }

    /// The router's log.
    #[must_use]
    pub fn router_log(&self) -> Option<&Path> {
        self.router_program.as_ref().map(|program| program.log.as_path())
    }

    /// The lab's directory.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// The account everything runs under.
    #[must_use]
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// The cluster's keys.
    #[must_use]
    pub fn keys(&self) -> &Gateway {
        &self.gateway
    }

    /// The cluster as its keys tell it.
    pub async fn view(&self) -> Result<View> {
        Ok(View::of(&self.gateway.read().await?))
    }

    /// The name of the etcd member that leads.
    pub async fn etcd_leader(&self) -> Result<String> {
        self.gateway.etcd_leader().await
    }

    /// How clients reach the writable primary: through the router's port 5433.
    #[must_use]
    pub fn target(&self) -> Target {
        self.service(self.block.ports.primary())
    }

    /// How clients reach one of the router's services.
    #[must_use]
    pub fn service(&self, port: u16) -> Target {
        self.at(self.block.router().to_string(), port)
    }

    /// The PostgreSQL of one node, by its own socket.
    #[must_use]
    pub fn own_socket(&self, node: &Node) -> Target {
        self.at(node.socket_dir().display().to_string(), node.postgres_port)
    }

    fn at(&self, host: String, port: u16) -> Target {
        Target {
            host,
            port,
            user: SUPERUSER.to_owned(),
            password: self.passwords.superuser.clone(),
            database: "postgres".to_owned(),
        }
    }

    /// The index of the node called `name`.
    #[must_use]
    pub fn index(&self, name: &str) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == name)
    }

    /// The node called `name`.
    pub fn node(&mut self, name: &str) -> Result<&mut Node> {
        let node = self.nodes.iter_mut().find(|node| node.name == name);
        node.ok_or_else(|| anyhow!("there is no node {name}"))
    }

    /// The name of the writable primary, waiting for one if need be.
    pub async fn primary(&self) -> Result<String> {
        until(WRITABLE_SPAN, "a writable primary in the keys", async || {
            self.view().await.ok()?.primary().map(str::to_owned)
        })
        .await
    }

    /// Waits until a write through the router (or, without one, on the leader's own socket) succeeds.
    pub async fn await_writable(&mut self, span: Duration) -> Result<()> {
        let end = clock::now().after(span);
        loop {
            let target = match (&self.router, self.view().await.ok().as_ref().and_then(View::primary)) {
                (Some(_), _) => Some(self.target()),
                (None, Some(name)) => {
                    self.nodes.iter().find(|node| node.name == name).map(|node| self.own_socket(node))
                }
                (None, None) => None,
            };
            let left = clock::now().until(end).max(Duration::from_millis(1));
            let why = match target {
                Some(target) => match target.can_write(left.min(Duration::from_secs(5))).await {
                    Ok(()) => return Ok(()),
                    Err(error) => format!("{error:#}"),
                },
                None => "no member says that it is writable".to_owned(),
            };
            self.all_must_run()?;
            if clock::now() >= end {
                bail!("wait for a writable primary: none within {} s; last: {why}", span.as_secs());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until `count` members are healthy: a writable primary, all others streaming from it.
    pub async fn await_healthy(&self, count: usize) -> Result<View> {
        let mut last = String::new();
        let waited = try_until(HEALTHY_SPAN, "all members streaming from a writable primary", async || {
            let view = self.view().await;
            Ok(view.ok().filter(|view| view.healthy(count)))
        })
        .await;
        if waited.is_err() {
            last = format!("{:?}", self.view().await);
        }
        waited.with_context(|| format!("the keys say {last}"))
    }

    /// Fails when an agent, an etcd member or the router has ended by itself.
    pub fn all_must_run(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.agent_must_run()?;
        }
        for member in &mut self.etcd {
            member.must_run()?;
        }
        if let Some(haproxy) = &mut self.haproxy {
            haproxy.must_run()?;
        }
        match (&mut self.router, &self.router_program) {
            (Some(router), Some(program)) => router.must_run(&program.log),
            (Some(_) | None, _) => Ok(()),
        }
    }

    /// The names of what was started and has ended by itself: nodes (their agents), `router`, etcd members.
    pub fn ended(&mut self) -> Vec<String> {
        let nodes = self.nodes.iter_mut().filter_map(|node| node.agent_exit().map(|_| node.name.clone()));
        let mut ended: Vec<String> = nodes.collect();
        for member in &mut self.etcd {
            if !member.running() {
                ended.push(member.name.clone());
            }
        }
        if self.router.as_mut().is_some_and(|router| !router.running()) {
            ended.push("router".to_owned());
        }
        ended
    }

    /// Starts one of those again.
    pub fn start_again(&mut self, name: &str) -> Result<()> {
        if name == "router" {
            return self.start_router();
        }
        match self.etcd.iter_mut().find(|member| member.name == name) {
            Some(member) => member.start(),
            None => self.node(name)?.start_agent(),
        }
    }

    /// Pulls the cable of a node, of an etcd member, or of the router (`router`).
    pub fn unplug(&self, name: &str) -> Result<()> {
        self.network()?.unplug(self.host(name)?)
    }

    /// Plugs it in again.
    pub fn plug(&self, name: &str) -> Result<()> {
        self.network()?.plug(self.host(name)?)
    }

    /// Nothing passes between a node and etcd any more; everybody else is reached as before.
    pub fn cut_from_etcd(&self, name: &str) -> Result<()> {
        let (network, host) = (self.network()?, self.host(name)?);
        self.etcd.iter().try_for_each(|member| network.cut(host, self.host(&member.name)?))
    }

    /// It reaches etcd again.
    pub fn mend_to_etcd(&self, name: &str) -> Result<()> {
        let (network, host) = (self.network()?, self.host(name)?);
        self.etcd.iter().try_for_each(|member| network.mend(host, self.host(&member.name)?))
    }

    /// Leaves no room on the disk of a node's WAL, and uses up the segments that PostgreSQL has in stock, until it can write no more.
    pub async fn use_up_wal(&mut self, name: &str) -> Result<()> {
        let node = self.node(name)?;
        node.fill_wal()?;
        let socket = self.index(name).and_then(|at| self.nodes.get(at)).map(|node| self.own_socket(node));
        let socket = socket.ok_or_else(|| anyhow!("there is no node {name}"))?;
        let next = "SELECT pg_logical_emit_message(false, 'lab', 'next'); SELECT pg_switch_wal()";
        for _segment in 0..50 {
            if socket.run(next, Duration::from_secs(2)).await.is_err() {
                return Ok(());
            }
        }
        bail!("use up the WAL of {name}: it still finds room")
    }

    /// The network of a lab with cables.
    pub fn network(&self) -> Result<&Network> {
        self.block.network().ok_or_else(|| anyhow!("this lab has no cables"))
    }

    fn host(&self, name: &str) -> Result<&Host> {
        let etcd = self.etcd.iter().position(|member| member.name == name).map(|at| self.block.etcd(at));
        let node = self.index(name).map(|at| self.block.node(at));
        let router = (name == "router").then(|| self.block.router());
        let address = etcd.or(node).or(router).ok_or_else(|| anyhow!("there is no host {name}"))?;
        self.network()?.host(address).ok_or_else(|| anyhow!("{name} has no cable"))
    }

    /// Ends everything in order, removes the directory, and fails when a process is left.
    pub async fn stop(mut self) -> Result<()> {
        self.end_processes().await?;
        fs::remove_dir_all(&self.base).with_context(|| format!("remove {}", self.base.display()))
    }

    /// The same, but the directory stays, for reading the logs.
    pub async fn stop_and_keep(mut self) -> Result<PathBuf> {
        self.nodes.iter().filter_map(|node| node.wal_disk.as_ref()).try_for_each(WalDisk::list)?;
        self.end_processes().await?;
        Ok(self.base.clone())
    }

    async fn end_processes(&mut self) -> Result<()> {
        if let Some(mut router) = self.router.take() {
            router.stop(GRACE).await;
        }
        if let Some(mut haproxy) = self.haproxy.take() {
            haproxy.stop().await;
        }
        futures_util::future::join_all(self.nodes.iter_mut().map(|node| node.stop(GRACE))).await;
        // Told to end, the last one that leads waits for somebody to hand the lead to, and nothing is kept of it anyway.
        self.etcd.iter_mut().for_each(EtcdMember::kill);
        processes::kill_under(&self.base);
        processes::remove_guard_memory(&self.base);
        for node in &mut self.nodes {
            node.wal_disk = None;
        }
        self.stopped = true;
        let left = processes::await_none_under(&self.base, Duration::from_secs(5));
        if !left.is_empty() {
            bail!("end the lab: these processes are left: {left:?}");
        }
        Ok(())
    }

    fn create_etcd(&mut self, spec: &Spec) -> Result<()> {
        let url = |address, port| format!("http://{}", endpoint(address, port));
        let peer = |index| url(self.block.etcd(index), self.block.ports.etcd_peer());
        let cluster: Vec<String> =
            (0..spec.etcd).map(|index| format!("e{}={}", index + 1, peer(index))).collect();
        for index in 0..spec.etcd {
            let client = url(self.block.etcd(index), self.block.ports.etcd_client());
            let host = self.block.host(self.block.etcd(index));
            let at = Addresses { client, peer: peer(index), cluster: cluster.join(","), host };
            let member = EtcdMember::create(index, &self.base, &spec.binaries.etcd, &at, &self.account)?;
            self.etcd.push(member);
        }
        Ok(())
    }

    fn create_nodes(&mut self, spec: &Spec, baton: &Path) -> Result<()> {
        for index in 0..spec.members {
            let name = node_name(index);
            let dir = Node::dir_of(&self.base, &name);
            let file =
                config::agent(spec, &self.block, &self.passwords, index, &dir, &spec.binaries.postgres);
            let plan = NodePlan {
                name,
                address: self.block.node(index),
                postgres_port: self.block.ports.postgres(),
                rest_port: self.block.ports.rest(),
                config: config::yaml(&file),
                kind: spec.agents.get(index).copied().unwrap_or_default(),
                patroni: spec.agents.contains(&AgentKind::Patroni),
                host: self.block.host(self.block.node(index)),
                network_rights: spec.network_rights,
                wal_disk: spec.wal_disk,
            };
            self.nodes.push(Node::create(&self.base, baton, &plan, &self.account)?);
        }
        Ok(())
    }

    fn create_router(&mut self, spec: &Spec, baton: &Path) -> Result<()> {
        let dir = self.base.join("router");
        fs::create_dir(&dir).with_context(|| format!("create {}", dir.display()))?;
        self.account.own(&dir)?;
        let path = place_binary(&dir, baton)?;
        let file = dir.join("router.yml");
        write_private(&file, &config::yaml(&config::router(spec, &self.block)), &self.account)?;
        self.router_program = Some(Program {
            name: "router".to_owned(),
            path,
            arguments: vec!["router".to_owned(), file.display().to_string()],
            log: dir.join("router.log"),
            directory: dir,
            host: self.block.host(self.block.router()),
            network_rights: false,
        });
        Ok(())
    }

    /// The endpoints of etcd, as `host:port`.
    #[must_use]
    pub fn etcd_hosts(&self, spec: &Spec) -> Vec<String> {
        etcd_hosts(spec, &self.block)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        self.router = None;
        self.haproxy = None;
        processes::kill_under(&self.base);
        processes::remove_guard_memory(&self.base);
        self.nodes.clear();
        self.etcd.clear();
        // Networks and disks go with their owners. The directory stays: whoever dropped a running lab wants to know why.
    }
}
