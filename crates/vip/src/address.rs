//! One virtual address, as configured.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// An address, where it goes, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    pub ip: IpAddr,
    pub prefix_len: u8,
    pub interface: String,
    pub role: Role,
    /// Routes lead to it, so it need not be in a network of its interface.
    pub routed: bool,
    /// How often neighbours are told again where it is.
    pub refresh: Duration,
}

/// Which member holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// The primary, while it accepts writes.
    Primary,
    /// One of the replicas.
    Replica,
    /// One of the standbys that commits wait for.
    Sync,
    /// Any member whose PostgreSQL answers.
    Any,
}

/// Why an address cannot be used as it is written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("understand {0:?} as a role: write primary, replica, sync or any")]
    Role(String),
    #[error("use {0}: it is no address that one host can have")]
    Address(IpAddr),
    #[error("use /{prefix_len} with {ip}: at most /{most}")]
    Prefix { ip: IpAddr, prefix_len: u8, most: u8 },
    #[error("use the interface {0:?}: a name has 1 to 15 letters, without spaces and slashes")]
    Interface(String),
}

/// Unless somebody wants it otherwise.
const REFRESH: Duration = Duration::from_secs(60);
/// `IFNAMSIZ` without its end.
const LONGEST_NAME: usize = 15;

impl Wanted {
    /// An address that can be held, or why not. Without a prefix length the address is alone in its subnet, so that no other
    /// address of the interface can depend on it.
    pub fn new(ip: IpAddr, prefix_len: Option<u8>, interface: &str, role: Role) -> Result<Wanted, Unusable> {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(most);
        let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
        if ip.is_unspecified() || ip.is_multicast() || ip.is_loopback() || broadcast {
            return Err(Unusable::Address(ip));
        }
        if prefix_len > most || prefix_len == 0 {
            return Err(Unusable::Prefix { ip, prefix_len, most });
        }
        let odd = |letter: char| letter == '/' || letter.is_whitespace();
        if interface.is_empty() || interface.len() > LONGEST_NAME || interface.contains(odd) {
            return Err(Unusable::Interface(interface.to_owned()));
        }
        Ok(Wanted { ip, prefix_len, interface: interface.to_owned(), role, routed: false, refresh: REFRESH })
    }
}

impl Role {
    /// The role that a word means.
    pub fn of(word: &str) -> Result<Role, Unusable> {
        let roles = [Role::Primary, Role::Replica, Role::Sync, Role::Any];
        let found = roles.into_iter().find(|role| role.to_string() == word);
        found.ok_or_else(|| Unusable::Role(word.to_owned()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Primary => "primary",
            Role::Replica => "replica",
            Role::Sync => "sync",
            Role::Any => "any",
        })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} on {}", self.ip, self.prefix_len, self.interface)
    }
}

#[cfg(test)]
mod tests {
    use super::{Role, Unusable, Wanted};

    fn wanted(ip: &str, prefix_len: Option<u8>, interface: &str) -> Result<String, String> {
        let wanted = Wanted::new(ip.parse().unwrap(), prefix_len, interface, Role::Primary);
        wanted.map(|wanted| wanted.to_string()).map_err(|why| why.to_string())
    }

    #[test]
    fn an_address_stands_alone_unless_told_otherwise() {
        assert_eq!(wanted("10.1.2.3", None, "eth0").unwrap(), "10.1.2.3/32 on eth0");
        assert_eq!(wanted("10.1.2.3", Some(24), "eth0").unwrap(), "10.1.2.3/24 on eth0");
        assert_eq!(wanted("fd00::5", None, "bond0.12").unwrap(), "fd00::5/128 on bond0.12");
    }

    #[test]
    fn what_cannot_be_held_is_refused_with_a_word() {
        for (ip, prefix, interface) in [
            ("0.0.0.0", None, "eth0"),
            ("127.0.0.1", None, "eth0"),
            ("224.0.0.1", None, "eth0"),
            ("255.255.255.255", None, "eth0"),
            ("::1", None, "eth0"),
            ("10.1.2.3", Some(33), "eth0"),
            ("10.1.2.3", Some(0), "eth0"),
            ("10.1.2.3", None, ""),
            ("10.1.2.3", None, "a name with spaces"),
        ] {
            assert!(wanted(ip, prefix, interface).is_err(), "{ip}/{prefix:?} on {interface}");
        }
        assert_eq!(Role::of("sync"), Ok(Role::Sync));
        assert_eq!(Role::of("master"), Err(Unusable::Role("master".to_owned())));
    }
}
