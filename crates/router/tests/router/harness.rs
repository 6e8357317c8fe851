//! One etcd, a few PostgreSQL servers and a router in this process; the test is the agents.

use crate::servers::{EtcdServer, Scratch, Server, Template};
use etcd::{Etcd, Keys, Member, Writable};
use router::{Cluster, Config, Role as Serves, Router, Service};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use testbed::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
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
    /// What a reload gives.
    pub(crate) file: Arc<Mutex<Config>>,
    pub(crate) reload: mpsc::Sender<router::Order>,
}

/// The cluster of that name in the etcd at that port.
pub(crate) fn cluster_at(port: u16, name: &str) -> Cluster {
    let endpoints = vec![format!("http://127.0.0.1:{port}")];
    let etcd = etcd::Config { endpoints, attempt: Duration::from_millis(500), tls: None, auth: None };
    Cluster { name: name.to_owned(), etcd, keys: Keys::new("service", name) }
}

pub(crate) fn etcd_at(port: u16, name: &str) -> Etcd {
    let Cluster { etcd, keys, .. } = cluster_at(port, name);
    Etcd::new(etcd, keys).unwrap()
}

pub(crate) const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A configuration on free ports of 127.0.0.1, with an API.
pub(crate) fn config(etcd: u16) -> Config {
    let any = ANY;
    let mut config = Config::new(cluster_at(etcd, "demo"), any.ip());
    config.services = vec![
        Service::new("primary", any, Serves::Primary),
        Service::new("replica", any, Serves::Replica),
        Service::new("offline", any, Serves::Offline),
    ];
    config.api = Some(any);
    config.io = crate::io();
    if config.io != router::Io::Epoll {
        config.busy = 2;
    }
    config
}

impl RunningRouter {
    pub(crate) fn start(config: Config) -> RunningRouter {
        let file = Arc::new(Mutex::new(config.clone()));
        let names: Vec<String> = config.services.iter().map(|service| service.name.clone()).collect();
        let router = Router::bind(config).unwrap();
        let ports = names.into_iter().map(|name| (name.clone(), router.addresses(&name)[0])).collect();
        let (api, stop) = (router.api_address().unwrap(), CancellationToken::new());
        let (reload, asked) = mpsc::channel(1);
        let now = file.clone();
        let reread: router::Reread = Arc::new(move || Ok(now.lock().unwrap().clone()));
        let task = tokio::spawn(router.run(reread, asked, stop.clone()));
        RunningRouter { ports, api, stop, task, file, reload }
    }

    pub(crate) fn address(&self, service: &str) -> SocketAddr {
        self.ports[service]
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.request("GET", path, "").await
    }

    /// The whole answer; `headers` end in a line break each.
    pub(crate) async fn request(&self, verb: &str, path: &str, headers: &str) -> String {
        let mut stream = TcpStream::connect(self.api).await.unwrap();
        let request = format!(
            "{verb} {path} HTTP/1.1\r\nhost: router\r\n{headers}connection: close\r\ncontent-length: 0\r\n\r\n"
        );
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
        let etcd = etcd_at(etcd_server.client, "demo");
        let mut config = config(etcd_server.client);
        change(&mut config);
        let router = RunningRouter::start(config);
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
        let writable = Writable {
            term,
            name: db(number),
            timeline: Timeline(1),
            lsn: Lsn(1),
            guarded: true,
            lease: None,
        };
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

    /// Waits until the router has seen that nobody leads: what comes then it sees as it happens.
    pub(crate) async fn watched(&self) {
        until("the router to watch", async || {
            let snapshot = self.etcd.snapshot(by()).await.ok()?;
            snapshot.routers.values().any(|router| router.over.is_some()).then_some(())
        })
        .await;
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
