//! One client from its first byte to its last.
//!
//! ```text
//!   first packet ─┬─ startup ───────────► reach a member ──► relay, following the server's messages
//!                 ├─ may I encrypt? ────► reach a member ──► its answer ─┬─ yes: relay, unread
//!                 │                                                      └─ no: the next packet, same member
//!                 ├─ TLS at once ───────► reach a member ──► relay, unread
//!                 └─ cancel ────────────► cancel
//! ```

use crate::cancel;
use crate::events::Event;
use crate::hold::{Ask, Backend, Fault, Refusal, Wish};
use crate::metrics::ServiceCounts;
use crate::relay::{self, End};
use crate::sessions::CutReason;
use crate::shared::Shared;
use crate::startup::{self, First, Unacceptable};
use crate::tcp;
use crate::wire::{ServerMessages, fatal};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

/// A client asks for GSS encryption, then for TLS, then starts in the clear: never more.
const FIRST_PACKETS: usize = 4;

/// How long a client may take to read the last message.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a client that are read and dropped after the last message was sent to it.
const FAREWELL_BYTES: usize = 64 * 1024;

/// The answer to a request to encrypt that makes the client go on in the clear.
const NO_ENCRYPTION: &[u8] = b"N";

pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) service: usize,
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
}

impl Client {
    /// Serves the client until it is gone. `handshake` is its place among those that have not said what they want.
    pub(crate) async fn serve(mut self, handshake: OwnedSemaphorePermit) {
        if let Err(error) = tcp::tune(&self.stream, &self.shared.config.tcp) {
            self.refused(error.to_string());
            return;
        }
        let Err(refusal) = self.run(handshake).await else { return };
        let (sqlstate, message) = match refusal {
            Refusal::ClientGone => return,
            Refusal::HeldInVain { why } => {
                self.count(|counts| counts.held_in_vain.add(1));
                let waited = self.shared.config.hold.timeout.as_secs_f64();
                let service = self.name();
                Event::HeldInVain { client: self.peer, service, why: why.clone() }.log();
                (
                    "57P03",
                    format!(
                        "no connection within {waited} s: {why} (cluster {:?})",
                        self.shared.config.cluster
                    ),
                )
            }
            Refusal::TooManyWaiting { limit } => (
                "57P03",
                format!(
                    "{limit} connections wait for a server already (cluster {:?})",
                    self.shared.config.cluster
                ),
            ),
            Refusal::Full { limit } => {
                ("53300", format!("too many connections: service {:?} allows {limit}", self.name()))
            }
            Refusal::Stopping => ("57P01", CutReason::Stopping.to_string()),
        };
        self.refused(message.clone());
        self.farewell(&fatal(sqlstate, &message, "")).await;
    }

    async fn run(&mut self, handshake: OwnedSemaphorePermit) -> Result<(), Refusal> {
        let mut carried = None;
        for _ in 0..FIRST_PACKETS {
            let Some(first) = self.first_packet().await else { return Ok(()) };
            match first {
                First::Cancel { key, packet } => {
                    drop((carried, handshake));
                    self.count(|counts| counts.cancels.add(1));
                    cancel::forward(&self.shared, self.service, &key, &packet).await;
                    return Ok(());
                }
                First::Startup(packet) => {
                    drop(handshake);
                    let (backend, answer) = self.start(carried, &packet).await?;
                    self.opened(&backend);
                    self.readable_session(backend, answer).await;
                    return Ok(());
                }
                First::Encryption(packet) => {
                    let (backend, answer) = self.wish().reach(Ask::Encryption(&packet)).await?;
                    if self.stream.write_all(&answer).await.is_err() {
                        return Ok(());
                    }
                    if answer != NO_ENCRYPTION {
                        drop(handshake);
                        self.opened(&backend);
                        self.opaque_session(backend).await;
                        return Ok(());
                    }
                    carried = Some(backend);
                }
                First::DirectTls(head) => {
                    drop(handshake);
                    let (backend, _) = self.wish().reach(Ask::Opaque(&head)).await?;
                    self.opened(&backend);
                    self.opaque_session(backend).await;
                    return Ok(());
                }
            }
        }
        self.refused("it kept asking for encryption".to_owned());
        Ok(())
    }

    async fn first_packet(&mut self) -> Option<First> {
        let limits = self.shared.config.handshake;
        match timeout(limits.timeout, startup::read(&mut self.stream, limits.packet_bytes)).await {
            Ok(Ok(first)) => Some(first),
            Ok(Err(why)) => {
                self.refused(why.to_string());
                if let Unacceptable::Protocol(_) = why {
                    self.farewell(&fatal("0A000", &why.to_string(), "")).await;
                }
                None
            }
            Err(_) => {
                self.refused(format!("no startup packet within {} s", limits.timeout.as_secs()));
                None
            }
        }
    }

    /// Starts a session: on the connection that refused to encrypt where that still stands, else on a new one.
    async fn start(&self, carried: Option<Backend>, packet: &[u8]) -> Result<(Backend, Vec<u8>), Refusal> {
        let wish = self.wish();
        if let Some(mut backend) = carried {
            match wish.ask(&mut backend, Ask::Startup(packet)).await {
                Ok(answer) => return Ok((backend, answer)),
                Err(Fault::ClientGone) => return Err(Refusal::ClientGone),
                Err(Fault::Cut | Fault::Member(_)) => {}
            }
        }
        wish.reach(Ask::Startup(packet)).await
    }

    async fn readable_session(&mut self, mut backend: Backend, answer: Vec<u8>) {
        let mut messages = ServerMessages::new();
        messages.feed(&answer);
        if let Some(key) = messages.take_key() {
            backend.session.has_key(key);
        }
        if self.stream.write_all(&answer).await.is_err() {
            return;
        }
        drop(answer);
        let end = self.relay(&mut backend, Some(&mut messages)).await;
        let why = backend.session.cut.why().map(ToString::to_string).unwrap_or_default();
        drop(backend);
        if end == (End::Cut { boundary: true }) {
            let message = format!("terminating connection: {why}");
            self.farewell(&fatal("57P01", &message, "Connect again to reach the current server.")).await;
        }
    }

    async fn opaque_session(&mut self, mut backend: Backend) {
        self.relay(&mut backend, None).await;
    }

    async fn relay(&mut self, backend: &mut Backend, messages: Option<&mut ServerMessages>) -> End {
        let Some(counts) = self.shared.counts.get(self.service) else { return End::Over };
        let Backend { stream: server, session, .. } = backend;
        let end = relay::relay(&mut self.stream, server, session, messages, &counts.traffic).await;
        if let End::Cut { .. } = end {
            counts.cut.add(1);
            // Nothing that the client sent may reach a server whose term is over.
            let _: std::io::Result<()> = relay::discard_on_close(server);
            if let Some(why) = session.cut.why() {
                Event::Cut { client: self.peer, why }.log();
            }
        }
        end
    }

    /// The last message and the end; what the client still sends is read for a moment, so that the message arrives.
    async fn farewell(&mut self, message: &[u8]) {
        let last_words = async {
            self.stream.write_all(message).await?;
            self.stream.shutdown().await?;
            let mut rest = vec![0; 4096];
            let mut left = FAREWELL_BYTES;
            while left > 0 {
                match self.stream.read(&mut rest).await? {
                    0 => break,
                    count => left = left.saturating_sub(count),
                }
            }
            Ok::<(), std::io::Error>(())
        };
        // A client that does not listen has missed it: that is all that can fail here.
        let _: Result<_, tokio::time::error::Elapsed> = timeout(FAREWELL, last_words).await;
    }

    fn wish(&self) -> Wish<'_> {
        Wish { shared: &self.shared, service: self.service, client: &self.stream, peer: self.peer }
    }

    fn opened(&self, backend: &Backend) {
        self.count(|counts| counts.opened.add(1));
        Event::Opened { client: self.peer, service: self.name(), member: &backend.member }.log();
    }

    fn refused(&self, why: String) {
        self.count(|counts| counts.refused.add(1));
        Event::Refused { client: self.peer, service: self.name(), why }.log();
    }

    fn count(&self, what: impl Fn(&ServiceCounts)) {
        if let Some(counts) = self.shared.counts.get(self.service) {
            what(counts);
        }
    }

    fn name(&self) -> &str {
        self.shared.config.services.get(self.service).map_or("", |service| &service.name)
    }
}
