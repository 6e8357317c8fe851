//! The endpoints and which of them is used.
//!
//! ```text
//!   pinned ──answers──▶ stays pinned
//!      │ fails
//!      ▼
//!   the next one in the list is pinned; one that timed out goes to the end of the order for a while
//! ```
//!
//! The client library balances over its endpoints and does not fail over: with one of two frozen, half of the calls
//! would time out. So each endpoint has a client of its own, and this file chooses.

use crate::config::{Config, Credentials, Tls};
use crate::error::Error;
use crate::failure::{Failure, Kind};
use crate::lease::Keeper;
use crate::rounds::{Rounds, Turn};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, ResponseHeader, TlsOptions};
use std::future::Future;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};
use types::Moment;

/// An answer larger than this is not read.
pub(crate) const ANSWER_LIMIT: usize = 32 * 1024 * 1024;

/// An endpoint that timed out is tried last for this many attempts' time.
const SUSPICION: u32 = 4;

pub(crate) struct Endpoints {
    slots: Vec<Slot>,
    pinned: AtomicUsize,
    attempt: Duration,
    tls: Option<Tls>,
    auth: Option<Credentials>,
    known: Mutex<Known>,
}

struct Slot {
    url: String,
    connection: Mutex<Option<Arc<Connection>>>,
    /// A moment in milliseconds; until then this endpoint is tried last.
    suspect_until: AtomicU64,
}

/// A client for one endpoint, and the streams on which it renews leases.
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) keepers: Mutex<Vec<Keeper>>,
}

/// The newest that a majority of etcd has told us.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    cluster: u64,
    raft_term: u64,
    revision: i64,
}

impl Endpoints {
    pub(crate) fn new(config: Config) -> Result<Endpoints, Error> {
        let Config { endpoints, attempt, tls, auth } = config;
        if endpoints.is_empty() {
            return Err(refused(
                "no endpoint is configured; name at least one, such as http://127.0.0.1:2379",
            ));
        }
        if attempt.is_zero() {
            return Err(refused(
                "an attempt of zero length cannot succeed; give it at least some milliseconds",
            ));
        }
        let scheme = if tls.is_some() { "https://" } else { "http://" };
        let mut slots = Vec::new();
        for endpoint in endpoints {
            let url = if endpoint.contains("://") { endpoint } else { format!("{scheme}{endpoint}") };
            if tls.is_some() && !url.starts_with("https://") {
                return Err(refused(format!(
                    "certificates are configured, but {url} does not begin with https://"
                )));
            }
            if !url.starts_with("https://") && !url.starts_with("http://") {
                return Err(refused(format!("{url} does not begin with http:// or https://")));
            }
            slots.push(Slot { url, connection: Mutex::new(None), suspect_until: AtomicU64::new(0) });
        }
        let endpoints =
            Endpoints { slots, pinned: AtomicUsize::new(0), attempt, tls, auth, known: Mutex::default() };
        endpoints.options("https://").map_err(|failure| refused(failure.why))?;
        Ok(endpoints)
    }

    pub(crate) fn attempt_length(&self) -> Duration {
        self.attempt
    }

    /// The certificate files.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn pinned_url(&self) -> &str {
        self.url(self.pinned.load(Ordering::Relaxed))
    }

    pub(crate) fn url(&self, slot: usize) -> &str {
        self.slots.get(slot).map_or("", |slot| slot.url.as_str())
    }

    /// The attempts of one call that must have ended by `by`.
    pub(crate) fn rounds(&self, by: Moment) -> Rounds<'_> {
        Rounds::new(self, by)
    }

    /// One attempt at the pinned endpoint, outside of any round.
    pub(crate) fn pinned_turn(&self) -> Turn {
        Turn {
            slot: self.pinned.load(Ordering::Relaxed),
            allowance: self.attempt,
            known_term: self.known().raft_term,
        }
    }

    /// The newest revision seen: what was written at a later one was written after now.
    pub(crate) fn revision(&self) -> i64 {
        self.known().revision
    }

    pub(crate) fn raft_term(&self) -> u64 {
        self.known().raft_term
    }

    /// The order in which a round tries the endpoints: from the pinned one on, those that timed out lately last.
    pub(crate) fn order(&self) -> Vec<usize> {
        let count = self.slots.len();
        let pinned = self.pinned.load(Ordering::Relaxed);
        let now = clock::now().0;
        let suspect = |at: &usize| {
            self.slots.get(*at).is_some_and(|slot| slot.suspect_until.load(Ordering::Relaxed) > now)
        };
        let (last, mut order): (Vec<usize>, Vec<usize>) =
            (0..count).map(|step| (pinned + step) % count).partition(suspect);
        order.extend(last);
        order
    }

    /// Runs `op` on the connection of this turn's endpoint, for at most the turn's allowance, and learns from it which
    /// endpoint to use next.
    pub(crate) async fn attempt<T, F, Fut>(&self, turn: &Turn, op: F) -> Result<T, Failure>
    where
        F: FnOnce(Arc<Connection>) -> Fut,
        Fut: Future<Output = Result<T, Failure>>,
    {
        let end = Instant::now() + turn.allowance;
        let connection = match timeout_at(end, Box::pin(self.connection(turn.slot))).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(failure)) => {
                self.failed(turn, None, &failure);
                return Err(failure);
            }
            Err(_) => {
                let failure = Failure::timed_out(Kind::NotServed, "no connection", turn.allowance);
                self.timed_out(turn);
                self.failed(turn, None, &failure);
                return Err(failure);
            }
        };
        // On the heap: the client library's futures are large, and every caller's would contain them.
        match timeout_at(end, Box::pin(op(connection.clone()))).await {
            Ok(Ok(done)) => {
                self.pinned.store(turn.slot, Ordering::Relaxed);
                if let Some(slot) = self.slots.get(turn.slot) {
                    slot.suspect_until.store(0, Ordering::Relaxed);
                }
                Ok(done)
            }
            Ok(Err(failure)) => {
                self.failed(turn, Some(&connection), &failure);
                Err(failure)
            }
            Err(_) => {
                let failure = Failure::timed_out(Kind::Lost, "no answer", turn.allowance);
                self.timed_out(turn);
                self.failed(turn, Some(&connection), &failure);
                Err(failure)
            }
        }
    }

    /// Gives up on the endpoint of `turn`: its connection is dropped and another one is pinned.
    pub(crate) fn distrust(&self, turn: &Turn) {
        self.timed_out(turn);
        self.disconnect(turn.slot, None);
        self.unpin(turn.slot);
    }

    /// Takes note of the header of an answer that a majority stands behind. One of an older raft term than was known
    /// when the request was sent comes from a member that was left behind.
    ///
    /// Only such answers count: a member that is cut off raises its own term with every election it starts, and shows
    /// it in the headers of its watches. Believing that would make all others look stale.
    pub(crate) fn confirm(&self, header: Option<&ResponseHeader>, turn: &Turn) -> Result<Confirmed, Failure> {
        let header = header.ok_or_else(|| Failure::new(Kind::Protocol, "the answer has no header"))?;
        let mut known = self.known();
        if known.cluster != 0 && known.cluster != header.cluster_id() {
            let why =
                "this member belongs to another etcd cluster than the others; check the list of endpoints";
            return Err(Failure::new(Kind::Stale, why));
        }
        if header.raft_term() < turn.known_term.min(known.raft_term) {
            let why = format!(
                "this member is at raft term {} although term {} was seen; it is cut off or was restored from a backup",
                header.raft_term(),
                turn.known_term
            );
            return Err(Failure::new(Kind::Stale, why));
        }
        known.cluster = header.cluster_id();
        known.raft_term = known.raft_term.max(header.raft_term());
        known.revision = known.revision.max(header.revision());
        Ok(Confirmed { raft_term: header.raft_term(), revision: header.revision() })
    }

    /// After a round that nobody but "stale" members answered: etcd was rebuilt or restored, and is learnt anew.
    pub(crate) fn forget(&self) {
        *self.known() = Known::default();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    async fn connection(&self, at: usize) -> Result<Arc<Connection>, Failure> {
        let slot = self.slots.get(at).ok_or_else(|| Failure::new(Kind::Protocol, "no such endpoint"))?;
        if let Some(connection) = lock(&slot.connection).as_ref() {
            return Ok(connection.clone());
        }
        let options = self.options(&slot.url)?;
        // With a user this asks etcd for a token; without one it connects when first used.
        let client = match Client::connect([slot.url.as_str()], Some(options)).await.map_err(Failure::from) {
            // A user is configured before etcd asks for one. As soon as it does, the connection is made anew.
            Err(failure) if failure.why.contains("authentication is not enabled") => {
                let options = self.anonymous_options(&slot.url)?;
                Client::connect([slot.url.as_str()], Some(options)).await?
            }
            outcome => outcome?,
        };
        let connection = Arc::new(Connection { client, keepers: Mutex::default() });
        Ok(lock(&slot.connection).insert(connection).clone())
    }

    fn options(&self, url: &str) -> Result<ConnectOptions, Failure> {
        let options = self.anonymous_options(url)?;
        Ok(match &self.auth {
            Some(auth) => options.with_user(&auth.user, &auth.password),
            None => options,
        })
    }

    fn anonymous_options(&self, url: &str) -> Result<ConnectOptions, Failure> {
        let mut options = ConnectOptions::new()
            .with_require_leader(true)
            .with_auto_token_refresh(true)
            // Shorter than an attempt, so that a host that swallows packets is known not to have got the request.
            .with_connect_timeout(self.attempt / 2);
        if url.starts_with("https://") {
            options = options.with_tls(tls_options(self.tls.as_ref())?);
        }
        Ok(options)
    }

    fn failed(&self, turn: &Turn, connection: Option<&Arc<Connection>>, failure: &Failure) {
        match failure.kind {
            Kind::NotServed | Kind::Lost | Kind::Stale => {
                if !failure.answered {
                    self.disconnect(turn.slot, connection);
                }
                self.unpin(turn.slot);
            }
            Kind::Unauthenticated => self.disconnect(turn.slot, connection),
            Kind::Refused | Kind::LeaseGone | Kind::Protocol => {}
        }
    }

    /// Drops the connection; with `only`, unless somebody has already made a new one.
    fn disconnect(&self, at: usize, only: Option<&Arc<Connection>>) {
        if let Some(slot) = self.slots.get(at) {
            let mut connection = lock(&slot.connection);
            let same =
                only.is_none_or(|only| connection.as_ref().is_some_and(|held| Arc::ptr_eq(held, only)));
            if same {
                *connection = None;
            }
        }
    }

    fn unpin(&self, slot: usize) {
        let next = (slot + 1) % self.slots.len();
        // Somebody else may have pinned another one meanwhile: that one answered.
        let _ = self.pinned.compare_exchange(slot, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn timed_out(&self, turn: &Turn) {
        if turn.allowance < self.attempt / 2 {
            return; // it was given too little time to be judged
        }
        if let Some(slot) = self.slots.get(turn.slot) {
            let until = clock::now().after(self.attempt * SUSPICION);
            slot.suspect_until.store(until.0, Ordering::Relaxed);
        }
    }
}

/// What a confirmed header says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Confirmed {
    pub(crate) raft_term: u64,
    pub(crate) revision: i64,
}

/// A lock whose holder panicked is taken over: every value behind one is replaced as a whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tls_options(tls: Option<&Tls>) -> Result<TlsOptions, Failure> {
    let mut options = TlsOptions::new();
    let Some(tls) = tls else { return Ok(options.with_enabled_roots()) };
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|error| {
            Failure::new(Kind::NotServed, format!("cannot read {}: {error}", path.display()))
        })
    };
    options = match &tls.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => options.with_enabled_roots(),
    };
    match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => Ok(options.identity(Identity::from_pem(read(cert)?, read(key)?))),
        (None, None) => Ok(options),
        (Some(_), None) => {
            Err(Failure::new(Kind::Refused, "a client certificate is configured without its key"))
        }
        (None, Some(_)) => {
            Err(Failure::new(Kind::Refused, "a client key is configured without its certificate"))
        }
    }
}

fn refused(why: impl Into<String>) -> Error {
    Error::Refused { why: why.into() }
}
