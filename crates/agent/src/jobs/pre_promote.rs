//! `postgresql.pre_promote`: the operator's command that must succeed before PostgreSQL is promoted, mostly to fence the old primary.

use super::Tools;
use anyhow::bail;
use postgres::script;
use settings::{Dynamic, Settings};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The command, where there is one.
pub(crate) fn command<'a>(settings: &'a Settings, dynamic: &'a Dynamic) -> Option<&'a str> {
    let command = settings.postgresql.pre_promote.as_ref().or(dynamic.pre_promote.as_ref());
    command.map(|command| command.trim()).filter(|command| !command.is_empty())
}

/// Runs it. It may take as long as the promotion itself; the lease is renewed meanwhile.
pub(super) async fn run(tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
    let Some(command) = command(&tools.settings, &tools.dynamic) else { return Ok(()) };
    let seconds = tools.dynamic.primary_start_timeout.max(tools.dynamic.ttl);
    let over = token.child_token();
    let run = script::run(tools.local.installation(), command, &[], &[], &over);
    tokio::pin!(run);
    match tokio::time::timeout(Duration::from_secs(seconds.into()), &mut run).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => {
            over.cancel();
            // It ends by the signal that this sends; how is of no interest.
            let _ = run.await;
            bail!("run pre_promote: it has not ended within {seconds} s");
        }
    }
}
