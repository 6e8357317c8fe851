//! A router as a process: its program is exchanged under load, and nobody is refused; it has few file descriptors, and says so.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;
#[path = "../../postgres/tests/common/mod.rs"]
mod postgresql;

use one_etcd::Etcd;
use postgresql::{Scratch, Server, pg_bin};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::{Client, NoTls};

const SPAN: Duration = Duration::from_secs(60);

/// The router, and whatever it hands over to; ended with this value.
struct Router {
    first: Child,
    file: PathBuf,
    log: PathBuf,
    port: u16,
    api: u16,
    /// What a service manager is told.
    manager: UnixDatagram,
}

impl Router {
    /// One that may have so many file descriptors.
    fn start(dir: &Path, etcd: &Etcd, descriptors: u32) -> Router {
        Router::of(Path::new(env!("CARGO_BIN_EXE_baton")), dir, etcd, descriptors)
    }

    fn of(program: &Path, dir: &Path, etcd: &Etcd, descriptors: u32) -> Router {
        let (file, log) = (dir.join("router.yml"), dir.join("router.log"));
        let (port, api) = (testbed::free_port(), testbed::free_port());
        fs::write(&file, settings(etcd, port, api)).unwrap();
        let socket = dir.join("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_nonblocking(true).unwrap();
        let first = Command::new("/bin/sh")
            .args(["-c", "ulimit -n \"$2\"; exec \"$0\" router \"$1\""])
            .arg(program)
            .arg(&file)
            .arg(descriptors.to_string())
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Router { first, file, log, port, api, manager }
    }

    /// Waits until the service manager is told that.
    async fn tells(&self, wanted: &str) {
        until(wanted, || {
            let mut told = [0; 200];
            let Ok(count) = self.manager.recv(&mut told) else { return false };
            String::from_utf8_lossy(&told[..count]).lines().any(|line| line == wanted)
        })
        .await;
    }

    /// The processes that serve this file.
    fn processes(&self) -> Vec<i32> {
        let ours = self.file.to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let serves = |pid: &i32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).split('\0').any(|word| word == ours))
        };
        pids.filter(serves).collect()
    }

    fn signal(&self, pid: i32, signal: Signal) {
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    fn said(&self, text: &str) -> bool {
        fs::read_to_string(&self.log).unwrap().contains(text)
    }

    /// What its API answers.
    async fn api(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.api)).await.unwrap();
        let head =
            format!("{request} HTTP/1.1\r\nhost: router\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Waits until `/metrics` has that line.
    async fn metric(&self, line: &str) {
        let end = clock::now().after(SPAN);
        while !self.api("GET /metrics").await.lines().any(|each| each == line) {
            assert!(clock::now() < end, "waited for {line}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn line(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&self.line()).await
    }

    /// Has it read its file with this in the place of `log_connections: true`.
    async fn reload_with(&self, text: &str) {
        let file = fs::read_to_string(&self.file).unwrap();
        let begin = file.split("  log_connections:").next().unwrap();
        let (_, end) = file.split_once("  services:").unwrap();
        fs::write(&self.file, format!("{begin}  log_connections: true\n{text}  services:{end}")).unwrap();
        let answer = self.api("POST /reload").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// Has this process exchanged. The new one.
    async fn exchange(&self, pid: i32) -> i32 {
        let taken_over =
            || fs::read_to_string(&self.log).unwrap().matches("a new process has taken over").count();
        let (before, known) = (taken_over(), self.processes());
        self.signal(pid, Signal::USR2);
        until("the new process to take over", || taken_over() > before).await;
        *self.processes().iter().find(|other| !known.contains(other)).expect("a new process")
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for pid in self.processes() {
            self.signal(pid, Signal::KILL);
        }
        let _ = self.first.wait();
    }
}

fn settings(etcd: &Etcd, port: u16, api: u16) -> String {
    let etcd = etcd.endpoint.trim_start_matches("http://");
    format!(
        "scope: demo\nnamespace: service\netcd3: {{host: '{etcd}'}}\nrouter:\n  listen: 127.0.0.1\n  api: 127.0.0.1:{api}\n  handshake_timeout: 4s\n  threads: 2\n  \
         log_connections: true\n  services:\n    - {{name: primary, port: {port}, role: primary}}\n    - {{name: any, port: {any}, role: any}}\n    \
         - {{name: offline, port: {offline}, role: offline, fallback: none}}\n",
        any = testbed::free_port(),
        offline = testbed::free_port()
    )
}

async fn connect(line: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(line, NoTls).await?;
    tokio::spawn(connection);
    client.simple_query("SELECT 1").await?;
    Ok(client)
}

/// How many children a process has.
fn children(parent: i32) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let stats = entries.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    // Behind the name, which is in brackets: the state, and who the parent is.
    let parents = stats.filter_map(|stat| stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse::<i32>().ok());
    parents.filter(|of| *of == parent).count()
}

/// A primary that is published, and a directory for its router.
struct Site {
    etcd: Etcd,
    postgres: Server,
    dir: tempfile::TempDir,
    _scratch: Scratch,
}

impl Site {
    async fn start(name: &str) -> Site {
        let (etcd, scratch) = (Etcd::start(), Scratch::new(name));
        let postgres = Server::init(&scratch, &pg_bin(), "data");
        postgres.start();
        publish(&etcd, &postgres).await;
        Site { etcd, postgres, dir: tempfile::tempdir().unwrap(), _scratch: scratch }
    }
}

/// Writes what the agent of a primary would.
async fn publish(etcd: &Etcd, postgres: &Server) {
    let client = etcd.client();
    let by = clock::now().after(SPAN);
    let lease = client.grant(600, by).await.unwrap().lease;
    let name = types::NodeName::from("pg-1");
    assert!(client.acquire_leader(&name, lease, by).await.unwrap().is_some());
    put(etcd, "pg-1", etcd::Member::new(types::PostgresState::Running, types::Role::Primary), postgres).await;
}

/// The key of a member that is this server.
async fn put(etcd: &Etcd, name: &str, mut member: etcd::Member, postgres: &Server) {
    let client = etcd.client();
    let by = clock::now().after(SPAN);
    let lease = client.grant(600, by).await.unwrap().lease;
    member.conn_url = Some(format!("postgres://127.0.0.1:{}/postgres", postgres.port));
    client.put_member(&types::NodeName::from(name), &member, lease, by).await.unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::now().after(SPAN);
    while !holds() {
        assert!(clock::now() < end, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_is_exchanged_and_nobody_is_refused() {
    let site = Site::start("exchange").await;
    let mut router = Router::start(site.dir.path(), &site.etcd, 5000);
    until("the router to listen", || router.said("listening")).await;
    let stays = router.connect().await.unwrap();
    let seen_as = "select host(inet_client_addr()) || ':' || inet_client_port()";
    let row = stays.query_one(seen_as, &[]).await.unwrap();
    let line = format!("seen_as={}", row.get::<_, &str>(0));
    until("the log to tell how the member sees the session", || router.said(&line)).await;
    for order in ["pin/any", "drain", "undrain"] {
        let answer = router.api(&format!("POST /clusters/demo/members/pg-1/{order}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    // Somebody connects all the time.
    let (over, connected) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let line = router.line();
    let come_and_go = tokio::spawn({
        let (over, connected) = (over.clone(), connected.clone());
        async move {
            while !over.load(Ordering::Relaxed) {
                connect(&line).await.map_err(|error| error.to_string())?;
                connected.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        }
    });
    let first = i32::try_from(router.first.id()).unwrap();
    router.tells("READY=1").await;
    let second = router.exchange(first).await;
    router.tells(&format!("MAINPID={second}")).await;
    stays.simple_query("SELECT 1").await.expect("the session goes on in the old process");
    assert!(router.first.try_wait().unwrap().is_none(), "the old process waits for it");
    drop(stays);
    until("the old process to end", || router.first.try_wait().unwrap().is_some()).await;
    router.connect().await.expect("the new process serves");
    let services = router.api("GET /services").await;
    assert!(services.contains(r#""pinned_for":["any"]"#), "orders go along: {services}");

    // A successor that cannot start changes nothing.
    let good = fs::read_to_string(&router.file).unwrap();
    fs::write(&router.file, good.replace("role: primary", "role: primery")).unwrap();
    router.signal(second, Signal::USR2);
    until("the log to say why nothing was exchanged", || router.said("everything goes on in this process"))
        .await;
    router.connect().await.expect("the same process serves");
    assert_eq!(router.processes(), [second]);

    until("some to have come and gone", || {
        connected.load(Ordering::Relaxed) > 10 || come_and_go.is_finished()
    })
    .await;
    over.store(true, Ordering::Relaxed);
    come_and_go.await.unwrap().expect("nobody is refused");
    router.signal(second, Signal::TERM);
    until("the router to end", || router.processes().is_empty()).await;
}

/// Clients that wait while the program is exchanged get what they wait for from the old process; who stays too long there has to go, but not
/// within a transaction. And when the new process breaks off the old one does not go on as if somebody listened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_served_and_who_stays_for_ever_is_not() {
    let site = Site::start("lingering").await;
    let mut router = Router::start(site.dir.path(), &site.etcd, 5000);
    until("the router to listen", || router.said("listening")).await;
    router.reload_with("  linger: 1s\n  drain_timeout: 60s\n  hold_timeout: 60s\n").await;
    let (idle, busy) = (router.connect().await.unwrap(), router.connect().await.unwrap());
    busy.simple_query("BEGIN").await.unwrap();
    let file = fs::read_to_string(&router.file).unwrap();
    let (_, rest) = file.split_once("name: offline, port: ").unwrap();
    let port = rest.split(',').next().unwrap();
    let line = router.line().replace(&router.port.to_string(), port);
    let waits = tokio::spawn(async move { connect(&line).await });
    router.metric(r#"baton_router_waiting{scope="demo",service="offline"} 1"#).await;

    let first = i32::try_from(router.first.id()).unwrap();
    let second = router.exchange(first).await;
    until("the session at rest to end", || idle.is_closed()).await;
    busy.simple_query("SELECT 1").await.expect("a transaction goes on");
    // A login that takes its time is not begun anew for that: until all is over it would never come to its end.
    site.postgres.psql("ALTER SYSTEM SET pre_auth_delay = '1s'");
    site.postgres.psql("SELECT pg_reload_conf()");
    until("logins to take long", || site.postgres.psql("SHOW pre_auth_delay").trim() == "1s").await;
    let mut member = etcd::Member::new(types::PostgresState::Running, types::Role::Replica);
    member.replication_state = Some("streaming".into());
    member.tags.0.insert("offline".into(), types::TagValue::Bool(true));
    put(&site.etcd, "pg-2", member, &site.postgres).await;
    waits.await.unwrap().expect("who waited is served");
    busy.simple_query("COMMIT").await.expect("it ends by itself");
    until("the old process to end", || router.first.try_wait().unwrap().is_some()).await;
    assert!(busy.is_closed() && router.said("offline"));

    router.reload_with("").await;
    let stays = router.connect().await.unwrap();
    let third = router.exchange(second).await;
    stays.simple_query("SELECT 1").await.expect("it has all the time that it likes");
    router.signal(third, Signal::KILL);
    until("the old process to end as well", || router.processes().is_empty()).await;
    assert!(
        router.said("the process that took over has ended"),
        "{}",
        fs::read_to_string(&router.log).unwrap()
    );
    until("its sessions to end", || stays.is_closed()).await;
}

/// What an old process still has is known to the one that listens, which tells it what is ordered; also after that one was exchanged in its
/// turn, and the one between has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_processes_are_seen_and_told() {
    let site = Site::start("elders").await;
    let mut router = Router::start(site.dir.path(), &site.etcd, 5000);
    until("the router to listen", || router.said("listening")).await;
    router.reload_with("  hold_timeout: 300s\n").await;
    let stays = router.connect().await.unwrap();
    let order = async |order: &str| {
        let answer = router.api(&format!("POST /clusters/demo/members/pg-1/{order}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    };
    let waits = || {
        let line = router.line();
        tokio::spawn(async move { connect(&line).await })
    };
    let held = r#"baton_router_waiting{scope="demo",service="primary"} 1"#;
    order("drain").await;
    let of_first = waits();
    router.metric(held).await;
    let first = i32::try_from(router.first.id()).unwrap();
    let second = router.exchange(first).await;
    let term = r#"baton_router_older_member_sessions{scope="demo",service="primary",member="pg-1",term=""#;
    router.metric("baton_router_older_processes 1").await;
    router.metric("baton_router_older_connections 2").await;
    let metrics = router.api("GET /metrics").await;
    assert!(metrics.lines().any(|line| line.starts_with(term) && line.ends_with(" 1")), "{metrics}");
    let services = router.api("GET /services").await;
    assert!(services.contains(&format!(r#""pid":{first}"#)), "{services}");

    // Exchanged in its turn: the first one is known to the third, and hears what is ordered of that.
    let of_second = waits();
    router.metric(held).await;
    let third = router.exchange(second).await;
    router.metric("baton_router_older_processes 2").await;
    router.metric("baton_router_older_connections 3").await;
    order("undrain").await;
    let client = of_first.await.unwrap().expect("the first process has heard of it");
    drop((client, of_second.await.unwrap().expect("the second as well")));
    router.metric("baton_router_older_processes 1").await;
    router.metric("baton_router_older_connections 1").await;
    stays.simple_query("SELECT 1").await.expect("it goes on where it was");
    until("the one between to end", || router.processes().len() == 2).await;

    // The one that listens ends in good order: the old one goes on alone.
    router.signal(third, Signal::TERM);
    until("it to end", || router.processes() == [first]).await;
    stays.simple_query("SELECT 1").await.expect("it goes on where it was");
    drop(stays);
    until("the last one to end", || router.first.try_wait().unwrap().is_some()).await;
}

/// A new program that never says that it is ready, at the place of the one that was started: it is given up, and meanwhile and afterwards
/// everything is as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_hangs_is_given_up() {
    let site = Site::start("hanging").await;
    let program = site.dir.path().join("baton");
    fs::copy(env!("CARGO_BIN_EXE_baton"), &program).unwrap();
    let mut router = Router::of(&program, site.dir.path(), &site.etcd, 5000);
    until("the router to listen", || router.said("listening")).await;
    let stays = router.connect().await.unwrap();
    let hangs = site.dir.path().join("hangs");
    fs::write(&hangs, "#!/bin/sh\nexec sleep 300\n").unwrap();
    fs::set_permissions(&hangs, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&hangs, &program).unwrap();
    let first = i32::try_from(router.first.id()).unwrap();
    router.signal(first, Signal::USR2);
    until("the new process to be there", || children(first) == 1).await;
    router.connect().await.expect("it is served meanwhile");
    until("the log to say that it was given up", || router.said("the new process was not ready in time"))
        .await;
    router.connect().await.expect("it is served afterwards");
    stays.simple_query("SELECT 1").await.expect("its session was not touched");
    assert_eq!((router.processes(), children(first)), (vec![first], 0), "nothing is left of it");

    // Whoever stops the router meanwhile does not wait for it.
    router.signal(first, Signal::USR2);
    until("the new process to be there", || children(first) == 1).await;
    let told = clock::now();
    router.signal(first, Signal::TERM);
    until("the router to end", || router.first.try_wait().unwrap().is_some()).await;
    let took = clock::now().since(told);
    assert!(took < Duration::from_secs(12), "{took:?}: the new process would have been given up by now");
    assert!(router.said("this one is to stop"));
}

/// More clients than it has descriptors for: those beyond are refused and counted, and nothing that is there is harmed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn few_descriptors_are_few_clients() {
    let site = Site::start("descriptors").await;
    let mut router = Router::start(site.dir.path(), &site.etcd, 264);
    until("the router to listen", || router.said("listening")).await;
    assert!(router.said("264 file descriptors allow 50 clients"));
    let stays = router.connect().await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(("127.0.0.1", router.port)).await.unwrap());
    }
    router.metric(r#"baton_router_refused_total{scope="demo",service="primary"} 31"#).await;
    stays.simple_query("SELECT 1").await.expect("who is there stays");
    let first = router.first.id();
    assert!(fs::read_dir(format!("/proc/{first}/fd")).unwrap().count() <= 264);
    // Their time is over, and everything is free again.
    router.metric(r#"baton_router_late_total{scope="demo",service="primary"} 49"#).await;
    router.metric("baton_router_connections 1").await;
    router.connect().await.expect("there is room again");
    router.metric(r#"baton_router_accept_failed_total{scope="demo",service="primary"} 0"#).await;
    assert!(router.first.try_wait().unwrap().is_none() && !router.said("panicked"));
}
