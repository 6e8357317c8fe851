//! Options of the sockets on both sides: a dead peer is noticed, a small message is sent at once.

use crate::config::Tcp;
use socket2::{SockRef, TcpKeepalive};
use std::io;
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
