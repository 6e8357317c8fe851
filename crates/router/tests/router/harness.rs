//! One etcd, a few PostgreSQL servers and a router in this process. Everything that is started has its working directory
//! below the scratch directory, and is killed by its process id when that is dropped.

use etcd::{Etcd, Keys, Member, Writable};
use router::{Config, Role as Serves, Router, Service};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::{NoTls, SimpleQueryMessage};
use tokio_util::sync::CancellationToken;
use types::{LeaseId, Lsn, Moment, NodeName, PostgresState, Role, Term, Timeline};

/// How long a test waits for something that normally takes a moment.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The time within which a test's request to etcd has to be done.
fn by() -> Moment {
    clock::now().after(SOON)
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

/// Waits until `ready`; fails the test when that takes longer than [`SOON`].
pub(crate) async fn until<T>(what: &str, mut ready: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(value) = ready().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// The user and group of `postgres`, when the test is root and PostgreSQL must not be.
fn run_as() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse::<u32>().unwrap());
    Some((fields.next().unwrap(), fields.next().unwrap()))
}

/// A directory under `/tmp` that belongs to the user `postgres`.
pub(crate) struct Scratch(tempfile::TempDir);

impl Scratch {
    fn new() -> Scratch {
        let dir = tempfile::Builder::new().prefix("baton-router-").tempdir_in("/tmp").unwrap();
        own(dir.path(), 0o700);
        Scratch(dir)
    }

    fn path(&self) -> &Path {
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

/// A data directory fresh from initdb, of which servers are copies. Shared by the tests that run at the same time.
struct Template {
    data: PathBuf,
    _scratch: Scratch,
}

impl Template {
    fn get() -> Arc<Template> {
        static SHARED: Mutex<Weak<Template>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap();
        if let Some(template) = shared.upgrade() {
            return template;
        }
        let scratch = Scratch::new();
        let data = scratch.path().join("data");
        let mut initdb = program(pg_bin("initdb"), scratch.path());
        initdb.arg("--pgdata").arg(&data);
        run(initdb.args(["--no-sync", "--encoding=UTF8", "--username=postgres", "--auth=trust"]));
        let template = Arc::new(Template { data, _scratch: scratch });
        *shared = Arc::downgrade(&template);
        template
    }
}

/// A PostgreSQL server of its own.
pub(crate) struct Server {
    pub(crate) port: u16,
    data: PathBuf,
    home: PathBuf,
}

impl Server {
    fn init(template: &Template, home: &Path, name: &str) -> Server {
        let server = Server { port: free_port(), data: home.join(name), home: home.to_owned() };
        run(Command::new("cp").arg("--archive").arg(&template.data).arg(&server.data));
        server.configure();
        server
    }

    /// A standby that streams from `primary`.
    fn clone_of(primary: &Server, name: &str) -> Server {
        let home = primary.home.clone();
        let server = Server { port: free_port(), data: home.join(name), home };
        let mut backup = program(pg_bin("pg_basebackup"), &server.home);
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

    fn pg_ctl(&self, arguments: &[&str]) {
        let mut pg_ctl = program(pg_bin("pg_ctl"), &self.home);
        pg_ctl.arg("--pgdata").arg(&self.data).arg("--log").arg(self.data.with_extension("log"));
        run(pg_ctl.args(["--wait", "--silent", "--timeout=60"]).args(arguments));
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
    pid: u32,
    client: u16,
}

impl EtcdServer {
    /// Starts one that will answer on `client`.
    fn start(home: &Path, client: u16) -> EtcdServer {
        let binary = first_of("BATON_TEST_ETCD_BINS").unwrap_or_else(|| PathBuf::from("etcd"));
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
        EtcdServer { pid: child.id(), client }
    }

    pub(crate) fn freeze(&self) {
        signal(self.pid, Signal::STOP);
    }

    pub(crate) fn thaw(&self) {
        signal(self.pid, Signal::CONT);
    }
}

/// A cluster as the router sees it, with members that have no agents: the tests write their keys.
pub(crate) struct World {
    pub(crate) servers: Vec<Server>,
    pub(crate) etcd_server: EtcdServer,
    pub(crate) etcd: Etcd,
    pub(crate) router: RunningRouter,
    /// The REST address that members publish.
    pub(crate) api_url: String,
    _scratch: Scratch,
    _template: Arc<Template>,
}

pub(crate) struct RunningRouter {
    ports: BTreeMap<String, SocketAddr>,
    pub(crate) api: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), router::Error>>,
}

pub(crate) fn etcd_at(port: u16) -> Etcd {
    let endpoints = vec![format!("http://127.0.0.1:{port}")];
    let settings = etcd::Config { endpoints, attempt: Duration::from_millis(500), tls: None, auth: None };
    Etcd::new(settings, Keys::new("service", "demo")).unwrap()
}

/// A configuration on free ports of 127.0.0.1, with an API.
pub(crate) fn config() -> Config {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
    let mut config = Config::new("demo", any.ip());
    config.services = vec![
        Service::new("primary", any, Serves::Primary),
        Service::new("replica", any, Serves::Replica),
        Service::new("offline", any, Serves::Offline),
    ];
    config.api = Some(any);
    config
}

impl RunningRouter {
    pub(crate) fn start(config: Config, etcd: Etcd) -> RunningRouter {
        let names: Vec<String> = config.services.iter().map(|service| service.name.clone()).collect();
        let router = Router::bind(config).unwrap();
        let ports = names.into_iter().map(|name| (name.clone(), router.addresses(&name)[0])).collect();
        let (api, stop) = (router.api_address().unwrap(), CancellationToken::new());
        let task = tokio::spawn(router.run(etcd, stop.clone()));
        RunningRouter { ports, api, stop, task }
    }

    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        self.ports[service]
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: router\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

impl World {
    /// Independent servers and a router; etcd runs and is empty.
    pub(crate) async fn start(servers: usize, change: impl FnOnce(&mut Config)) -> World {
        let world = World::prepare(servers, 0, change);
        for server in &world.servers {
            server.start();
        }
        world
    }

    /// A primary with streaming standbys.
    pub(crate) async fn streaming(standbys: usize, change: impl FnOnce(&mut Config)) -> World {
        let world = World::prepare(1, standbys, change);
        for server in &world.servers[1..] {
            server.start();
        }
        world
    }

    /// As many servers, not started (but a primary with standbys is), and a router.
    pub(crate) fn prepare(servers: usize, standbys: usize, change: impl FnOnce(&mut Config)) -> World {
        let scratch = Scratch::new();
        let home = scratch.path().to_owned();
        let template = Template::get();
        let names = (1..=servers).map(|number| format!("db{number}"));
        let mut all: Vec<Server> = names.map(|name| Server::init(&template, &home, &name)).collect();
        if standbys > 0 {
            all[0].start();
        }
        for number in 0..standbys {
            all.push(Server::clone_of(&all[0], &format!("db{}", servers + number + 1)));
        }
        let etcd_server = EtcdServer::start(&home, free_port());
        let etcd = etcd_at(etcd_server.client);
        let mut config = config();
        change(&mut config);
        let router = RunningRouter::start(config, etcd.clone());
        World {
            servers: all,
            etcd_server,
            etcd,
            router,
            api_url: "http://127.0.0.1:1/patroni".into(),
            _scratch: scratch,
            _template: template,
        }
    }

    /// Member `number`, counted from 1, as its agent would describe it.
    pub(crate) fn member(&self, number: usize, role: Role) -> Member {
        let mut member = Member::new(PostgresState::Running, role);
        let port = self.servers[number - 1].port;
        member.conn_url = Some(format!("postgres://127.0.0.1:{port}/postgres"));
        member.api_url = Some(self.api_url.clone());
        member.version = Some("4.1.5".into());
        member.baton = Some("0.1.0".into());
        if role == Role::Replica {
            member.replication_state = Some("streaming".into());
        }
        member
    }

    pub(crate) async fn publish(&self, number: usize, member: &Member) {
        let lease = self.lease().await;
        self.etcd.put_member(&db(number), member, lease, by()).await.unwrap();
    }

    async fn lease(&self) -> LeaseId {
        self.etcd.grant(600, by()).await.unwrap().lease
    }

    /// Member `number` takes the leader key, from whoever has it; it does not accept writes yet.
    pub(crate) async fn take_lead(&self, number: usize) -> Term {
        if let Some(leader) = self.etcd.snapshot(by()).await.unwrap().leader {
            assert!(self.etcd.release_leader(&leader.name, leader.term, by()).await.unwrap());
        }
        let lease = self.lease().await;
        self.etcd.acquire_leader(&db(number), lease, by()).await.unwrap().expect("nobody holds the lead")
    }

    pub(crate) async fn accept_writes(&self, number: usize, term: Term) {
        let lease = self.lease().await;
        let writable = Writable { term, name: db(number), timeline: Timeline(1), lsn: Lsn(1), lease: None };
        self.etcd.put_writable(&writable, lease, term, by()).await.unwrap();
    }

    pub(crate) async fn refuse_writes(&self, term: Term) {
        self.etcd.delete_writable(term, by()).await.unwrap();
    }

    pub(crate) async fn drop_lead(&self, number: usize, term: Term) {
        assert!(self.etcd.release_leader(&db(number), term, by()).await.unwrap());
    }

    /// All of it: member key, leader key, writable.
    pub(crate) async fn lead(&self, number: usize) -> Term {
        self.publish(number, &self.member(number, Role::Primary)).await;
        let term = self.take_lead(number).await;
        self.accept_writes(number, term).await;
        term
    }

    pub(crate) async fn connect(&self, service: &str) -> Result<Client, tokio_postgres::Error> {
        connect(self.router.address(service)).await
    }

    /// The member that a new session of the service reaches.
    pub(crate) async fn reaches(&self, service: &str) -> usize {
        let client = self.connect(service).await.unwrap();
        self.number_of(&client).await
    }

    /// The member that a session is on.
    pub(crate) async fn number_of(&self, client: &Client) -> usize {
        let port: u16 = client.ask("select inet_server_port()").await.unwrap().parse().unwrap();
        1 + self.servers.iter().position(|server| server.port == port).unwrap()
    }

    /// A body of the router's API.
    pub(crate) async fn api(&self, path: &str) -> String {
        self.router.get(path).await
    }

    /// Waits until `/metrics` has that line.
    pub(crate) async fn metric(&self, line: &str) {
        let what = format!("metric {line}");
        until(&what, async || self.api("/metrics").await.lines().any(|each| each == line).then_some(()))
            .await;
    }

    /// Waits until the router knows that term.
    pub(crate) async fn knows(&self, term: Term) {
        self.metric(&format!("baton_router_term{{scope=\"demo\"}} {term}")).await;
    }
}

pub(crate) fn db(number: usize) -> NodeName {
    NodeName(format!("db{number}"))
}

/// A session of tokio-postgres, with the end of its connection.
pub(crate) struct Client {
    pub(crate) client: tokio_postgres::Client,
    connection: JoinHandle<Result<(), tokio_postgres::Error>>,
}

pub(crate) async fn connect(address: SocketAddr) -> Result<Client, tokio_postgres::Error> {
    let url = format!("postgres://postgres@{}:{}/postgres?sslmode=disable", address.ip(), address.port());
    let connected = timeout(SOON, tokio_postgres::connect(&url, NoTls)).await.expect("connect in time");
    let (client, connection) = connected?;
    Ok(Client { client, connection: tokio::spawn(connection) })
}

impl Client {
    /// The only value of the only row.
    pub(crate) async fn ask(&self, sql: &str) -> Result<String, tokio_postgres::Error> {
        let rows = timeout(SOON, self.client.simple_query(sql)).await.expect("an answer in time")?;
        let value = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    }

    /// How the connection ended: the error of the server, or `None` for an end without words.
    pub(crate) async fn end(self) -> Option<(String, String)> {
        // The connection ends by itself or not at all: the client is kept until then.
        let ended = timeout(SOON, self.connection).await.expect("an end in time").unwrap();
        ended.err().as_ref().and_then(state_and_message)
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.connection.is_finished()
    }
}

pub(crate) fn state_and_message(error: &tokio_postgres::Error) -> Option<(String, String)> {
    error.as_db_error().map(|error| (error.code().code().to_owned(), error.message().to_owned()))
}

/// The SQLSTATE and message with which connecting failed.
pub(crate) async fn refusal(address: SocketAddr) -> (String, String) {
    let error = connect(address).await.err().expect("no connection");
    state_and_message(&error).unwrap_or_else(|| panic!("no error of the server: {error}"))
}
