//! `baton show-config`: the dynamic configuration as it is in etcd.

use super::list::print;
use crate::cli::ClusterArg;
use crate::context::Context;
use crate::failure::Outcome;

/// Prints it as sorted YAML; nothing at all when there is none.
pub(crate) async fn run(context: &Context, args: &ClusterArg) -> Outcome {
    let scope = context.scope(args.cluster.as_deref())?;
    let (snapshot, _) = context.read(&scope).await?;
    if let Some(config) = &snapshot.config {
        print(&format!("{}\n", crate::yaml::block(&config.value)));
    }
    Ok(())
}
