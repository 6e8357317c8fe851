//! `vip.bgp:`, Baton's own section.

use crate::address;
use crate::build::Raw;
use crate::node::{Content, Node};
use crate::problem::Findings;
use crate::secret::Secret;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

const MAX_NEIGHBORS: usize = 16;

/// The speaker that announces the addresses. `bgp::Config` says what it must be like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Bgp {
    pub asn: u32,
    pub router_id: Ipv4Addr,
    /// Hosts and ports; a host may be `*`. Empty: neighbours are only connected to.
    pub listen: Vec<(String, u16)>,
    pub hold_time: Duration,
    pub med: Option<u32>,
    pub communities: Vec<String>,
    pub neighbors: Vec<BgpNeighbor>,
}

/// A router that is told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BgpNeighbor {
    pub address: IpAddr,
    pub port: u16,
    pub asn: u32,
    pub password: Option<Secret>,
    pub ttl_security: bool,
    pub hops: u8,
    pub passive: bool,
    pub local_address: Option<IpAddr>,
    pub next_hops: Vec<IpAddr>,
}

/// The section as meant; none when there is none.
pub(crate) fn build(raw: &Raw<'_>, findings: &mut Findings) -> Option<Bgp> {
    let section = raw.root.get("vip")?.get("bgp").filter(|section| !section.is_null())?;
    let values = raw.local;
    let mut needed = |name: &str, example: &str| {
        let there = values.is_known(&format!("vip.bgp.{name}")) && section.get(name).is_some();
        if !there {
            findings.error(
                &section.place,
                "vip.bgp",
                format!("vip.bgp has no {name:?}: add it, such as {example}"),
            );
        }
    };
    needed("as", "65001");
    needed("router_id", "this host's IPv4 address");
    needed("neighbors", "[{address: 10.0.0.1, as: 65000}]");
    let mut listen = Vec::new();
    if let Some(written) = values.text("vip.bgp.listen") {
        match address::split(&written, Some(179)) {
            Some((hosts, port)) => {
                listen.extend(hosts.split(',').map(|host| (host.trim().to_owned(), port)));
            }
            None => {
                let what = format!("{written:?} is nowhere to listen on: write *:179 or 10.0.0.11:179");
                findings.error(&values.place("vip.bgp.listen"), "vip.bgp.listen", what);
            }
        }
    }
    let neighbors = neighbors(section, raw, findings);
    let router_id = parsed(raw, "vip.bgp.router_id", "an IPv4 address such as 10.0.0.11", findings);
    Some(Bgp {
        asn: u32::try_from(values.int("vip.bgp.as")?).ok()?,
        router_id: router_id?,
        listen,
        hold_time: values.duration("vip.bgp.hold_time"),
        med: values.int("vip.bgp.med").and_then(|med| u32::try_from(med).ok()),
        communities: values.texts("vip.bgp.communities").unwrap_or_default(),
        neighbors,
    })
}

fn neighbors(section: &Node, raw: &Raw<'_>, findings: &mut Findings) -> Vec<BgpNeighbor> {
    let Some(Node { content: Content::List(items), place }) = section.get("neighbors") else {
        return Vec::new();
    };
    if items.is_empty() || items.len() > MAX_NEIGHBORS {
        let what = format!("vip.bgp.neighbors has {} entries: write 1 to {MAX_NEIGHBORS}", items.len());
        findings.error(place, "vip.bgp.neighbors", what);
    }
    let mut all: Vec<BgpNeighbor> = Vec::new();
    for (at, item) in items.iter().enumerate().take(MAX_NEIGHBORS) {
        let key = format!("vip.bgp.neighbors.{at}");
        let Some(neighbor) = neighbor(&key, item, raw, findings) else { continue };
        if all.iter().any(|other| other.address == neighbor.address) {
            let what = format!("{} is there twice: keep one of them", neighbor.address);
            findings.error(&item.place, &key, what);
        }
        all.push(neighbor);
    }
    all
}

fn neighbor(key: &str, item: &Node, raw: &Raw<'_>, findings: &mut Findings) -> Option<BgpNeighbor> {
    let of = |name: &str| format!("{key}.{name}");
    for name in ["address", "as"] {
        if item.get(name).is_none() {
            findings.error(&item.place, key, format!("{key} has no {name:?}: add it"));
        }
    }
    let an_address = "an address such as 10.0.0.1 or fd00::1";
    let address = parsed(raw, &of("address"), an_address, findings);
    let local_address = parsed(raw, &of("local_address"), an_address, findings);
    let mut next_hops = Vec::new();
    for written in raw.local.texts(&of("next_hops")).unwrap_or_default() {
        match written.trim().parse() {
            Ok(hop) => next_hops.push(hop),
            Err(_) => {
                let what = format!("{written:?} is not {an_address}");
                findings.error(&raw.local.place(&of("next_hops")), &of("next_hops"), what);
            }
        }
    }
    Some(BgpNeighbor {
        address: address?,
        port: raw.local.number(&of("port")),
        asn: u32::try_from(raw.local.int(&of("as"))?).ok()?,
        password: raw.local.secret(&of("password")),
        ttl_security: raw.local.flag(&of("ttl_security")),
        hops: raw.local.number(&of("hops")),
        passive: raw.local.flag(&of("passive")),
        local_address,
        next_hops,
    })
}

/// What is written there, as what it must be.
fn parsed<T: FromStr>(raw: &Raw<'_>, key: &str, what: &str, findings: &mut Findings) -> Option<T> {
    let written = raw.local.text(key)?;
    let parsed = written.trim().parse().ok();
    if parsed.is_none() {
        findings.error(&raw.local.place(key), key, format!("{written:?} is not {what}"));
    }
    parsed
}

#[cfg(test)]
mod tests {
    use crate::load::load_vip;
    use std::collections::BTreeMap;
    use std::io::Write;

    fn load(bgp: &str) -> Result<super::Bgp, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(
            file,
            "scope: a\nname: n\netcd3: {{host: h}}\nvip:\n  addresses: [{{address: 192.0.2.7, interface: lo}}]\n  bgp: {bgp}\n"
        )
        .unwrap();
        let env: BTreeMap<String, String> = BTreeMap::new();
        let loaded = load_vip(file.path(), &env).map_err(|problems| problems.to_string())?;
        Ok(loaded.bgp.unwrap())
    }

    #[test]
    fn a_section_is_read_with_its_neighbors() {
        let bgp = load(
            "{as: 4200000001, router_id: 10.0.0.11, listen: '*:179', med: 50, communities: ['65000:100'], neighbors: [{address: 10.0.0.1, \
             as: 65000, password: hush, ttl_security: true}, {address: 'fd00::1', as: 65000, port: 1179, hops: 3, passive: true, \
             local_address: 'fd00::11', next_hops: ['10.0.0.11']}]}",
        )
        .unwrap();
        assert_eq!((bgp.asn, bgp.hold_time.as_secs(), bgp.med), (4_200_000_001, 3, Some(50)));
        assert_eq!(bgp.listen, [("*".to_owned(), 179)]);
        let [v4, v6] = &bgp.neighbors[..] else { panic!("{bgp:?}") };
        assert_eq!((v4.port, v4.hops, v4.ttl_security, v4.passive), (179, 1, true, false));
        assert_eq!((v6.port, v6.hops, v6.ttl_security, v6.passive), (1179, 3, false, true));
        assert_eq!(v6.next_hops.len(), 1);
        assert!(!format!("{bgp:?}").contains("hush"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let fine = "as: 1, router_id: 10.0.0.1";
        for (section, says) in [
            ("{router_id: 10.0.0.1, neighbors: [{address: h, as: 1}]}".to_owned(), "vip.bgp has no \"as\""),
            ("{as: 1, neighbors: []}".to_owned(), "vip.bgp has no \"router_id\""),
            (format!("{{{fine}}}"), "vip.bgp has no \"neighbors\""),
            (format!("{{{fine}, neighbors: []}}"), "write 1 to 16"),
            (format!("{{{fine}, neighbors: [{{as: 1}}]}}"), "vip.bgp.neighbors.0 has no \"address\""),
            (format!("{{{fine}, neighbors: [{{address: 10.0.0.1}}]}}"), "vip.bgp.neighbors.0 has no \"as\""),
            (format!("{{{fine}, neighbors: [{{address: host, as: 1}}]}}"), "\"host\" is not an address"),
            (
                "{as: 0, router_id: 10.0.0.1, neighbors: [{address: 10.0.0.1, as: 1}]}".to_owned(),
                "vip.bgp.as",
            ),
            (
                "{as: 1, router_id: x, neighbors: [{address: 10.0.0.1, as: 1}]}".to_owned(),
                "\"x\" is not an IPv4",
            ),
            (
                format!("{{{fine}, neighbors: [{{address: 10.0.0.1, as: 1, next_hops: [x]}}]}}"),
                "\"x\" is not",
            ),
            (
                format!(
                    "{{{fine}, neighbors: [{{address: 10.0.0.1, as: 1}}, {{address: 10.0.0.1, as: 2}}]}}"
                ),
                "10.0.0.1 is there twice",
            ),
            (format!("{{{fine}, neighbours: []}}"), "neighbors"),
        ] {
            let why = load(&section).unwrap_err();
            assert!(why.contains(says), "{section}: {why}");
        }
    }
}
