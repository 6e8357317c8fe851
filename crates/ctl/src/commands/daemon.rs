//! What the long-running commands share: the log, the runtime, the signals.

use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::logging::{self, Logbook};
use settings::{Log, Problem};
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Threads for everything that waits for others; what must never wait has threads of its own.
const WORKERS: usize = 2;

/// Opens the log and says what is odd about the configuration.
pub(super) fn start(log: &Log, file: &'static str, warnings: &[Problem]) -> Result<Arc<Logbook>, Failure> {
    let book = Logbook::start(log, file)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    Ok(book)
}

/// Runs `work`, which takes its signals itself, to its end.
pub(super) fn run(log: &Logbook, work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = runtime()?;
    finish(runtime.block_on(work), runtime, log)
}

fn runtime() -> Result<Runtime, Failure> {
    let built = Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    built.map_err(|error| Failure::new(Code::Failed, format!("failed to start: {error}")))
}

/// Ends the runtime, and says in the log why the work ended early.
fn finish(outcome: Outcome, runtime: Runtime, log: &Logbook) -> Outcome {
    // A thread that is stuck in the kernel must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    if let Err(failure) = &outcome {
        logging::critical(&failure.message);
    }
    log.flush();
    outcome.map_err(|failure| Failure::said(failure.code))
}

/// Runs `work` until it ends by itself, or until SIGTERM or SIGINT asks it to.
pub(super) fn block_on<W>(log: &Logbook, work: impl FnOnce(CancellationToken) -> W) -> Outcome
where
    W: Future<Output = Outcome>,
{
    let fail = |error: std::io::Error| Failure::new(Code::Failed, format!("failed to start: {error}"));
    let runtime = runtime()?;
    let outcome = runtime.block_on(async {
        let stop = CancellationToken::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate()).map_err(fail)?, signal(SignalKind::interrupt()).map_err(fail)?);
        let asked = stop.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("{name}: stopping");
            asked.cancel();
        });
        work(stop).await
    });
    finish(outcome, runtime, log)
}
