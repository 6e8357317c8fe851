//! The log of the agent and the router: one line an event, on standard error or in `log.dir`.
//!
//!     event ──layer (levels)──► record ──line (format)──► queue ──thread──► sink: standard error, or a file that is turned
//!
//!     2026-11-23 10:00:00,123 INFO: pg-1 holds the lead term=17       the level begins at column 24, as log readers expect
//!
//! Whoever logs never waits for a disk or a terminal: when the queue is full, lines are lost and counted. Everything may be
//! changed while it runs.

mod layer;
mod levels;
mod line;
mod queue;
mod record;
mod sink;

use crate::exit_codes::Code;
use crate::failure::Failure;
use layer::{Layer, Plan};
use levels::Levels;
use queue::Queue;
use settings::Log;
use sink::Sink;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The last lines of a process are given so long to be written.
const LAST_LINES_WITHIN: Duration = Duration::from_secs(2);

/// Events of this target are shown with the level CRITICAL, which tracing has not.
const CRITICAL: &str = "baton::critical";

/// The log of this process.
pub(crate) struct Logbook {
    /// The name of the file in `log.dir`.
    file: &'static str,
    plan: Arc<RwLock<Arc<Plan>>>,
    queue: Arc<Queue>,
}

impl Logbook {
    /// Opens the log and directs every event of this process to it. In `log.dir` it is the file `file`.
    pub(crate) fn start(log: &Log, file: &'static str) -> Result<Arc<Logbook>, Failure> {
        let fail = |why: String| Failure::new(Code::Configuration, why);
        let sink = Sink::open(log, file).map_err(fail)?;
        let queue = Queue::start(sink, log.max_queue_size)
            .map_err(|error| Failure::refused(format!("failed to start the log's thread: {error}")))?;
        let plan = Arc::new(RwLock::new(Arc::new(plan(log))));
        let layer = Layer { plan: plan.clone(), queue: queue.clone(), began: clock::wall() };
        let started = tracing_subscriber::registry().with(layer).try_init();
        started.map_err(|error| Failure::refused(format!("failed to open the log: {error}")))?;
        let book = Logbook { file, plan, queue };
        book.warn_of_strangers(log);
        Ok(Arc::new(book))
    }

    /// Writes what waits, as far as that is possible in a short while. For the end of the process.
    pub(crate) fn flush(&self) {
        self.queue.flush(LAST_LINES_WITHIN);
    }

    fn warn_of_strangers(&self, log: &Log) {
        for name in levels::strangers(&log.loggers) {
            tracing::warn!("log.loggers.{name} has no effect: {}", levels::KNOWN);
        }
    }
}

impl agent::Log for Logbook {
    fn reconfigure(&self, log: &Log) -> Result<(), String> {
        let sink = Sink::open(log, self.file)?;
        self.queue.change(sink, log.max_queue_size);
        *self.plan.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(plan(log));
        tracing::callsite::rebuild_interest_cache();
        self.warn_of_strangers(log);
        Ok(())
    }

    fn waiting(&self) -> u64 {
        self.queue.waiting()
    }

    fn lost(&self) -> u64 {
        self.queue.lost()
    }
}

fn plan(log: &Log) -> Plan {
    Plan {
        levels: Levels::new(&log.level, &log.loggers),
        json: log.json,
        format: log.format.clone(),
        dateformat: log.dateformat.clone(),
        static_fields: log.static_fields.clone(),
    }
}

/// Writes the last line of a process that ends because of a failure.
pub(crate) fn critical(message: &str) {
    tracing::error!(target: CRITICAL, "{message}");
}
