//! From a client that said what it wants to an open connection that PostgreSQL has answered on; waiting where there is
//! nothing to connect to.
//!
//! ```text
//!   ┌─► open (choose and enter) ──► connect ──► send the first packet ──► first answer ──► relay
//!   │        │ nobody                  │ refused       │ "starting up", "shutting down", closed; no proof that it takes writes
//!   │        ▼                         ▼               ▼
//!   └─── wait for a change ◄──── a short pause ◄───────┘        a cut at any of these steps: from the beginning
//! ```
//!
//! The answer is kept until it is the client's turn: when it is asked for a password, or is logged in. Until then nothing has reached it, so all
//! of this can be done again unseen, also when a server that stops says so only after it has let the client in.

use crate::config::Role;
use crate::conversation;
use crate::events::Event;
use crate::leash::{Leash, Rein};
use crate::metrics::Held;
use crate::proof::Proof;
use crate::proxy;
use crate::relay;
use crate::sessions::{Opened, Place, Session};
use crate::shared::{Cluster, Service, Shared};
use crate::stream::{ClientStream, ServerStream};
use crate::tcp;
use crate::verdict::NoPrimary;
use crate::wire::{self, Login};
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use types::{NodeName, Term};

/// The most of a first answer that is looked at before the relay takes over.
const ANSWER: usize = 8 * 1024;

/// How long the rest of a greeting is waited for: a server that stops says so at once, and a pooler may let clients in long before it has a
/// server for them.
const REST: Duration = Duration::from_secs(1);

/// With these a server says that it is stopped, has crashed, or takes no connections now: nothing against this client.
const NOT_NOW: [&str; 3] = ["57P01", "57P02", "57P03"];

/// A connection to a member, with its session.
pub(crate) struct Backend {
    pub(crate) stream: ServerStream,
    pub(crate) session: Session,
    pub(crate) place: Arc<Place>,
    /// It is there as the primary, to write.
    pub(crate) to_write: bool,
}

/// What is said to the member first, and what an answer looks like.
#[derive(Clone, Copy)]
pub(crate) enum Ask<'a> {
    /// A startup packet: all until it is the client's turn, except that it is not the time.
    Startup(&'a [u8]),
    /// A request to encrypt: one byte.
    Encryption(&'a [u8]),
    /// The beginning of something that cannot be read here: no answer is awaited.
    Opaque(&'a [u8]),
}

impl Ask<'_> {
    /// What the server says of itself can be read.
    fn is_readable(self) -> bool {
        matches!(self, Ask::Startup(_))
    }

    /// No encryption comes of it: the client goes on in the clear, or has got an error.
    fn is_declined(self, answer: &[u8]) -> bool {
        matches!(self, Ask::Encryption(_)) && !matches!(answer, b"S" | b"G")
    }
}

/// Why a client gets no session.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It waited in vain.
    HeldInVain { why: String },
    /// Too many wait already.
    TooManyWaiting { limit: usize },
    /// The service has all the sessions it may have.
    Full { limit: usize },
    /// The router, or this cluster in it, serves no more.
    Over,
    /// The client went away by itself.
    ClientGone,
}

/// Why one attempt failed.
pub(crate) enum Fault {
    /// The session was cut: its member is no longer the one to connect to.
    Cut,
    /// The member failed.
    Member(String),
    /// Whether it takes writes can be neither seen nor asked.
    Unproven(String),
    ClientGone,
}

/// A client on its way to a member.
pub(crate) struct Wish<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) service: &'a Arc<Service>,
    pub(crate) cluster: &'a Arc<Cluster>,
    pub(crate) client: &'a ClientStream,
    pub(crate) peer: SocketAddr,
    /// The address that the client called.
    pub(crate) local: SocketAddr,
}

/// The place among those who wait; given up when dropped.
struct Waiting {
    _of_all: Held,
    _of_service: Held,
}

impl Wish<'_> {
    /// Brings the client to a member, with the member's first answer.
    pub(crate) async fn reach(&self, ask: Ask<'_>) -> Result<(Backend, Vec<u8>), Refusal> {
        let config = self.shared.config();
        let deadline = Instant::now() + config.hold.timeout;
        let mut routes = self.cluster.sessions.routes();
        let mut failed = Vec::new();
        let mut waiting = None;
        let mut last = None;
        loop {
            routes.borrow_and_update();
            let mut soon = false;
            let why = match self.cluster.sessions.open(self.service, self.peer, &failed) {
                Opened::Over => return Err(Refusal::Over),
                Opened::Full { limit } => return Err(Refusal::Full { limit }),
                Opened::Hold(why) => why.to_string(),
                Opened::Session(session, place, term) => match self.attempt(session, &place, term, ask).await
                {
                    Ok(reached) => return Ok(reached),
                    Err(Fault::ClientGone) => return Err(Refusal::ClientGone),
                    Err(Fault::Cut) => continue,
                    Err(Fault::Member(why)) => {
                        self.failed(&place.member, term, &why);
                        last = Some(why);
                        // The next one is tried at once; the same one after a pause.
                        if !failed.contains(&place.member) {
                            failed.push(place.member.clone());
                            if self.has_other(&failed) {
                                continue;
                            }
                        }
                        String::new()
                    }
                    Err(Fault::Unproven(why)) => {
                        (last, soon) = (Some(why), true);
                        String::new()
                    }
                },
            };
            let (why, again) = if failed.is_empty() && !soon {
                (why, deadline)
            } else {
                failed.clear();
                let pause = Instant::now() + config.backend.retry_pause;
                (last.clone().unwrap_or(why), pause.min(deadline))
            };
            if waiting.is_none() {
                waiting = Some(self.start_waiting(&why)?);
            }
            tokio::select! {
                () = gone(self.client.tcp()) => return Err(Refusal::ClientGone),
                _ = routes.changed() => {}
                () = sleep_until(again) => {}
            }
            if Instant::now() >= deadline {
                return Err(Refusal::HeldInVain { why });
            }
        }
    }

    fn failed(&self, member: &NodeName, term: Option<Term>, why: &str) {
        self.service.counts.connect_failed.add(1);
        let tallied = (self.service.name.clone(), member.clone(), term);
        self.cluster.sessions.count(tallied, |tally| tally.failed += 1);
        Event::Unreachable { service: &self.service.name, member, why: why.to_owned() }.log();
    }

    fn has_other(&self, failed: &[NodeName]) -> bool {
        self.cluster.sessions.has_other(self.service, failed)
    }

    fn start_waiting(&self, why: &str) -> Result<Waiting, Refusal> {
        let limit = self.shared.config().hold.limit;
        let places = (self.shared.waiting.take(limit), self.service.counts.waiting.take(limit));
        let (Some(of_all), Some(of_service)) = places else {
            return Err(Refusal::TooManyWaiting { limit });
        };
        self.service.counts.held.add(1);
        Event::Held { client: self.peer, service: &self.service.name, why: why.to_owned() }.log();
        Ok(Waiting { _of_all: of_all, _of_service: of_service })
    }

    async fn attempt(
        &self,
        session: Session,
        place: &Arc<Place>,
        term: Option<Term>,
        ask: Ask<'_>,
    ) -> Result<(Backend, Vec<u8>), Fault> {
        let leash = session.leash.clone();
        let mute = self.cluster.proof.is_mute();
        let asked =
            term.filter(|_| (mute || !ask.is_readable()) && self.service.settings().role == Role::Primary);
        if let Some(term) = asked {
            self.prove(&leash, term, Proof::is_to_be_had).await?;
        }
        let connected = tokio::select! {
            biased;
            // Held before it has begun is as good as cut: another attempt waits for the next primary.
            () = leash.pulled(Rein::Free) => return Err(Fault::Cut),
            () = gone(self.client.tcp()) => return Err(Fault::ClientGone),
            connected = connect(place, self.shared) => connected.map_err(Fault::Member)?,
        };
        session.connected(connected.local_addr().ok());
        let to_write = term.is_some();
        let stream = ServerStream::new(connected);
        let mut backend = Backend { stream, session, place: place.clone(), to_write };
        if self.service.settings().send_proxy {
            let header = proxy::header(self.peer, self.local);
            backend.stream.write_all(&header).await.map_err(|error| Fault::Member(error.to_string()))?;
        }
        let answer = self.ask(&mut backend, ask).await?;
        if to_write && matches!(ask, Ask::Startup(_)) && conversation::comes_from_standby(&answer) {
            return Err(Fault::Member(format!("{} runs as a standby and takes no writes", place.member)));
        }
        if let Some(term) = asked.filter(|_| mute || !ask.is_declined(&answer)) {
            tokio::select! {
                biased;
                // One that ends meanwhile is no proof of anything, and nothing has reached the client yet.
                () = gone(backend.stream.tcp()) => {
                    return Err(Fault::Member(format!("{} closed the connection", place.member)));
                }
                proven = self.prove(&leash, term, Proof::after_now) => proven?,
            }
        }
        Ok((backend, answer))
    }

    /// Waits for the word of the leader's agent that its PostgreSQL takes writes.
    async fn prove(
        &self,
        leash: &Leash,
        term: Term,
        question: impl AsyncFnOnce(&Proof, &http::Client, &str, Term) -> Result<(), String>,
    ) -> Result<(), Fault> {
        let truth = self.cluster.sessions.truth();
        let Some((leader, url)) = truth.leader.as_ref().zip(truth.leader_api.as_ref()) else {
            return Err(Fault::Unproven(NoPrimary::NoLeader.to_string()));
        };
        let config = self.shared.config();
        tokio::select! {
            biased;
            () = leash.pulled(Rein::Free) => Err(Fault::Cut),
            () = gone(self.client.tcp()) => Err(Fault::ClientGone),
            answer = question(&self.cluster.proof, &config.agents, url, term) => answer.map_err(|why| {
                Fault::Unproven(format!(
                    "whether leader {leader} takes writes cannot be seen here, and nobody says so: {why}"
                ))
            }),
        }
    }

    /// Sends the first packet and waits for the answer; on a fault the connection is of no more use.
    pub(crate) async fn ask(&self, backend: &mut Backend, ask: Ask<'_>) -> Result<Vec<u8>, Fault> {
        let Backend { stream, session, place, .. } = backend;
        let member = &place.member;
        let limit = self.shared.config().backend.answer_timeout;
        let answer = tokio::select! {
            biased;
            () = session.leash.pulled(Rein::Free) => Err(Fault::Cut),
            () = gone(self.client.tcp()) => Err(Fault::ClientGone),
            answer = exchange(stream, ask, limit) => {
                answer.map_err(|why| Fault::Member(format!("{member}: {why}")))
            }
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
    let config = shared.config();
    let limit = config.backend.connect_timeout;
    let stream = match timeout(limit, TcpStream::connect((host.as_str(), *port))).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(format!("{member} at {host}:{port}: {error}")),
        Err(_) => {
            return Err(format!("{member} at {host}:{port} did not answer within {} ms", limit.as_millis()));
        }
    };
    tcp::tune(&stream, &config.tcp).map_err(|error| format!("{member} at {host}:{port}: {error}"))?;
    Ok(stream)
}

async fn exchange(stream: &mut ServerStream, ask: Ask<'_>, limit: Duration) -> Result<Vec<u8>, String> {
    let (packet, most) = match ask {
        Ask::Startup(packet) => (packet, ANSWER),
        Ask::Encryption(packet) => (packet, 1),
        Ask::Opaque(packet) => (packet, 0),
    };
    let mut until = Instant::now() + limit;
    let late = |_| format!("did not answer within {} s", limit.as_secs());
    let written = timeout_at(until, stream.write_all(packet)).await.map_err(late)?;
    written.map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    if most == 0 {
        return Ok(answer);
    }
    let mut part = vec![0; most];
    loop {
        let count = match timeout_at(until, stream.read(&mut part)).await {
            Ok(read) => read.map_err(|error| error.to_string())?,
            Err(_) if !answer.is_empty() => return Ok(answer),
            Err(elapsed) => return Err(late(elapsed)),
        };
        if count == 0 {
            return Err("closed the connection without an answer".to_owned());
        }
        if answer.is_empty() {
            until = Instant::now() + REST;
        }
        answer.extend_from_slice(part.get(..count).unwrap_or_default());
        let Ask::Startup(_) = ask else { return Ok(answer) };
        match wire::login(&answer) {
            Login::Begun => {}
            Login::Refused(sqlstate) if NOT_NOW.contains(&sqlstate) => {
                return Err(format!("PostgreSQL takes no connections at the moment ({sqlstate})"));
            }
            Login::Refused(_) | Login::Clients => return Ok(answer),
        }
    }
}

/// Ends when the other side has gone away. One that has sent what nobody has read yet cannot be watched like that.
async fn gone(side: Option<&TcpStream>) {
    let Some(tcp) = side else { return };
    match tcp.peek(&mut [0; 1]).await {
        Ok(0) | Err(_) => {}
        Ok(_) => pending().await,
    }
}
