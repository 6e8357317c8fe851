//! `baton etcd`: how etcd itself is, and what somebody should do something about before it takes the cluster along.

use super::list::print;
use crate::cli::EtcdArgs;
use crate::context::{Context, deadline};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::render::etcd::etcd;
use std::time::Duration;

/// Between two looks at how many revisions there are.
const BETWEEN: Duration = Duration::from_secs(1);

/// Prints it; fails when there is something to warn of, so that a monitoring system can call it.
pub(crate) async fn run(context: &Context, args: &EtcdArgs) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref()).unwrap_or_default();
    let etcd_of = context.etcd(&scope)?;
    let (mut health, growth) = tokio::join!(etcd_of.health(deadline()), etcd_of.growth(BETWEEN, deadline()));
    health.growth = growth;
    let now = clock::wall();
    let warnings = health.warnings(now);
    print(&etcd(&health, &warnings, now, args.format));
    match &health.cluster {
        Err(_) => Err(Failure::said(Code::EtcdUnreachable)),
        Ok(_) if warnings.is_empty() => Ok(()),
        Ok(_) => Err(Failure::said(Code::Failed)),
    }
}
