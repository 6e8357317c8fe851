//! `baton dns FILE`: tells the cluster's names, by the `dns` section, until told to stop. It needs no member on its host.

use super::side_api::{Page, serve};
use super::{daemon, service_manager};
use crate::cli::DnsArgs;
use crate::context::etcd_config;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use settings::ProcessEnv;
use std::sync::Arc;
use types::exposition::labels;

/// Runs it.
pub(crate) fn run(args: &DnsArgs) -> Outcome {
    let refuse = |why: String| Failure::new(Code::Configuration, why);
    let settings =
        settings::load_dns(&args.file, &ProcessEnv).map_err(|problems| refuse(problems.to_string()))?;
    let config = dns::Config::of(&settings.dns).map_err(|why| refuse(format!("failed to {why}")))?;
    let log = daemon::start(&settings.log, "dns.log", &[])?;
    let etcd =
        etcd::Etcd::new(etcd_config(&settings.etcd), etcd::Keys::new(&settings.namespace, &settings.scope))?;
    daemon::block_on(&log, |stop| async move {
        let (view, _watcher) = etcd::watch(etcd);
        let seen = view.clone();
        let dns = dns::Dns::start(config, view)
            .await
            .map_err(|error| Failure::new(Code::AddressInUse, format!("failed to {error}")))?;
        for address in &dns.listens {
            tracing::info!(%address, "answers questions for the cluster's names");
        }
        let labels = labels(&[("scope", &settings.scope)]);
        let dns = Arc::new(dns);
        let told = dns.clone();
        let page = move || Page { known: told.known(), metrics: told.metrics(&labels) };
        serve(settings.dns.api.as_deref(), page).await?;
        service_manager::ready(move || service_manager::lead(&seen.borrow()));
        stop.cancelled().await;
        Ok(())
    })
}
