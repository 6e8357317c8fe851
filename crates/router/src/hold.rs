//! From a client that said what it wants to an open connection that PostgreSQL has answered on; waiting where there is
//! nothing to connect to.
//!
//! ```text
//!   ┌─► open (choose and enter) ──► connect ──► send the first packet ──► first answer ──► relay
//!   │        │ nobody                  │ refused       │ "starting up", "shutting down", closed
//!   │        ▼                         ▼               ▼
//!   └─── wait for a change ◄──── a short pause ◄───────┘        a cut at any of these steps: from the beginning
//! ```
//!
//! Until the first answer nothing has reached the client, so all of this can be done again unseen.

use crate::config::Service;
use crate::events::Event;
use crate::relay;
use crate::sessions::{Opened, Place, Session};
use crate::shared::Shared;
use crate::tcp;
use crate::wire;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until, timeout};
use types::NodeName;

/// The most of a first answer that is looked at before the relay takes over.
const ANSWER: usize = 8 * 1024;

/// PostgreSQL says that it cannot take connections now, but could later.
const CANNOT_CONNECT_NOW: &str = "57P03";

/// A connection to a member, with its session.
pub(crate) struct Backend {
    pub(crate) stream: TcpStream,
    pub(crate) session: Session,
    pub(crate) member: NodeName,
}

/// What is said to the member first, and what an answer looks like.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    /// A startup packet: any message, except that it is not the time.
    Startup(&'a [u8]),
    /// A request to encrypt: one byte.
    Encryption(&'a [u8]),
    /// The beginning of something that cannot be read here: no answer is awaited.
    Opaque(&'a [u8]),
}

/// Why a client gets no session.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It waited in vain.
    HeldInVain {
        why: String,
    },
    /// Too many wait already.
    TooManyWaiting {
        limit: usize,
    },
    /// The service has all the sessions it may have.
    Full {
        limit: usize,
    },
    Stopping,
    /// The client went away by itself.
    ClientGone,
}

/// Why one attempt failed.
pub(crate) enum Fault {
    /// The session was cut: its member is no longer the one to connect to.
    Cut,
    /// The member failed.
    Member(String),
    ClientGone,
}

/// A client on its way to a member.
pub(crate) struct Wish<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) service: usize,
    pub(crate) client: &'a TcpStream,
    pub(crate) peer: SocketAddr,
}

/// The place among those who wait; given up when dropped.
struct Waiting<'a> {
    shared: &'a Shared,
    service: usize,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(counts) = self.shared.counts.get(self.service) {
            counts.waiting.sub(1);
        }
    }
}

impl Wish<'_> {
    /// Brings the client to a member, with the member's first answer.
    pub(crate) async fn reach(&self, ask: Ask<'_>) -> Result<(Backend, Vec<u8>), Refusal> {
        let deadline = Instant::now() + self.shared.config.hold.timeout;
        let mut routes = self.shared.sessions.routes();
        let mut failed = Vec::new();
        let mut waiting = None;
        let mut last = None;
        loop {
            routes.borrow_and_update();
            let why = match self.shared.sessions.open(self.service, self.peer, &failed) {
                Opened::Stopping => return Err(Refusal::Stopping),
                Opened::Full { limit } => return Err(Refusal::Full { limit }),
                Opened::Hold(why) => why.to_string(),
                Opened::Session(session, place) => match self.attempt(session, &place, ask).await {
                    Ok(reached) => return Ok(reached),
                    Err(Fault::ClientGone) => return Err(Refusal::ClientGone),
                    Err(Fault::Cut) => continue,
                    Err(Fault::Member(why)) => {
                        self.failed(&place.member, &why);
                        last = Some(why);
                        // The next one is tried at once; the same one after a pause.
                        if !failed.contains(&place.member) {
                            failed.push(place.member);
                            if self.has_other(&failed) {
                                continue;
                            }
                        }
                        String::new()
                    }
                },
            };
            let (why, again) = if failed.is_empty() {
                (why, deadline)
            } else {
                failed.clear();
                let pause = Instant::now() + self.shared.config.backend.retry_pause;
                (last.clone().unwrap_or(why), pause.min(deadline))
            };
            if waiting.is_none() {
                waiting = Some(self.start_waiting(&why)?);
            }
            tokio::select! {
                () = gone(self.client) => return Err(Refusal::ClientGone),
                _ = routes.changed() => {}
                () = sleep_until(again) => {}
            }
            if Instant::now() >= deadline {
                return Err(Refusal::HeldInVain { why });
            }
        }
    }

    fn failed(&self, member: &NodeName, why: &str) {
        if let Some(counts) = self.shared.counts.get(self.service) {
            counts.connect_failed.add(1);
        }
        Event::Unreachable { service: self.name(), member, why: why.to_owned() }.log();
    }

    fn has_other(&self, failed: &[NodeName]) -> bool {
        self.shared.sessions.has_other(self.service, failed)
    }

    fn start_waiting(&self, why: &str) -> Result<Waiting<'_>, Refusal> {
        let Ok(permit) = self.shared.waiting.clone().try_acquire_owned() else {
            return Err(Refusal::TooManyWaiting { limit: self.shared.config.hold.limit });
        };
        if let Some(counts) = self.shared.counts.get(self.service) {
            counts.held.add(1);
            counts.waiting.add(1);
        }
        Event::Held { client: self.peer, service: self.name(), why: why.to_owned() }.log();
        Ok(Waiting { shared: self.shared, service: self.service, _permit: permit })
    }

    fn name(&self) -> &str {
        self.shared.config.services.get(self.service).map_or("", |Service { name, .. }| name)
    }

    async fn attempt(
        &self,
        session: Session,
        place: &Place,
        ask: Ask<'_>,
    ) -> Result<(Backend, Vec<u8>), Fault> {
        let cut = session.cut.clone();
        let connected = tokio::select! {
            biased;
            () = cut.ordered() => return Err(Fault::Cut),
            () = gone(self.client) => return Err(Fault::ClientGone),
            connected = connect(place, self.shared) => connected.map_err(Fault::Member)?,
        };
        session.connected(connected.local_addr().ok());
        let mut backend = Backend { stream: connected, session, member: place.member.clone() };
        let answer = self.ask(&mut backend, ask).await?;
        Ok((backend, answer))
    }

    /// Sends the first packet and waits for the answer; on a fault the connection is of no more use.
    pub(crate) async fn ask(&self, backend: &mut Backend, ask: Ask<'_>) -> Result<Vec<u8>, Fault> {
        let Backend { stream, session, member } = backend;
        let limit = self.shared.config.backend.answer_timeout;
        let answer = tokio::select! {
            biased;
            () = session.cut.ordered() => Err(Fault::Cut),
            () = gone(self.client) => Err(Fault::ClientGone),
            answer = timeout(limit, exchange(stream, ask)) => match answer {
                Ok(answer) => answer.map_err(|why| Fault::Member(format!("{member}: {why}"))),
                Err(_) => Err(Fault::Member(format!("{member} did not answer within {} s", limit.as_secs()))),
            },
        };
        if let Err(Fault::Cut) = answer {
            // Nothing of what was sent may still be delivered.
            let _: std::io::Result<()> = relay::discard_on_close(stream);
        }
        answer
    }
}

async fn connect(place: &Place, shared: &Shared) -> Result<TcpStream, String> {
    let Place { member, host, port } = place;
    let limit = shared.config.backend.connect_timeout;
    let stream = match timeout(limit, TcpStream::connect((host.as_str(), *port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{member} at {host}:{port}: {error}")),
        Err(_) => {
            return Err(format!("{member} at {host}:{port} did not answer within {} ms", limit.as_millis()));
        }
    };
    tcp::tune(&stream, &shared.config.tcp).map_err(|error| format!("{member} at {host}:{port}: {error}"))?;
    Ok(stream)
}

async fn exchange(stream: &mut TcpStream, ask: Ask<'_>) -> Result<Vec<u8>, String> {
    let (packet, most) = match ask {
        Ask::Startup(packet) => (packet, ANSWER),
        Ask::Encryption(packet) => (packet, 1),
        Ask::Opaque(packet) => (packet, 0),
    };
    stream.write_all(packet).await.map_err(|error| error.to_string())?;
    let mut answer = vec![0; most];
    if most > 0 {
        let count = stream.read(&mut answer).await.map_err(|error| error.to_string())?;
        if count == 0 {
            return Err("closed the connection without an answer".to_owned());
        }
        answer.truncate(count);
    }
    let not_now = matches!(ask, Ask::Startup(_)) && wire::sqlstate(&answer) == Some(CANNOT_CONNECT_NOW);
    if not_now {
        return Err("PostgreSQL takes no connections at the moment".to_owned());
    }
    Ok(answer)
}

/// Ends when the client has gone away. A client that sent more than its first packet cannot be watched like that.
async fn gone(client: &TcpStream) {
    match client.peek(&mut [0; 1]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => pending().await,
    }
}
