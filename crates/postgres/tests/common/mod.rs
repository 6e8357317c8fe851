//! What the tests share: scratch directories of the operating-system user `postgres`, the PostgreSQL installations
//! to test with, and a small PostgreSQL that is driven by its own tools and not by the code under test.
//!
//! Everything that a test starts has its working directory below its scratch directory; when the scratch directory
//! is dropped, those processes are killed by their ids and the files removed.
#![allow(dead_code, unreachable_pub, reason = "every test program uses another part of this module")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a helper of tests fails as tests do"
)]

use postgres::installation::{Installation, Version};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
pub use testbed::{free_port, run_as};

/// How long a test waits for something that normally takes a moment.
pub const SOON: Duration = Duration::from_secs(60);

/// The name of the first superuser of every test cluster.
pub const SUPERUSER: &str = "postgres";

/// The directories with PostgreSQL's programs, the default one first.
pub fn pg_bins() -> Vec<PathBuf> {
    let listed = std::env::var("BATON_TEST_PG_BINS").unwrap_or_default();
    let mut bins: Vec<PathBuf> = listed.split(':').filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
    if bins.is_empty() {
        let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL must be installed");
        let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
        let mut found: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| path.join("bin/postgres").exists());
        found.sort_by_key(number);
        bins.extend(found.pop().map(|path| path.join("bin")));
    }
    assert!(!bins.is_empty(), "no PostgreSQL found: set BATON_TEST_PG_BINS");
    bins
}

/// The default installation's programs.
pub fn pg_bin() -> PathBuf {
    pg_bins().remove(0)
}

/// The major version of the programs in `bin_dir`.
pub fn major(bin_dir: &Path) -> u32 {
    let text = run(Command::new(bin_dir.join("postgres")).arg("--version"));
    Version::parse(&text).expect("a version").major
}

/// The installation in `bin_dir`; its programs run as the user `postgres` when the test runs as root.
pub async fn installation(bin_dir: &Path) -> Installation {
    let mut installation = Installation::find(Some(bin_dir)).await.expect("find PostgreSQL");
    installation.run_as = run_as();
    installation
}

/// Waits until `ready` answers with something; fails the test when that takes longer than [`SOON`].
pub async fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "waited {SOON:?} for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A directory among the temporary ones that belongs to the user `postgres`.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// A new, empty directory.
    pub fn new(label: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-pg-{label}-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("create the scratch directory");
        own(&path);
        Scratch { path }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// A new subdirectory with mode 0700 that belongs to `postgres`.
    pub fn dir(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        fs::create_dir(&path).expect("create a directory");
        own(&path);
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        kill_below(&self.path);
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("remove {}: {error}", self.path.display());
        }
    }
}

/// Makes `path` belong to the user that PostgreSQL runs as, closed to others.
pub fn own(path: &Path) {
    let mode = if path.is_dir() { 0o700 } else { 0o600 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set permissions");
    if let Some((uid, gid)) = run_as() {
        chown(path, Some(uid), Some(gid)).expect("change the owner");
    }
}

/// Kills every process whose working directory is `dir` or below it, until there is none.
pub fn kill_below(dir: &Path) {
    for _ in 0..100 {
        let pids = processes_below(dir);
        if pids.is_empty() {
            return;
        }
        for pid in pids {
            kill_and_wait(pid);
        }
    }
}

fn kill_and_wait(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("small")).expect("a process id");
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        let _gone_already = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        let _seen_again_if_alive = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&second));
    }
}

/// The processes whose working directory is `dir` or below it.
pub fn processes_below(dir: &Path) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("read /proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(dir)))
        .filter(|pid| *pid != std::process::id())
        .collect()
}

/// One of PostgreSQL's programs, as the user `postgres`, in a directory that this user can enter.
pub fn program(bin_dir: &Path, name: &str) -> Command {
    let mut command = Command::new(bin_dir.join(name));
    command.current_dir("/").env("LC_ALL", "C");
    if let Some((uid, gid)) = run_as() {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs `command`; fails the test when it fails; answers with what it printed.
pub fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("start a program");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// A PostgreSQL driven by `initdb`, `pg_ctl` and `psql`. Its socket directory is the scratch directory it lives in.
pub struct Server {
    pub bin_dir: PathBuf,
    pub data_dir: PathBuf,
    pub log: PathBuf,
    pub socket_dir: PathBuf,
    pub port: u16,
}

impl Server {
    /// A new cluster in `scratch`/`name` that trusts everybody, with settings for replication and rewind.
    pub fn init(scratch: &Scratch, bin_dir: &Path, name: &str) -> Server {
        Server::init_with(scratch, bin_dir, name, &["--data-checksums", "--auth=trust"])
    }

    /// A new cluster with these options of initdb.
    pub fn init_with(scratch: &Scratch, bin_dir: &Path, name: &str, options: &[&str]) -> Server {
        let server = Server::at(scratch, bin_dir, name);
        let mut initdb = program(bin_dir, "initdb");
        initdb.arg("--pgdata").arg(&server.data_dir).args(["--no-sync", "--encoding=UTF8"]);
        run(initdb.args(["--username", SUPERUSER]).args(options));
        server.append_settings();
        server
    }

    /// A cluster in `scratch`/`name` that exists or will; a free port is chosen for it.
    pub fn at(scratch: &Scratch, bin_dir: &Path, name: &str) -> Server {
        Server {
            bin_dir: bin_dir.to_owned(),
            data_dir: scratch.join(name),
            log: scratch.join(&format!("{name}.log")),
            socket_dir: scratch.path().to_owned(),
            port: free_port(),
        }
    }

    /// Appends the port, the socket directory and what replication needs to `postgresql.conf`.
    pub fn append_settings(&self) {
        let settings = format!(
            "port = {}\nunix_socket_directories = '{}'\nlisten_addresses = '127.0.0.1'\n\
             wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10\nhot_standby = on\n\
             wal_log_hints = on\nshared_buffers = 16MB\nfsync = off\nlogging_collector = off\n",
            self.port,
            self.socket_dir.display()
        );
        self.append("postgresql.conf", &settings);
    }

    /// Appends `text` to a file of the data directory.
    pub fn append(&self, file: &str, text: &str) {
        let path = self.data_dir.join(file);
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, format!("{before}{text}")).expect("write a file of the data directory");
        own(&path);
    }

    /// `pg_ctl` with these arguments.
    pub fn pg_ctl(&self, arguments: &[&str]) -> String {
        let mut pg_ctl = program(&self.bin_dir, "pg_ctl");
        // pg_ctl's children inherit its output: without a file of their own the caller would wait for them.
        pg_ctl.arg("--pgdata").arg(&self.data_dir).arg("--log").arg(&self.log).args(["--timeout", "60"]);
        run(pg_ctl.args(arguments))
    }

    /// Starts it and waits until it answers.
    pub fn start(&self) {
        self.pg_ctl(&["start", "--wait", "--silent"]);
    }

    /// Stops it in `mode`: smart, fast or immediate.
    pub fn stop(&self, mode: &str) {
        self.pg_ctl(&["stop", "--wait", "--silent", "--mode", mode]);
    }

    /// The process id of its postmaster.
    pub fn pid(&self) -> u32 {
        let file = fs::read_to_string(self.data_dir.join("postmaster.pid")).expect("read postmaster.pid");
        file.lines().next().and_then(|line| line.parse().ok()).expect("a process id")
    }

    /// What psql prints for `sql`, without titles and alignment.
    pub fn psql(&self, sql: &str) -> String {
        self.try_psql(sql).unwrap_or_else(|message| panic!("{sql}: {message}"))
    }

    /// The same, or the error message.
    pub fn try_psql(&self, sql: &str) -> Result<String, String> {
        let Output { status, stdout, stderr } = self.psql_command(sql).output().expect("start psql");
        let stdout = String::from_utf8_lossy(&stdout).trim().to_owned();
        if status.success() { Ok(stdout) } else { Err(String::from_utf8_lossy(&stderr).into_owned()) }
    }

    /// psql, ready to run `sql`.
    pub fn psql_command(&self, sql: &str) -> Command {
        let mut psql = program(&self.bin_dir, "psql");
        psql.args([
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "--set=ON_ERROR_STOP=1",
            "--username",
            SUPERUSER,
        ])
        .arg("--host")
        .arg(&self.socket_dir)
        .args(["--port", &self.port.to_string(), "--dbname=postgres", "--command", sql]);
        psql
    }

    /// A streaming standby of this server, made with `pg_basebackup`, not started.
    pub fn standby(&self, scratch: &Scratch, name: &str) -> Server {
        let standby = Server::at(scratch, &self.bin_dir, name);
        let mut backup = program(&self.bin_dir, "pg_basebackup");
        backup.arg("--pgdata").arg(&standby.data_dir).arg("--host").arg(&self.socket_dir);
        backup.args(["--port", &self.port.to_string(), "--username", SUPERUSER, "--checkpoint=fast"]);
        run(backup.args(["--wal-method=stream", "--write-recovery-conf", "--no-sync"]));
        standby.append_settings();
        standby
    }

    /// The server's log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}
