//! `dns:`, Baton's own section.

use crate::address;
use crate::build::Raw;
use crate::node::{Content, Node};
use crate::problem::Findings;
use crate::secret::Secret;
use std::path::PathBuf;
use std::time::Duration;

const MAX_UPDATES: usize = 16;

/// The cluster's names, and where they are told. `dns::Config` says what they must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dns {
    pub zone: String,
    /// Hosts and ports; a host may be `*`.
    pub listen: Vec<(String, u16)>,
    pub ttl: Duration,
    pub name_servers: Vec<String>,
    pub max_lag: Option<u64>,
    pub hosts_file: Option<PathBuf>,
    pub updates: Vec<DnsUpdate>,
    /// Where `baton dns` tells metrics and health, as `host:port`.
    pub api: Option<String>,
}

/// A name on another server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsUpdate {
    /// `host:port`.
    pub server: String,
    pub zone: String,
    pub name: String,
    pub ttl: Duration,
    pub key: Option<DnsKey>,
}

/// What signs updates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DnsKey {
    pub name: String,
    pub algorithm: String,
    pub secret: Secret,
}

/// The section as meant; none when there is none.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Option<Dns> {
    let section = raw.root.get("dns").filter(|section| !section.is_null())?;
    let values = raw.local;
    let Some(zone) = values.text("dns.zone") else {
        if section.get("zone").is_none() {
            findings.error(
                &section.place,
                "dns",
                "dns has no \"zone\": add it, such as pg-main.db.example.org",
            );
        }
        return None;
    };
    let mut listen = Vec::new();
    if let Some(written) = values.text("dns.listen") {
        match address::split(&written, None) {
            Some((hosts, port)) => {
                listen.extend(hosts.split(',').map(|host| (host.trim().to_owned(), port)));
            }
            None => {
                let what = "dns.listen has no port: write host:port, such as 10.0.0.1:53";
                findings.error(&values.place("dns.listen"), "dns.listen", what);
            }
        }
    }
    let max_lag = values.int("dns.max_lag").and_then(|bytes| u64::try_from(bytes).ok());
    Some(Dns {
        zone,
        listen,
        ttl: values.duration("dns.ttl"),
        name_servers: values.texts("dns.name_servers").unwrap_or_default(),
        max_lag,
        hosts_file: values.path("dns.hosts_file"),
        updates: updates(section, raw, findings),
        api: values.text("dns.api"),
    })
}

fn updates(section: &Node, raw: &Raw<'_>, findings: &mut Findings) -> Vec<DnsUpdate> {
    let Some(Node { content: Content::List(items), place }) = section.get("updates") else {
        return Vec::new();
    };
    if items.len() > MAX_UPDATES {
        findings.error(place, "dns.updates", format!("at most {MAX_UPDATES} names can be kept"));
    }
    let mut all = Vec::new();
    for (at, item) in items.iter().enumerate().take(MAX_UPDATES) {
        let key = |name: &str| format!("dns.updates.{at}.{name}");
        let mut needed = |name: &str| {
            let value = raw.local.text(&key(name));
            if value.is_none() && item.get(name).is_none() {
                let what = format!("dns.updates.{at} has no {name:?}: add it");
                findings.error(&item.place, &format!("dns.updates.{at}"), what);
            }
            value
        };
        let (server, zone, name) = (needed("server"), needed("zone"), needed("name"));
        let signer = raw.local.text(&key("key_name")).map(|name| DnsKey {
            name,
            algorithm: raw.local.text(&key("key_algorithm")).unwrap_or_default(),
            secret: raw.local.secret(&key("key_secret")).unwrap_or_default(),
        });
        if let (Some(server), Some(zone), Some(name)) = (server, zone, name) {
            all.push(DnsUpdate { server, zone, name, ttl: raw.local.duration(&key("ttl")), key: signer });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::load::load_dns;
    use std::collections::BTreeMap;
    use std::io::Write;

    fn load(section: &str) -> Result<super::Dns, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "scope: a\netcd3: {{host: h}}\n{section}").unwrap();
        let env: BTreeMap<String, String> = BTreeMap::new();
        let loaded = load_dns(file.path(), &env).map_err(|problems| problems.to_string())?;
        Ok(loaded.dns)
    }

    #[test]
    fn a_section_is_read_with_its_updates() {
        let dns = load(
            "dns:\n  zone: a.example\n  listen: '10.0.0.1,10.0.0.2:53'\n  ttl: 2s\n  updates:\n    - {server: 'ns:53', zone: example, \
             name: a.example, key_name: k, key_secret: c2VjcmV0}\n",
        )
        .unwrap();
        assert_eq!(dns.listen, [("10.0.0.1".to_owned(), 53), ("10.0.0.2".to_owned(), 53)]);
        assert_eq!((dns.ttl.as_secs(), dns.updates.len()), (2, 1));
        let key = dns.updates[0].key.as_ref().unwrap();
        assert_eq!((key.algorithm.as_str(), key.secret.reveal()), ("hmac-sha256", "c2VjcmV0"));
        assert!(!format!("{dns:?}").contains("c2VjcmV0"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (section, says) in [
            ("", "missing required section \"dns\""),
            ("dns: {listen: '*:53'}\n", "dns has no \"zone\""),
            ("dns: {zone: a, listen: '10.0.0.1'}\n", "dns.listen has no port"),
            ("dns: {zone: a, updates: [{server: 'h:53', name: a}]}\n", "dns.updates.0 has no \"zone\""),
            ("dns: {zone: a, zones: b}\n", "dns.zones"),
        ] {
            let why = load(section).unwrap_err();
            assert!(why.contains(says), "{section}: {why}");
        }
    }
}
