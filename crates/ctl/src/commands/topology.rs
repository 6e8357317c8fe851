//! `baton topology`: the members as a tree of who replicates from whom.

use super::list::{drawn, repeat};
use crate::cli::TopologyArgs;
use crate::context::Context;
use crate::failure::Outcome;
use crate::render::topology::topology;

/// Prints the tree, again and again if asked.
pub(crate) async fn run(context: &Context, args: &TopologyArgs) -> Outcome {
    repeat(args.repeat, async || drawn(context, &args.clusters, topology).await).await
}
