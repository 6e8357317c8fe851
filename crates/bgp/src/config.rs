//! From the settings to what is spoken with whom.

use crate::fence;
use crate::open::Open;
use crate::session::{SHORTEST_HOLD, Terms};
use crate::socket::LONGEST_PASSWORD;
use crate::update::{Family, NextHops};
use settings::{BgpNeighbor, Secret, VirtualAddress};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use vip::Role;

/// What the speaker is to be.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) asn: u32,
    pub(crate) router_id: Ipv4Addr,
    pub(crate) hold: u16,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) med: Option<u32>,
    pub(crate) communities: Vec<u32>,
    pub(crate) neighbors: Vec<Neighbor>,
    pub(crate) addresses: Vec<IpAddr>,
}

/// A router that is told.
#[derive(Clone, Debug)]
pub(crate) struct Neighbor {
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    pub(crate) asn: u32,
    pub(crate) password: Option<Secret>,
    pub(crate) ttl_security: bool,
    pub(crate) hops: u8,
    pub(crate) passive: bool,
    /// In the same AS.
    pub(crate) internal: bool,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) next_hops: NextHops,
}

/// The longest hold time that any lease could prove; more is a mistake.
const LONGEST_HOLD: u64 = 60;
const MAX_COMMUNITIES: usize = 64;
/// Stands for numbers of four bytes, and two that must never be used.
const NOT_AN_AS: [u32; 3] = [23_456, 65_535, u32::MAX];

impl Config {
    /// What the section says, for these addresses, or why it cannot be done.
    pub fn of(settings: &settings::Bgp, addresses: &[VirtualAddress]) -> Result<Config, String> {
        let announced: Vec<&VirtualAddress> =
            addresses.iter().filter(|address| address.bgp && address.interface.is_some()).collect();
        if announced.is_empty() {
            return Err("announce an address by BGP: none is on an interface; add vip.addresses".to_owned());
        }
        let hold = whole_seconds(settings.hold_time)?;
        let others: Vec<&VirtualAddress> =
            announced.iter().copied().filter(|address| address.role != Role::Primary.to_string()).collect();
        if let Some(other) = others.first()
            && hold > longest_hold(vip::LEAST_CLAIM)
        {
            return Err(format!(
                "announce {} by BGP: its claim in etcd ends after {:?}, and a neighbour could keep the route for {:?}; set vip.bgp.hold_time to at most {}s",
                other.ip,
                vip::LEAST_CLAIM,
                fence::reach(Duration::from_secs(hold.into())),
                longest_hold(vip::LEAST_CLAIM)
            ));
        }
        as_number("vip.bgp.as", settings.asn)?;
        if settings.router_id.is_unspecified() || settings.router_id.is_broadcast() {
            return Err(format!(
                "use {} as vip.bgp.router_id: write an address of this host",
                settings.router_id
            ));
        }
        let listen = settings.listen.iter().map(listening).collect::<Result<Vec<_>, _>>()?.concat();
        let neighbors: Vec<Neighbor> = settings
            .neighbors
            .iter()
            .map(|neighbor| Neighbor::of(neighbor, settings.asn))
            .collect::<Result<_, _>>()?;
        if let Some(waits) = neighbors.iter().find(|neighbor| neighbor.passive && listen.is_empty()) {
            return Err(format!(
                "wait for the BGP neighbour {}: nobody listens; set vip.bgp.listen, or passive to false",
                waits.address
            ));
        }
        for VirtualAddress { ip, .. } in &announced {
            let family = Family::of_address(*ip);
            if !neighbors.iter().any(|neighbor| neighbor.families().contains(&family)) {
                return Err(format!(
                    "announce {ip} by BGP: no neighbour takes addresses of its kind; add one, or give one a next hop of its kind (next_hops)"
                ));
            }
        }
        Ok(Config {
            asn: settings.asn,
            router_id: settings.router_id,
            hold,
            listen,
            med: settings.med,
            communities: communities(&settings.communities)?,
            neighbors,
            addresses: announced.into_iter().map(|address| address.ip).collect(),
        })
    }

    /// The hold time that neighbours are told.
    #[must_use]
    pub fn hold(&self) -> Duration {
        Duration::from_secs(self.hold.into())
    }

    /// What this speaker says to a neighbour, and expects of it.
    pub(crate) fn terms(&self, neighbor: &Neighbor) -> Terms {
        let own = Open {
            asn: self.asn,
            hold: self.hold,
            id: self.router_id,
            families: neighbor.families(),
            four_octets: true,
        };
        Terms { own, peer_as: neighbor.asn }
    }
}

impl Neighbor {
    fn of(given: &BgpNeighbor, own_as: u32) -> Result<Neighbor, String> {
        let address = given.address;
        let refuse = |why: &str| format!("speak with the BGP neighbour {address}: {why}");
        let link_local = matches!(address, IpAddr::V6(ip) if ip.is_unicast_link_local());
        let broadcast = matches!(address, IpAddr::V4(ip) if ip.is_broadcast());
        if address.is_unspecified() || address.is_multicast() || broadcast || link_local {
            return Err(refuse("write a unicast address of it that is not link-local"));
        }
        as_number("as", given.asn).map_err(|why| refuse(&format!("it cannot {why}")))?;
        let length = given.password.as_ref().map(|password| password.reveal().len());
        if length.is_some_and(|length| length == 0 || length > LONGEST_PASSWORD) {
            return Err(refuse(&format!(
                "its password has 1 to {LONGEST_PASSWORD} bytes; TCP-MD5 takes no other"
            )));
        }
        if given.local_address.is_some_and(|local| local.is_ipv4() != address.is_ipv4()) {
            return Err(refuse("local_address is of the other kind"));
        }
        let mut next_hops = NextHops::default();
        for hop in &given.next_hops {
            let before = match hop {
                IpAddr::V4(hop) => next_hops.v4.replace(*hop).map(IpAddr::V4),
                IpAddr::V6(hop) => next_hops.v6.replace(*hop).map(IpAddr::V6),
            };
            if before.is_some() {
                return Err(refuse("next_hops has two addresses of one kind; keep one"));
            }
        }
        Ok(Neighbor {
            address,
            port: given.port,
            asn: given.asn,
            password: given.password.clone(),
            ttl_security: given.ttl_security,
            hops: given.hops.max(1),
            passive: given.passive,
            internal: given.asn == own_as,
            local_address: given.local_address,
            next_hops,
        })
    }

    /// Its own kind of addresses, and those with a next hop.
    pub(crate) fn families(&self) -> BTreeSet<Family> {
        let mut families = BTreeSet::from([Family::of_address(self.address)]);
        families.extend(self.next_hops.v4.map(|_| Family::V4));
        families.extend(self.next_hops.v6.map(|_| Family::V6));
        families
    }

    /// Where routes lead on a connection with this end.
    pub(crate) fn hops_from(&self, local: IpAddr) -> NextHops {
        let (v4, v6) = match local.to_canonical() {
            IpAddr::V4(local) => (Some(local), None),
            IpAddr::V6(local) => (None, Some(local)),
        };
        NextHops { v4: self.next_hops.v4.or(v4), v6: self.next_hops.v6.or(v6) }
    }
}

/// The longest hold time, in seconds, under which a neighbour surely forgets within a right that never has less than `least` left.
#[must_use]
pub fn longest_hold(least: Duration) -> u16 {
    let fits = |hold: &u16| fence::reach(Duration::from_secs((*hold).into())) <= least;
    (1..=u16::MAX).take_while(fits).last().unwrap_or(0)
}

fn whole_seconds(hold: Duration) -> Result<u16, String> {
    let range = u64::from(SHORTEST_HOLD)..=LONGEST_HOLD;
    let whole = hold.subsec_nanos() == 0 && range.contains(&hold.as_secs());
    let seconds = u16::try_from(hold.as_secs()).ok().filter(|_| whole);
    seconds.ok_or_else(|| {
        format!(
            "use {hold:?} as vip.bgp.hold_time: write whole seconds from {SHORTEST_HOLD} to {LONGEST_HOLD}"
        )
    })
}

fn as_number(key: &str, asn: u32) -> Result<(), String> {
    if NOT_AN_AS.contains(&asn) { Err(format!("use {asn} as {key}: it is reserved")) } else { Ok(()) }
}

fn listening((host, port): &(String, u16)) -> Result<Vec<SocketAddr>, String> {
    let both = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let ips = match host.trim_matches(['[', ']']) {
        "" | "*" => both.to_vec(),
        host => vec![host.parse().map_err(|_| {
            format!("listen on {host:?}: it is no address; write one, or * for all, in vip.bgp.listen")
        })?],
    };
    Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
}

fn communities(written: &[String]) -> Result<Vec<u32>, String> {
    if written.len() > MAX_COMMUNITIES {
        return Err(format!("use {} communities: at most {MAX_COMMUNITIES} fit", written.len()));
    }
    written.iter().map(|text| community(text.trim())).collect()
}

fn community(text: &str) -> Result<u32, String> {
    let known = match text {
        "no-export" => Some(0xFFFF_FF01),
        "no-advertise" => Some(0xFFFF_FF02),
        "no-export-subconfed" => Some(0xFFFF_FF03),
        _ => text.split_once(':').and_then(|(high, low)| {
            Some(u32::from(high.parse::<u16>().ok()?) << 16 | u32::from(low.parse::<u16>().ok()?))
        }),
    };
    known.ok_or_else(|| {
        format!("use {text:?} as a community: write two numbers up to 65535 like 65000:100, or no-export, no-advertise")
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Config, community, longest_hold};
    use crate::fence::reach;
    use crate::update::Family;
    use settings::{Bgp, BgpNeighbor, Secret, VirtualAddress};
    use std::time::Duration;

    pub(crate) fn neighbor(address: &str) -> BgpNeighbor {
        BgpNeighbor {
            address: address.parse().unwrap(),
            port: 179,
            asn: 65_000,
            password: None,
            ttl_security: false,
            hops: 1,
            passive: false,
            local_address: None,
            next_hops: Vec::new(),
        }
    }

    pub(crate) fn bgp(neighbors: Vec<BgpNeighbor>) -> Bgp {
        Bgp {
            asn: 65_001,
            router_id: "10.0.0.11".parse().unwrap(),
            listen: Vec::new(),
            hold_time: Duration::from_secs(3),
            med: None,
            communities: Vec::new(),
            neighbors,
        }
    }

    pub(crate) fn address(ip: &str, role: &str) -> VirtualAddress {
        VirtualAddress {
            ip: ip.parse().unwrap(),
            prefix_len: None,
            interface: Some("lo".to_owned()),
            role: role.to_owned(),
            routed: false,
            command: Vec::new(),
            timeout: Duration::from_secs(30),
            refresh: Duration::from_secs(60),
            bgp: true,
        }
    }

    fn refused(bgp: &Bgp, addresses: &[VirtualAddress]) -> String {
        Config::of(bgp, addresses).err().unwrap()
    }

    #[test]
    fn a_neighbor_takes_its_own_kind_and_what_it_has_a_next_hop_for() {
        let both = BgpNeighbor { next_hops: vec!["fd00::11".parse().unwrap()], ..neighbor("10.0.0.1") };
        let addresses = [address("192.0.2.7", "primary"), address("fd00::7", "primary")];
        let config = Config::of(&bgp(vec![both]), &addresses).unwrap();
        assert_eq!(config.neighbors[0].families().into_iter().collect::<Vec<_>>(), [Family::V4, Family::V6]);
        assert!(refused(&bgp(vec![neighbor("10.0.0.1")]), &addresses).contains("announce fd00::7 by BGP"));
        let quiet = VirtualAddress { bgp: false, ..address("fd00::7", "primary") };
        let config =
            Config::of(&bgp(vec![neighbor("10.0.0.1")]), &[address("192.0.2.7", "any"), quiet]).unwrap();
        assert_eq!(config.addresses.len(), 1);
    }

    #[test]
    fn a_hold_time_that_nothing_proves_is_refused() {
        let addresses = [address("192.0.2.7", "primary")];
        for (hold, says) in [(2000, "whole seconds from 3"), (3500, "whole seconds"), (61_000, "to 60")] {
            let odd = Bgp { hold_time: Duration::from_millis(hold), ..bgp(vec![neighbor("10.0.0.1")]) };
            assert!(refused(&odd, &addresses).contains(says), "{hold}");
        }
        let nine = Bgp { hold_time: Duration::from_secs(9), ..bgp(vec![neighbor("10.0.0.1")]) };
        assert!(Config::of(&nine, &addresses).is_ok(), "the lease of the lead is longer");
        let why = refused(&nine, &[address("192.0.2.7", "replica")]);
        assert!(why.contains("set vip.bgp.hold_time to at most 3s"), "{why}");
        for least in (5500..60_000).step_by(250).map(Duration::from_millis) {
            let hold = longest_hold(least);
            assert!(reach(Duration::from_secs(hold.into())) <= least);
            assert!(reach(Duration::from_secs(u64::from(hold) + 1)) > least);
        }
        assert_eq!(longest_hold(Duration::from_millis(500)), 0);
    }

    #[test]
    fn what_cannot_be_is_refused_without_the_secret() {
        let addresses = [address("192.0.2.7", "primary")];
        let with = |change: fn(&mut BgpNeighbor)| {
            let mut odd = neighbor("10.0.0.1");
            change(&mut odd);
            refused(&bgp(vec![odd]), &addresses)
        };
        assert!(with(|odd| odd.address = "fe80::1".parse().unwrap()).contains("link-local"));
        assert!(with(|odd| odd.address = "224.0.0.5".parse().unwrap()).contains("unicast"));
        assert!(with(|odd| odd.asn = 23_456).contains("reserved"));
        assert!(with(|odd| odd.passive = true).contains("set vip.bgp.listen"));
        assert!(with(|odd| odd.local_address = "fd00::1".parse().ok()).contains("other kind"));
        let long = with(|odd| odd.password = Some(Secret::new("hush".repeat(21))));
        assert!(long.contains("80 bytes") && !long.contains("hush"), "{long}");
        let twice = |odd: &mut BgpNeighbor| {
            odd.next_hops = vec!["10.0.0.11".parse().unwrap(), "10.0.0.12".parse().unwrap()];
        };
        assert!(with(twice).contains("two addresses of one kind"));
        assert!(refused(&bgp(vec![neighbor("10.0.0.1")]), &[]).contains("add vip.addresses"));
        let own = Bgp { asn: 65_535, ..bgp(vec![neighbor("10.0.0.1")]) };
        assert!(refused(&own, &addresses).contains("reserved"));
        let nowhere = Bgp { listen: vec![("host".to_owned(), 179)], ..bgp(vec![neighbor("10.0.0.1")]) };
        assert!(refused(&nowhere, &addresses).contains("no address"));
    }

    #[test]
    fn communities_are_numbers_or_known_words() {
        assert_eq!(community("65000:100"), Ok(0xFDE8_0064));
        assert_eq!(community("no-export"), Ok(0xFFFF_FF01));
        for odd in ["", "65000", "65536:1", "1:2:3", "export"] {
            assert!(community(odd).is_err(), "{odd}");
        }
    }
}
