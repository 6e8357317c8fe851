//! What systemd hears of an agent, with etcd and while it waits for it: ready, reloading, ready again, stopping.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;

use one_etcd::Etcd;
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// An agent, ended with this value.
struct Agent(Child);

impl Agent {
    fn start(file: &Path, socket: &Path) -> Agent {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command
            .arg("agent")
            .arg(file)
            .env("NOTIFY_SOCKET", socket)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = testbed::run_as() {
            command.uid(uid).gid(gid).current_dir("/");
        }
        Agent(command.spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the agent lives, and where the service manager listens.
struct Host {
    _dir: tempfile::TempDir,
    home: PathBuf,
    notify: PathBuf,
    socket: UnixDatagram,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let notify = home.join("notify");
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let host = Host { _dir: dir, home, notify, socket };
        host.own(&host.home);
        host.own(&host.notify);
        host
    }

    fn own(&self, path: &Path) {
        if let Some((uid, gid)) = testbed::run_as() {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
    }

    /// An agent that uses this etcd.
    fn agent(&self, etcd: &str) -> Agent {
        let bins = std::env::var("BATON_TEST_PG_BINS").unwrap();
        let bin_dir = bins.split(':').next().unwrap();
        let (rest, postgres) = (testbed::free_port(), testbed::free_port());
        let data = self.home.join("data");
        let yaml = format!(
            "scope: demo\nname: pg-1\nrestapi: {{listen: '127.0.0.1:{rest}'}}\netcd3: {{host: '{etcd}'}}\n\
             postgresql:\n  listen: '127.0.0.1:{postgres}'\n  data_dir: {}\n  bin_dir: {bin_dir}\n  \
             authentication: {{superuser: {{username: postgres}}, replication: {{username: rep}}}}\n",
            data.display()
        );
        let file = self.home.join("baton.yml");
        std::fs::write(&file, yaml).unwrap();
        self.own(&file);
        Agent::start(&file, &self.notify)
    }

    /// Waits until the service manager is told this.
    fn hear(&self, word: &str) {
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).unwrap();
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == word) {
                return;
            }
        }
    }
}

#[test]
fn an_agent_that_waits_for_etcd_survives_a_reload_and_stops() {
    let host = Host::new();
    let mut agent = host.agent(&format!("127.0.0.1:{}", testbed::free_port()));
    host.hear("READY=1");
    agent.signal(Signal::HUP);
    agent.signal(Signal::TERM);
    host.hear("STOPPING=1");
    assert!(agent.0.wait().unwrap().success());
}

#[tokio::test]
async fn the_beginning_and_the_end_of_a_reload_are_told() {
    let (host, etcd) = (Host::new(), Etcd::start());
    // Of a cluster whose other members are not here there is nothing to create and nobody to copy.
    let by = clock::now().after(Duration::from_secs(30));
    etcd.client().set_initialize(types::SystemId(7_000_000_000_000_000_001), by).await.unwrap();
    let mut agent = host.agent(etcd.endpoint.trim_start_matches("http://"));
    host.hear("READY=1");
    host.hear("STATUS=PostgreSQL is stopped, nobody leads");
    agent.signal(Signal::HUP);
    host.hear("RELOADING=1");
    host.hear("READY=1");
    agent.signal(Signal::TERM);
    host.hear("STOPPING=1");
    assert!(agent.0.wait().unwrap().success());
}
