//! Bringing a data directory that has gone another way back to the history of the one that is followed now.

use super::{Jobs, Tools, as_arguments};
use crate::configure;
use crate::upstream::{self, Sender};
use anyhow::Context;
use postgres::basebackup::Progress;
use postgres::rewind::{self, RewindError, RewindOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A new leader has written its first checkpoint within this time, or the rewind is tried again later.
const SOURCE_READY_WITHIN: Duration = Duration::from_secs(120);
/// Room on the disk is waited for so long, in one job; meanwhile the directory is as it was.
const ROOM_WITHIN: Duration = Duration::from_secs(60);
const SOURCE_WITHIN: Duration = Duration::from_secs(10);

impl Jobs {
    /// Rewinds the data directory; the tail is kept first, with the account of what is in it.
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
        let (began, mut complained) = (clock::now(), false);
        loop {
            let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
            match rewind::run(installation, data_dir, &connect, &options, note, token).await {
                Err(RewindError::SourceNotReady(why)) if clock::now().since(began) < SOURCE_READY_WITHIN => {
                    if self.progress().is_none() {
                        tracing::info!(why, "the rewind waits for the new leader's first checkpoint");
                        self.note(Progress { done_bytes: 0, total_bytes: None, rate: 0 });
                    }
                    tokio::time::sleep(Duration::from_millis(250)).await;
                }
                Err(RewindError::NoRoom(why)) if clock::now().since(began) < ROOM_WITHIN => {
                    if !std::mem::replace(&mut complained, true) {
                        tracing::warn!("the rewind waits: {why}");
                    }
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                // What only this member had is told by the account that is kept.
                ended => return Ok(ended.map(drop)?),
            }
            if token.is_cancelled() {
                return Err(RewindError::Cancelled.into());
            }
        }
    }
}
