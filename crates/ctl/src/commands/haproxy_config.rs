//! `baton haproxy-config FILE`: the router's services as a configuration of HAProxy, for those who stay with it.

use super::list::print;
use super::router::settings_of;
use crate::cli::RouterArgs;
use crate::context::{deadline, etcd_config};
use crate::failure::Outcome;
use crate::render::haproxy::{Known, Server, configuration};
use http::Target;
use std::collections::BTreeMap;
use types::TagValue;

/// Prints it, with the members that etcd knows at the moment: HAProxy learns of others by a new configuration only.
pub(crate) async fn run(args: &RouterArgs) -> Outcome {
    let settings = settings_of(&args.file)?;
    let own = settings::RouterCluster {
        name: settings.scope.clone(),
        scope: settings.scope.clone(),
        namespace: None,
        authentication: None,
    };
    let mut known: Known = BTreeMap::new();
    for cluster in settings.router.clusters.iter().chain([&own]) {
        let mut config = etcd_config(&settings.etcd);
        if let Some(login) = &cluster.authentication {
            let (user, password) = (login.username.clone(), login.password.reveal().to_owned());
            config.auth = Some(etcd::Credentials { user, password });
        }
        let namespace = cluster.namespace.as_ref().unwrap_or(&settings.namespace);
        let etcd = etcd::Etcd::new(config, etcd::Keys::new(namespace, &cluster.scope))?;
        let snapshot = etcd.snapshot(deadline()).await?;
        let servers = snapshot.members.iter().filter_map(|(name, member)| server(name.as_str(), member));
        known.insert(cluster.name.clone(), servers.collect());
    }
    print(&configuration(&settings, &known));
    Ok(())
}

fn server(name: &str, member: &etcd::Member) -> Option<Server> {
    // A connection URL has the form of a REST URL, but for its scheme.
    let place = |url: &Option<String>| {
        let (_, rest) = url.as_ref()?.split_once("://")?;
        let target = Target::parse(&format!("http://{rest}"))?;
        Some((target.connect_host().to_owned(), target.port))
    };
    let tag = |name: &str| member.tags.0.get(name).and_then(TagValue::as_bool).unwrap_or(false);
    Some(Server {
        name: name.to_owned(),
        postgres: place(&member.conn_url)?,
        pooler: place(&member.proxy_url),
        api: place(&member.api_url)?,
        api_tls: member.api_url.as_ref().is_some_and(|url| url.starts_with("https://")),
        offline: tag("offline") || tag("pg_offline_query"),
    })
}
