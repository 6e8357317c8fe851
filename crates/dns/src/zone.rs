//! The names and their records, made from the facts. Pure.
//!
//! ```text
//!   <zone>  primary.  replica.  sync.  offline.  <member>.        A, AAAA, TXT
//!   _postgresql._tcp.{the same}                                   SRV
//!   <zone>                                                        SOA, NS
//! ```
//! The roles always have their names: without a member of a role the answer is "no data", never "no such name".

use crate::facts::Facts;
use domain::base::{Name, NameBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use types::NodeName;

pub(crate) type Owned = Name<Vec<u8>>;

/// What does not change: where the zone is, and who serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub(crate) name: Owned,
    pub(crate) servers: Vec<Owned>,
    pub(crate) mailbox: Owned,
    /// Our own addresses, for a name server within the zone.
    pub(crate) own: Vec<IpAddr>,
    pub(crate) ttl: u32,
}

/// What a name has.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct Entry {
    pub v4: Vec<Ipv4Addr>,
    pub v6: Vec<Ipv6Addr>,
    pub txt: Vec<String>,
    pub srv: Vec<(u16, Owned)>,
}

/// All names at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    pub(crate) origin: Origin,
    pub(crate) serial: u32,
    /// By the part before the zone, in small letters.
    pub(crate) entries: BTreeMap<String, Entry>,
    pub(crate) primary: Option<(String, i64)>,
}

const ROLES: [&str; 4] = ["primary", "replica", "sync", "offline"];
const SERVICE: &str = "_postgresql._tcp";
/// The name server within the zone, when no other is named.
const SERVER: &str = "ns";
/// A member's name may not hide these.
const TAKEN: [&str; 6] = ["primary", "replica", "sync", "offline", SERVER, "_tcp"];
const LONGEST_LABEL: usize = 63;

impl Origin {
    /// A zone, its name servers (none: a name within it, with the addresses `own`), and how long answers live; else what is wrong.
    pub fn new(name: &str, servers: &[String], own: Vec<IpAddr>, ttl: u32) -> Result<Origin, String> {
        let parse = |text: &str| {
            Owned::from_str(text.trim()).map_err(|error| format!("{text:?} is no domain name: {error}"))
        };
        let name = parse(name)?;
        if name.is_root() {
            return Err("the root is no zone of a cluster".to_owned());
        }
        let below = |label: &str| {
            let built = under(&[label], &name);
            built.ok_or_else(|| format!("{name} is too long for a zone: names below it must fit"))
        };
        let mut all: Vec<Owned> = servers.iter().map(|server| parse(server)).collect::<Result<_, _>>()?;
        if all.is_empty() {
            all.push(below(SERVER)?);
        }
        let mailbox = below("hostmaster")?;
        Ok(Origin { name, servers: all, mailbox, own, ttl })
    }
}

impl Zone {
    /// The zone of a cluster; `resolved` has the addresses of hosts that are names.
    #[must_use]
    pub fn of(origin: &Origin, facts: &Facts, resolved: &BTreeMap<String, Vec<IpAddr>>) -> Zone {
        let mut zone = Zone {
            origin: origin.clone(),
            serial: serial(facts.revision),
            entries: BTreeMap::new(),
            primary: facts.primary.as_ref().map(|(name, term)| (name.0.clone(), term.0)),
        };
        let primary: Vec<NodeName> = facts.primary.iter().map(|(name, _)| name.clone()).collect();
        // Who reads where it can still reads when only the primary is left.
        let readers = if facts.replicas.is_empty() { &primary } else { &facts.replicas };
        for (role, members) in [
            ("", &primary),
            ("primary", &primary),
            ("replica", readers),
            ("sync", &facts.sync),
            ("offline", &facts.offline),
        ] {
            zone.put(role, members, facts, resolved);
        }
        if let Some((name, term)) = &facts.primary {
            let txt = vec![format!("term={term}"), format!("member={name}")];
            for role in ["", "primary"] {
                zone.entries.entry(role.to_owned()).or_default().txt.clone_from(&txt);
            }
        }
        for name in facts.members.keys() {
            let label = label(name);
            if !TAKEN.contains(&label.as_str()) {
                zone.put(&label, std::slice::from_ref(name), facts, resolved);
            }
        }
        let within = under(&[SERVER], &origin.name);
        if within.as_ref() == origin.servers.first() {
            let entry = zone.entries.entry(SERVER.to_owned()).or_default();
            add(entry, &origin.own);
        }
        zone
    }

    fn put(
        &mut self,
        name: &str,
        members: &[NodeName],
        facts: &Facts,
        resolved: &BTreeMap<String, Vec<IpAddr>>,
    ) {
        let (mut entry, mut service) = (Entry::default(), Entry::default());
        for member in members {
            let Some(place) = facts.members.get(member) else { continue };
            add(&mut entry, &addresses(&place.host, resolved));
            if let Some(target) = under(&[&label(member)], &self.origin.name) {
                service.srv.push((place.port, target));
            }
        }
        let below = if name.is_empty() { SERVICE.to_owned() } else { format!("{SERVICE}.{name}") };
        self.entries.insert(name.to_owned(), entry);
        self.entries.insert(below, service);
    }

    /// Whether there is anything at or below this name.
    pub(crate) fn exists(&self, name: &str) -> bool {
        let suffix = format!(".{name}");
        self.entries.keys().any(|known| known == name || known.ends_with(&suffix))
    }

    /// The addresses of a name, as in a hosts file.
    pub(crate) fn hosts(&self) -> Vec<(IpAddr, String)> {
        let mut lines = Vec::new();
        for (name, entry) in self.entries.iter().filter(|(name, _)| *name != SERVER) {
            let full = if name.is_empty() {
                self.origin.name.to_string()
            } else {
                format!("{name}.{}", self.origin.name)
            };
            let v4 = entry.v4.iter().copied().map(IpAddr::V4);
            let v6 = entry.v6.iter().copied().map(IpAddr::V6);
            lines.extend(v4.chain(v6).map(|ip| (ip, full.clone())));
        }
        lines
    }

    /// Who accepts writes: its addresses, its name, its term.
    #[must_use]
    pub fn primary(&self) -> Option<(Vec<IpAddr>, &str, i64)> {
        let (name, term) = self.primary.as_ref()?;
        let entry = self.entries.get("primary")?;
        let v6 = entry.v6.iter().copied().map(IpAddr::V6);
        let ips: Vec<IpAddr> = entry.v4.iter().copied().map(IpAddr::V4).chain(v6).collect();
        (!ips.is_empty()).then_some((ips, name.as_str(), *term))
    }
}

/// The hosts whose addresses must be looked up.
pub(crate) fn unresolved(facts: &Facts) -> BTreeSet<String> {
    let hosts = facts.members.values().map(|place| place.host.clone());
    hosts.filter(|host| host.parse::<IpAddr>().is_err()).collect()
}

fn addresses(host: &str, resolved: &BTreeMap<String, Vec<IpAddr>>) -> Vec<IpAddr> {
    match host.parse() {
        Ok(ip) => vec![ip],
        Err(_) => resolved.get(host).cloned().unwrap_or_default(),
    }
}

fn add(entry: &mut Entry, ips: &[IpAddr]) {
    for ip in ips {
        match ip {
            IpAddr::V4(ip) if !entry.v4.contains(ip) => entry.v4.push(*ip),
            IpAddr::V6(ip) if !entry.v6.contains(ip) => entry.v6.push(*ip),
            IpAddr::V4(_) | IpAddr::V6(_) => {}
        }
    }
}

/// A member's name as a label: what a host name cannot have becomes a hyphen.
fn label(name: &NodeName) -> String {
    let fit = |letter: char| {
        if letter.is_ascii_alphanumeric() || letter == '_' { letter.to_ascii_lowercase() } else { '-' }
    };
    name.0.chars().map(fit).take(LONGEST_LABEL).collect()
}

/// A name of these labels below another one; none when it is too long.
pub(crate) fn under(labels: &[&str], base: &Owned) -> Option<Owned> {
    let mut builder = NameBuilder::new_vec();
    for label in labels {
        builder.append_label(label.as_bytes()).ok()?;
    }
    builder.append_origin(base).ok()
}

/// Serial numbers go round after 2^32; etcd's revisions only grow.
fn serial(revision: i64) -> u32 {
    u32::try_from(revision & i64::from(u32::MAX)).unwrap_or_default()
}

/// The names that are roles.
pub(crate) fn is_role(name: &str) -> bool {
    name.is_empty() || ROLES.contains(&name)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Origin, Zone, serial};
    use crate::facts::{Facts, Place};
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use types::{NodeName, Term};

    pub(crate) fn facts() -> Facts {
        let place = |host: &str| Place { host: host.to_owned(), port: 5432 };
        let name = |name: &str| NodeName::from(name);
        Facts {
            revision: 4711,
            primary: Some((name("pg-1"), Term(17))),
            replicas: vec![name("pg-2"), name("PG_3.x")],
            sync: vec![name("pg-2")],
            offline: Vec::new(),
            members: BTreeMap::from([
                (name("pg-1"), place("10.0.0.1")),
                (name("pg-2"), place("fd00::2")),
                (name("PG_3.x"), place("db3.example")),
            ]),
        }
    }

    pub(crate) fn zone(facts: &Facts) -> Zone {
        let own: Vec<IpAddr> = vec!["10.0.0.53".parse().unwrap()];
        let origin = Origin::new("c1.pg.test", &[], own, 1).unwrap();
        let resolved = BTreeMap::from([("db3.example".to_owned(), vec!["10.0.0.3".parse().unwrap()])]);
        Zone::of(&origin, facts, &resolved)
    }

    #[test]
    fn every_role_and_every_member_has_a_name() {
        let zone = zone(&facts());
        let hosts: Vec<String> = zone.hosts().into_iter().map(|(ip, name)| format!("{ip} {name}")).collect();
        assert_eq!(
            hosts,
            [
                "10.0.0.1 c1.pg.test",
                "10.0.0.1 pg-1.c1.pg.test",
                "fd00::2 pg-2.c1.pg.test",
                "10.0.0.3 pg_3-x.c1.pg.test",
                "10.0.0.1 primary.c1.pg.test",
                "10.0.0.3 replica.c1.pg.test",
                "fd00::2 replica.c1.pg.test",
                "fd00::2 sync.c1.pg.test",
            ]
        );
        assert!(zone.exists("offline") && zone.exists("_tcp") && !zone.exists("pg-4"));
        let (ips, name, term) = zone.primary().unwrap();
        assert_eq!((ips.len(), name, term), (1, "pg-1", 17));
    }

    #[test]
    fn without_a_primary_its_names_are_empty_and_without_replicas_it_serves_reads() {
        let mut facts = facts();
        facts.replicas.clear();
        let alone = zone(&facts);
        assert_eq!(alone.entries["replica"].v4, ["10.0.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        facts.primary = None;
        let none = zone(&facts);
        assert!(none.exists("primary") && none.entries["primary"] == super::Entry::default());
        assert_eq!(none.primary(), None);
    }

    #[test]
    fn odd_names_are_refused_and_serials_go_round() {
        for bad in ["", ".", "a..b", &"x".repeat(64)] {
            assert!(Origin::new(bad, &[], Vec::new(), 1).is_err(), "{bad:?}");
        }
        assert_eq!(serial((1 << 32) + 5), 5);
    }
}
