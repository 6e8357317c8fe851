//! Why a router does not start, or ends.

use std::net::SocketAddr;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has the address: an exit code of its own.
    #[error(
        "listen on {address} for service {service:?}: the address is in use; stop the process that has it \
         (`ss -ltnp` shows it) or give the service another port"
    )]
    AddressInUse { service: String, address: SocketAddr },
    /// The address cannot be had: not of this host, or not allowed.
    #[error(
        "listen on {address} for service {service:?}: {why}; use an address of this host and a port you may use"
    )]
    Listen { service: String, address: SocketAddr, why: std::io::Error },
    /// The configuration makes no sense.
    #[error("use the configuration: {0}")]
    Config(String),
    /// The system gives no threads.
    #[error(
        "start the threads that serve clients: {0}; lower router.threads, or raise the limit of processes"
    )]
    Threads(std::io::Error),
    /// io_uring is asked for, and not to be had.
    #[error("open an io_uring: {0}; or set router.io to auto, which serves all by epoll where there is none")]
    NoCarrier(String),
    /// Started as a successor, and there is nothing to succeed to.
    #[error("take over the sockets of the router that runs here: {0}; start the router without it")]
    NotInherited(std::io::Error),
    /// Whoever took over is gone: only a new start opens the ports again.
    #[error(
        "go on serving: the process that took over has ended ({0}), and nobody listens; start the router again"
    )]
    SuccessorEnded(std::process::ExitStatus),
    /// The watch of etcd ended without being told to.
    #[error("watch etcd: the watch ended; restart the router")]
    WatchEnded,
}
