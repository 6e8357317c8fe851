//! `postgresql.before_stop`: the operator's command that runs before PostgreSQL is told to stop.
//!
//! ```text
//!   stop asked ─► command ─► ended, failed, or took too long ─► the signal
//!                    └── a harder stop was asked for ─► the command is ended, the harder signal at once
//! ```

use ha::{Rules, StopMode};
use postgres::installation::Installation;
use postgres::script;
use settings::{Dynamic, Settings};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A stop that nothing hurries waits so long for it.
const PATIENCE: Duration = Duration::from_secs(60);

/// The command, and how long the stop waits for it.
#[derive(Clone, Debug)]
pub(crate) struct BeforeStop {
    command: String,
    within: Duration,
}

impl BeforeStop {
    /// The command for a stop of this kind. One for safety has little time, and one that kills has none.
    pub(crate) fn of(
        settings: &Settings,
        dynamic: &Dynamic,
        rules: &Rules,
        mode: StopMode,
    ) -> Option<BeforeStop> {
        let command = settings.postgresql.before_stop.as_ref().or(dynamic.before_stop.as_ref())?;
        let within = match mode {
            StopMode::Fast => PATIENCE,
            StopMode::Immediate => rules.stop_budget() / 2,
            StopMode::Kill => return None,
        };
        (!command.trim().is_empty()).then(|| BeforeStop { command: command.clone(), within })
    }

    /// Runs it. How it ends decides nothing; `superseded` ends it.
    pub(crate) async fn run(self, installation: Installation, superseded: &CancellationToken) {
        let (over, within) = (superseded.child_token(), self.within);
        let cancel = over.clone();
        tracing::info!(command = self.command, "runs before_stop");
        let run = tokio::spawn(async move {
            if let Err(error) = script::run(&installation, &self.command, &[], &[], &cancel).await {
                tracing::warn!("before_stop: failed to {error}; PostgreSQL is stopped all the same");
            }
        });
        if tokio::time::timeout(within, run).await.is_err() {
            tracing::warn!(
                "before_stop has not ended within {within:?}: it is ended, and PostgreSQL is stopped"
            );
            over.cancel();
        }
    }
}
