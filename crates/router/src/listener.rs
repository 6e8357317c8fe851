//! A port of a service: accepts clients, within limits.

use crate::client::Client;
use crate::error::Error;
use crate::events::Event;
use crate::shared::Shared;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections the kernel keeps until they are accepted.
const BACKLOG: u32 = 4096;

/// The pause after an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the address, or says which service cannot have it.
pub(crate) fn bind(what: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|why| match why.kind() {
        std::io::ErrorKind::AddrInUse => Error::AddressInUse { service: what.to_owned(), address },
        _ => Error::Listen { service: what.to_owned(), address, why },
    })
}

/// Accepts clients of the service until `stop`.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    service: usize,
    listener: TcpListener,
    handshakes: Arc<Semaphore>,
    clients: TaskTracker,
    stop: CancellationToken,
) {
    let name = shared.config.services.get(service).map_or("", |service| &service.name);
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                if let Some(counts) = shared.counts.get(service) {
                    counts.accepted.add(1);
                }
                let Ok(handshake) = handshakes.clone().try_acquire_owned() else {
                    if let Some(counts) = shared.counts.get(service) {
                        counts.refused.add(1);
                    }
                    let why = "too many connections have not sent a startup packet yet".to_owned();
                    Event::Refused { client: peer, service: name, why }.log();
                    continue;
                };
                let client = Client { shared: shared.clone(), service, stream, peer };
                clients.spawn(client.serve(handshake));
            }
            Err(error) => {
                if !failing {
                    Event::AcceptFailed { service: name, why: error.to_string() }.log();
                }
                failing = true;
                sleep(PAUSE).await;
            }
        }
    }
}
