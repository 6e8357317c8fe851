//! `baton history`: every change of timeline, and who led afterwards.

use super::list::print;
use crate::cli::HistoryArgs;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::history::history;
use crate::snapshot;

/// Prints the history.
pub(crate) async fn run(context: &Context, args: &HistoryArgs) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (snapshot, _) = context.read(&scope).await?;
    print(&history(&snapshot::history(&snapshot), args.format));
    Ok(())
}
