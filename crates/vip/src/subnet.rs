//! Whether an address belongs on an interface. Pure.
//!
//! ```text
//!   an interface with neighbours (Ethernet)     in the network of an address that is there; if a length is written, that network's
//!   one without (lo, dummy, a tunnel)           alone in its subnet: nobody can ask there who has it, and routes lead to it
//!   routed: true                                anywhere
//! ```
//! An address of another network is answered by nobody: neighbours do not ask for it, and their router does not send it here.

use crate::address::Wanted;
use std::fmt;
use std::net::IpAddr;

/// An address that an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct There {
    pub ip: IpAddr,
    /// An address of its network: its own, or that of the other end.
    pub network: IpAddr,
    pub prefix_len: u8,
    /// The kernel was told no end of it.
    pub forever: bool,
}

/// Why an address does not belong there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// In none of these networks.
    Outside { networks: Vec<There> },
    /// In this network, which has another length.
    Length { network: There },
    /// Not alone, where there are no neighbours.
    NotAlone,
}

/// What is wrong with `wanted` on an interface with these addresses; `own` are all virtual ones, which justify nothing.
#[must_use]
pub(crate) fn misfit(wanted: &Wanted, neighbours: bool, there: &[There], own: &[IpAddr]) -> Option<Misfit> {
    if wanted.routed {
        return None;
    }
    let alone = wanted.prefix_len == length(wanted.ip);
    if !neighbours {
        return (!alone).then_some(Misfit::NotAlone);
    }
    let family = |address: &&There| address.ip.is_ipv4() == wanted.ip.is_ipv4() && !own.contains(&address.ip);
    let networks: Vec<There> = there.iter().filter(family).copied().collect();
    let around = || networks.iter().filter(|network| contains(network, wanted.ip));
    match around().next().copied() {
        None => Some(Misfit::Outside { networks }),
        Some(_) if alone || around().any(|network| network.prefix_len == wanted.prefix_len) => None,
        Some(network) => Some(Misfit::Length { network }),
    }
}

fn length(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn contains(there: &There, ip: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    let rest = u32::from(length(ip).saturating_sub(there.prefix_len));
    let network = |ip: IpAddr| bits(ip).checked_shr(rest).unwrap_or_default();
    network(there.network) == network(ip)
}

impl fmt::Display for There {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix_len)
    }
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Misfit::Outside { networks } if networks.is_empty() => f.write_str(
                "the interface has no address of this kind, so no neighbour would ask there for it",
            ),
            Misfit::Outside { networks } => {
                let list: Vec<String> = networks.iter().map(ToString::to_string).collect();
                write!(f, "it is in no network of the interface, which has {}", list.join(", "))
            }
            Misfit::Length { network } => {
                write!(
                    f,
                    "its length is not that of the network there, {network}; leave it out, or write /{}",
                    network.prefix_len
                )
            }
            Misfit::NotAlone => {
                f.write_str("the interface has no neighbours; write the address without a length")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Misfit, There, misfit};
    use crate::address::{Role, Wanted};
    use std::net::IpAddr;

    fn there(text: &str) -> There {
        let (ip, length) = text.split_once('/').unwrap();
        let ip: IpAddr = ip.parse().unwrap();
        There { ip, network: ip, prefix_len: length.parse().unwrap(), forever: true }
    }

    fn wanted(text: &str) -> Wanted {
        let (ip, length) = text.split_once('/').map_or((text, None), |(ip, length)| (ip, Some(length)));
        let length = length.map(|length| length.parse().unwrap());
        Wanted::new(ip.parse().unwrap(), length, "eth0", Role::Primary).unwrap()
    }

    /// On an Ethernet that has an address in each of three networks, and a virtual one that an earlier run left.
    fn on_ethernet(text: &str) -> Option<String> {
        let all = ["10.0.0.11/24", "172.16.0.1/20", "fd00::11/64", "192.0.2.9/24"].map(there);
        misfit(&wanted(text), true, &all, &["192.0.2.9".parse().unwrap()]).map(|why| why.to_string())
    }

    #[test]
    fn an_address_must_be_in_a_network_that_is_there() {
        for fits in ["10.0.0.5", "10.0.0.5/24", "172.16.15.9", "172.16.15.9/20", "fd00::5", "fd00::5/64"] {
            assert_eq!(on_ethernet(fits), None, "{fits}");
        }
        for (outside, says) in [
            ("10.0.1.5", "it is in no network of the interface, which has 10.0.0.11/24, 172.16.0.1/20"),
            ("172.16.16.1/20", "in no network"),
            ("fd01::5", "which has fd00::11/64"),
            (
                "10.0.0.5/16",
                "its length is not that of the network there, 10.0.0.11/24; leave it out, or write /24",
            ),
            ("10.0.0.5/25", "write /24"),
            // What is there is the address itself, left over from somebody.
            ("192.0.2.9/24", "in no network"),
        ] {
            let why = on_ethernet(outside).unwrap();
            assert!(why.contains(says), "{outside}: {why}");
        }
        let nothing = misfit(&wanted("10.0.0.5"), true, &[there("fd00::11/64")], &[]);
        assert_eq!(nothing, Some(Misfit::Outside { networks: Vec::new() }));
        let whole = misfit(&wanted("10.0.0.5"), true, &[there("1.2.3.4/0")], &[]);
        assert_eq!(whole, None, "a network of everything");
    }

    #[test]
    fn where_nobody_asks_it_stands_alone_and_with_a_word_it_goes_anywhere() {
        assert_eq!(misfit(&wanted("10.9.9.9"), false, &[there("127.0.0.1/8")], &[]), None);
        assert_eq!(misfit(&wanted("10.9.9.9/24"), false, &[], &[]), Some(Misfit::NotAlone));
        let routed = Wanted { routed: true, ..wanted("10.9.9.9/24") };
        assert_eq!(misfit(&routed, true, &[there("10.0.0.11/24")], &[]), None);
    }
}
