//! What the archiver of a stopped PostgreSQL has not done: it is done with the configured `archive_command`.

use super::Tools;
use crate::configure;
use settings::Effective;
use tokio_util::sync::CancellationToken;

/// The command, when PostgreSQL archives at all.
fn command(effective: &Effective) -> Option<&str> {
    let get = |name: &str| effective.parameters.get(name).map(String::as_str).unwrap_or_default().trim();
    let archives = matches!(get("archive_mode"), "on" | "always" | "true" | "yes" | "1");
    archives.then(|| get("archive_command")).filter(|command| !command.is_empty())
}

/// Archives the complete segments that wait for it. Whether that works decides nothing: it is told.
pub(super) async fn finish(tools: &Tools, effective: &Effective, token: &CancellationToken) {
    let Some(command) = command(effective) else { return };
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    match postgres::archive::finish(installation, data_dir, command, token).await {
        Ok(0) => {}
        Ok(segments) => tracing::info!(segments, "archived what the archiver had not done"),
        Err(error) => tracing::warn!("failed to archive what the archiver had not done: {error}"),
    }
}

/// Gives the WAL with the checkpoint of the stop to the archive.
pub(super) async fn tail(tools: &Tools, token: &CancellationToken) -> anyhow::Result<()> {
    let effective = configure::effective(&tools.settings, &tools.dynamic, &tools.local);
    let Some(command) = command(&effective) else { return Ok(()) };
    finish(tools, &effective, token).await;
    let (installation, data_dir) = (tools.local.installation(), tools.local.data_dir());
    let segment = postgres::archive::last_checkpoint(installation, data_dir, command, token).await?;
    tracing::info!(segment, "archived the WAL with the checkpoint of the stop");
    Ok(())
}
