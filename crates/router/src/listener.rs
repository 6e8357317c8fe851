//! A port of a service: accepts clients, within limits.

use crate::client::{Client, TOO_MANY_SILENT};
use crate::error::Error;
use crate::events::Event;
use crate::metrics::Held;
use crate::shared::{Service, Shared};
use crate::stream::ClientStream;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
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

/// Accepts clients of the service on a thread of those that serve them, until `stop`.
pub(crate) async fn accept(
    shared: Arc<Shared>,
    service: Arc<Service>,
    (listener, home): (std::net::TcpListener, usize),
    clients: TaskTracker,
    stop: CancellationToken,
) {
    let mut failing = false;
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return Event::AcceptFailed { service: &service.name, why: error.to_string() }.log(),
    };
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                failing = false;
                admit(&shared, &service, (stream, home), peer, &clients);
            }
            Err(error) => {
                if !failing {
                    Event::AcceptFailed { service: &service.name, why: error.to_string() }.log();
                }
                failing = true;
                service.counts.accept_failed.add(1);
                sleep(PAUSE).await;
            }
        }
    }
}

/// Serves the client, if there is a place for it.
fn admit(
    shared: &Arc<Shared>,
    service: &Arc<Service>,
    (stream, home): (TcpStream, usize),
    peer: SocketAddr,
    clients: &TaskTracker,
) {
    service.counts.accepted.add(1);
    let config = shared.config();
    let refuse = |why: String| {
        service.counts.refused.add(1);
        Event::Refused { client: peer, service: &service.name, why }.log();
    };
    let Some(connection) = shared.connections.take(config.max_connections) else {
        return refuse(format!("the router has {} clients, as many as it may", config.max_connections));
    };
    let Some(handshake) = service.handshakes.take(config.handshake.limit) else {
        return refuse(TOO_MANY_SILENT.to_owned());
    };
    let Some(chosen) = shared.workers.choose(home) else { return refuse("no thread serves".to_owned()) };
    let arrived = stream.local_addr().and_then(|local| {
        let stream =
            if chosen.stays { Arrived::Here(stream) } else { Arrived::Elsewhere(stream.into_std()?) };
        Ok((local, stream))
    });
    let Ok((local, stream)) = arrived else { return refuse("it is gone already".to_owned()) };
    let arrival = Arrival { shared: shared.clone(), service: service.clone(), stream, peer, local };
    clients.spawn_on(session(arrival, handshake, (connection, chosen.place)), chosen.runtime);
}

/// A connection and the event loop that it is known to.
enum Arrived {
    Here(TcpStream),
    /// None yet.
    Elsewhere(std::net::TcpStream),
}

/// A client that was let in, on its way to the thread that serves it.
struct Arrival {
    shared: Arc<Shared>,
    service: Arc<Service>,
    stream: Arrived,
    peer: SocketAddr,
    local: SocketAddr,
}

/// The task of one client, and its places among all and on its thread.
async fn session(arrival: Arrival, handshake: Held, places: (Held, Held)) {
    let Arrival { shared, service, stream, peer, local } = arrival;
    let stream = match stream {
        Arrived::Here(stream) => Ok(stream),
        Arrived::Elsewhere(stream) => TcpStream::from_std(stream),
    };
    // Without memory for it there is no session; the client sees its connection end.
    let Ok(stream) = stream.map(ClientStream::Plain) else { return };
    Client { shared, service, cluster: None, stream, peer, local }.serve(handshake).await;
    drop(places);
}

#[cfg(test)]
mod tests {
    use super::{Arrival, Arrived, session};
    use crate::config::{Cluster, Config};
    use crate::shared::Shared;
    use std::net::{IpAddr, Ipv4Addr};
    use tokio::net::{TcpListener, TcpStream};

    /// There are many, and most of them are idle: what logging in takes is not kept. The memory of a task is a multiple of 128 bytes, and a few bytes
    /// more than this were such a step with Rust 1.95.
    #[tokio::test]
    async fn the_task_of_a_session_is_small() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let etcd = etcd::Config {
            endpoints: Vec::new(),
            attempt: std::time::Duration::from_secs(1),
            tls: None,
            auth: None,
        };
        let cluster = Cluster { name: "demo".into(), etcd, keys: etcd::Keys::new("service", "demo") };
        let shared = Shared::new(Config::new(cluster, here)).unwrap();
        let service = shared.service("primary").unwrap();
        let listener = TcpListener::bind((here, 0)).await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (handshake, connection) =
            (service.handshakes.take(1).unwrap(), shared.connections.take(1).unwrap());
        let local = stream.local_addr().unwrap();
        let place = service.open.take(1).unwrap();
        let stream = Arrived::Here(stream);
        let arrival = Arrival { shared, service, stream, peer: local, local };
        let kept = size_of_val(&session(arrival, handshake, (connection, place)));
        assert!(kept <= 1728, "{kept} bytes");
    }
}
