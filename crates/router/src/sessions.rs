//! All open sessions of a cluster and the truth they live under, behind one lock: so that no session can slip past a change.
//!
//! ```text
//!   learn(truth)  ──► cut every session that the new truth does not allow, hold those that a switchover
//!                     waits for, then wake who is held
//!   open(service) ──► choose and enter, by the same truth, before the first connection attempt
//! ```

use crate::balance::{Wheel, pick};
use crate::choose::{Out, Why, choose, homes, place_of};
use crate::config::{Fallback, Role};
use crate::cut_reason::CutReason;
use crate::events::Event;
use crate::lag::{Lag, Positions};
use crate::leash::{Leash, Rein, Trust};
use crate::metrics::{Held, Tally};
use crate::shared::Service;
use crate::truth::Truth;
use crate::verdict::NoPrimary;
use crate::wire::CancelKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use types::{Moment, NodeName, Term};

struct Entry {
    service: Arc<Service>,
    place: Arc<Place>,
    /// The term of the primary it is on; none on a replica.
    term: Option<Term>,
    client: SocketAddr,
    /// Our side of the connection to the member: what PostgreSQL shows as `client_port`.
    local: Option<SocketAddr>,
    since: Moment,
    key: Option<CancelKey>,
    leash: Leash,
    /// The client has come to its member: from here on it ends there, and is not led elsewhere.
    begun: bool,
    /// Its place among the sessions of the service.
    _held: Held,
}

struct Inner {
    truth: Arc<Truth>,
    open: HashMap<u64, Entry>,
    /// The session of each key.
    keys: HashMap<CancelKey, u64>,
    by_member: HashMap<NodeName, usize>,
    /// Where sessions are: many share a place.
    places: Vec<Arc<Place>>,
    wheels: BTreeMap<String, Wheel>,
    positions: Positions,
    /// Who is too far behind for which service.
    lagging: BTreeMap<String, BTreeSet<NodeName>>,
    /// Whom a person took out.
    drained: BTreeSet<NodeName>,
    /// Where a person sent which service.
    pinned: BTreeMap<String, BTreeSet<NodeName>>,
    tallies: BTreeMap<Tallied, Tally>,
    next: u64,
    /// Why there are no more sessions.
    over: Option<CutReason>,
}

/// What is counted apart: service, member, and the term of a primary.
pub(crate) type Tallied = (String, NodeName, Option<Term>);

/// Terms whose counts are kept: more than Prometheus misses between two looks.
const TERMS: usize = 4;

/// The registry of sessions.
pub(crate) struct Sessions {
    inner: Mutex<Inner>,
    routes: watch::Sender<u64>,
    /// Told whenever a held session comes to rest or ends.
    pub(crate) calm: Arc<Notify>,
    trust: Arc<Trust>,
}

/// What became of a wish for a session.
pub(crate) enum Opened {
    /// Where it goes, and the term of the primary that it is opened on.
    Session(Session, Arc<Place>, Option<Term>),
    Hold(Why),
    /// The service has as many sessions as it may have.
    Full {
        limit: usize,
    },
    Over,
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
    pub(crate) leash: Leash,
}

/// One session as `baton route` shows it.
pub(crate) struct Line {
    pub(crate) service: String,
    pub(crate) member: NodeName,
    pub(crate) term: Option<Term>,
    pub(crate) client: SocketAddr,
    pub(crate) local: Option<SocketAddr>,
    pub(crate) since: Moment,
}

impl Sessions {
    pub(crate) fn new() -> Arc<Sessions> {
        Arc::new(Sessions {
            inner: Mutex::new(Inner {
                truth: Arc::new(Truth::closed("etcd has not answered yet")),
                open: HashMap::new(),
                keys: HashMap::new(),
                by_member: HashMap::new(),
                places: Vec::new(),
                wheels: BTreeMap::new(),
                positions: Positions::default(),
                lagging: BTreeMap::new(),
                drained: BTreeSet::new(),
                pinned: BTreeMap::new(),
                tallies: BTreeMap::new(),
                next: 0,
                over: None,
            }),
            routes: watch::Sender::new(0),
            calm: Arc::new(Notify::new()),
            trust: Arc::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reroute(&self) {
        self.routes.send_modify(|version| *version += 1);
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
    pub(crate) fn learn(&self, truth: Truth, gone_grace: Duration, now: Moment) -> usize {
        let mut cut = 0;
        let rerouted;
        {
            let mut inner = self.lock();
            rerouted = !inner.truth.same_routes(&truth);
            if inner.truth.in_force != truth.in_force {
                inner.positions = Positions::default();
            }
            for entry in inner.open.values_mut() {
                if let Some(why) = objection(entry, &truth, gone_grace, now)
                    && entry.leash.cut(why)
                {
                    cut += 1;
                }
                // A replica that was promoted: its sessions end with this term like any other on the primary.
                if entry.term.is_none() && truth.leader.as_ref() == Some(&entry.place.member) {
                    entry.term = truth.in_force;
                }
                if entry.term.is_some() {
                    entry.leash.pull(match (truth.distrusts_poolers(), truth.holds) {
                        (true, _) if entry.leash.is_of_pooled() => Rein::Distrusted,
                        (_, true) => Rein::Held,
                        (_, false) => Rein::Free,
                    });
                }
            }
            forget(&mut inner.tallies, &truth);
            inner.truth = Arc::new(truth);
        }
        if rerouted {
            self.reroute();
        }
        cut
    }

    /// What the router knows of the primary is good until then.
    pub(crate) fn trust(&self, until: Moment, now: Moment) {
        if self.trust.lasts(until, now) && now < until {
            self.lock().open.values().for_each(|entry| entry.leash.look_again());
            self.reroute();
        }
    }

    /// Whether a session is open that is to write through a pooler.
    pub(crate) fn any_pooled(&self) -> bool {
        self.lock().open.values().any(|entry| entry.leash.is_of_pooled())
    }

    /// Sessions that are held and not yet at rest.
    pub(crate) fn restless(&self) -> usize {
        self.lock().open.values().filter(|entry| entry.leash.is_restless()).count()
    }

    /// Whether a session is left on the primary of a term before `term`.
    pub(crate) fn any_before(&self, term: Term) -> bool {
        self.lock().open.values().any(|entry| entry.term.is_some_and(|of| of < term))
    }

    /// Cuts the sessions that did not come to rest. Gives their number.
    pub(crate) fn cut_restless(&self) -> usize {
        let inner = self.lock();
        let restless = inner.open.values().filter(|entry| entry.leash.is_restless());
        restless
            .filter(|entry| entry.leash.cut(CutReason::HandedOver { member: entry.place.member.clone() }))
            .count()
    }

    /// Ends the sessions that are at rest, and holds the others at their next idle moment; who is still on the way to a member gets there
    /// first. Gives the number of those that are left.
    pub(crate) fn cut_at_rest(&self, why: &CutReason) -> usize {
        let inner = self.lock();
        let mut left = 0;
        for entry in inner.open.values() {
            if entry.begun && entry.leash.rein() == Rein::Free {
                entry.leash.pull(Rein::Held);
            }
            if entry.leash.is_at_rest() {
                entry.leash.cut(why.clone());
            } else {
                left += 1;
            }
        }
        left
    }

    /// Takes up where the members are, and looks who is too far behind for which service.
    pub(crate) fn measure(
        &self,
        services: &[Arc<Service>],
        leader: Option<(Moment, types::Lsn)>,
        replicas: &[(NodeName, types::Lsn)],
        now: Moment,
    ) {
        let mut changed = false;
        {
            let mut inner = self.lock();
            let inner = &mut *inner;
            let members = &inner.truth.members;
            inner.positions.retain(|name| members.contains_key(name));
            if let Some((at, lsn)) = leader {
                inner.positions.leader(at, lsn);
            }
            for (name, lsn) in replicas {
                inner.positions.replica(name, *lsn);
            }
            inner.lagging.retain(|name, _| services.iter().any(|service| service.name == *name));
            for service in services {
                let limit = service.settings().max_lag;
                let was = inner.lagging.remove(&service.name).unwrap_or_default();
                let targets = inner.truth.replicas.iter().chain(&inner.truth.offline);
                let far = targets.filter(|target| {
                    let mut lag = inner.positions.lag(&target.name, now);
                    lag.bytes = lag.bytes.or(target.lag);
                    lag.too_far(limit, was.contains(&target.name))
                });
                let is: BTreeSet<NodeName> = far.map(|target| target.name.clone()).collect();
                for member in is.symmetric_difference(&was) {
                    let lag = inner.positions.lag(member, now);
                    Event::Lagging { service: &service.name, member, out: is.contains(member), lag }.log();
                    changed = true;
                }
                if !is.is_empty() {
                    inner.lagging.insert(service.name.clone(), is);
                }
            }
        }
        if changed {
            self.reroute();
        }
    }

    /// Who is too far behind for a service.
    pub(crate) fn lagging(&self, service: &str) -> BTreeSet<NodeName> {
        self.lock().lagging.get(service).cloned().unwrap_or_default()
    }

    pub(crate) fn lag(&self, member: &NodeName, now: Moment) -> Lag {
        self.lock().positions.lag(member, now)
    }

    /// Takes a member out, or back in; whether that changed something.
    pub(crate) fn drain(&self, member: &NodeName, out: bool) -> bool {
        let changed = {
            let drained = &mut self.lock().drained;
            if out { drained.insert(member.clone()) } else { drained.remove(member) }
        };
        if changed {
            self.reroute();
        }
        changed
    }

    pub(crate) fn drained(&self) -> BTreeSet<NodeName> {
        self.lock().drained.clone()
    }

    /// Sends a service to a member while that can serve it, or no longer; whether that changed something.
    pub(crate) fn pin(&self, service: &str, member: &NodeName, on: bool) -> bool {
        let changed = {
            let pinned = &mut self.lock().pinned;
            if on {
                pinned.entry(service.to_owned()).or_default().insert(member.clone())
            } else {
                let there = pinned.get_mut(service).is_some_and(|members| members.remove(member));
                pinned.retain(|_, members| !members.is_empty());
                there
            }
        };
        if changed {
            self.reroute();
        }
        changed
    }

    pub(crate) fn pinned(&self) -> BTreeMap<String, BTreeSet<NodeName>> {
        self.lock().pinned.clone()
    }

    /// Takes up who is drained and what is pinned, as another process of this router has it.
    pub(crate) fn obey(&self, drained: BTreeSet<NodeName>, pinned: BTreeMap<String, BTreeSet<NodeName>>) {
        let changed = {
            let mut inner = self.lock();
            let changed = inner.drained != drained || inner.pinned != pinned;
            (inner.drained, inner.pinned) = (drained, pinned);
            changed
        };
        if changed {
            self.reroute();
        }
    }

    /// Counts something that happened to a session that was not opened.
    pub(crate) fn count(&self, tallied: Tallied, count: impl FnOnce(&mut Tally)) {
        count(self.lock().tallies.entry(tallied).or_default());
    }

    pub(crate) fn tallies(&self) -> BTreeMap<Tallied, Tally> {
        self.lock().tallies.clone()
    }

    /// Chooses a member for a session of the service and enters it, in one step.
    pub(crate) fn open(
        self: &Arc<Sessions>,
        service: &Arc<Service>,
        client: SocketAddr,
        failed: &[NodeName],
    ) -> Opened {
        let settings = service.settings();
        let mut inner = self.lock();
        let inner = &mut *inner;
        if inner.over.is_some() {
            return Opened::Over;
        }
        let Some(held) = service.open.take(settings.max_sessions) else {
            return Opened::Full { limit: settings.max_sessions };
        };
        let nobody = BTreeSet::new();
        let lagging = inner.lagging.get(&service.name).unwrap_or(&nobody);
        let pinned = inner.pinned.get(&service.name).unwrap_or(&nobody);
        let out = Out { failed, drained: &inner.drained, lagging, pinned };
        let candidates = match choose(&settings, &inner.truth, &out) {
            Ok(candidates) => candidates,
            Err(why) => return Opened::Hold(why),
        };
        let pooled = settings.is_pooled_to_write();
        if let Some(leader) =
            inner.truth.leader.clone().filter(|_| pooled && self.trust.has_ended(clock::now()))
        {
            return Opened::Hold(Why::Primary(NoPrimary::Doubted { leader }));
        }
        let (now, turn) = (clock::now(), usize::try_from(inner.next).unwrap_or(0));
        let by_member = |name: &NodeName| inner.by_member.get(name).copied().unwrap_or(0);
        let wheel = inner.wheels.entry(service.name.clone()).or_default();
        let chosen = pick(&settings, &candidates, by_member, wheel, turn, now);
        let found = chosen.and_then(|chosen| Some((chosen, place_of(&settings, chosen.target)?)));
        let Some((chosen, (host, port))) = found else { return Opened::Hold(Why::NoReplica(None)) };
        let member = chosen.target.name.clone();
        *inner.by_member.entry(member.clone()).or_insert(0) += 1;
        let place = shared(&mut inner.places, Place { member, host, port });
        let term = chosen.term;
        let id = inner.next;
        inner.next += 1;
        let trust = term.filter(|_| pooled).map(|_| self.trust.clone());
        let leash = Leash::new(self.calm.clone(), trust);
        let entry = Entry {
            service: service.clone(),
            place: place.clone(),
            term,
            client,
            local: None,
            since: now,
            key: None,
            leash: leash.clone(),
            begun: false,
            _held: held,
        };
        inner.open.insert(id, entry);
        Opened::Session(Session { sessions: self.clone(), id, leash }, place, term)
    }

    /// Whether a member is left that is not among `failed`.
    pub(crate) fn has_other(&self, service: &Service, failed: &[NodeName]) -> bool {
        let inner = self.lock();
        homes(&service.settings(), &inner.truth).iter().any(|target| !failed.contains(&target.name))
    }

    /// Where to send a request to cancel `key`: to where its session is, also when no other would be opened there; else to each member
    /// that may have it.
    pub(crate) fn cancel_places(&self, service: &Service, key: &CancelKey) -> Vec<Arc<Place>> {
        let inner = self.lock();
        if let Some(entry) = inner.keys.get(key).and_then(|id| inner.open.get(id)) {
            return vec![entry.place.clone()];
        }
        let (settings, truth) = (service.settings(), &inner.truth);
        // Whoever leads, though it may get no sessions at the moment: one that is about to hand the lead over has some that run.
        let leader = truth.leader.as_ref().filter(|_| settings.role == Role::Primary);
        let targets =
            truth.everybody.iter().filter(|target| leader.is_none_or(|leader| target.name == *leader));
        let place = |target: &crate::truth::Target| {
            let (host, port) = place_of(&settings, target)?;
            Some(Arc::new(Place { member: target.name.clone(), host, port }))
        };
        targets.filter_map(place).collect()
    }

    /// No more sessions; those that are there end.
    pub(crate) fn stop(&self, why: &CutReason) -> usize {
        let mut inner = self.lock();
        inner.over = Some(why.clone());
        for entry in inner.open.values() {
            entry.leash.cut(why.clone());
        }
        let count = inner.open.len();
        drop(inner);
        self.reroute();
        count
    }

    /// How many sessions each member has.
    pub(crate) fn by_member(&self) -> HashMap<NodeName, usize> {
        self.lock().by_member.clone()
    }

    /// How many sessions each service has on each member, and in which term.
    pub(crate) fn spread(&self) -> BTreeMap<Tallied, usize> {
        let mut spread = BTreeMap::new();
        for entry in self.lock().open.values() {
            *spread.entry(entry.tallied()).or_insert(0) += 1;
        }
        spread
    }

    /// The oldest `most` sessions.
    pub(crate) fn lines(&self, most: usize) -> Vec<Line> {
        let inner = self.lock();
        let mut ids: Vec<u64> = inner.open.keys().copied().collect();
        ids.sort_unstable();
        let entries = ids.iter().take(most).filter_map(|id| inner.open.get(id));
        entries
            .map(|entry| Line {
                service: entry.service.name.clone(),
                member: entry.place.member.clone(),
                term: entry.term,
                client: entry.client,
                local: entry.local,
                since: entry.since,
            })
            .collect()
    }
}

/// The place, as the sessions have it that are there already.
fn shared(places: &mut Vec<Arc<Place>>, wanted: Place) -> Arc<Place> {
    if let Some(place) = places.iter().find(|place| ***place == wanted) {
        return place.clone();
    }
    places.retain(|place| Arc::strong_count(place) > 1);
    let place = Arc::new(wanted);
    places.push(place.clone());
    place
}

/// Counts of members that are gone and of terms long over end: Prometheus has them.
fn forget(tallies: &mut BTreeMap<Tallied, Tally>, truth: &Truth) {
    let mut terms: Vec<Term> = tallies.keys().filter_map(|(_, _, term)| *term).collect();
    terms.sort_unstable();
    terms.dedup();
    let oldest = terms.len().checked_sub(TERMS).and_then(|at| terms.get(at).copied());
    tallies.retain(|(_, member, term), _| match term {
        Some(term) => oldest.is_none_or(|oldest| *term >= oldest),
        None => truth.members.contains_key(member),
    });
}

fn objection(entry: &Entry, truth: &Truth, gone_grace: Duration, now: Moment) -> Option<CutReason> {
    let member = entry.place.member.clone();
    if let Some(term) = entry.term {
        if entry.leash.is_of_pooled() && matches!(truth.primary, Err(NoPrimary::StandbyLeader { .. })) {
            return Some(CutReason::Standby { member });
        }
        let over = truth.in_force != Some(term);
        return over.then_some(CutReason::TermOver { member, term, now: truth.in_force });
    }
    let promoted = truth.in_force.is_some() && truth.leader.as_ref() == Some(&member);
    if promoted {
        let settings = entry.service.settings();
        let welcome = matches!(settings.role, Role::Primary | Role::Any)
            || settings.fallback == Fallback::Primary
            || settings.role == Role::Replica;
        return (!welcome).then_some(CutReason::Promoted { member });
    }
    (!truth.remembers(&member, gone_grace, now)).then_some(CutReason::MemberGone { member })
}

impl Entry {
    fn tallied(&self) -> Tallied {
        (self.service.name.clone(), self.place.member.clone(), self.term)
    }
}

impl Session {
    /// Its number, which no other session of its cluster has.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// The connection to the member stands; `local` is our side of it.
    pub(crate) fn connected(&self, local: Option<SocketAddr>) {
        if let Some(entry) = self.sessions.lock().open.get_mut(&self.id) {
            entry.local = local;
        }
    }

    /// The client has come to its member.
    pub(crate) fn begins(&self) {
        if let Some(entry) = self.sessions.lock().open.get_mut(&self.id) {
            entry.begun = true;
        }
        self.count(|tally| tally.opened += 1);
    }

    /// Counts what happened to this session.
    pub(crate) fn count(&self, count: impl FnOnce(&mut Tally)) {
        let mut inner = self.sessions.lock();
        let inner = &mut *inner;
        if let Some(entry) = inner.open.get(&self.id) {
            count(inner.tallies.entry(entry.tallied()).or_default());
        }
    }

    /// The key by which this session's queries can be cancelled.
    pub(crate) fn has_key(&self, key: CancelKey) {
        let mut inner = self.sessions.lock();
        let inner = &mut *inner;
        if let Some(entry) = inner.open.get_mut(&self.id) {
            inner.keys.insert(key.clone(), self.id);
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
        if let Some(count) = inner.by_member.get_mut(&entry.place.member) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                inner.by_member.remove(&entry.place.member);
            }
        }
        Event::Closed {
            client: entry.client,
            service: &entry.service.name,
            member: &entry.place.member,
            seen_as: entry.local,
            lived: clock::now().since(entry.since),
            wanted: entry.service.settings().log_connections,
        }
        .log();
    }
}
