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
use crate::conversation::Conversation;
use crate::events::Event;
use crate::hello;
use crate::hold::{Ask, Backend, Fault, Refusal, Wish};
use crate::metrics::Held;
use crate::proxy;
use crate::relay::{self, End, Means};
use crate::shared::{Cluster, Service, Shared};
use crate::spin::Spin;
use crate::startup::{self, First, Unacceptable};
use crate::stream::ClientStream;
use crate::tcp;
use crate::wire::fatal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::server::Acceptor;

/// A client asks for GSS encryption, then for TLS, then starts in the clear: never more.
const FIRST_PACKETS: usize = 4;

/// How long a client may take to read the last message.
const FAREWELL: Duration = Duration::from_secs(1);

/// Bytes of a client that are read and dropped after the last message was sent to it.
const FAREWELL_BYTES: usize = 64 * 1024;

/// Said of a client that nobody has a place for.
pub(crate) const TOO_MANY_SILENT: &str = "too many connections have not sent a startup packet yet";

/// The answers to a request to encrypt.
const ENCRYPT: &[u8] = b"S";
const NO_ENCRYPTION: &[u8] = b"N";

pub(crate) struct Client {
    pub(crate) shared: Arc<Shared>,
    pub(crate) service: Arc<Service>,
    /// The cluster that the client asked for by a server name; else it is the service's.
    pub(crate) cluster: Option<Arc<Cluster>>,
    pub(crate) stream: ClientStream,
    /// Who the client is: the other end of the connection, or whom a trusted load balancer names.
    pub(crate) peer: SocketAddr,
    /// The address that was called.
    pub(crate) local: SocketAddr,
}

/// A client that has come to its member.
struct Ready {
    backend: Backend,
    /// What PostgreSQL answered to the startup packet; `None` where nothing can be read.
    answer: Option<Vec<u8>>,
}

impl Client {
    /// Serves the client until it is gone. `handshake` is its place among those that have not said what they want.
    pub(crate) async fn serve(mut self, handshake: Held) {
        // Logging in takes much more memory than a session keeps: it is given back before the session begins.
        let Some(ready) = Box::pin(self.come_in(handshake)).await else { return };
        match ready {
            Ready { backend, answer: Some(answer) } => self.readable_session(backend, answer).await,
            Ready { mut backend, answer: None } => drop(self.relay(&mut backend, None).await),
        }
    }

    /// Brings the client to a member; one that cannot get there is told why.
    async fn come_in(&mut self, handshake: Held) -> Option<Ready> {
        if let Err(error) = self.stream.tcp().map_or(Ok(()), |tcp| tcp::tune(tcp, &self.shared.config().tcp))
        {
            self.refused(error.to_string());
            return None;
        }
        if !self.introduced().await {
            return None;
        }
        let refusal = match self.find_session(handshake).await {
            Ok(ready) => return ready,
            Err(refusal) => refusal,
        };
        let cluster = self.cluster_name();
        let (sqlstate, message) = match refusal {
            Refusal::ClientGone => return None,
            Refusal::HeldInVain { why } => {
                self.service.counts.held_in_vain.add(1);
                let waited = self.shared.config().hold.timeout.as_secs_f64();
                let service = &self.service.name;
                Event::HeldInVain { client: self.peer, service, why: why.clone() }.log();
                ("57P03", format!("no connection within {waited} s: {why} (cluster {cluster:?})"))
            }
            Refusal::TooManyWaiting { limit } => {
                ("57P03", format!("{limit} connections wait for a server already (cluster {cluster:?})"))
            }
            Refusal::Full { limit } => {
                let service = &self.service.name;
                ("53300", format!("too many connections: service {service:?} allows {limit}"))
            }
            Refusal::Over => ("57P01", "the router no longer serves this cluster".to_owned()),
        };
        self.refused(message.clone());
        self.farewell(&fatal(sqlstate, &message, "")).await;
        None
    }

    /// Reads the PROXY header of a trusted load balancer; whether the client can be served.
    async fn introduced(&mut self) -> bool {
        let config = self.shared.config();
        let trusted = config.proxy_from.iter().any(|network| network.contains(self.peer.ip()));
        if !trusted {
            return true;
        }
        let ClientStream::Plain(stream) = &mut self.stream else { return true };
        let header = async {
            let mut first = [0];
            match stream.peek(&mut first).await {
                Ok(1) if first.first() == proxy::SIGNATURE.first() => proxy::read(stream).await,
                Ok(_) | Err(_) => Ok(None),
            }
        };
        match timeout(config.handshake.timeout, header).await {
            Ok(Ok(Some(client))) => self.peer = client,
            Ok(Ok(None)) => {}
            Ok(Err(why)) => {
                self.refused(why.to_string());
                return false;
            }
            Err(_) => {
                self.late("no PROXY header in time".to_owned());
                return false;
            }
        }
        true
    }

    /// The session that the client asks for; `None` when it asked for none, or went away.
    async fn find_session(&mut self, handshake: Held) -> Result<Option<Ready>, Refusal> {
        let settings = self.service.settings();
        let tls = self.service.tls();
        let mut carried = None;
        let mut handshake = Some(handshake);
        for _ in 0..FIRST_PACKETS {
            let Some(first) = self.first_packet(tls.is_some()).await else { return Ok(None) };
            match (first, &tls) {
                (First::Cancel { key, packet }, _) => {
                    drop((carried, handshake));
                    self.service.counts.cancels.add(1);
                    let ends = (self.peer, self.local);
                    cancel::forward(&self.shared, &self.service, &self.clusters(), ends, &key, &packet).await;
                    return Ok(None);
                }
                (First::Startup(packet), _) => {
                    drop(handshake);
                    let (backend, answer) = self.start(carried, &packet).await?;
                    return Ok(Some(self.opened(backend, Some(answer))));
                }
                // GSS does not end here, and names no cluster: the client goes on with TLS or in the clear.
                (First::Encryption(packet), _)
                    if !startup::asks_for_tls(&packet) && (tls.is_some() || !settings.names.is_empty()) =>
                {
                    if self.stream.write_all(NO_ENCRYPTION).await.is_err() {
                        return Ok(None);
                    }
                }
                (First::Encryption(_), Some(tls)) => {
                    let may = matches!(self.stream, ClientStream::Plain(_));
                    let answer = if may { ENCRYPT } else { NO_ENCRYPTION };
                    if self.stream.write_all(answer).await.is_err() {
                        return Ok(None);
                    }
                    if may && !self.decrypt(tls).await {
                        return Ok(None);
                    }
                }
                (First::DirectTls(_), Some(tls)) => {
                    if !self.decrypt(tls).await {
                        return Ok(None);
                    }
                }
                (First::Encryption(packet), None) if !settings.names.is_empty() => {
                    return self.named_session(&packet, &[], handshake).await;
                }
                (First::Encryption(packet), None) => {
                    // It has said what it wants, and may have to wait for it among those who do. When it has to speak again, all
                    // those who waited do at once: they have their time then, and a session's place, but need no other.
                    handshake = None;
                    let (backend, answer) = self.reach(Ask::Encryption(&packet)).await?;
                    if self.stream.write_all(&answer).await.is_err() {
                        return Ok(None);
                    }
                    if answer != NO_ENCRYPTION {
                        return Ok(Some(self.opened(backend, None)));
                    }
                    carried = Some(backend);
                }
                (First::DirectTls(head), None) => {
                    if !settings.names.is_empty() {
                        return self.named_session(&[], &head, handshake).await;
                    }
                    drop(handshake);
                    let (backend, _) = self.reach(Ask::Opaque(&head)).await?;
                    return Ok(Some(self.opened(backend, None)));
                }
            }
        }
        self.refused("it kept asking for encryption".to_owned());
        Ok(None)
    }

    /// The first packet of the client. Where TLS ends here, nothing of a TLS hello is taken yet.
    async fn first_packet(&mut self, ends_tls: bool) -> Option<First> {
        let limits = self.shared.config().handshake;
        let read = async {
            if let (true, ClientStream::Plain(stream)) = (ends_tls, &self.stream) {
                let mut first = [0];
                let count = stream.peek(&mut first).await.map_err(Unacceptable::Closed)?;
                if count == 1 && first == [startup::TLS_HANDSHAKE] {
                    return Ok(First::DirectTls(Vec::new()));
                }
            }
            startup::read(&mut self.stream, limits.packet_bytes).await
        };
        match timeout(limits.timeout, read).await {
            Ok(Ok(first)) => Some(first),
            Ok(Err(why)) => {
                self.refused(why.to_string());
                if let Unacceptable::Protocol(_) = why {
                    self.farewell(&fatal("0A000", &why.to_string(), "")).await;
                }
                None
            }
            Err(_) => {
                self.late(format!("no startup packet within {} s", limits.timeout.as_secs()));
                None
            }
        }
    }

    /// Ends the client's TLS here; whether that went well.
    async fn decrypt(&mut self, tls: &Arc<ServerConfig>) -> bool {
        let limit = self.shared.config().handshake.timeout;
        let ClientStream::Plain(stream) = self.stream.hand_over() else { return false };
        let handshake = async {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            let name = start.client_hello().server_name().map(str::to_ascii_lowercase);
            Ok::<_, std::io::Error>((name, start.into_stream(tls.clone()).await?))
        };
        let why = match timeout(limit, handshake).await {
            Ok(Ok((name, stream))) => {
                self.stream = ClientStream::Tls(Box::new(stream));
                self.asks_for(name.as_deref());
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.late(format!("TLS failed: it took longer than {} s", limit.as_secs()));
                return false;
            }
        };
        self.refused(format!("TLS failed: {why}"));
        false
    }

    /// A session of TLS that is passed on unread, to the cluster whose name its hello asks for. `request` is what asked
    /// for TLS, if anything did, and `begun` what came of the hello.
    async fn named_session(
        &mut self,
        request: &[u8],
        begun: &[u8],
        handshake: Option<Held>,
    ) -> Result<Option<Ready>, Refusal> {
        let limit = self.shared.config().handshake.timeout;
        if !request.is_empty() && self.stream.write_all(ENCRYPT).await.is_err() {
            return Ok(None);
        }
        let (name, raw) = match timeout(limit, hello::read(&mut self.stream, begun)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                self.refused(format!("the TLS hello did not arrive: {error}"));
                return Ok(None);
            }
            Err(_) => {
                self.late(format!("no TLS hello within {} s", limit.as_secs()));
                return Ok(None);
            }
        };
        drop(handshake);
        self.asks_for(name.as_deref());
        let mut backend = if request.is_empty() {
            self.reach(Ask::Opaque(&raw)).await?.0
        } else {
            let (backend, answer) = self.reach(Ask::Encryption(request)).await?;
            if answer != ENCRYPT {
                self.refused(format!(
                    "{} does not offer TLS, which was promised to the client",
                    backend.place.member
                ));
                return Ok(None);
            }
            backend
        };
        if !request.is_empty() && backend.stream.write_all(&raw).await.is_err() {
            return Ok(None);
        }
        drop(raw);
        Ok(Some(self.opened(backend, None)))
    }

    /// The cluster of that name, if the service has one.
    fn asks_for(&mut self, name: Option<&str>) {
        let settings = self.service.settings();
        let named = name.and_then(|name| settings.names.get(name));
        self.cluster = named.and_then(|cluster| self.shared.cluster(Some(cluster)));
    }

    /// The client's cluster; `None` when it is no longer served.
    fn cluster(&self) -> Option<Arc<Cluster>> {
        let of_service = || self.shared.cluster(self.service.settings().cluster.as_deref());
        self.cluster.clone().or_else(of_service)
    }

    fn cluster_name(&self) -> String {
        self.cluster().map(|cluster| cluster.name.clone()).unwrap_or_default()
    }

    /// Every cluster that a session of this service may be in.
    fn clusters(&self) -> Vec<Arc<Cluster>> {
        let settings = self.service.settings();
        let mut names: Vec<&String> = settings.names.values().collect();
        names.sort_unstable();
        names.dedup();
        let named = names.into_iter().filter_map(|name| self.shared.cluster(Some(name)));
        let mut all: Vec<Arc<Cluster>> = self.cluster().into_iter().collect();
        all.extend(named.filter(|cluster| self.cluster().is_none_or(|own| own.name != cluster.name)));
        all
    }

    async fn reach(&self, ask: Ask<'_>) -> Result<(Backend, Vec<u8>), Refusal> {
        let cluster = self.cluster().ok_or(Refusal::Over)?;
        self.wish(&cluster).reach(ask).await
    }

    /// Starts a session: on the connection that refused to encrypt where that still stands, else on a new one.
    async fn start(&self, carried: Option<Backend>, packet: &[u8]) -> Result<(Backend, Vec<u8>), Refusal> {
        let cluster = self.cluster().ok_or(Refusal::Over)?;
        let wish = self.wish(&cluster);
        if let Some(mut backend) = carried {
            match wish.ask(&mut backend, Ask::Startup(packet)).await {
                Ok(answer) => return Ok((backend, answer)),
                Err(Fault::ClientGone) => return Err(Refusal::ClientGone),
                Err(Fault::Cut | Fault::Member(_) | Fault::Unproven(_)) => {}
            }
        }
        wish.reach(Ask::Startup(packet)).await
    }

    async fn readable_session(&mut self, mut backend: Backend, answer: Vec<u8>) {
        let mut talk = Conversation::new();
        talk.server_says(&answer);
        if let Some(key) = talk.take_key() {
            backend.session.has_key(key);
        }
        if backend.to_write && talk.is_with_standby() {
            relay::refuse_standby(&backend.session, &backend.place.member);
        } else if self.stream.write_all(&answer).await.is_err() || self.stream.flush().await.is_err() {
            return;
        }
        drop(answer);
        let end = self.relay(&mut backend, Some(&mut talk)).await;
        let why = backend.session.leash.why().map(ToString::to_string).unwrap_or_default();
        drop(backend);
        if end == (End::Cut { boundary: true }) {
            let message = format!("terminating connection: {why}");
            let message = fatal("57P01", &message, "Connect again to reach the current server.");
            Box::pin(self.farewell(&message)).await;
        }
    }

    async fn relay(&mut self, backend: &mut Backend, talk: Option<&mut Conversation>) -> End {
        let counts = &self.service.counts;
        let Backend { stream: server, session, place, to_write } = backend;
        let spin = Spin::new(self.shared.config().spin, session.id());
        let means = Means {
            to_write: Some(&place.member).filter(|_| *to_write),
            session,
            service: &self.service,
            carrier: self.shared.carrier.as_ref(),
            bulk: &self.shared.bulk,
        };
        let end = relay::relay(&mut self.stream, server, means, talk, spin).await;
        if let End::Cut { .. } = end {
            counts.cut.add(1);
            session.count(|tally| tally.cut += 1);
            // Nothing that the client sent may reach a server whose term is over.
            let _: std::io::Result<()> = relay::discard_on_close(server);
            if let Some(why) = session.leash.why() {
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

    fn wish<'a>(&'a self, cluster: &'a Arc<Cluster>) -> Wish<'a> {
        let Client { shared, service, stream, peer, local, .. } = self;
        Wish { shared, service, cluster, client: stream, peer: *peer, local: *local }
    }

    fn opened(&self, backend: Backend, answer: Option<Vec<u8>>) -> Ready {
        self.service.counts.opened.add(1);
        backend.session.begins();
        Event::Opened {
            client: self.peer,
            service: &self.service.name,
            member: &backend.place.member,
            seen_as: backend.stream.tcp().and_then(|tcp| tcp.local_addr().ok()),
            wanted: self.service.settings().log_connections,
        }
        .log();
        Ready { backend, answer }
    }

    /// It took too long to say what it wants.
    fn late(&self, why: String) {
        self.service.counts.late.add(1);
        self.refused(why);
    }

    fn refused(&self, why: String) {
        self.service.counts.refused.add(1);
        Event::Refused { client: self.peer, service: &self.service.name, why }.log();
    }
}
