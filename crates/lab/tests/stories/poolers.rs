//! A PgBouncer beside each member, and clients that write through it. Their sessions outlive a restart of PostgreSQL, so nothing but the router and
//! the agents keeps them from a former primary that has come up again for reading.

use crate::story::{SPAN, Story};
use lab::{Target, processes::signal};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// One of them, which ends with the story.
struct PgBouncer(Child);

impl Drop for PgBouncer {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to end.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps a session and writes by it; when that ends it takes another one.
struct Writer {
    over: Arc<AtomicBool>,
    rows: Arc<AtomicUsize>,
    errors: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(target: Target) -> Writer {
        let (over, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (ended, written, said_so) = (over.clone(), rows.clone(), errors.clone());
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let Ok(session) = target.connect(SPAN).await else { continue };
                loop {
                    match session.simple_query("INSERT INTO brief DEFAULT VALUES").await {
                        Ok(_) => written.fetch_add(1, Ordering::Relaxed),
                        Err(error) => {
                            said_so.lock().unwrap().push(format!("{error:?}"));
                            break;
                        }
                    };
                    if ended.load(Ordering::Relaxed) {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        });
        Writer { over, rows, errors, task }
    }

    async fn goes_on(&self) {
        let wanted = self.rows.load(Ordering::Relaxed) + 20;
        let done = async || (self.rows.load(Ordering::Relaxed) >= wanted).then_some(());
        let gone_on = lab::wait::until(SPAN, "rows through the pooler", done).await;
        assert!(gone_on.is_ok(), "{:?}", self.errors.lock().unwrap());
    }

    async fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        self.task.await.unwrap();
        let errors = self.errors.lock().unwrap();
        assert!(
            !errors.iter().any(|error| error.contains("25006") || error.contains("read-only")),
            "{errors:?}"
        );
    }
}

/// The port of the poolers.
fn port(story: &Story) -> u16 {
    story.lab.block.ports.postgres() + 1000
}

impl Story {
    /// The service `default` of the router leads to the poolers.
    async fn begin_with_poolers() -> (Story, Vec<PgBouncer>) {
        let mut story = Story::prepare("poolers", |spec| {
            spec.dynamic = json!({ "baton": { "crash": "failover" } });
        })
        .await;
        let ports = story.lab.block.ports;
        story.spec.router_file = json!({ "router": { "services": [
            { "name": "primary", "port": ports.primary(), "role": "primary" },
            { "name": "replica", "port": ports.replica(), "role": "replica", "fallback": "primary" },
            { "name": "default", "port": ports.direct(), "role": "primary", "destination_port": port(&story) },
        ] } });
        story.lab.configure_router(&story.spec).unwrap();
        story.start().await;
        let poolers = (0..story.lab.nodes.len()).map(|number| story.pooler(number)).collect();
        (story, poolers)
    }

    fn pooler(&self, number: usize) -> PgBouncer {
        let (node, login) = (&self.lab.nodes[number], self.lab.target());
        let home = self.lab.base().join(format!("pgbouncer-{}", node.name));
        fs::create_dir(&home).unwrap();
        let users = format!("\"{}\" \"{}\"\n", login.user, login.password);
        fs::write(home.join("users"), users).unwrap();
        let settings = format!(
            "[databases]\n* = host={address} port={postgres}\n[pgbouncer]\nlisten_addr = {address}\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = trust\nauth_file = {home}/users\npool_mode = transaction\nserver_login_retry = 1\nignore_startup_parameters = extra_float_digits\n",
            address = node.address,
            postgres = node.postgres_port,
            port = port(self),
            home = home.display(),
        );
        let file = home.join("pgbouncer.ini");
        fs::write(&file, settings).unwrap();
        let program =
            std::env::var("BATON_TEST_PGBOUNCER").expect("tools/setup test unpacks PgBouncer for the tests");
        let mut command = Command::new(program);
        let log = fs::File::create(home.join("log")).unwrap();
        command.arg(&file).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.lab.account().apply(&mut command);
        PgBouncer(command.spawn().unwrap())
    }

    /// The agent there waits, or has waited, before PostgreSQL comes up for reading: because of this.
    async fn waited(&self, name: &str, because: &str) -> bool {
        let why: Value = serde_json::from_str(&self.get(name, "/baton/why").await.body).unwrap_or_default();
        let waits = |row: &Value| {
            row["reason"] == "AwaitsRouters"
                && row["text"].as_str().is_some_and(|text| text.contains(because))
        };
        why["decisions"].as_array().is_some_and(|rows| rows.iter().any(waits))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_in_a_pooler_never_finds_itself_on_a_standby() {
    let (mut story, poolers) = Story::begin_with_poolers().await;
    story.expect("crash");
    story.lab.target().run("CREATE TABLE brief (at timestamptz DEFAULT now())", SPAN).await.unwrap();
    let service = story.lab.service(story.lab.block.ports.direct());
    let writer = Writer::start(service.clone());
    writer.goes_on().await;

    // A crash, and the lead goes elsewhere at once. Somebody has heard of the old one a moment before, which on a slow machine may be long ago
    // when it matters.
    let mut rounds = 0;
    let old = loop {
        let old = story.primary().await;
        story.answers(&old, "/primary", 200).await;
        story.lab.node(&old).unwrap().kill_postmaster().unwrap();
        story.another_primary(&old).await;
        writer.goes_on().await;
        story.healthy().await;
        if story.waited(&old, "what this agent said").await {
            break old;
        }
        rounds += 1;
        assert!(rounds < 5, "{old} did not wait because of what its agent said");
    };
    // It is there for reading, and its pooler would show it.
    let behind =
        Target { host: story.lab.node(&old).unwrap().address.to_string(), port: port(&story), ..service };
    // The pooler itself refuses for a second whom its server refused.
    let refused = async || {
        let error = format!("{:?}", behind.run("INSERT INTO brief DEFAULT VALUES", SPAN).await.unwrap_err());
        error.contains("read-only").then_some(())
    };
    lab::wait::until(SPAN, "25006 from behind the router", refused).await.unwrap();

    // The same while the router hears and says nothing, and its sessions stand.
    let old = story.primary().await;
    let router = story.lab.router_pid().unwrap();
    signal(router, Signal::STOP);
    story.lab.node(&old).unwrap().kill_postmaster().unwrap();
    story.another_primary(&old).await;
    let waited = async || story.waited(&old, "these routers may still lead sessions").await.then_some(());
    lab::wait::until(SPAN, &format!("{old} to wait for the router"), waited).await.unwrap();
    signal(router, Signal::CONT);
    writer.goes_on().await;
    story.healthy().await;

    // And by plan.
    let old = story.primary().await;
    story.switch_over(&old, &json!({ "leader": old })).await;
    story.another_primary(&old).await;
    writer.goes_on().await;
    story.healthy().await;
    writer.stop().await;
    drop(poolers);
    story.end().await;
}
