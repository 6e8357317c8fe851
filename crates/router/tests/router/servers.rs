//! What the tests start: PostgreSQL and etcd, below a scratch directory of the operating-system user `postgres`. Each process has its
//! working directory there, and is killed by its id when the scratch directory is dropped.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use testbed::{free_port, run_as};

/// A directory for temporary files that belongs to the user `postgres`; its path is short, for sockets are in it.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    pub(crate) fn new() -> Scratch {
        let dir = tempfile::Builder::new().prefix("baton-router-").tempdir().unwrap();
        own(dir.path(), 0o700);
        Scratch(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        for _ in 0..50 {
            let pids = processes_below(self.path());
            for pid in &pids {
                signal(*pid, Signal::KILL);
            }
            if pids.is_empty() {
                return;
            }
        }
    }
}

fn own(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    if let Some((uid, gid)) = run_as() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn processes_below(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .collect()
}

/// Sends the signal by a pidfd, so that it cannot hit a later process with the same id, and waits for a killed one.
fn signal(pid: u32, signal: Signal) {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return };
    let _gone_already = pidfd_send_signal(&pidfd, signal);
    if signal == Signal::KILL {
        let second = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let _seen_again_if_alive = rustix::event::poll(&mut fds, Some(&second));
    }
}

fn program(path: PathBuf, dir: &Path) -> Command {
    let mut command = Command::new(path);
    command.current_dir(dir).env("LC_ALL", "C").stdin(Stdio::null());
    if let Some((uid, gid)) = run_as() {
        command.uid(uid).gid(gid);
    }
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
}

fn first_of(variable: &str) -> Option<PathBuf> {
    let listed = std::env::var(variable).ok()?;
    listed.split(':').find(|path| !path.is_empty()).map(PathBuf::from)
}

pub(crate) fn etcd_binary() -> PathBuf {
    first_of("BATON_TEST_ETCD_BINS").unwrap_or_else(|| PathBuf::from("etcd"))
}

pub(crate) fn pg_bin(name: &str) -> PathBuf {
    let newest = || {
        let mut found: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
            .expect("PostgreSQL must be installed, or BATON_TEST_PG_BINS set")
            .flatten()
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
            .collect();
        found.sort();
        found.pop().expect("PostgreSQL must be installed, or BATON_TEST_PG_BINS set").1
    };
    first_of("BATON_TEST_PG_BINS").unwrap_or_else(newest).join(name)
}

/// Where the programs of a PostgreSQL 18 are that can encrypt, and its psql.
pub(crate) fn pg_with_tls() -> PathBuf {
    first_of("BATON_TEST_PG_TLS").expect("BATON_TEST_PG_TLS must be set, as tools/setup does")
}

/// A data directory fresh from initdb, of which servers are copies. Shared by the tests that run at the same time.
pub(crate) struct Template {
    data: PathBuf,
    bin: PathBuf,
    _scratch: Scratch,
}

impl Template {
    pub(crate) fn get() -> Arc<Template> {
        static SHARED: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(template) = shared.upgrade() {
            return template;
        }
        let template = Arc::new(Template::made_by(pg_bin("")));
        *shared = Arc::downgrade(&template);
        template
    }

    /// One of the PostgreSQL whose programs are there.
    pub(crate) fn made_by(bin: PathBuf) -> Template {
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        let mut initdb = program(bin.join("initdb"), scratch.path());
        initdb.arg("--pgdata").arg(&data);
        run(initdb.args(["--no-sync", "--encoding=UTF8", "--username=postgres", "--auth=trust"]));
        Template { data, bin, _scratch: scratch }
    }
}

/// A PostgreSQL server of its own.
pub(crate) struct Server {
    pub(crate) port: u16,
    data: PathBuf,
    home: PathBuf,
    bin: PathBuf,
}

impl Server {
    pub(crate) fn init(template: &Template, home: &Path, name: &str) -> Server {
        let (data, bin) = (home.join(name), template.bin.clone());
        let server = Server { port: free_port(), data, home: home.to_owned(), bin };
        run(Command::new("cp").arg("--archive").arg(&template.data).arg(&server.data));
        server.configure();
        server
    }

    /// A standby that streams from `primary`.
    pub(crate) fn clone_of(primary: &Server, name: &str) -> Server {
        let (home, bin) = (primary.home.clone(), primary.bin.clone());
        let server = Server { port: free_port(), data: home.join(name), home, bin };
        let mut backup = program(server.bin.join("pg_basebackup"), &server.home);
        backup.arg("--pgdata").arg(&server.data).args([
            "--host=127.0.0.1",
            "--username=postgres",
            "--no-sync",
        ]);
        backup.args(["--checkpoint=fast", "--write-recovery-conf", "--port", &primary.port.to_string()]);
        run(&mut backup);
        server.configure();
        server
    }

    fn configure(&self) {
        let settings = format!(
            "port = {}\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = '{}'\nfsync = off\n\
             shared_buffers = 16MB\nmax_connections = 60\n",
            self.port,
            self.home.display()
        );
        self.append("postgresql.conf", &settings);
    }

    pub(crate) fn append(&self, file: &str, text: &str) {
        let path = self.data.join(file);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, format!("{before}{text}")).unwrap();
        own(&path, 0o600);
    }

    /// A certificate for `localhost`, and TLS on.
    pub(crate) fn use_tls(&self) {
        let mut openssl = program(PathBuf::from("openssl"), &self.home);
        openssl.args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
        ]);
        openssl
            .arg("-keyout")
            .arg(self.data.join("server.key"))
            .arg("-out")
            .arg(self.data.join("server.crt"));
        run(&mut openssl);
        own(&self.data.join("server.key"), 0o600);
        self.append("postgresql.conf", "ssl = on\n");
    }

    /// Where its certificate is.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.data.join("server.crt")
    }

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut pg_ctl = program(self.bin.join("pg_ctl"), &self.home);
        let log = self.data.with_extension("log");
        pg_ctl.arg("--pgdata").arg(&self.data).arg("--log").arg(&log);
        let done = pg_ctl.args(["--wait", "--silent", "--timeout=60"]).args(arguments).status().unwrap();
        assert!(done.success(), "{pg_ctl:?}: {}", fs::read_to_string(&log).unwrap_or_default());
    }

    pub(crate) fn port_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    pub(crate) fn start(&self) {
        self.pg_ctl(&["start"]);
    }

    pub(crate) fn stop(&self) {
        self.pg_ctl(&["stop", "--mode=fast"]);
    }
}

/// The one member of an etcd.
pub(crate) struct EtcdServer {
    child: Child,
    pub(crate) client: u16,
}

impl EtcdServer {
    /// Starts one that will answer on `client`.
    pub(crate) fn start(home: &Path, client: u16) -> EtcdServer {
        let binary = etcd_binary();
        let dir = home.join("etcd");
        fs::create_dir(&dir).unwrap();
        own(&dir, 0o700);
        let (client_url, peer_url) =
            (format!("http://127.0.0.1:{client}"), format!("http://127.0.0.1:{}", free_port()));
        let log = File::create(home.join("etcd.log")).unwrap();
        let mut etcd = program(binary, &dir);
        etcd.args(["--name=e1", "--data-dir=data"]);
        etcd.args(["--listen-client-urls", &client_url, "--advertise-client-urls", &client_url]);
        etcd.args(["--listen-peer-urls", &peer_url, "--initial-advertise-peer-urls", &peer_url]);
        etcd.args(["--initial-cluster", &format!("e1={peer_url}")]);
        let child = etcd.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("start etcd");
        EtcdServer { child, client }
    }

    pub(crate) fn freeze(&self) {
        signal(self.child.id(), Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        signal(self.child.id(), Signal::CONT);
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}
