//! Bringing a data directory that has gone another way back to the history of the one that is followed now.

use super::{Jobs, Lost, Tools, as_arguments};
use crate::configure;
use crate::upstream::{self, Sender};
use anyhow::Context;
use postgres::basebackup::Progress;
use postgres::rewind::{self, Outcome, RewindError, RewindOptions, Rewound};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A new leader has written its first checkpoint within this time, or the rewind is tried again later.
const SOURCE_READY_WITHIN: Duration = Duration::from_secs(120);
const SOURCE_WITHIN: Duration = Duration::from_secs(10);

impl Jobs {
    /// Rewinds the data directory; the tail is kept first.
    pub(super) async fn rewind(&self, tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
        let source = tools.source.as_ref().context("find the address of the leader in its member key")?;
        let authentication = &tools.settings.postgresql.authentication;
        let login = authentication.rewind.as_ref().unwrap_or(&authentication.superuser);
        let database = &tools.settings.postgresql.database;
        // Which of several hosts writes is asked with the login that is let in everywhere.
        let replication = source.connections(&authentication.replication, "postgres", "baton rewind");
        let chosen = upstream::pick(replication, SOURCE_WITHIN).await?;
        let connect = configure::connect_to(login, &chosen.host, chosen.port, database, "baton rewind");
        let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
        super::archive::finish(tools, &effective, token).await;
        let restore_command = match source {
            Sender::Remote(remote) => remote.restore_command.as_ref(),
            Sender::Member(_) | Sender::Archive => None,
        };
        let options = RewindOptions {
            restore_command: restore_command
                .or_else(|| effective.recovery_conf.get("restore_command"))
                .cloned(),
            config_file: None,
            options: as_arguments(&effective.rewind),
        };
        let note = |progress: Progress| self.note(progress);
        let began = clock::now();
        let outcome = loop {
            let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
            match rewind::run(installation, data_dir, &connect, &options, note, token).await {
                Err(RewindError::SourceNotReady(why)) if clock::now().since(began) < SOURCE_READY_WITHIN => {
                    if self.progress().is_none() {
                        tracing::info!(why, "the rewind waits for the new leader's first checkpoint");
                        self.note(Progress { done_bytes: 0, total_bytes: None, rate: 0 });
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                ended => break ended?,
            }
        };
        if let Outcome::Rewound(rewound) = outcome {
            self.tell_lost(&rewound);
        }
        Ok(())
    }

    fn tell_lost(&self, rewound: &Rewound) {
        let lost = Lost {
            timeline: rewound.fork.timeline,
            fork: rewound.fork.lsn,
            bytes: rewound.end.bytes_since(rewound.fork.lsn),
            commits: rewound.commits,
            kept: rewound.kept.display().to_string(),
        };
        tracing::warn!(
            timeline = lost.timeline.0, fork = %lost.fork, bytes = lost.bytes, commits = ?lost.commits,
            kept = lost.kept, "what only this node had is undone and kept"
        );
        self.inner.state.with(|state| state.lost = Some(lost));
    }
}
