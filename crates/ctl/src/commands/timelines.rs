//! `baton timelines`: the tree of timelines, with who is where, what was lost, and which backups lie on which branch.

use super::list::print;
use crate::backups::Question;
use crate::cli::TimelinesArgs;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::timelines::timelines;
use crate::timelines::tree;
use etcd::{Initialize, Snapshot};
use types::SystemId;

/// Prints the tree. Backups that cannot be asked for are a remark: the rest is worth seeing.
pub(crate) async fn run(context: &Context, args: &TimelinesArgs) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (snapshot, cluster) = context.look(&scope).await?;
    let (mut backups, mut unknown) = (Vec::new(), None);
    if let Some(question) = question(args, &snapshot) {
        match question.ask(system(&snapshot)).await {
            Ok(found) => backups = found,
            Err(why) => unknown = Some(format!("backups are not shown: {why}")),
        }
    }
    let mut tree = tree(&cluster, &snapshot, backups);
    if let Some(unknown) = &unknown {
        super::warn(unknown);
    }
    tree.remarks.extend(cluster.remarks);
    print(&timelines(&tree, args.format));
    Ok(())
}

fn question(args: &TimelinesArgs, snapshot: &Snapshot) -> Option<Question> {
    if args.no_backups {
        return None;
    }
    if let Some(stanza) = &args.stanza {
        return Some(Question::stanza(stanza));
    }
    let config = &snapshot.config.as_ref()?.value;
    Question::of(config.pointer("/postgresql/parameters/archive_command")?.as_str()?)
}

fn system(snapshot: &Snapshot) -> Option<SystemId> {
    match snapshot.initialize {
        Some(Initialize::System(id)) => Some(id),
        Some(Initialize::Bootstrapping) | None => None,
    }
}
