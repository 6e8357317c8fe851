//! All open sessions and the truth they live under, behind one lock: so that no session can slip past a change.
//!
//! ```text
//!   learn(truth)  ──► cut every session that the new truth does not allow, then wake who is held
//!   open(service) ──► choose and enter, by the same truth, before the first connection attempt
//! ```

use crate::choose::{Choice, Why, candidates, choose};
use crate::config::{Config, Destination, Role, Service};
use crate::events::Event;
use crate::truth::{Target, Truth};
use crate::wire::CancelKey;
use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use types::{Moment, NodeName, Term};

/// Why a session was ended by the router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum CutReason {
    /// The lead went to somebody else, or nobody is known to have it.
    TermOver {
        member: NodeName,
        term: Term,
        now: Option<Term>,
    },
    /// A session that must not be on a primary found itself on one.
    Promoted {
        member: NodeName,
    },
    MemberGone {
        member: NodeName,
    },
    Stopping,
}

impl fmt::Display for CutReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CutReason::TermOver { member, term, now: Some(now) } => {
                write!(f, "{member} no longer leads: its term {term} was followed by term {now}")
            }
            CutReason::TermOver { member, term, now: None } => {
                write!(f, "{member} no longer leads: term {term} is over")
            }
            CutReason::Promoted { member } => {
                write!(f, "{member} was promoted, and this service never uses the primary")
            }
            CutReason::MemberGone { member } => write!(f, "{member} is gone from the cluster"),
            CutReason::Stopping => write!(f, "the router is stopping"),
        }
    }
}

/// The end of a session by order of the router: can be awaited, and then says why.
#[derive(Clone, Default)]
pub(crate) struct Cut {
    token: CancellationToken,
    why: Arc<OnceLock<CutReason>>,
}

impl Cut {
    fn order(&self, why: CutReason) {
        // The first reason stays.
        let _ = self.why.set(why);
        self.token.cancel();
    }

    /// Ends when the session has to.
    pub(crate) async fn ordered(&self) {
        self.token.cancelled().await;
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.token.is_cancelled()
    }

    pub(crate) fn why(&self) -> Option<&CutReason> {
        self.why.get()
    }
}

struct Entry {
    service: usize,
    member: NodeName,
    /// The term of the primary it is on; `None` on a replica.
    term: Option<Term>,
    client: SocketAddr,
    /// Our side of the connection to the member: what PostgreSQL shows as `client_port`.
    local: Option<SocketAddr>,
    since: Moment,
    key: Option<CancelKey>,
    cut: Cut,
}

struct Inner {
    truth: Arc<Truth>,
    open: HashMap<u64, Entry>,
    keys: HashMap<CancelKey, NodeName>,
    by_member: HashMap<NodeName, usize>,
    by_service: Vec<usize>,
    next: u64,
    stopping: bool,
}

/// The registry of sessions.
pub(crate) struct Sessions {
    services: Vec<Service>,
    gone_grace: Duration,
    inner: Mutex<Inner>,
    routes: watch::Sender<u64>,
}

/// What became of a wish for a session.
pub(crate) enum Opened {
    Session(Session, Place),
    Hold(Why),
    /// The service has as many sessions as it may have.
    Full {
        limit: usize,
    },
    Stopping,
}

/// Where to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    pub(crate) member: NodeName,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// One entry of the registry; dropping it takes the entry out.
pub(crate) struct Session {
    sessions: Arc<Sessions>,
    id: u64,
    pub(crate) cut: Cut,
}

/// One session as `baton route` shows it.
pub(crate) struct Line {
    pub(crate) service: usize,
    pub(crate) member: NodeName,
    pub(crate) term: Option<Term>,
    pub(crate) client: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) since: Moment,
}

impl Sessions {
    pub(crate) fn new(config: &Config) -> Arc<Sessions> {
        let services = config.services.clone();
        Arc::new(Sessions {
            gone_grace: config.truth.gone_grace,
            inner: Mutex::new(Inner {
                truth: Arc::new(Truth::closed("etcd has not answered yet")),
                open: HashMap::new(),
                keys: HashMap::new(),
                by_member: HashMap::new(),
                by_service: vec![0; services.len()],
                next: 0,
                stopping: false,
            }),
            services,
            routes: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The truth of this instant.
    pub(crate) fn truth(&self) -> Arc<Truth> {
        self.lock().truth.clone()
    }

    /// Wakes whenever sessions may go elsewhere than before.
    pub(crate) fn routes(&self) -> watch::Receiver<u64> {
        self.routes.subscribe()
    }

    /// From here on `truth` holds: what it does not allow is cut before this returns. Gives the number of cuts.
    pub(crate) fn learn(&self, truth: Truth, now: Moment) -> usize {
        let mut cut = 0;
        let rerouted;
        {
            let mut inner = self.lock();
            rerouted = !inner.truth.same_routes(&truth);
            for entry in inner.open.values_mut() {
                if let Some(why) = self.objection(entry, &truth, now)
                    && !entry.cut.is_ordered()
                {
                    entry.cut.order(why);
                    cut += 1;
                }
                // A replica that was promoted: its sessions end with this term like any other on the primary.
                if entry.term.is_none() && truth.leader.as_ref() == Some(&entry.member) {
                    entry.term = truth.in_force;
                }
            }
            inner.truth = Arc::new(truth);
        }
        if rerouted {
            self.routes.send_modify(|version| *version += 1);
        }
        cut
    }

    fn objection(&self, entry: &Entry, truth: &Truth, now: Moment) -> Option<CutReason> {
        let member = entry.member.clone();
        if let Some(term) = entry.term {
            let over = truth.in_force != Some(term);
            return over.then_some(CutReason::TermOver { member, term, now: truth.in_force });
        }
        let promoted = truth.in_force.is_some() && truth.leader.as_ref() == Some(&member);
        if promoted && self.services.get(entry.service).is_some_and(|service| service.role == Role::Offline) {
            return Some(CutReason::Promoted { member });
        }
        (!truth.remembers(&member, self.gone_grace, now)).then_some(CutReason::MemberGone { member })
    }

    /// Chooses a member for a session of the service and enters it, in one step.
    pub(crate) fn open(
        self: &Arc<Sessions>,
        service: usize,
        client: SocketAddr,
        failed: &[NodeName],
    ) -> Opened {
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.stopping {
            return Opened::Stopping;
        }
        let (Some(wanted), Some(count)) = (self.services.get(service), inner.by_service.get_mut(service))
        else {
            return Opened::Stopping;
        };
        if *count >= wanted.max_sessions {
            return Opened::Full { limit: wanted.max_sessions };
        }
        let by_member = |name: &NodeName| inner.by_member.get(name).copied().unwrap_or(0);
        let turn = usize::try_from(inner.next).unwrap_or(0);
        let (target, term) = match choose(wanted, &inner.truth, by_member, failed, turn) {
            Choice::Primary { target, term } => (target, Some(term)),
            Choice::Replica { target } => (target, None),
            Choice::Hold(why) => return Opened::Hold(why),
        };
        *count += 1;
        *inner.by_member.entry(target.name.clone()).or_insert(0) += 1;
        let id = inner.next;
        inner.next += 1;
        let cut = Cut::default();
        let member = target.name.clone();
        let entry = Entry {
            service,
            member,
            term,
            client,
            local: None,
            since: clock::now(),
            key: None,
            cut: cut.clone(),
        };
        let place = place_of(wanted, target);
        inner.open.insert(id, entry);
        Opened::Session(Session { sessions: self.clone(), id, cut }, place)
    }

    /// Whether a member is left that is not among `failed`.
    pub(crate) fn has_other(&self, service: usize, failed: &[NodeName]) -> bool {
        let inner = self.lock();
        let Some(service) = self.services.get(service) else { return false };
        candidates(service, &inner.truth).iter().any(|target| !failed.contains(&target.name))
    }

    /// Where to send a request to cancel `key`: to the member that has it, else to each that might.
    pub(crate) fn cancel_places(&self, service: usize, key: &CancelKey) -> Vec<Place> {
        let inner = self.lock();
        let Some(service) = self.services.get(service) else { return Vec::new() };
        let mut targets = candidates(service, &inner.truth);
        if let Some(member) = inner.keys.get(key) {
            targets.retain(|target| target.name == *member);
        }
        targets.into_iter().map(|target| place_of(service, target)).collect()
    }

    /// No more sessions; those that are there end.
    pub(crate) fn stop(&self) -> usize {
        let mut inner = self.lock();
        inner.stopping = true;
        for entry in inner.open.values() {
            entry.cut.order(CutReason::Stopping);
        }
        let count = inner.open.len();
        drop(inner);
        self.routes.send_modify(|version| *version += 1);
        count
    }

    /// How many sessions each service has, in the order of the configuration.
    pub(crate) fn by_service(&self) -> Vec<usize> {
        self.lock().by_service.clone()
    }

    /// How many sessions each member has.
    pub(crate) fn by_member(&self) -> HashMap<NodeName, usize> {
        self.lock().by_member.clone()
    }

    /// The oldest `most` sessions.
    pub(crate) fn lines(&self, most: usize) -> Vec<Line> {
        let inner = self.lock();
        let mut ids: Vec<u64> = inner.open.keys().copied().collect();
        ids.sort_unstable();
        let entries = ids.iter().take(most).filter_map(|id| inner.open.get(id));
        entries
            .map(|entry| Line {
                service: entry.service,
                member: entry.member.clone(),
                term: entry.term,
                client: entry.client,
                local: entry.local,
                since: entry.since,
            })
            .collect()
    }
}

fn place_of(service: &Service, target: &Target) -> Place {
    let port = match service.destination {
        Destination::Postgres => target.port,
        Destination::Port(port) => port,
    };
    Place { member: target.name.clone(), host: target.host.clone(), port }
}

impl Session {
    /// The connection to the member stands; `local` is our side of it.
    pub(crate) fn connected(&self, local: Option<SocketAddr>) {
        if let Some(entry) = self.sessions.lock().open.get_mut(&self.id) {
            entry.local = local;
        }
    }

    /// The key by which this session's queries can be cancelled.
    pub(crate) fn has_key(&self, key: CancelKey) {
        let mut inner = self.sessions.lock();
        let inner = &mut *inner;
        if let Some(entry) = inner.open.get_mut(&self.id) {
            inner.keys.insert(key.clone(), entry.member.clone());
            entry.key = Some(key);
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let mut inner = self.sessions.lock();
        let inner = &mut *inner;
        let Some(entry) = inner.open.remove(&self.id) else { return };
        if let Some(key) = &entry.key {
            inner.keys.remove(key);
        }
        if let Some(count) = inner.by_service.get_mut(entry.service) {
            *count = count.saturating_sub(1);
        }
        if let Some(count) = inner.by_member.get_mut(&entry.member) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.by_member.remove(&entry.member);
            }
        }
        Event::Closed { client: entry.client, member: &entry.member, lived: clock::now().since(entry.since) }
            .log();
    }
}
