//! Where a lab lives: one directory, and one block of addresses.
//!
//! Every host of the lab has an address of its own, so all use the same ports and nothing has to be counted up. On loopback
//! (127.x.y.z) that needs no set-up on Linux; with cables every host is a network namespace, which needs root:
//!
//! ```text
//!   .1 .. .3     etcd members      2379 clients, 2380 peers
//!   .11 .. .19   nodes             5432 PostgreSQL, 8008 REST
//!   .20          the router        5433 5434 5436 5438, 8009 its own page
//!   .21          HAProxy           5433 5434
//!   .99          on loopback nobody; a listener here keeps the block taken while the lab lives
//!   .254         with cables the switch
//! ```

use crate::netns::{Host, Network};
use anyhow::{Context, Result, bail};
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::path::Path;

/// The ports of a lab. When something on this machine listens on all addresses at one of them, all are moved up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    offset: u16,
}

impl Ports {
    #[must_use]
    pub fn etcd_client(self) -> u16 {
        2379 + self.offset
    }
    #[must_use]
    pub fn etcd_peer(self) -> u16 {
        2380 + self.offset
    }
    #[must_use]
    pub fn postgres(self) -> u16 {
        5432 + self.offset
    }
    #[must_use]
    pub fn rest(self) -> u16 {
        8008 + self.offset
    }
    #[must_use]
    pub fn router_rest(self) -> u16 {
        8009 + self.offset
    }
    /// The router's services: writable primary.
    #[must_use]
    pub fn primary(self) -> u16 {
        5433 + self.offset
    }
    #[must_use]
    pub fn replica(self) -> u16 {
        5434 + self.offset
    }
    #[must_use]
    pub fn direct(self) -> u16 {
        5436 + self.offset
    }
    #[must_use]
    pub fn offline(self) -> u16 {
        5438 + self.offset
    }
}

/// A block of addresses that is this lab's until it is dropped.
#[derive(Debug)]
pub struct Block {
    range: [u8; 3],
    pub ports: Ports,
    home: Home,
}

#[derive(Debug)]
enum Home {
    Loopback { _taken: TcpListener },
    Cables(Network),
}

const LOCK_PORT: u16 = 29_432;
const ETCD: u8 = 1;
const NODE: u8 = 11;
const ROUTER: u8 = 20;
const HAPROXY: u8 = 21;

impl Block {
    /// Takes a free block; the first one that is asked for is `127.0.77`, which people can remember.
    pub fn take() -> Result<Block> {
        for third in 77..=u8::MAX {
            let network = [127, 0, third];
            let Ok(taken) = TcpListener::bind((address(network, 99), LOCK_PORT)) else { continue };
            for offset in [0, 10_000, 20_000] {
                let ports = Ports { offset };
                if free(network, ports) {
                    return Ok(Block { range: network, ports, home: Home::Loopback { _taken: taken } });
                }
            }
        }
        bail!(
            "find free loopback addresses: something listens on all addresses at port 5432 and at 15432 and 25432"
        )
    }

    /// A network with a cable to each of so many etcd members and nodes, to the router and to HAProxy.
    pub fn with_cables(etcd: usize, nodes: usize) -> Result<Block> {
        let etcd = (0..etcd).map(|index| ETCD + small(index));
        let nodes = (0..nodes).map(|index| NODE + small(index));
        let numbers: Vec<u8> = etcd.chain(nodes).chain([ROUTER, HAPROXY]).collect();
        let network = Network::create_reachable(&numbers)?;
        Ok(Block { range: network.range, ports: Ports { offset: 0 }, home: Home::Cables(network) })
    }

    /// The network, if there are cables.
    #[must_use]
    pub fn network(&self) -> Option<&Network> {
        match &self.home {
            Home::Loopback { .. } => None,
            Home::Cables(network) => Some(network),
        }
    }

    /// Where whoever has this address runs; `None`: on this machine, as everybody else.
    #[must_use]
    pub fn host(&self, address: Ipv4Addr) -> Option<Host> {
        self.network()?.host(address).cloned()
    }

    /// The addresses that connections come from, as `pg_hba.conf` has them.
    #[must_use]
    pub fn sources(&self) -> String {
        match &self.home {
            Home::Loopback { .. } => "127.0.0.0/8".to_owned(),
            Home::Cables(_) => format!("{}/24", address(self.range, 0)),
        }
    }

    #[must_use]
    pub fn etcd(&self, index: usize) -> Ipv4Addr {
        address(self.range, ETCD + small(index))
    }

    #[must_use]
    pub fn node(&self, index: usize) -> Ipv4Addr {
        address(self.range, NODE + small(index))
    }

    #[must_use]
    pub fn router(&self) -> Ipv4Addr {
        address(self.range, ROUTER)
    }

    #[must_use]
    pub fn haproxy(&self) -> Ipv4Addr {
        address(self.range, HAPROXY)
    }
}

fn small(index: usize) -> u8 {
    u8::try_from(index).unwrap_or(u8::MAX).min(8)
}

fn address(network: [u8; 3], host: u8) -> Ipv4Addr {
    let [a, b, c] = network;
    Ipv4Addr::new(a, b, c, host)
}

/// Whether every port can be bound. Sockets in TIME_WAIT do not hinder: the standard library sets SO_REUSEADDR.
fn free(network: [u8; 3], ports: Ports) -> bool {
    let etcd = (1..=3).flat_map(|host| [(host, ports.etcd_client()), (host, ports.etcd_peer())]);
    let nodes = (11..=13).flat_map(|host| [(host, ports.postgres()), (host, ports.rest())]);
    let router = [ports.primary(), ports.replica(), ports.direct(), ports.offline(), ports.router_rest()];
    let all = etcd.chain(nodes).chain(router.map(|port| (20, port)));
    all.into_iter()
        .all(|(host, port)| TcpListener::bind(SocketAddrV4::new(address(network, host), port)).is_ok())
}

/// A fresh random word, for passwords.
pub(crate) fn secret() -> Result<String> {
    use std::io::Read;
    let mut bytes = [0_u8; 9];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// PostgreSQL's sockets have names of at most 107 bytes; a lab in a deeper directory would fail in the middle.
pub(crate) fn check_depth(base: &Path) -> Result<()> {
    let longest = base.join("n1/run/.s.PGSQL.15432");
    if longest.as_os_str().len() > 100 {
        bail!(
            "use {} for a lab: the path is too long for the names of sockets, choose a shorter one",
            base.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Block, check_depth, secret};
    use std::path::Path;

    #[test]
    fn two_labs_have_different_addresses() {
        let (one, two) = (Block::take().unwrap(), Block::take().unwrap());
        assert_ne!(one.node(0), two.node(0));
        assert_ne!(one.node(0), one.node(1));
        assert_ne!(one.etcd(2), one.router());
    }

    #[test]
    fn a_deep_directory_is_refused_at_once() {
        assert!(check_depth(Path::new("/tmp/baton-demo")).is_ok());
        let error = check_depth(Path::new(&format!("/{}", "x".repeat(120)))).unwrap_err();
        assert!(error.to_string().contains("too long"));
        assert_ne!(secret().unwrap(), secret().unwrap());
    }
}
