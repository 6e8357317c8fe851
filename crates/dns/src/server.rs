//! The sockets, and TCP: bytes in, the zone's answer out. Read only; what it costs is bounded.

use crate::answer::{Carrier, answer};
use crate::zone::Zone;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

pub(crate) type Current = watch::Receiver<Option<Arc<Zone>>>;

/// So many TCP connections at once; more wait in the kernel.
const CONNECTIONS: usize = 100;
/// A connection on which nothing comes is closed.
const IDLE: Duration = Duration::from_secs(10);
/// After an error that concerns the socket, and not one question.
pub(crate) const PAUSE: Duration = Duration::from_millis(100);

/// Questions that were answered, and what was told elsewhere.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub udp: AtomicU64,
    pub tcp: AtomicU64,
    pub updates: AtomicU64,
    pub update_failures: AtomicU64,
    pub file_failures: AtomicU64,
}

/// Both sockets of one address.
pub(crate) struct Sockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
}

impl Sockets {
    pub(crate) async fn bind(address: SocketAddr) -> std::io::Result<Sockets> {
        let tcp = TcpListener::bind(address).await?;
        // With port 0 both get the same.
        let udp = UdpSocket::bind(tcp.local_addr()?).await?;
        Ok(Sockets { udp, tcp })
    }
}

/// Answers by TCP.
pub(crate) async fn serve_tcp(listener: TcpListener, zone: Current, counts: Arc<Counts>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "failed to accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (zone, counts) = (zone.clone(), counts.clone());
        tokio::spawn(async move {
            // That the other side goes away is no news.
            let _: std::io::Result<()> = converse(stream, &zone, &counts).await;
            drop(place);
        });
    }
}

async fn converse(mut stream: TcpStream, zone: &Current, counts: &Counts) -> std::io::Result<()> {
    loop {
        let question = timeout(IDLE, frame(&mut stream)).await??;
        let Some(now) = zone.borrow().clone() else { return Ok(()) };
        let Some(reply) = answer(&question, &now, Carrier::Tcp) else { return Ok(()) };
        counts.tcp.fetch_add(1, Ordering::Relaxed);
        timeout(IDLE, stream.write_all(&framed(&reply))).await??;
    }
}

/// One message with its length before it.
pub(crate) async fn frame(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}
