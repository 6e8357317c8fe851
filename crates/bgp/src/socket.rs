//! Connections as BGP wants them: signed (TCP-MD5, RFC 2385), from the next hop only (GTSM, RFC 5082), and given up in time.

#![expect(
    unsafe_code,
    reason = "no crate sets TCP_MD5SIG and the least TTL; the one block says why it is sound"
)]

use crate::config::Neighbor;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The longest password that the kernel takes.
pub(crate) const LONGEST_PASSWORD: usize = libc::TCP_MD5SIG_MAXKEYLEN;

/// What a packet has when it comes from a host that is directly connected and sent it with the most.
const MOST: u8 = 255;

/// A socket could not be made as it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Unable {
    #[error("open a TCP socket: {0}")]
    Open(io::Error),
    #[error("sign packets with the password (TCP-MD5): {0}; the kernel needs CONFIG_TCP_MD5SIG")]
    Sign(io::Error),
    #[error("accept packets of near neighbours only (ttl_security): {0}")]
    Near(io::Error),
    #[error("connect from {from}: {why}; correct local_address")]
    From { from: IpAddr, why: io::Error },
    #[error("set the options of the connection: {0}")]
    Options(io::Error),
    #[error("listen for BGP on {on}: {why}{}", port_hint(.why))]
    Listen { on: SocketAddr, why: io::Error },
}

fn port_hint(why: &io::Error) -> &'static str {
    match why.kind() {
        io::ErrorKind::PermissionDenied => "; give the process CAP_NET_BIND_SERVICE, or set another port",
        io::ErrorKind::AddrInUse => "; `ss -ltnp` shows who has it, or set another port",
        _ => "",
    }
}

/// Opens a connection; how long it takes is the caller's to limit.
pub(crate) async fn connect(neighbor: &Neighbor, delivery: Duration) -> Result<TcpStream, Trouble> {
    let to = SocketAddr::new(neighbor.address, neighbor.port);
    let socket = open(neighbor.address).map_err(Unable::Open)?;
    sign(&socket, neighbor)?;
    distance(&socket, neighbor)?;
    deliver(&socket, delivery).map_err(Unable::Options)?;
    if let Some(from) = neighbor.local_address {
        let bound = socket.bind(&SocketAddr::new(from, 0).into());
        bound.map_err(|why| Unable::From { from, why })?;
    }
    let socket = TcpSocket::from_std_stream(socket.into());
    socket.connect(to).await.map_err(Trouble::Connect)
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum Trouble {
    Unable(Unable),
    Connect(io::Error),
}

impl From<Unable> for Trouble {
    fn from(unable: Unable) -> Trouble {
        Trouble::Unable(unable)
    }
}

/// Listens on an address for all neighbours of its kind. A listener without a password for a neighbour hears its signed packets not at all,
/// so each has its own here.
pub(crate) fn listen(on: SocketAddr, neighbors: &[Neighbor]) -> Result<TcpListener, Unable> {
    let failed = |why| Unable::Listen { on, why };
    let socket = open(on.ip()).map_err(Unable::Open)?;
    if on.is_ipv6() {
        // The other kind has a listener of its own.
        socket.set_only_v6(true).map_err(Unable::Options)?;
    }
    for neighbor in neighbors.iter().filter(|neighbor| neighbor.address.is_ipv6() == on.is_ipv6()) {
        sign(&socket, neighbor)?;
    }
    // The answer to a connection comes from here, before anybody knows whose it is; a neighbour that wants it from near gets that.
    send_with(&socket, on.ip(), MOST).map_err(Unable::Near)?;
    socket.set_reuse_address(true).map_err(Unable::Options)?;
    socket.bind(&on.into()).map_err(failed)?;
    socket.listen(16).map_err(failed)?;
    TcpListener::from_std(socket.into()).map_err(failed)
}

/// The same options for a connection that came in.
pub(crate) fn accepted(stream: &TcpStream, neighbor: &Neighbor, delivery: Duration) -> Result<(), Unable> {
    let socket = socket2::SockRef::from(stream);
    distance(&socket, neighbor)?;
    deliver(&socket, delivery).map_err(Unable::Options)
}

fn open(kind: IpAddr) -> io::Result<Socket> {
    let domain = if kind.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn deliver(socket: &Socket, delivery: Duration) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_user_timeout(Some(delivery))
}

/// From now on the kernel gives the connection up when something is not delivered for so long.
pub(crate) fn limit(stream: &TcpStream, delivery: Duration) -> io::Result<()> {
    socket2::SockRef::from(stream).set_tcp_user_timeout(Some(delivery))
}

/// How far the neighbour may be.
fn distance(socket: &Socket, neighbor: &Neighbor) -> Result<(), Unable> {
    if neighbor.ttl_security {
        let least = MOST - neighbor.hops.saturating_sub(1);
        let (level, option) = match neighbor.address {
            IpAddr::V4(_) => (libc::IPPROTO_IP, libc::IP_MINTTL),
            IpAddr::V6(_) => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
        };
        set(socket, level, option, &libc::c_int::from(least)).map_err(Unable::Near)?;
        send_with(socket, neighbor.address, MOST).map_err(Unable::Near)
    } else if neighbor.internal {
        // Within an AS a neighbour is as far away as it likes.
        Ok(())
    } else {
        send_with(socket, neighbor.address, neighbor.hops).map_err(Unable::Options)
    }
}

fn send_with(socket: &Socket, kind: IpAddr, ttl: u8) -> io::Result<()> {
    match kind {
        IpAddr::V4(_) => socket.set_ttl_v4(u32::from(ttl)),
        IpAddr::V6(_) => socket.set_unicast_hops_v6(u32::from(ttl)),
    }
}

/// `struct tcp_md5sig` of linux/tcp.h.
#[repr(C)]
struct Md5Key {
    address: PeerAddress,
    flags: u8,
    prefix_len: u8,
    length: u16,
    interface: libc::c_int,
    key: [u8; LONGEST_PASSWORD],
}

/// `struct sockaddr_storage` with a `sockaddr_in` or `sockaddr_in6` in it, and no port.
#[repr(C, align(8))]
struct PeerAddress {
    family: libc::sa_family_t,
    bytes: [u8; 126],
}

impl PeerAddress {
    fn of(ip: IpAddr) -> PeerAddress {
        // After the port; with IPv6, after the flow label too.
        let (family, at, octets) = match ip {
            IpAddr::V4(ip) => (libc::AF_INET, 2, ip.octets().to_vec()),
            IpAddr::V6(ip) => (libc::AF_INET6, 6, ip.octets().to_vec()),
        };
        let mut address =
            PeerAddress { family: libc::sa_family_t::try_from(family).unwrap_or_default(), bytes: [0; 126] };
        for (to, from) in address.bytes.iter_mut().skip(at).zip(octets) {
            *to = from;
        }
        address
    }
}

/// Everything to and from this neighbour is signed with the password, on a listener too.
fn sign(socket: &Socket, neighbor: &Neighbor) -> Result<(), Unable> {
    let Some(password) = &neighbor.password else { return Ok(()) };
    let password = password.reveal().as_bytes();
    let mut key = Md5Key {
        address: PeerAddress::of(neighbor.address),
        flags: 0,
        prefix_len: 0,
        length: u16::try_from(password.len()).unwrap_or(u16::MAX),
        interface: 0,
        key: [0; LONGEST_PASSWORD],
    };
    for (to, from) in key.key.iter_mut().zip(password) {
        *to = *from;
    }
    set(socket, libc::IPPROTO_TCP, libc::TCP_MD5SIG, &key).map_err(Unable::Sign)
}

/// `setsockopt` with a plain value.
fn set<T>(socket: &Socket, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(libc::socklen_t::MAX);
    // SAFETY: the kernel reads `length` bytes at `value`, which are those of one live T, and keeps no pointer to them.
    let done =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const *value).cast(), length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
