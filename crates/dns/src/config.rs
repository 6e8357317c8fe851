//! From the settings to what is told.

use crate::feed::Config;
use crate::update::{Key, Target};
use crate::zone::Origin;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

impl Config {
    /// What the section says, or why it cannot be told.
    pub fn of(settings: &settings::Dns) -> Result<Config, String> {
        let mut listen = Vec::new();
        for (host, port) in &settings.listen {
            let ip = match host.trim_matches(['[', ']']) {
                "" | "*" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                host => host.parse().map_err(|_| {
                    format!("listen on {host:?}: it is no address; write one, or * for all, in dns.listen")
                })?,
            };
            listen.push(SocketAddr::new(ip, *port));
        }
        let own: Vec<IpAddr> = listen.iter().map(SocketAddr::ip).filter(|ip| !ip.is_unspecified()).collect();
        let refuse = |why: String| format!("tell the cluster's names: {why}");
        let ttl = |ttl: std::time::Duration| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).min(86_400);
        let origin =
            Origin::new(&settings.zone, &settings.name_servers, own, ttl(settings.ttl)).map_err(refuse)?;
        let mut updates = Vec::new();
        for update in &settings.updates {
            let key = update.key.as_ref().map(|key| Key::new(&key.name, &key.algorithm, key.secret.reveal()));
            let key = key.transpose().map_err(refuse)?;
            let target = Target::new(&update.server, &update.zone, &update.name, ttl(update.ttl), key);
            updates.push(target.map_err(refuse)?);
        }
        let (hosts_file, max_lag) = (settings.hosts_file.clone(), settings.max_lag);
        if listen.is_empty() && hosts_file.is_none() && updates.is_empty() {
            return Err("tell the cluster's names: nobody would hear of them; set dns.listen, dns.hosts_file or dns.updates".to_owned());
        }
        Ok(Config { origin, listen, hosts_file, max_lag, updates })
    }
}
