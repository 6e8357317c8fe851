//! Follows etcd and keeps the truth: the one task that decides where sessions may be.
//!
//! ```text
//!   etcd watch ─────► follow ───┐
//!   etcd lost ──────► remember ─┼──► Sessions::learn (cuts, then wakes) ──► events
//!   leader's agent ──► Vouch ───┤
//!   its lead is over, it says ──┘
//!
//!   a switchover is announced ──► sessions are held at rest ──► all rest, or the time is up ──► quiet: told to the agents
//!   a newer term              ──► sessions of older ones are cut ──► the last of them has ended ──► the term: told to the agents
//! ```

use crate::config::{DrainEnd, TruthLimits};
use crate::error::Error;
use crate::events::Event;
use crate::seen::Seen;
use crate::shared::{Cluster, Shared};
use crate::truth::{Truth, Vouch, disown, follow, good_until, has_begun, remember};
use crate::verdict::NoPrimary;
use crate::vouch::{self, Doubt, Yes};
use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use types::{Moment, Term};

/// How often grace periods are looked at, and the agent is asked at most.
const TICK: Duration = Duration::from_secs(1);

/// Transactions that outlast the drain are dealt with so long before everything goes on.
const DRAIN_MARGIN: Duration = Duration::from_millis(100);

/// A question to the leader's agent: for which term, and when.
struct Question {
    term: Term,
    asked: Moment,
    answer: Pin<Box<dyn Future<Output = Result<Yes, Doubt>> + Send>>,
}

/// The standing question to it.
struct Standing {
    term: Term,
    url: String,
    end: Pin<Box<dyn Future<Output = String> + Send>>,
}

struct Steering {
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    /// What the agents are told: the term in which nothing runs any more, and the one before which nothing is left.
    says: watch::Sender<etcd::Router>,
    /// The last truth that came from etcd itself.
    known: Truth,
    vouch: Vouch,
    question: Option<Question>,
    next_question: Moment,
    standing: Option<Standing>,
    /// The term whose holder said that it is over, and its words.
    over: Option<(Term, String)>,
    /// The last sign of etcd.
    sign: Moment,
    /// The term whose holder was seen to begin to accept writes, or has said it since. That a term is in force, and announced, may be left from
    /// before its PostgreSQL stopped: for sessions in poolers that is too little.
    sure: Option<Term>,
}

/// Runs until `stop`.
pub(crate) async fn steer(
    shared: Arc<Shared>,
    cluster: Arc<Cluster>,
    mut views: watch::Receiver<etcd::View>,
    says: watch::Sender<etcd::Router>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let calm = cluster.sessions.calm.clone();
    let mut steering = Steering {
        shared,
        cluster,
        says,
        known: Truth::closed("etcd has not answered yet"),
        vouch: Vouch::default(),
        question: None,
        next_question: Moment::default(),
        standing: None,
        over: None,
        sign: Moment::default(),
        sure: None,
    };
    loop {
        let view = views.borrow_and_update().clone();
        let now = clock::now();
        steering.turn(&view, now);
        steering.drain(now);
        steering.witness();
        let ends = steering.drain_ends().into_iter().chain(steering.sign_ends(&view, now));
        let pause = ends.map(|end| now.until(end)).fold(TICK, Duration::min);
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = views.changed() => changed.map_err(|_| Error::WatchEnded)?,
            answer = Steering::answer(&mut steering.question) => steering.answered(answer),
            why = Steering::end(&mut steering.standing) => steering.ended(why),
            () = calm.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

impl Steering {
    /// When the last sign of etcd is too old, if that is to come.
    fn sign_ends(&self, view: &etcd::View, now: Moment) -> Option<Moment> {
        let etcd::Contact::Live { at } = view.contact else { return None };
        Some(at.after(self.shared.config().truth.sign_lifetime)).filter(|end| *end > now)
    }

    /// One look at etcd, and what follows from it.
    fn turn(&mut self, view: &etcd::View, now: Moment) {
        let config = self.shared.config();
        let limits = &TruthLimits { drain: config.drain.timeout, ..config.truth };
        let (sign, lost) = match &view.contact {
            etcd::Contact::Live { at } => (*at, None),
            etcd::Contact::Never { since, why } | etcd::Contact::Lost { since, why } => {
                (*since, Some((*since, why)))
            }
        };
        // The agent is asked before etcd counts as lost.
        let stale = lost.is_some() || now.since(sign) >= limits.sign_lifetime;
        // After a silence nobody knows for how long what etcd shows has been so.
        let gap = now.since(sign).max(sign.since(self.sign)) >= limits.vouch_lifetime;
        self.sign = sign;
        if let Some(snapshot) = &view.snapshot
            && (lost.is_none() || snapshot.revision != self.known.revision)
        {
            let next = follow(&Seen::from(snapshot.as_ref()), &self.known, limits, now);
            if has_begun(&self.known, &next) {
                self.sure = next.in_force;
            }
            self.known = next;
        }
        if stale {
            self.vouch.asked.get_or_insert(now);
        }
        self.note_contact(lost.map(|(_, why)| why.as_str()));
        let truth = match lost {
            None => self.known.clone(),
            Some((_, why)) if !self.known.is_known() => Truth::closed(why),
            Some((since, _)) => remember(&self.known, since, &self.vouch, limits, now),
        };
        self.over.take_if(|(of, _)| self.known.in_force != Some(*of));
        let truth = match (&self.over, self.known.leader.clone()) {
            (Some((_, why)), Some(leader)) if truth.in_force.is_some() => disown(truth, leader, why.clone()),
            _ => truth,
        };
        if gap || self.over.is_some() {
            self.sure = None;
        }
        // An agent waits for the routers whose keys it sees. As soon as ours is seen here, every agent that stops to lead later has seen it, too;
        // until then the agent's own word is all there is.
        let routers = view.snapshot.as_ref().map(|snapshot| &snapshot.routers);
        let counted =
            routers.and_then(|routers| routers.get(&self.shared.id)).is_some_and(|says| says.pooled);
        let sure = counted && self.sure == truth.in_force;
        let unsure = truth.in_force.is_some() && truth.primary.is_ok() && !sure && self.has_pooled();
        let good = good_until(&truth, (!unsure).then_some(sign), &self.vouch, limits);
        let doubted = truth.in_force.is_some() && now >= good;
        self.publish(Truth { doubted, ..truth }, now);
        self.cluster.sessions.trust(good, now);
        self.stand();
        if !stale && self.over.is_none() && !unsure {
            self.question = None;
            self.vouch = Vouch::default();
        } else if self.question.is_none() && now >= self.next_question {
            self.ask(now);
        }
    }

    /// Asks whoever leads to say when it leads no more.
    fn stand(&mut self) {
        let wanted = self.known.in_force.zip(self.known.leader_api.clone()).filter(|_| self.over.is_none());
        if self.standing.as_ref().map(|standing| (standing.term, &standing.url))
            == wanted.as_ref().map(|(term, url)| (*term, url))
        {
            return;
        }
        self.standing = wanted.map(|(term, url)| {
            let (client, cluster, asked) =
                (self.shared.config().agents.clone(), self.cluster.clone(), url.clone());
            let end = async move {
                tokio::select! {
                    why = vouch::end_of_lead(client.clone(), asked.clone(), term) => why,
                    never = async { cluster.proof.learn(&client, &asked).await; pending().await } => never,
                }
            };
            Standing { term, url, end: Box::pin(end) }
        });
    }

    /// The word that the lead is over; never, while nobody was asked.
    async fn end(standing: &mut Option<Standing>) -> String {
        match standing {
            Some(standing) => standing.end.as_mut().await,
            None => pending().await,
        }
    }

    fn ended(&mut self, why: String) {
        self.over = self.standing.take().map(|standing| (standing.term, why));
        // Asked before it ended: what is said to that is no news.
        self.question = None;
    }

    fn note_contact(&self, lost: Option<&str>) {
        let was_lost = self.cluster.etcd_lost.swap(lost.is_some(), Ordering::Relaxed);
        match lost {
            Some(why) if !was_lost && self.known.is_known() => {
                Event::EtcdLost { cluster: &self.cluster.name, why }.log()
            }
            None if was_lost => Event::EtcdBack { cluster: &self.cluster.name }.log(),
            Some(_) | None => {}
        }
    }

    fn publish(&self, truth: Truth, now: Moment) {
        let before = self.cluster.sessions.truth();
        if *before == truth {
            return;
        }
        let grace = self.shared.config().truth.gone_grace;
        let cut = self.cluster.sessions.learn(truth.clone(), grace, now);
        let place =
            |truth: &Truth| truth.primary.as_ref().map(|target| (target.host.clone(), target.port)).ok();
        let moved = before.in_force != truth.in_force || place(&before) != place(&truth);
        if moved || cut > 0 {
            self.cluster.changes.add(1);
            Event::PrimaryChanged { cluster: &self.cluster.name, truth: &truth, cut }.log();
        }
        for (member, verdict) in &truth.members {
            let verdict = verdict.to_string();
            if before.members.get(member).map(ToString::to_string).as_ref() != Some(&verdict) {
                Event::MemberChanged { cluster: &self.cluster.name, member, verdict }.log();
            }
        }
    }

    /// Before a switchover: whether sessions still run, and what becomes of those that outlast the drain.
    fn drain(&self, now: Moment) {
        let sessions = &self.cluster.sessions;
        let truth = sessions.truth();
        let name = self.cluster.name.as_str();
        let Some(handover) = &truth.handover else {
            self.says.send_if_modified(|says| says.quiet.take().is_some());
            return;
        };
        if self.says.borrow().quiet == Some(handover.term) {
            return;
        }
        let drain = self.shared.config().drain;
        // Looked at a moment before the time is up, so that cutting comes before going on.
        let late = now.after(DRAIN_MARGIN) >= handover.since.after(drain.timeout);
        let restless = sessions.restless();
        if restless > 0 && !late {
            return;
        }
        if restless > 0 {
            let cut = drain.end == DrainEnd::Cut;
            if cut {
                sessions.cut_restless();
            }
            Event::NotQuiet { cluster: name, sessions: restless, cut }.log();
        } else if matches!(truth.primary, Err(NoPrimary::HandingOver { .. })) {
            Event::Quiet { cluster: name, term: handover.term }.log();
        }
        // With `resume` as well: the agents need not wait for what is not going to happen.
        self.says.send_modify(|says| says.quiet = Some(handover.term));
    }

    /// Says which term is the newest that is known, as soon as no session of an older one is left; and when nobody leads that all up to now are
    /// over, as soon as no session is left. A term whose key is gone from etcd never comes back: what is said here stays true.
    fn witness(&self) {
        let sessions = &self.cluster.sessions;
        let pooled = self.has_pooled();
        let newest = sessions.truth().term;
        // Terms are revisions: at this one nobody leads.
        let nobody = self.known.is_known() && self.known.leader.is_none();
        let ended = nobody.then_some(Term(self.known.revision));
        self.says.send_if_modified(|says| {
            let before = says.clone();
            says.pooled = pooled;
            if let Some(term) = newest.filter(|term| says.term != Some(*term) && !sessions.any_before(*term))
            {
                says.term = Some(term);
            }
            let said = says.over.is_some_and(|over| newest.is_none_or(|newest| newest <= over));
            let left = |term: Term| sessions.any_before(Term(term.0.saturating_add(1)));
            if let Some(term) = ended.filter(|term| !said && !left(*term)) {
                says.over = Some(term);
            }
            *says != before
        });
    }

    /// Whether sessions that are to write are led to poolers of this cluster, or some are left from when they were.
    fn has_pooled(&self) -> bool {
        self.leads_to_poolers() || (self.says.borrow().pooled && self.cluster.sessions.any_pooled())
    }

    fn leads_to_poolers(&self) -> bool {
        let config = self.shared.config();
        let name = &self.cluster.name;
        let first = config.clusters.first().is_some_and(|first| first.name == *name);
        let mut pooled = config.services.iter().filter(|service| service.is_pooled_to_write());
        pooled.any(|service| {
            service.cluster.as_ref().map_or(first, |own| own == name)
                || service.names.values().any(|named| named == name)
        })
    }

    /// When the drain before a switchover ends.
    fn drain_ends(&self) -> Option<Moment> {
        let truth = self.cluster.sessions.truth();
        let handover = truth.handover.as_ref()?;
        if !matches!(truth.primary, Err(NoPrimary::HandingOver { .. })) {
            return None;
        }
        let end = handover.since.after(self.shared.config().drain.timeout);
        let quiet = self.says.borrow().quiet == Some(handover.term);
        Some(if quiet { end } else { end.before(DRAIN_MARGIN) })
    }

    fn ask(&mut self, now: Moment) {
        let Some((term, url)) = self.known.in_force.zip(self.known.leader_api.clone()) else { return };
        self.next_question = now.after(TICK);
        let client = self.shared.config().agents.clone();
        let answer = Box::pin(async move { vouch::ask(&client, &url, term).await });
        self.question = Some(Question { term, asked: now, answer });
    }

    /// The next answer; never, while nothing was asked.
    async fn answer(question: &mut Option<Question>) -> Result<Yes, Doubt> {
        match question {
            Some(question) => question.answer.as_mut().await,
            None => pending().await,
        }
    }

    fn answered(&mut self, answer: Result<Yes, Doubt>) {
        let Some(Question { term, asked, .. }) = self.question.take() else { return };
        match answer {
            // Counted from the question: the agent spoke for some moment after it.
            Ok(Yes { writes }) => {
                self.over = None;
                let said = (term, asked);
                let (writes, yes) = (writes.then_some(said).or(self.vouch.writes), Some(said));
                self.sure = writes.filter(|(_, at)| *at == asked).map(|(of, _)| of).or(self.sure);
                self.vouch = Vouch { asked: self.vouch.asked, yes, writes, ..Vouch::default() }
            }
            // The last yes still holds for its time: an answer may get lost.
            Err(Doubt::Silent(why)) => self.vouch.why_not = Some(why),
            Err(Doubt::No(why)) => {
                self.vouch =
                    Vouch { asked: self.vouch.asked, why_not: Some(why), denied: true, ..Vouch::default() };
            }
        }
    }
}
