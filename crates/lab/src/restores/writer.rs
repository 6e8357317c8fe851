//! A writer that keeps a log of its own: one row after the other, and with each acknowledged row where the cluster was then.
//!
//! ```text
//!   INSERT n ── acknowledged ──► where? ──► log          answer lost ──► connect anew: is n there? yes ──► log    no ──► again, in other words
//! ```
//! So at every moment the log says exactly which rows there are.

use crate::client::Target;
use crate::wait::{try_until, until};
use anyhow::{Context, Result, anyhow};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// One row, and where the cluster was right after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) id: i64,
    pub(super) word: String,
    pub(super) timeline: u32,
    /// The next record of WAL is written here or later.
    pub(super) lsn: String,
    pub(super) xid: String,
    /// Later than its commit and earlier than the next, by the primary's clock.
    pub(super) at: String,
}

#[derive(Default)]
struct Shared {
    rows: Vec<Row>,
    /// A restore point that is wanted.
    wanted: Option<String>,
    /// The restore points, with the index of the row before each.
    marks: Vec<(String, usize)>,
}

/// A running writer. Dropped, it ends.
pub(super) struct Writer {
    shared: Arc<Mutex<Shared>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

const LIMIT: Duration = Duration::from_secs(20);
const SPAN: Duration = Duration::from_secs(60);
const PACE: Duration = Duration::from_millis(10);

/// More rows are not remembered: the run ends with an error instead.
const MOST_ROWS: usize = 1_000_000;

impl Writer {
    pub(super) async fn start(target: &Target, file: &Path) -> Result<Writer> {
        target.run("CREATE TABLE written (id bigint PRIMARY KEY, word text NOT NULL)", LIMIT).await?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = watch::channel(false);
        let file = File::create(file).with_context(|| format!("write {}", file.display()))?;
        let work = work(target.clone(), shared.clone(), stopped, file);
        Ok(Writer { shared, stop, task: tokio::spawn(work) })
    }

    pub(super) fn count(&self) -> usize {
        lock(&self.shared).rows.len()
    }

    /// Waits for so many rows more.
    pub(super) async fn progress(&self, more: usize) -> Result<()> {
        let goal = self.count() + more;
        until(SPAN, "more rows", async || (self.count() >= goal && !self.task.is_finished()).then_some(()))
            .await
    }

    /// Has a restore point made; the row before it.
    pub(super) async fn mark(&self, name: &str) -> Result<(usize, Row)> {
        lock(&self.shared).wanted = Some(name.to_owned());
        until(SPAN, "a restore point", async || {
            let shared = lock(&self.shared);
            let index = shared.marks.iter().find(|(made, _)| made == name)?.1;
            Some((index, shared.rows.get(index)?.clone()))
        })
        .await
    }

    /// Waits until rows are written on another timeline: the last row before, and the first after.
    pub(super) async fn across(
        &self,
        from: &(usize, Row),
        span: Duration,
    ) -> Result<((usize, Row), (usize, Row))> {
        try_until(span, "rows on another timeline", async || {
            let shared = lock(&self.shared);
            let next =
                shared.rows.iter().enumerate().skip(from.0).find(|(_, row)| row.timeline != from.1.timeline);
            let Some((index, row)) = next else { return Ok(None) };
            let last = index.checked_sub(1).and_then(|last| Some((last, shared.rows.get(last)?.clone())));
            let last = last.ok_or_else(|| anyhow!("no row was written before"))?;
            Ok(Some((last, (index, row.clone()))))
        })
        .await
    }

    /// Ends it; the whole log.
    pub(super) async fn stop(self) -> Result<Vec<Row>> {
        let _ = self.stop.send(true);
        self.task.await.context("wait for the writer")??;
        Ok(std::mem::take(&mut lock(&self.shared).rows))
    }
}

async fn work(
    target: Target,
    shared: Arc<Mutex<Shared>>,
    stopped: watch::Receiver<bool>,
    mut file: File,
) -> Result<()> {
    let (mut next, mut tries) = (1_i64, 0_u32);
    let mut client: Option<Client> = None;
    while !*stopped.borrow() {
        tokio::time::sleep(PACE).await;
        let Some(open) = &client else {
            client = target.connect(LIMIT).await.ok();
            continue;
        };
        // Only a row that was tried can be there.
        let step = if tries == 0 { false } else { within(there(open, next)).await.unwrap_or(false) };
        let written = if step { Ok(()) } else { insert(open, next, &mut tries).await };
        let row = match written {
            Ok(()) => within(place(open, next)).await,
            Err(error) => Err(error),
        };
        let Ok(row) = row else {
            client = None;
            continue;
        };
        writeln!(file, "{row:?}").context("write the log")?;
        {
            let mut shared = lock(&shared);
            shared.rows.push(row);
            if shared.rows.len() > MOST_ROWS {
                return Err(anyhow!("remember more than {MOST_ROWS} rows"));
            }
        }
        (next, tries) = (next + 1, 0);
        if !mark(open, &shared).await {
            client = None;
        }
    }
    Ok(())
}

async fn insert(client: &Client, id: i64, tries: &mut u32) -> Result<()> {
    *tries += 1;
    let word = format!("row {id}, try {tries}");
    within(async { Ok(client.execute("INSERT INTO written VALUES ($1, $2)", &[&id, &word]).await?) })
        .await
        .map(drop)
}

async fn there(client: &Client, id: i64) -> Result<bool> {
    Ok(client.query_opt("SELECT FROM written WHERE id = $1", &[&id]).await?.is_some())
}

async fn place(client: &Client, id: i64) -> Result<Row> {
    let sql = "SELECT word, ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int, pg_current_wal_insert_lsn()::text, \
               xmin::text, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM written WHERE id = $1";
    let row = client.query_one(sql, &[&id]).await?;
    Ok(Row {
        id,
        word: row.try_get(0)?,
        timeline: row.try_get::<_, i32>(1)?.unsigned_abs(),
        lsn: row.try_get(2)?,
        xid: row.try_get(3)?,
        at: row.try_get(4)?,
    })
}

/// Makes the restore point that is wanted; whether the connection is still good.
async fn mark(client: &Client, shared: &Mutex<Shared>) -> bool {
    let Some(name) = lock(shared).wanted.take() else { return true };
    let made =
        within(async { Ok(client.execute("SELECT pg_create_restore_point($1)", &[&name]).await?) }).await;
    let mut shared = lock(shared);
    let good = made.is_ok();
    match (good, shared.rows.len().checked_sub(1)) {
        (true, Some(index)) => shared.marks.push((name, index)),
        (_, _) => shared.wanted = Some(name),
    }
    good
}

async fn within<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(LIMIT, work).await.context("wait for an answer")?
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
