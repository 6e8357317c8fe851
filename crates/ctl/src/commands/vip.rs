//! `baton vip FILE`: holds the addresses of the `vip` section beside an agent that does not, Patroni's or ours, until told to stop.

use super::daemon;
use crate::cli::VipArgs;
use crate::context::etcd_config;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::{ProcessEnv, VipSettings};
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use vip::{Holder, Role, Trigger, Wanted};

/// Runs it.
pub(crate) fn run(args: &VipArgs) -> Outcome {
    let settings = settings::load_vip(&args.file, &ProcessEnv)
        .map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let wanted = wanted(&settings)?;
    let log = daemon::start(&settings.log, "vip.log", &[])?;
    let etcd =
        etcd::Etcd::new(etcd_config(&settings.etcd), etcd::Keys::new(&settings.namespace, &settings.scope))?;
    daemon::block_on(&log, |stop| hold(wanted, etcd, settings.name, stop))
}

async fn hold(
    wanted: Vec<Wanted>,
    etcd: etcd::Etcd,
    me: types::NodeName,
    stop: CancellationToken,
) -> Outcome {
    let trigger = Arc::new(Trigger::follow(etcd, me));
    let holder = Holder::start(wanted, trigger.clone())
        .map_err(|error| Failure::new(Code::Failed, format!("failed to {error}")))?;
    while !stop.is_cancelled() {
        tokio::select! {
            () = trigger.changed() => holder.poke(),
            () = stop.cancelled() => {}
        }
    }
    holder.end().await;
    Ok(())
}

fn wanted(settings: &VipSettings) -> Result<Vec<Wanted>, Failure> {
    let refuse = |why: String| Failure::new(Code::Configuration, format!("failed to {why}"));
    let mut all = Vec::new();
    for given in &settings.vip {
        let role = Role::of(&given.role).map_err(|why| refuse(why.to_string()))?;
        let wanted = Wanted::new(given.ip, given.prefix_len, &given.interface, role);
        all.push(wanted.map_err(|why| refuse(why.to_string()))?);
    }
    if all.is_empty() {
        return Err(refuse("hold an address: the section vip names none, add vip.addresses".to_owned()));
    }
    Ok(all)
}
