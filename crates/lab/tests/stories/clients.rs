//! What clients see: PostgreSQL's own pgbench through the router, in every way to talk to a server, while the primary changes by plan and
//! by accident.

use crate::story::{SPAN, Story};
use lab::AgentKind::{Baton, Patroni};
use lab::{Account, Spec, Target};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// The protocols of pgbench, and a connection for each transaction.
const WAYS: [&str; 4] = ["--protocol=simple", "--protocol=extended", "--protocol=prepared", "--connect"];

/// Who encrypts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Transport {
    Clear,
    /// The router can read nothing.
    PostgresEncrypts,
    RouterEncrypts,
}

/// A pgbench that writes until it is killed, or until it has no client left.
struct Bench {
    way: &'static str,
    transport: Transport,
    child: Child,
    log: PathBuf,
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _gone_already = self.child.kill();
        let _waited_already = self.child.wait();
    }
}

fn pgbench(story: &Story, target: &Target, words: &[&str]) -> Command {
    let mut command = Command::new(story.spec.binaries.postgres.join("pgbench"));
    let port = target.port.to_string();
    command.args(["--host", &target.host, "--port", &port, "--username", &target.user]).args(words);
    command
        .env("PGPASSWORD", &target.password)
        .env("PGDATABASE", &target.database)
        .env("PGSSLMODE", "disable");
    command.current_dir("/").stdin(Stdio::null());
    command
}

impl Bench {
    fn start(story: &Story, way: &'static str, transport: Transport) -> Bench {
        let ports = story.lab.block.ports;
        let (port, mode) = match transport {
            Transport::Clear => (ports.primary(), "disable"),
            Transport::PostgresEncrypts => (ports.primary(), "require"),
            Transport::RouterEncrypts => (ports.direct(), "require"),
        };
        let log = story.lab.base().join(format!("pgbench{way}-{transport:?}.log"));
        let mut command =
            pgbench(story, &story.lab.service(port), &["--no-vacuum", "--builtin=simple-update"]);
        // A thread for each: one that waits for its connection would keep another from ending its transaction.
        command.args(["--client=2", "--jobs=2", "--time=600", "--progress=1", way]).env("PGSSLMODE", mode);
        let said = File::create(&log).unwrap();
        let child = command.stdout(said.try_clone().unwrap()).stderr(said).spawn().unwrap();
        Bench { way, transport, child, log }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// The seconds in which it did something.
    fn busy_seconds(&self) -> usize {
        let said = self.said();
        let lines = said.lines().filter(|line| line.starts_with("progress: ") && !line.contains(", 0.0 tps"));
        lines.count()
    }

    /// Waits until it has done something in so many more seconds.
    async fn goes_on(&self, seconds: usize) {
        let wanted = self.busy_seconds() + seconds;
        let what = format!("pgbench {} ({:?}) to go on", self.way, self.transport);
        lab::wait::until(SPAN, &what, async || (self.busy_seconds() >= wanted).then_some(())).await.unwrap();
    }

    /// A planned change is over: who connects for each transaction saw nothing of it; sessions ended, and were told why where the router
    /// could tell them.
    async fn survived(&mut self) {
        if self.way == "--connect" && self.transport != Transport::PostgresEncrypts {
            self.goes_on(2).await;
            let said = self.said();
            assert!(!said.contains("error") && !said.contains("aborted"), "{:?}: {said}", self.transport);
            return;
        }
        if self.way != "--connect" {
            let what = format!("the sessions of pgbench {} ({:?}) to end", self.way, self.transport);
            let ended = || std::future::ready(self.child.try_wait().unwrap());
            lab::wait::until(SPAN, &what, ended).await.unwrap();
        }
        let said = self.said();
        assert!(!said.contains("read-only transaction"), "SQLSTATE 25006: {said}");
        for line in said.lines().filter(|line| line.contains("aborted in command")) {
            let told = line.contains("terminating connection");
            assert!(
                told || self.transport == Transport::PostgresEncrypts,
                "{} {:?}: {said}",
                self.way,
                self.transport
            );
        }
    }
}

/// Transactions with a connection each, until told to stop: every SQLSTATE that came up.
struct Writers {
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<(usize, BTreeSet<String>)>>,
}

impl Writers {
    fn start(target: &Target) -> Writers {
        let over = Arc::new(AtomicBool::new(false));
        let tasks = (0..4).map(|_| tokio::spawn(write(target.clone(), over.clone()))).collect();
        Writers { over, tasks }
    }

    async fn stop(self) -> (usize, BTreeSet<String>) {
        self.over.store(true, Ordering::Relaxed);
        let mut all = (0, BTreeSet::new());
        for task in self.tasks {
            let (done, states) = task.await.unwrap();
            all.0 += done;
            all.1.extend(states);
        }
        all
    }
}

async fn write(target: Target, over: Arc<AtomicBool>) -> (usize, BTreeSet<String>) {
    let (mut done, mut states) = (0, BTreeSet::new());
    while !over.load(Ordering::Relaxed) {
        match target.run("BEGIN; INSERT INTO brief DEFAULT VALUES; COMMIT", SPAN).await {
            Ok(()) => done += 1,
            Err(error) => {
                let of_postgres =
                    error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
                let state = of_postgres.and_then(tokio_postgres::Error::code);
                states.insert(state.map_or_else(|| format!("{error:#}"), |state| state.code().to_owned()));
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
    (done, states)
}

/// A key and a certificate that servers and router may read.
pub(crate) fn identity(dir: &Path) -> (String, String) {
    let (key, certificate) = (dir.join("tls.key"), dir.join("tls.crt"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    assert!(openssl.output().unwrap().status.success());
    let account = Account::choose().unwrap();
    account.own(&key).unwrap();
    account.own(&certificate).unwrap();
    (key.display().to_string(), certificate.display().to_string())
}

/// A cluster whose servers encrypt, and a router that encrypts at a port of its own; `io` is how it moves the bytes of the busy.
async fn encrypting(name: &str, io: &str) -> Story {
    let mut story = prepare_encrypting(name, io, |_| {}).await;
    // So many clients leave a small machine no time for a while.
    story.expect("PostgreSQL does not answer");
    story.expect("has not answered whether this member may lead on without etcd");
    story.start().await;
    story
}

/// The same, before anything of it runs.
async fn prepare_encrypting(name: &str, io: &str, edit: impl FnOnce(&mut Spec)) -> Story {
    let mut keys = None;
    let mut story = Story::prepare(name, |spec| {
        edit(spec);
        let (key, certificate) = identity(spec.base.parent().unwrap());
        let parameters = json!({ "ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key });
        spec.agent = json!({ "postgresql": { "parameters": parameters } });
        keys = Some((key, certificate));
    })
    .await;
    let ((key, certificate), ports) = (keys.unwrap(), story.lab.block.ports);
    let services = json!([
        { "name": "primary", "port": ports.primary(), "role": "primary" },
        { "name": "encrypted", "port": ports.direct(), "role": "primary", "certfile": certificate, "keyfile": key },
    ]);
    let api = format!("{}:{}", story.lab.block.router(), ports.router_rest());
    story.spec.router_file = json!({ "router": { "services": services, "io": io, "api": api } });
    story.lab.configure_router(&story.spec).unwrap();
    story
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_who_wants_to_write_is_sent_where_it_cannot() {
    let mut story = encrypting("clients", "epoll").await;
    let target = story.lab.target();
    initialize(&story, &target);
    target.run("CREATE TABLE brief (at timestamptz DEFAULT now())", SPAN).await.unwrap();
    let load = story.load().await;
    let writers = Writers::start(&target);

    by_plan(&story, async || {}).await;
    let (done, states) = writers.stop().await;
    assert!(done > 0 && states.is_empty(), "who connects anew sees no error at all: {states:?}");
    story.healthy().await;

    let writers = Writers::start(&target);
    by_accident(&mut story).await;
    load.work.await_progress(50, SPAN).await.unwrap();
    let (done, states) = writers.stop().await;
    println!("{done} transactions; errors of those around the accident: {states:?}");
    assert!(done > 0 && !states.contains("25006"), "{states:?}");
    let report = load.end().await;
    let causes = report.causes(types::Moment(0), clock::now());
    assert!(causes.keys().all(|cause| !cause.contains("25006")), "{causes:?}");
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

/// Where no io_uring is to be had the router says so, and serves all by epoll: for its clients there is no difference.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_bytes_io_uring_carries_has_the_same_of_a_planned_change() {
    let story = encrypting("carried", "auto").await;
    initialize(&story, &story.lab.target());
    by_plan(&story, async || carried(&story).await).await;
    story.healthy().await;
    story.end().await;
}

/// What cannot be looked at is led to a primary by the word of its agent: a Patroni's as well as our own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_tls_is_passed_on_is_led_to_a_patroni_as_well() {
    let mut story = prepare_encrypting("passed-on", "epoll", |spec| {
        spec.agents = vec![Patroni, Baton];
        spec.dynamic = json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3 });
    })
    .await;
    story.start_led_by_the_first().await;
    let target = story.lab.target();
    initialize(&story, &target);
    for (leader, next) in [("n1", "n2"), ("n2", "n1")] {
        story.led_by(leader).await;
        let words =
            ["--no-vacuum", "--builtin=simple-update", "--connect", "--client=2", "--transactions=20"];
        let done = pgbench(&story, &target, &words).env("PGSSLMODE", "require").output().unwrap();
        let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
        assert!(done.status.success() && said.contains("actually processed: 40/40"), "{leader}: {said}");
        story.baton("n2", &["switchover", "--leader", leader, "--candidate", next, "--force"]).await;
    }
    story.led_by("n1").await;
    story.end().await;
}

fn initialize(story: &Story, target: &Target) {
    let made = pgbench(story, target, &["--initialize", "--quiet", "--scale=2"]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Waits until busy sessions are carried; or sees in the log that no io_uring is to be had.
async fn carried(story: &Story) {
    let api = SocketAddrV4::new(story.lab.block.router(), story.lab.block.ports.router_rest());
    let metrics = async || Some(lab::rest::get(api, "/metrics", SPAN).await.ok()?.body);
    let figure = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<usize>().ok());
        value.unwrap_or_else(|| panic!("{name}: {text}"))
    };
    lab::wait::until(SPAN, "busy sessions to be carried", async || {
        let text = metrics().await?;
        let up = figure(&text, "baton_router_carrier_up ") > 0;
        let said = || fs::read_to_string(story.lab.router_log().unwrap()).unwrap();
        (figure(&text, "baton_router_carried ") > 0 || (!up && said().contains("no io_uring is to be had")))
            .then_some(())
    })
    .await
    .unwrap();
}

/// A planned switchover under every kind of client; `before` is there when all of them are busy.
async fn by_plan(story: &Story, before: impl AsyncFnOnce()) {
    let transports = [Transport::Clear, Transport::PostgresEncrypts, Transport::RouterEncrypts];
    let mut all = Vec::new();
    for transport in transports {
        all.extend(WAYS.map(|way| Bench::start(story, way, transport)));
    }
    for bench in &all {
        bench.goes_on(1).await;
    }
    before().await;
    let old = story.primary().await;
    story.switch_over(&old, &json!({ "leader": old })).await;
    story.another_primary(&old).await;
    for bench in &mut all {
        bench.survived().await;
    }
}

/// The host of the primary hangs, and comes back when another leads.
async fn by_accident(story: &mut Story) {
    for text in [
        "lease",
        "PostgreSQL does not answer",
        "undone and kept",
        "processor",
        "NOT FENCED",
        "greets nobody",
        "without etcd",
    ] {
        story.expect(text);
    }
    let old = story.primary().await;
    let target = story.lab.target();
    let mut sessions = Vec::new();
    for _ in 0..3 {
        sessions.push(target.connect(SPAN).await.unwrap());
    }
    story.lab.node(&old).unwrap().freeze_agent();
    story.lab.node(&old).unwrap().freeze_postgres();
    let lease = lab::wait::until(SPAN, "its lease to end", async || {
        let view = story.lab.view().await.ok()?;
        view.leader.is_none_or(|(name, _)| name != old).then(clock::now)
    });
    let cut = async {
        while !sessions.iter().all(tokio_postgres::Client::is_closed) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        clock::now()
    };
    let (lease, cut) = tokio::join!(lease, tokio::time::timeout(SPAN, cut));
    let after = cut.expect("the sessions end").since(lease.unwrap());
    println!("the sessions of the hung primary ended {after:?} after its lease");
    // Within 100 ms, where nothing else runs on the machine.
    assert!(after < Duration::from_secs(2), "{after:?}");
    story.another_primary(&old).await;
    story.lab.node(&old).unwrap().thaw_postgres();
    story.lab.node(&old).unwrap().thaw_agent();
    let address = story.lab.node(&old).unwrap().address.to_string();
    for _ in 0..20 {
        let by = target.ask("SELECT host(inet_server_addr())", SPAN).await.unwrap();
        assert_ne!(by, address, "it leads no more, and nobody is sent there");
    }
    story.healthy().await;
}
