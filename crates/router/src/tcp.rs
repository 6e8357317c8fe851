//! Options of the sockets on both sides: a dead peer is noticed, a small message is sent at once.

#![expect(unsafe_code, reason = "no crate sets SO_RCVLOWAT; the one block says why it is sound")]

use crate::config::Tcp;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::AsRawFd;
use tokio::net::TcpStream;

/// Sets the options.
pub(crate) fn tune(stream: &TcpStream, tcp: &Tcp) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(tcp.keepalive_idle)
        .with_interval(tcp.keepalive_interval)
        .with_retries(tcp.keepalive_probes);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(tcp.user_timeout)
}

/// Who waits to read is woken when so many bytes are there, and at once if they are already. The end of a connection wakes in any case.
pub(crate) fn wake_at(stream: &TcpStream, bytes: i32) -> io::Result<()> {
    let length = size_of::<i32>() as libc::socklen_t;
    let value = (&raw const bytes).cast();
    // SAFETY: the kernel reads `length` bytes from `value`, which is a local integer of that size, and the descriptor is open.
    let set =
        unsafe { libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
