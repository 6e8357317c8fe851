//! CancelRequest: a connection of its own that names a session by its key. PostgreSQL ignores a key it does not know,
//! so a request for a session that the router could not read goes to every member the session may be on.

use crate::proxy;
use crate::sessions::Place;
use crate::shared::{Cluster, Service, Shared};
use crate::tcp;
use crate::wire::CancelKey;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long a member may take to carry it out; it answers by closing.
const DONE: Duration = Duration::from_secs(2);

/// Sends the request on, and returns when the members have carried it out: clients wait for that.
pub(crate) async fn forward(
    shared: &Arc<Shared>,
    service: &Service,
    clusters: &[Arc<Cluster>],
    (client, called): (SocketAddr, SocketAddr),
    key: &CancelKey,
    packet: &[u8],
) {
    let mut requests = JoinSet::new();
    // Who wants to be told who the client is wants it of every connection.
    let header = if service.settings().send_proxy { proxy::header(client, called) } else { Vec::new() };
    let packet = [&header, packet].concat();
    let places = clusters.iter().flat_map(|cluster| cluster.sessions.cancel_places(service, key));
    for place in places {
        let (shared, packet) = (shared.clone(), packet.clone());
        requests.spawn(async move {
            let limit = shared.config().backend.connect_timeout + DONE;
            // Nobody waits for more than the end: a member that cannot be reached has nothing to cancel.
            let _: Result<io::Result<()>, _> = timeout(limit, send(&shared, &place, &packet)).await;
        });
    }
    while requests.join_next().await.is_some() {}
}

async fn send(shared: &Shared, place: &Place, packet: &[u8]) -> io::Result<()> {
    let mut stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
    tcp::tune(&stream, &shared.config().tcp)?;
    stream.write_all(packet).await?;
    // PostgreSQL answers nothing: the end is the answer.
    while stream.read(&mut [0; 16]).await? > 0 {}
    Ok(())
}
