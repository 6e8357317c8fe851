//! A router that is cut off from etcd and still reaches every member: a failover waits for it, but not for long; and though it cannot read
//! what its clients say, it leads nobody to a server that cannot write.

use crate::clients::identity;
use crate::story::{SPAN, Story};
use serde_json::json;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;

/// Somebody who connects for each row, with TLS that the router passes on unread, until told to stop.
struct Writer {
    over: Arc<AtomicBool>,
    rows: Arc<AtomicUsize>,
    errors: Arc<Mutex<String>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(story: &Story) -> Writer {
        let (over, rows) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let target = story.lab.service(story.lab.block.ports.primary());
        let psql = story.spec.binaries.postgres.join("psql").display().to_string();
        let place = story.lab.network().unwrap().switch.clone();
        let errors = Arc::new(Mutex::new(String::new()));
        let (ended, written, said_so) = (over.clone(), rows.clone(), errors.clone());
        let task = tokio::task::spawn_blocking(move || {
            while !ended.load(Ordering::Relaxed) {
                let mut psql = place.command(&psql);
                psql.args(["--no-psqlrc", "--command", "INSERT INTO brief DEFAULT VALUES"]);
                psql.args(["--host", &target.host, "--port", &target.port.to_string()]);
                psql.args(["--username", &target.user, "--dbname", &target.database]);
                psql.env("PGPASSWORD", &target.password).env("PGSSLMODE", "require");
                psql.env("PGCONNECT_TIMEOUT", "2").current_dir("/").stdin(Stdio::null());
                let said = psql.output().unwrap();
                if said.status.success() {
                    written.fetch_add(1, Ordering::Relaxed);
                } else {
                    said_so.lock().unwrap().push_str(&String::from_utf8_lossy(&said.stderr));
                }
            }
        });
        Writer { over, rows, errors, task }
    }

    /// Waits until it has written so many more rows.
    async fn goes_on(&self, rows: usize) {
        let wanted = self.rows.load(Ordering::Relaxed) + rows;
        let done = async || (self.rows.load(Ordering::Relaxed) >= wanted).then_some(());
        let gone_on = lab::wait::until(SPAN, "rows through the router", done).await;
        assert!(gone_on.is_ok(), "{}", self.errors.lock().unwrap());
    }

    async fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        (&mut self.task).await.unwrap();
        let errors = self.errors.lock().unwrap();
        assert!(!errors.contains("read-only"), "SQLSTATE 25006: {errors}");
    }
}

/// Seconds since midnight.
fn time_of_day(row: &serde_json::Value) -> f64 {
    let at = row["at"].as_str().unwrap();
    let (_, time) = at.trim_end_matches('Z').split_once('T').unwrap();
    time.split(':').fold(0.0, |sum, part| sum * 60.0 + part.parse::<f64>().unwrap())
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A story that fails does not wait for it for ever.
        self.over.store(true, Ordering::Relaxed);
    }
}

impl Story {
    /// PostgreSQL crashes on the primary, and another member takes over. Who, how long that one waited for routers, and its reason.
    async fn fails_over(&mut self) -> (String, Duration, String) {
        let old = self.primary().await;
        self.lab.node(&old).unwrap().kill_postmaster().unwrap();
        let new = self.another_primary(&old).await;
        let why: serde_json::Value = serde_json::from_str(&self.get(&new, "/baton/why").await.body).unwrap();
        let rows = why["decisions"].as_array().unwrap();
        let last = |reason: &str| rows.iter().rev().find(|row| row["reason"] == reason);
        let promotes = last("Promotes").unwrap();
        let waited = last("AwaitsRouters")
            .map_or(0.0, |row| (time_of_day(promotes) - time_of_day(row)).rem_euclid(24.0 * 3600.0));
        let waited = Duration::from_secs_f64(waited);
        (old, waited, promotes["text"].as_str().unwrap().to_owned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_cut_off_from_etcd_delays_a_failover_by_a_moment_and_leads_nobody_to_a_standby() {
    let mut story = Story::begin("witnesses", |spec| {
        spec.cables = true;
        let (key, certificate) = identity(spec.base.parent().unwrap());
        let parameters = json!({ "ssl": "on", "ssl_cert_file": certificate, "ssl_key_file": key });
        spec.agent = json!({ "postgresql": { "parameters": parameters } });
        spec.dynamic = json!({ "baton": { "crash": "failover", "await_routers": "2s" } });
    })
    .await;
    for expected in ["crash", "etcd", "lease"] {
        story.expect(expected);
    }
    let target = story.lab.target();
    target.run("CREATE TABLE brief (at timestamptz DEFAULT now())", SPAN).await.unwrap();
    story.healthy().await;
    let writer = Writer::start(&story);
    writer.goes_on(3).await;

    // One that hears of the new term has cut what it had before anybody could notice that it is waited for.
    let (_, waited, why) = story.fails_over().await;
    println!("waited {waited:?} for a router that is there: {why}");
    assert!(!why.contains("waited for in vain"), "{why}");
    writer.goes_on(3).await;
    story.healthy().await;

    // One that hears nothing keeps its lease for a while.
    story.lab.cut_from_etcd("router").unwrap();
    let (old, waited, why) = story.fails_over().await;
    println!("waited {waited:?} for a router that is cut off: {why}");
    assert!(why.contains("waited for in vain"), "{why}");
    assert!((Duration::from_millis(1900)..Duration::from_secs(6)).contains(&waited), "{waited:?}");
    // The old primary is up again, for reading, and the router has heard nothing yet.
    story.healthy().await;
    assert_ne!(story.primary().await, old);
    story.lab.mend_to_etcd("router").unwrap();
    writer.goes_on(3).await;

    // The same by plan: PostgreSQL is up again for reading a moment after it was stopped.
    story.lab.cut_from_etcd("router").unwrap();
    let old = story.primary().await;
    story.switch_over(&old, &json!({ "leader": old })).await;
    story.another_primary(&old).await;
    story.healthy().await;
    story.lab.mend_to_etcd("router").unwrap();
    writer.goes_on(3).await;
    writer.stop().await;
    story.end().await;
}
