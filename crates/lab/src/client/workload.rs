//! Writers that commit numbered rows at a steady pace, and go on whatever happens.
//!
//! Each writer has one connection and one number at a time: take the next number, insert it, wait for the answer. An
//! acknowledged number must be there for ever. A number whose answer was lost may or may not be there, and is never used
//! again. After a failure the writer connects anew, at once and then every 20 ms, as a connection pool would.

use super::Target;
use super::report::{Ack, Failure, FailureKind, WorkReport};
use anyhow::{Result, bail};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_postgres::{Client, Statement};

/// How hard the workload works.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub connections: u32,
    /// Commits a second over all connections.
    pub per_second: u32,
    /// A statement without an answer for this long is given up by the client. No limit is set on the server: a cancelled
    /// wait for a synchronous standby would report a commit that only the primary has.
    pub statement_limit: Duration,
    /// A connection that is not ready for this long is given up; routers hold new ones for 15 s.
    pub connect_limit: Duration,
}

impl Default for Plan {
    fn default() -> Plan {
        Plan {
            connections: 4,
            per_second: 100,
            statement_limit: Duration::from_secs(10),
            connect_limit: Duration::from_secs(20),
        }
    }
}

/// More acknowledged rows than this are not remembered: the workload ends with an error instead.
const MOST_ACKS: usize = 5_000_000;

struct Shared {
    next: AtomicI64,
    acked: AtomicUsize,
    report: Mutex<WorkReport>,
}

/// A running workload. Dropped, it ends.
pub struct Workload {
    target: Target,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    writers: Vec<JoinHandle<()>>,
}

impl Workload {
    /// Creates the table and starts the writers.
    pub async fn start(target: &Target, plan: Plan) -> Result<Workload> {
        if plan.connections == 0 || plan.per_second == 0 {
            bail!("start the workload: it needs a connection and a pace");
        }
        target
            .run(
                "CREATE TABLE IF NOT EXISTS lab_rows (id bigint PRIMARY KEY, at timestamptz DEFAULT clock_timestamp()); \
                 TRUNCATE lab_rows",
                plan.connect_limit,
            )
            .await?;
        let shared = Arc::new(Shared {
            next: AtomicI64::new(1),
            acked: AtomicUsize::new(0),
            report: Mutex::new(WorkReport::default()),
        });
        let (stop, stopped) = watch::channel(false);
        let pace = Duration::from_secs(1) / plan.per_second;
        let writers = (0..plan.connections).map(|index| {
            let writer = Writer {
                target: target.clone(),
                plan,
                shared: Arc::clone(&shared),
                stopped: stopped.clone(),
            };
            tokio::spawn(writer.run(pace * index))
        });
        Ok(Workload { target: target.clone(), writers: writers.collect(), shared, stop })
    }

    /// How many commits were acknowledged so far.
    #[must_use]
    pub fn acked(&self) -> usize {
        self.shared.acked.load(Ordering::Relaxed)
    }

    /// Waits until `more` commits are acknowledged from now on.
    pub async fn await_progress(&self, more: usize, span: Duration) -> Result<()> {
        let goal = self.acked() + more;
        crate::wait::until(span, &format!("{more} more acknowledged commits"), async || {
            (self.acked() >= goal).then_some(())
        })
        .await
    }

    /// What they saw so far.
    #[must_use]
    pub fn so_far(&self) -> WorkReport {
        let report = lock(&self.shared.report);
        WorkReport {
            acks: report.acks.clone(),
            failures: report.failures.clone(),
            target: Some(self.target.clone()),
        }
    }

    /// Ends the writers and returns what they saw. Statements under way are awaited.
    pub async fn stop(mut self) -> WorkReport {
        let _ = self.stop.send(true);
        for writer in self.writers.drain(..) {
            let _ = writer.await;
        }
        let mut report = std::mem::take(&mut *lock(&self.shared.report));
        report.target = Some(self.target.clone());
        report
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        for writer in &self.writers {
            writer.abort();
        }
    }
}

struct Writer {
    target: Target,
    plan: Plan,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
}

impl Writer {
    async fn run(self, start: Duration) {
        sleep(start).await;
        let mut ticks = interval(Duration::from_secs(1) * self.plan.connections / self.plan.per_second);
        // After a pause go on at the old pace: a burst would hide how long it took to come back to normal.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut connection = None;
        while !*self.stopped.borrow() {
            ticks.tick().await;
            if connection.is_none() {
                connection = self.connect().await;
            }
            if let Some((client, insert)) = &connection
                && !self.write(client, insert).await
            {
                connection = None;
            }
        }
    }

    async fn connect(&self) -> Option<(Client, Statement)> {
        let mut stopped = self.stopped.clone();
        let attempt = async {
            let client = self.target.connect(self.plan.connect_limit).await?;
            let insert =
                timeout(self.plan.connect_limit, client.prepare("INSERT INTO lab_rows (id) VALUES ($1)"));
            let insert = insert.await??;
            anyhow::Ok((client, insert))
        };
        let result = tokio::select! {
            result = attempt => result,
            _ = stopped.wait_for(|stop| *stop) => return None,
        };
        match result {
            Ok(connection) => Some(connection),
            Err(error) => {
                let state =
                    error.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
                let state = state.map(|state| state.code().to_owned());
                self.fail(FailureKind::Connection, state, format!("{error:#}"));
                None
            }
        }
    }

    /// Whether the connection can still be used.
    async fn write(&self, client: &Client, insert: &Statement) -> bool {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let sent = clock::now();
        let (state, text) = match timeout(self.plan.statement_limit, client.execute(insert, &[&id])).await {
            Ok(Ok(_)) => return self.acknowledge(Ack { id, sent, at: clock::now() }),
            Ok(Err(error)) => {
                let said = error.as_db_error().map(|said| said.message().to_owned());
                (error.code().map(|state| state.code().to_owned()), said.unwrap_or_else(|| error.to_string()))
            }
            Err(_) => (None, format!("no answer within {:?}", self.plan.statement_limit)),
        };
        self.fail(FailureKind::Statement, state, text);
        false
    }

    fn acknowledge(&self, ack: Ack) -> bool {
        self.shared.acked.fetch_add(1, Ordering::Relaxed);
        let mut report = lock(&self.shared.report);
        if report.acks.len() >= MOST_ACKS {
            return false;
        }
        report.acks.push(ack);
        true
    }

    fn fail(&self, kind: FailureKind, state: Option<String>, text: String) {
        let mut report = lock(&self.shared.report);
        if report.failures.len() < MOST_ACKS {
            report.failures.push(Failure { at: clock::now(), kind, state, text });
        }
    }
}

/// A writer that panicked leaves whole rows behind, so its lock may be taken over.
fn lock(report: &Mutex<WorkReport>) -> std::sync::MutexGuard<'_, WorkReport> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}
