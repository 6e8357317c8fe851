//! Real etcd servers on loopback, each in a directory of its own, ended by their process ids.

use etcd::{Config, Etcd, Keys};
use etcd_client::{Client, ConnectOptions};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use testbed::free_port;
use tokio::sync::{Semaphore, SemaphorePermit};
use types::Moment;

pub(crate) const ATTEMPT: Duration = Duration::from_millis(500);

/// Generous: a loaded machine must not fail a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many servers run at once in this test binary: elections need processor time.
static SERVERS: Semaphore = Semaphore::const_new(4);

/// All etcd servers to test with.
pub(crate) fn servers() -> Vec<PathBuf> {
    let list = std::env::var("BATON_TEST_ETCD_BINS").unwrap_or_default();
    let mut servers: Vec<PathBuf> =
        std::env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()).collect();
    if servers.is_empty() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join("etcd")).find(|path| path.is_file());
        servers.extend(found.or_else(|| Some(PathBuf::from("/usr/bin/etcd")).filter(|path| path.is_file())));
    }
    assert!(!servers.is_empty(), "no etcd found: install etcd-server, or name it in BATON_TEST_ETCD_BINS");
    servers
}

/// The servers of one etcd cluster.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    options: ConnectOptions,
    _permit: SemaphorePermit<'static>,
    _directory: TempDir,
}

/// One etcd server.
pub(crate) struct Member {
    pub(crate) url: String,
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
}

impl Cluster {
    pub(crate) async fn start(binary: &Path, count: usize) -> Cluster {
        Cluster::start_with(binary, count, "http", &[], ConnectOptions::new()).await
    }

    /// With more arguments for each server, and what a client needs to be served then.
    pub(crate) async fn start_with(
        binary: &Path,
        count: usize,
        scheme: &str,
        more: &[String],
        options: ConnectOptions,
    ) -> Cluster {
        let permit = SERVERS.acquire_many(u32::try_from(count).unwrap()).await.unwrap();
        let directory = tempfile::Builder::new().prefix("baton-etcd-").tempdir().unwrap();
        let ports = free_ports(count * 2);
        let peers: Vec<String> =
            ports[count..].iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let names: Vec<String> = (0..count).map(|at| format!("m{at}={}", peers[at])).collect();
        let mut members = Vec::new();
        for at in 0..count {
            let url = format!("{scheme}://127.0.0.1:{}", ports[at]);
            let data = directory.path().join(format!("m{at}"));
            let mut arguments: Vec<String> = [
                ("name", format!("m{at}")),
                ("data-dir", data.display().to_string()),
                ("listen-client-urls", url.clone()),
                ("advertise-client-urls", url.clone()),
                ("listen-peer-urls", peers[at].clone()),
                ("initial-advertise-peer-urls", peers[at].clone()),
                ("initial-cluster", names.join(",")),
                ("initial-cluster-token", directory.path().display().to_string()),
                ("initial-cluster-state", "new".to_owned()),
            ]
            .iter()
            .map(|(name, value)| format!("--{name}={value}"))
            .collect();
            arguments.extend_from_slice(more);
            let log = directory.path().join(format!("m{at}.log"));
            let mut member = Member { url, binary: binary.to_owned(), arguments, log, process: None };
            member.start();
            members.push(member);
        }
        let cluster = Cluster { members, options, _permit: permit, _directory: directory };
        for at in 0..count {
            cluster.serving(at).await;
        }
        cluster
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Our client, pinned to the first endpoint.
    pub(crate) fn etcd(&self) -> Etcd {
        self.etcd_from(0)
    }

    /// Our client, pinned to the endpoint `first`.
    pub(crate) fn etcd_from(&self, first: usize) -> Etcd {
        let mut endpoints = self.urls();
        endpoints.rotate_left(first);
        let config = Config { endpoints, attempt: ATTEMPT, tls: None, auth: None };
        Etcd::new(config, keys()).unwrap()
    }

    /// A plain client of one member.
    pub(crate) async fn raw(&self, at: usize) -> Client {
        Client::connect([self.members[at].url.as_str()], Some(self.options.clone())).await.unwrap()
    }

    /// Waits until the member serves linearizable reads.
    pub(crate) async fn serving(&self, at: usize) {
        let url = self.members[at].url.clone();
        let options = self.options.clone().with_timeout(Duration::from_secs(2)).with_require_leader(true);
        eventually(&format!("{url} serves"), || async {
            let mut client = Client::connect([url.as_str()], Some(options.clone())).await.ok()?;
            client.get("x", None).await.ok()
        })
        .await;
    }

    /// The member that leads.
    pub(crate) async fn leader(&self) -> usize {
        eventually("etcd has a leader", || async {
            for at in 0..self.members.len() {
                if let Ok(status) = self.raw(at).await.status().await
                    && status.leader() != 0
                    && status.header().is_some_and(|header| header.member_id() == status.leader())
                {
                    return Some(at);
                }
            }
            None
        })
        .await
    }
}

impl Member {
    pub(crate) fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        // Should the test process be killed, its servers are too.
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(&self.binary)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
    }

    pub(crate) fn freeze(&self) {
        kill_process(self.pid(), Signal::STOP).unwrap();
        // SIGSTOP is delivered at once to a process with several threads, but each thread stops on its own; the
        // parent is told when all have.
        waitpid(Some(self.pid()), WaitOptions::UNTRACED).unwrap();
    }

    pub(crate) fn thaw(&self) {
        kill_process(self.pid(), Signal::CONT).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.process.as_ref().unwrap())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(&self.log)
        {
            let lines: Vec<&str> = log.lines().collect();
            println!("--- the end of the log of {}", self.url);
            println!("{}", lines[lines.len().saturating_sub(15)..].join("\n"));
        }
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// The keys of the cluster under test.
pub(crate) fn keys() -> Keys {
    Keys::new("service", "batman")
}

/// A deadline in the future.
pub(crate) fn within(seconds: u64) -> Moment {
    clock::now().after(Duration::from_secs(seconds))
}

/// Waits until `check` gives something.
pub(crate) async fn eventually<T, F, Fut>(what: &str, mut check: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let by = clock::now().after(PATIENCE);
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(clock::now() < by, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_ports(count: usize) -> Vec<u16> {
    (0..count).map(|_| free_port()).collect()
}
