//! The interfaces and addresses of this host, over netlink: no program is started, and CAP_NET_ADMIN is enough.

use crate::address::Wanted;
use crate::frames::Mac;
use crate::subnet::There;
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// Why the kernel did not do it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open a netlink socket: {0}")]
    Open(#[source] io::Error),
    #[error("{what} {address}: {why}; the process needs CAP_NET_ADMIN")]
    NotPermitted { what: &'static str, address: String, why: io::Error },
    #[error("{what} {address}: {why}")]
    Refused { what: &'static str, address: String, why: io::Error },
}

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    /// Interfaces without Ethernet (a tunnel, the loopback) have none, and nothing is announced on them.
    pub mac: Option<Mac>,
    /// Switched on, and something is at the other end.
    pub up: bool,
    /// Others on the same link ask for addresses: it is no loopback and no tunnel.
    pub neighbours: bool,
}

/// The netlink connection; its tasks end with it.
pub(crate) struct Links {
    handle: Handle,
    changed: Arc<Notify>,
    tasks: [JoinHandle<()>; 2],
}

impl Links {
    /// Opens the connection and listens for changes of links and addresses.
    pub(crate) fn open() -> Result<Links, Error> {
        let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
        let (connection, handle, mut messages) = new_multicast_connection(&groups).map_err(Error::Open)?;
        let changed = Arc::new(Notify::new());
        let told = changed.clone();
        // The news are only a reason to look: they are taken off the queue at once, so it cannot grow.
        let listen = async move {
            while messages.next().await.is_some() {
                told.notify_one();
            }
        };
        Ok(Links { handle, changed, tasks: [tokio::spawn(connection), tokio::spawn(listen)] })
    }

    /// Waits until a link or an address has changed since the last wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The interface, if there is one of this name.
    pub(crate) async fn link(&self, name: &str) -> Option<Link> {
        let request = self.handle.link().get().match_name(name.to_owned());
        let message = request.execute().try_next().await.ok().flatten()?;
        Some(link(&message))
    }

    /// The addresses that are on the interface.
    pub(crate) async fn addresses(&self, link: Link) -> Vec<There> {
        let mut all = self.handle.address().get().set_link_index_filter(link.index).execute();
        let mut found = Vec::new();
        while let Ok(Some(message)) = all.try_next().await {
            found.extend(there(&message));
        }
        found
    }

    /// Puts the address on the interface, or gives one that is there a new lifetime.
    pub(crate) async fn install(&self, link: Link, wanted: &Wanted, seconds: u32) -> Result<(), Error> {
        let mut request = self.handle.address().add(link.index, wanted.ip, wanted.prefix_len).replace();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        // An IPv6 address that is not preferred is still served, and never chosen for connections that this host opens.
        lifetime.ifa_preferred = if wanted.ip.is_ipv6() { 0 } else { seconds };
        let attributes = &mut request.message_mut().attributes;
        attributes.push(AddressAttribute::CacheInfo(lifetime));
        // Without the check for duplicates, which takes more than a second: who holds the address is decided elsewhere.
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        request.execute().await.map_err(|error| refused("install", wanted, error))
    }

    /// Takes the address off the interface. One that is not there is no error.
    pub(crate) async fn remove(&self, link: Link, wanted: &Wanted) -> Result<(), Error> {
        let mut all = self.handle.address().get().set_link_index_filter(link.index).execute();
        while let Ok(Some(message)) = all.try_next().await {
            if local(&message) != Some(wanted.ip) {
                continue;
            }
            match self.handle.address().del(message).execute().await {
                Err(error) if errno(&error).kind() == ErrorKind::AddrNotAvailable => {}
                result => result.map_err(|error| refused("remove", wanted, error))?,
            }
        }
        Ok(())
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn link(message: &LinkMessage) -> Link {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => Mac::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let flags = message.header.flags;
    Link {
        index: message.header.index,
        mac: mac.filter(|mac| *mac != Mac::default()),
        up: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
        neighbours: !flags.intersects(LinkFlags::Loopback | LinkFlags::Noarp),
    }
}

/// The host's own address of a message.
fn local(message: &AddressMessage) -> Option<IpAddr> {
    there(message).map(|there| there.ip)
}

/// The address of a message with its network. At one end of a tunnel the own address is `Local`, and `Address` that of the other end.
fn there(message: &AddressMessage) -> Option<There> {
    let find = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(wanted);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = find(|attribute| match attribute {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    let ip = local.or(address)?;
    let lasts = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::CacheInfo(lifetime) => Some(lifetime.ifa_valid),
        _ => None,
    });
    Some(There {
        ip,
        network: address.unwrap_or(ip),
        prefix_len: message.header.prefix_len,
        forever: lasts.is_none_or(|seconds| seconds == u32::MAX),
    })
}

fn refused(what: &'static str, wanted: &Wanted, error: rtnetlink::Error) -> Error {
    let (why, address) = (errno(&error), wanted.to_string());
    match why.kind() {
        ErrorKind::PermissionDenied => Error::NotPermitted { what, address, why },
        _ => Error::Refused { what, address, why },
    }
}

fn errno(error: &rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other.to_string()),
    }
}
