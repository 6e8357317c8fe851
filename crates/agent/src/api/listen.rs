//! The address of the REST API.

use crate::error::Error;
use settings::RestApi;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

/// The fewest connections that may wait to be accepted.
const BACKLOG: u32 = 128;

/// Takes the address, so that a busy port is known before anything else begins.
pub(crate) fn bind(rest: &RestApi) -> Result<TcpListener, Error> {
    let in_use = |source| Error::AddressInUse { address: rest.listen.clone(), source };
    let backlog = i32::try_from(rest.request_queue_size.max(BACKLOG)).unwrap_or(i32::MAX);
    if matches!(rest.listen_host.as_str(), "" | "*") {
        // Every address of both families where the kernel has both.
        let both = SocketAddr::from((Ipv6Addr::UNSPECIFIED, rest.listen_port));
        let old = SocketAddr::from((Ipv4Addr::UNSPECIFIED, rest.listen_port));
        return open(both, backlog).or_else(|_| open(old, backlog)).map_err(in_use);
    }
    let found = (rest.listen_host.as_str(), rest.listen_port).to_socket_addrs().map_err(in_use)?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in found {
        match open(address, backlog) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(in_use(last))
}

fn open(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
