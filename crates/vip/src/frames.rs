//! What is said on the wire about who has an address: ARP and neighbour advertisements, written and read. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address of a network card.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
/// Where a frame to all nodes of a link goes (`ff02::1`).
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ICMPV6: u8 = 58;
const NEIGHBOR_ADVERTISEMENT: u8 = 136;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;

/// The frames that announce once that `ip` is at `mac`. For IPv4 both forms: there are switches and hosts that heed only one.
#[must_use]
pub(crate) fn announcement(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(ip) => vec![arp(ARP_REQUEST, ip, mac), arp(ARP_REPLY, ip, mac)],
        IpAddr::V6(ip) => vec![advertisement(ip, mac)],
    }
}

/// Who claims to have an address, if a frame says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub ip: IpAddr,
    pub mac: Mac,
}

/// What a received frame says. Anything that is too short or something else says nothing.
#[must_use]
pub(crate) fn claim(frame: &[u8]) -> Option<Claim> {
    match u16::from_be_bytes(part(frame, 12)?) {
        ETHERTYPE_ARP => {
            let wanted = [0, 1, 8, 0, 6, 4];
            if part::<6>(frame, 14)? != wanted {
                return None;
            }
            let sender = Ipv4Addr::from(part::<4>(frame, 28)?);
            // A probe before an address is used has no sender.
            (!sender.is_unspecified()).then_some(Claim { ip: sender.into(), mac: part(frame, 22)? })
        }
        ETHERTYPE_IPV6 => {
            if part::<1>(frame, 20)? != [ICMPV6] || part::<1>(frame, 54)? != [NEIGHBOR_ADVERTISEMENT] {
                return None;
            }
            let target = Ipv6Addr::from(part::<16>(frame, 62)?);
            let option = part::<2>(frame, 78).filter(|option| *option == [2, 1]);
            let mac = option.and_then(|_| part(frame, 80)).or_else(|| part(frame, 6))?;
            Some(Claim { ip: target.into(), mac })
        }
        _ => None,
    }
}

fn part<const N: usize>(frame: &[u8], at: usize) -> Option<[u8; N]> {
    frame.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    [&to[..], &from, &ethertype.to_be_bytes()].concat()
}

fn arp(operation: u16, ip: Ipv4Addr, mac: Mac) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, mac, ETHERTYPE_ARP);
    // Ethernet and IPv4, their addresses of 6 and 4 bytes.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&ip.octets());
    frame.extend_from_slice(&BROADCAST);
    frame.extend_from_slice(&ip.octets());
    frame
}

/// Unsolicited, with the flag that overrides what is in the caches.
fn advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    const OVERRIDE: [u8; 4] = [0x20, 0, 0, 0];
    const HOP_LIMIT: u8 = 255;
    let mut message = vec![NEIGHBOR_ADVERTISEMENT, 0, 0, 0];
    message.extend_from_slice(&OVERRIDE);
    message.extend_from_slice(&ip.octets());
    // The option with the link-layer address of the target, one unit of eight bytes.
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&mac);
    let sum = checksum(ip, ALL_NODES, &message).to_be_bytes();
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum);
    }
    let length = u16::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let mut frame = ethernet(ALL_NODES_MAC, mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length);
    frame.extend_from_slice(&[ICMPV6, HOP_LIMIT]);
    frame.extend_from_slice(&ip.octets());
    frame.extend_from_slice(&ALL_NODES.octets());
    frame.extend_from_slice(&message);
    frame
}

/// The Internet checksum of an ICMPv6 message with its pseudo-header (RFC 4443 §2.3).
fn checksum(from: Ipv6Addr, to: Ipv6Addr, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let pseudo = [&from.octets()[..], &to.octets(), &length, &[0, 0, 0, ICMPV6]].concat();
    let words = pseudo.chunks(2).chain(message.chunks(2));
    let sum: u32 = words
        .map(|word| match word {
            [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
            [high] => u32::from(u16::from_be_bytes([*high, 0])),
            _ => 0,
        })
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Claim, announcement, checksum, claim};
    use proptest::prelude::{any, prop::collection::vec, proptest};
    use std::net::{IpAddr, Ipv6Addr};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_ipv4_address_is_announced_as_request_and_as_reply() {
        let ip: IpAddr = "10.0.0.5".parse().unwrap();
        let frames = announcement(ip, MAC);
        let operations: Vec<u8> = frames.iter().map(|frame| frame[21]).collect();
        assert_eq!(operations, [1, 2]);
        for frame in &frames {
            assert_eq!(frame.len(), 42);
            assert_eq!(frame[..6], [0xff; 6]);
            assert_eq!((&frame[28..32], &frame[38..42]), (&[10, 0, 0, 5][..], &[10, 0, 0, 5][..]));
            assert_eq!(claim(frame), Some(Claim { ip, mac: MAC }));
        }
    }

    #[test]
    fn an_ipv6_address_is_announced_to_all_nodes_and_overrides() {
        let ip: Ipv6Addr = "fd00::5".parse().unwrap();
        let frames = announcement(ip.into(), MAC);
        let [frame] = frames.as_slice() else { panic!("one frame") };
        assert_eq!(frame.len(), 14 + 40 + 32);
        assert_eq!((frame[20], frame[21], frame[54], frame[58]), (58, 255, 136, 0x20));
        // A message with a right checksum in it sums up to nothing.
        assert_eq!(checksum(ip, "ff02::1".parse().unwrap(), &frame[54..]), 0);
        assert_eq!(claim(frame), Some(Claim { ip: ip.into(), mac: MAC }));
    }

    #[test]
    fn a_probe_claims_nothing() {
        let mut probe = announcement("10.0.0.5".parse().unwrap(), MAC).remove(0);
        probe[28..32].fill(0);
        assert_eq!(claim(&probe), None);
    }

    proptest! {
        #[test]
        fn no_frame_is_too_odd_to_be_read(frame in vec(any::<u8>(), 0..120)) {
            let _ = claim(&frame);
        }

        #[test]
        fn a_cut_frame_claims_nothing(length in 0_usize..42) {
            let frame = announcement("10.0.0.5".parse().unwrap(), MAC).remove(0);
            assert_eq!(claim(&frame[..length.min(31)]), None);
        }
    }
}
