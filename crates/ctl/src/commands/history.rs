//! `baton history`: every change of timeline, who led afterwards, what was lost, and who had which virtual address.

use super::list::print;
use crate::cli::HistoryArgs;
use crate::context::Context;
use crate::failure::Outcome;
use crate::invoked::Manner;
use crate::render::Format;
use crate::render::archive::archive;
use crate::render::history::history;
use crate::render::losses::losses;
use crate::render::stays::stays;
use crate::snapshot;

/// Prints the history. What scripts read as patronictl's stays as it is: losses follow only where people read.
pub(crate) async fn run(context: &Context, args: &HistoryArgs) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (snapshot, _) = context.read(&scope).await?;
    if args.losses {
        print(&losses(&snapshot.losses, args.format));
        return Ok(());
    }
    if args.archive {
        print(&archive(&snapshot.archive, args.format));
        return Ok(());
    }
    if args.addresses {
        print(&stays(&snapshot.address_rows, &snapshot.addresses, args.format));
        return Ok(());
    }
    print(&history(&snapshot::history(&snapshot), args.format));
    let read_by_people = context.manner == Manner::Baton && args.format == Format::Pretty;
    if read_by_people && !snapshot.losses.is_empty() {
        print("\nLost in failovers, kept on the hosts of these members:\n");
        print(&losses(&snapshot.losses, Format::Pretty));
    }
    if read_by_people && !snapshot.archive.is_empty() {
        print("\nWhat the archive holds of what a restore across each promotion needs:\n");
        print(&archive(&snapshot.archive, Format::Pretty));
    }
    Ok(())
}
