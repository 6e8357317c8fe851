//! The jobs that take their time: one at a time, beside the loop.
//!
//! Every job that changes the data directory marks it first (in the postgres crate), so that one that was cut off half-way is never
//! taken for a database; and what was there is moved aside, not removed.

mod archive;
mod bootstrap;
mod copy;
mod hand_tail;
pub(crate) mod pre_promote;
mod rewind;

pub(crate) use hand_tail::PIECE;

use crate::local::Local;
use crate::losses::Losses;
use crate::upstream::Sender;
use crate::wake::{Cell, Wake};
use ha::{Finished, Work};
use postgres::basebackup::Progress;
use postgres::probe::Prober;
use settings::{Dynamic, Settings};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use types::{Moment, PostgresState};

const CHECKPOINT_WITHIN: Duration = Duration::from_secs(300);

/// Runs jobs; a cheap clone.
#[derive(Clone)]
pub(crate) struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    wake: Wake,
    losses: Losses,
    state: Cell<State>,
}

#[derive(Default)]
struct State {
    running: Option<(Work, Moment, CancellationToken)>,
    finished: Option<Finished>,
    progress: Option<Progress>,
    /// Bytes of WAL that were handed to the next leader.
    handed: u64,
    /// How far the creation of the cluster is, while that is the job.
    creation: Option<PostgresState>,
}

/// What a job works with.
#[derive(Clone)]
pub(crate) struct Tools {
    pub settings: Arc<Settings>,
    pub dynamic: Arc<Dynamic>,
    pub local: Local,
    /// Where the job copies from, or what it is measured against.
    pub source: Option<Sender>,
    /// The REST API of the member that the job deals with.
    pub peer: Option<(http::Client, String)>,
}

impl Jobs {
    pub(crate) fn new(wake: Wake, losses: Losses) -> Jobs {
        Jobs { inner: Arc::new(Inner { wake, losses, state: Cell::new(State::default()) }) }
    }

    /// The running job.
    pub(crate) fn running(&self) -> ha::Job {
        self.inner.state.with(|state| match &state.running {
            Some((work, since, _)) => ha::Job::Running { work: work.clone(), since: *since },
            None => ha::Job::Idle,
        })
    }

    /// The job that has ended since this was asked last.
    pub(crate) fn take_finished(&self) -> Option<Finished> {
        self.inner.state.with(|state| state.finished.take())
    }

    pub(crate) fn progress(&self) -> Option<Progress> {
        self.inner.state.with(|state| state.progress)
    }

    /// Bytes of WAL that were handed to next leaders.
    pub(crate) fn handed(&self) -> u64 {
        self.inner.state.with(|state| state.handed)
    }

    /// How far the creation of the cluster is, in the words of the member key.
    pub(crate) fn creation(&self) -> PostgresState {
        self.inner.state.with(|state| state.creation.unwrap_or(PostgresState::Initializing))
    }

    fn creates(&self, step: PostgresState) {
        self.inner.state.with(|state| state.creation = Some(step));
        self.inner.wake.wake();
    }

    pub(crate) fn cancel(&self) {
        self.inner.state.with(|state| {
            if let Some((_, _, token)) = &state.running {
                token.cancel();
            }
        });
    }

    /// Begins a job. There is never more than one: the decisions see to that.
    pub(crate) fn begin(&self, work: Work, tools: Tools) {
        let token = CancellationToken::new();
        self.inner.state.with(|state| {
            state.running = Some((work.clone(), clock::now(), token.clone()));
            state.progress = None;
            state.creation = None;
        });
        let jobs = self.clone();
        tokio::spawn(async move {
            tracing::info!(job = name(&work), "job begins");
            let outcome = jobs.run(&work, &tools, &token).await;
            match &outcome {
                Ok(()) => tracing::info!(job = name(&work), "job done"),
                // PostgreSQL is started here then, which loses nothing either.
                Err(error) if matches!(work, Work::HandTail { .. }) => {
                    tracing::warn!(job = name(&work), error = format!("{error:#}"), "job failed");
                }
                Err(error) => tracing::error!(job = name(&work), error = format!("{error:#}"), "job failed"),
            }
            // Whatever became of the job: what is kept by now is told.
            jobs.inner.losses.look();
            tools.local.look_at_data().await;
            jobs.inner.state.with(|state| {
                state.running = None;
                state.progress = None;
                state.finished = Some(Finished { work, ok: outcome.is_ok() });
            });
            jobs.inner.wake.wake();
        });
    }

    async fn run(&self, work: &Work, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        match work {
            Work::Bootstrap => self.bootstrap(tools, token).await,
            Work::Clone(_) => self.copy(tools, token).await,
            Work::Rewind { .. } => self.rewind(tools, token).await,
            Work::Checkpoint => checkpoint(tools).await,
            Work::ArchiveTail => archive::tail(tools, token).await,
            Work::PrePromote(_) => pre_promote::run(tools, token).await,
            Work::HandTail { to, term, within } => {
                let bytes = hand_tail::run(tools, to, *term, *within, token).await?;
                tracing::info!(%to, bytes, "the next leader has all WAL of the crashed primary");
                self.inner.state.with(|state| state.handed += bytes);
                Ok(())
            }
        }
    }

    fn note(&self, progress: Progress) {
        self.inner.state.with(|state| state.progress = Some(progress));
    }
}

/// Options of a program as its arguments.
fn as_arguments(options: &[(String, Option<String>)]) -> Vec<String> {
    let argument = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("--{name}={value}"),
        None => format!("--{name}"),
    };
    options.iter().map(argument).collect()
}

fn name(work: &Work) -> &'static str {
    match work {
        Work::Bootstrap => "bootstrap",
        Work::Clone(_) => "clone",
        Work::Rewind { .. } => "rewind",
        Work::Checkpoint => "checkpoint",
        Work::ArchiveTail => "archive",
        Work::PrePromote(_) => "pre_promote",
        Work::HandTail { .. } => "hand_tail",
    }
}

async fn checkpoint(tools: &Tools) -> anyhow::Result<()> {
    Prober::new(tools.local.connect()).checkpoint(CHECKPOINT_WITHIN).await?;
    Ok(())
}
