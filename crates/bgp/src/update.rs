//! UPDATE: one address is announced, or withdrawn (RFC 4271, 4.3; IPv6: RFC 4760). Pure; nothing here reads what others announce.

use crate::message;
use crate::open::AS_TRANS;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What is announced: unicast addresses of one of the two kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// By its numbers, when it is one of ours.
    pub(crate) fn of(afi: u16, safi: u8) -> Option<Family> {
        match (afi, safi) {
            (1, 1) => Some(Family::V4),
            (2, 1) => Some(Family::V6),
            _ => None,
        }
    }

    pub(crate) fn of_address(ip: IpAddr) -> Family {
        if ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }

    pub(crate) fn afi(self) -> u16 {
        match self {
            Family::V4 => 1,
            Family::V6 => 2,
        }
    }

    pub(crate) fn safi(self) -> u8 {
        1
    }
}

/// What a route says, beside whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub own_as: u32,
    /// The neighbour is in the same AS.
    pub internal: bool,
    /// AS numbers have four bytes on this session.
    pub four_octets: bool,
    pub med: Option<u32>,
    pub communities: Vec<u32>,
}

/// Where a route leads, by its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct NextHops {
    pub v4: Option<Ipv4Addr>,
    pub v6: Option<Ipv6Addr>,
}

/// "This route is about to go" (RFC 8326): whoever has another one takes it before.
pub(crate) const GRACEFUL_SHUTDOWN: u32 = 0xFFFF_0000;

const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0x40;

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const MP_REACH_NLRI: u8 = 14;
const MP_UNREACH_NLRI: u8 = 15;
const AS4_PATH: u8 = 17;

/// What everybody's is without further settings.
const USUAL_LOCAL_PREF: u32 = 100;

/// The address alone, as it stands in a message: its length in bits and its bytes.
fn prefix(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => [&[32][..], &ip.octets()].concat(),
        IpAddr::V6(ip) => [&[128][..], &ip.octets()].concat(),
    }
}

/// Announces an address; `None` when no next hop of its family is known.
pub(crate) fn announce(
    ip: IpAddr,
    hops: NextHops,
    attributes: &Attributes,
    parting: bool,
) -> Option<Vec<u8>> {
    let mut list = Vec::new();
    put(&mut list, TRANSITIVE, ORIGIN, &[0]);
    path(&mut list, attributes);
    let (next_hop, reach) = match Family::of_address(ip) {
        Family::V4 => (Some(hops.v4?), None),
        Family::V6 => (None, Some(hops.v6?)),
    };
    if let Some(hop) = next_hop {
        put(&mut list, TRANSITIVE, NEXT_HOP, &hop.octets());
    }
    if let Some(med) = attributes.med {
        put(&mut list, OPTIONAL, MULTI_EXIT_DISC, &med.to_be_bytes());
    }
    if attributes.internal {
        let preference = if parting { 0 } else { USUAL_LOCAL_PREF };
        put(&mut list, TRANSITIVE, LOCAL_PREF, &preference.to_be_bytes());
    }
    let communities = attributes.communities.iter().copied().chain(parting.then_some(GRACEFUL_SHUTDOWN));
    let communities: Vec<u8> = communities.flat_map(u32::to_be_bytes).collect();
    if !communities.is_empty() {
        put(&mut list, OPTIONAL | TRANSITIVE, COMMUNITIES, &communities);
    }
    let mut nlri = Vec::new();
    match reach {
        None => nlri = prefix(ip),
        Some(hop) => {
            let mut value = family_bytes(Family::V6);
            value.push(16);
            value.extend(hop.octets());
            value.push(0);
            value.extend(prefix(ip));
            put(&mut list, OPTIONAL, MP_REACH_NLRI, &value);
        }
    }
    Some(update(&[], &list, &nlri))
}

/// Takes an address back.
pub(crate) fn withdraw(ip: IpAddr) -> Vec<u8> {
    match Family::of_address(ip) {
        Family::V4 => update(&prefix(ip), &[], &[]),
        Family::V6 => {
            let mut list = Vec::new();
            let value = [family_bytes(Family::V6), prefix(ip)].concat();
            put(&mut list, OPTIONAL, MP_UNREACH_NLRI, &value);
            update(&[], &list, &[])
        }
    }
}

fn family_bytes(family: Family) -> Vec<u8> {
    let [high, low] = family.afi().to_be_bytes();
    vec![high, low, family.safi()]
}

/// The way to us is us alone; within one AS it is empty.
fn path(list: &mut Vec<u8>, attributes: &Attributes) {
    const SEQUENCE_OF_ONE: [u8; 2] = [2, 1];
    let wide = [&SEQUENCE_OF_ONE[..], &attributes.own_as.to_be_bytes()].concat();
    if attributes.internal {
        put(list, TRANSITIVE, AS_PATH, &[]);
    } else if attributes.four_octets {
        put(list, TRANSITIVE, AS_PATH, &wide);
    } else {
        let short = u16::try_from(attributes.own_as);
        let narrow = [&SEQUENCE_OF_ONE[..], &short.unwrap_or(AS_TRANS).to_be_bytes()].concat();
        put(list, TRANSITIVE, AS_PATH, &narrow);
        if short.is_err() {
            put(list, OPTIONAL | TRANSITIVE, AS4_PATH, &wide);
        }
    }
}

/// One attribute. None of ours is longer than a byte can say, but for the communities of somebody with 64 of them.
fn put(list: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    const EXTENDED: u8 = 0x10;
    match u8::try_from(value.len()) {
        Ok(length) => list.extend([flags, kind, length]),
        Err(_) => {
            list.extend([flags | EXTENDED, kind]);
            list.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    list.extend_from_slice(value);
}

fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let length = |list: &[u8]| u16::try_from(list.len()).unwrap_or(u16::MAX).to_be_bytes();
    let body = [&length(withdrawn)[..], withdrawn, &length(attributes), attributes, nlri].concat();
    message::framed(message::UPDATE, &body)
}

#[cfg(test)]
mod tests {
    use super::{Attributes, GRACEFUL_SHUTDOWN, NextHops, announce, withdraw};
    use crate::message::{Message, Reader};

    const HOPS: NextHops = NextHops {
        v4: Some(std::net::Ipv4Addr::new(10, 0, 0, 11)),
        v6: Some(std::net::Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x11)),
    };

    fn external(four_octets: bool) -> Attributes {
        Attributes {
            own_as: 4_200_000_001,
            internal: false,
            four_octets,
            med: Some(50),
            communities: vec![0xFDE8_0064],
        }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Without marker and length.
    fn body(message: &[u8]) -> String {
        let mut reader = Reader::default();
        reader.feed(message);
        assert_eq!(reader.next(), Ok(Some(Message::Update)));
        hex(&message[18..])
    }

    #[test]
    fn an_address_is_announced_byte_for_byte() {
        let v4 = announce("192.0.2.7".parse().unwrap(), HOPS, &external(true), false).unwrap();
        let origin_path = "400101004002060201fa56ea01";
        let more = "8004040000 0032c00804fde80064".replace(' ', "");
        assert_eq!(
            body(&v4),
            format!("020000 0022 {origin_path}4003040a00000b{more}20c0000207").replace(' ', "")
        );
        let v6 = announce("2001:db8::7".parse().unwrap(), HOPS, &external(true), false).unwrap();
        let reach = "800e2600020110fd000000000000000000000000000011008020010db8000000000000000000000007";
        assert_eq!(body(&v6), format!("0200000044{origin_path}{more}{reach}").replace("0044", "0044"));
    }

    #[test]
    fn it_is_taken_back_byte_for_byte() {
        assert_eq!(body(&withdraw("192.0.2.7".parse().unwrap())), "02000520c00002070000");
        let v6 = "020000 0017 800f140002018020010db8000000000000000000000007".replace(' ', "");
        assert_eq!(body(&withdraw("2001:db8::7".parse().unwrap())), v6);
    }

    #[test]
    fn the_path_fits_the_neighbour() {
        let ip = "192.0.2.7".parse().unwrap();
        let narrow = body(&announce(ip, HOPS, &external(false), false).unwrap());
        assert!(narrow.contains("40020402015ba0") && narrow.contains("c011060201fa56ea01"), "{narrow}");
        let short = Attributes { own_as: 65_001, ..external(false) };
        let short = body(&announce(ip, HOPS, &short, false).unwrap());
        assert!(short.contains("4002040201fde9") && !short.contains("c011"), "{short}");
        let internal = Attributes { internal: true, ..external(true) };
        let inside = body(&announce(ip, HOPS, &internal, false).unwrap());
        assert!(inside.contains("400200") && inside.contains("40050400000064"), "{inside}");
        let leaving = body(&announce(ip, HOPS, &internal, true).unwrap());
        assert!(leaving.contains("40050400000000"), "within an AS the preference says it: {leaving}");
    }

    #[test]
    fn one_that_is_about_to_go_says_so() {
        let ip = "192.0.2.7".parse().unwrap();
        let parting = body(&announce(ip, HOPS, &external(true), true).unwrap());
        assert!(parting.contains("c00808fde80064ffff0000"), "{parting}");
        assert_eq!(GRACEFUL_SHUTDOWN, 65_535 << 16);
        let none = Attributes { communities: Vec::new(), ..external(true) };
        assert!(body(&announce(ip, HOPS, &none, true).unwrap()).contains("c00804ffff0000"));
        assert!(!body(&announce(ip, HOPS, &none, false).unwrap()).contains("c008"));
    }

    #[test]
    fn without_a_next_hop_nothing_is_said_and_many_communities_fit() {
        let v4_only = NextHops { v6: None, ..HOPS };
        assert_eq!(announce("2001:db8::7".parse().unwrap(), v4_only, &external(true), false), None);
        let many = Attributes { communities: vec![1; 64], ..external(true) };
        let long = body(&announce("192.0.2.7".parse().unwrap(), HOPS, &many, true).unwrap());
        assert!(long.contains("d0080104"), "{long}");
    }
}
