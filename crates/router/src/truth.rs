//! Who serves what, as a value: the pure step from what etcd shows to where sessions may go.
//!
//! ```text
//!   etcd is there:    follow(Seen, the previous Truth, now)                   ──► Truth
//!   etcd is away:     remember(the last Truth, since when, Vouch, now)        ──► Truth
//!
//!   in force    the term whose sessions may live: while its leader key stands
//!   primary     where new sessions of that term may go: once its holder says that it accepts writes
//! ```
//!
//! The two are apart on purpose. A leader that does not accept writes keeps its sessions (PostgreSQL ends them when it
//! stops) and gets no new ones. A leader key that is gone or newer ends the sessions of the old term at once.

use crate::config::TruthLimits;
use crate::seen::{Member, Seen};
use crate::verdict::{NoPrimary, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;
use types::{Moment, NodeName, PostgresState, Role, Term};

/// A member that may be connected to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    pub name: NodeName,
    /// A name or an address, without brackets.
    pub host: String,
    /// PostgreSQL's own port.
    pub port: u16,
    /// Its pooler, where the member names one.
    pub pooler: Option<(String, u16)>,
    /// Bytes of WAL that are not replayed yet, when both sides published a position.
    pub lag: Option<u64>,
    /// A synchronous standby.
    pub sync: bool,
    /// Since when it can be used.
    pub since: Moment,
}

/// What the router believes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Truth {
    /// The revision of etcd it comes from; 0 before the first.
    pub revision: i64,
    /// The newest term ever seen in this etcd.
    pub term: Option<Term>,
    pub leader: Option<NodeName>,
    /// The leader's REST address, which can vouch for it while etcd is away.
    pub leader_api: Option<String>,
    /// The term whose sessions may live.
    pub in_force: Option<Term>,
    /// The lead is about to be handed over: sessions of the term in force end their transactions and begin no other.
    pub handover: Option<Handover>,
    /// Sessions of the term in force that are idle wait: also after the leader has stopped to accept writes, until its term is over or the
    /// time for it is.
    pub holds: bool,
    /// No sign of etcd, nor a word of the leader's agent, of just now says that there is a primary. A session in a pooler outlives a restart of
    /// PostgreSQL: it waits, as it might find itself on a standby.
    pub doubted: bool,
    /// Where new sessions of that term go, or why nowhere.
    pub primary: Result<Target, NoPrimary>,
    /// The members' REST addresses.
    pub apis: BTreeMap<NodeName, String>,
    /// For reads, by name.
    pub replicas: Vec<Target>,
    /// For the offline service, by name.
    pub offline: Vec<Target>,
    /// All members with an address, used or not: a session may be on one that gets no more.
    pub everybody: Vec<Target>,
    /// How each member is used, or why it is not.
    pub members: BTreeMap<NodeName, Verdict>,
}

/// A planned switchover that was announced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Handover {
    /// The revision of its key: another one is another announcement.
    pub revision: i64,
    pub term: Term,
    pub since: Moment,
}

/// The word of the leader's agent while etcd is away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Vouch {
    /// When it was first asked.
    pub(crate) asked: Option<Moment>,
    /// When it last said yes, and for which term it was asked.
    pub(crate) yes: Option<(Term, Moment)>,
    /// The same of a yes to more: its PostgreSQL accepts writes.
    pub(crate) writes: Option<(Term, Moment)>,
    /// The last answer was no, or there was none: why.
    pub(crate) why_not: Option<String>,
    /// The last answer that came was no.
    pub(crate) denied: bool,
}

impl Truth {
    /// Before anything was seen: closed.
    #[must_use]
    pub(crate) fn closed(why: &str) -> Truth {
        Truth {
            revision: 0,
            term: None,
            leader: None,
            leader_api: None,
            in_force: None,
            handover: None,
            holds: false,
            doubted: false,
            primary: Err(NoPrimary::NeverSeen { why: why.to_owned() }),
            apis: BTreeMap::new(),
            replicas: Vec::new(),
            offline: Vec::new(),
            everybody: Vec::new(),
            members: BTreeMap::new(),
        }
    }

    /// Whether a session in a pooler of the primary might find itself on a standby, or soon could.
    pub(crate) fn distrusts_poolers(&self) -> bool {
        let withdrawn =
            matches!(self.primary, Err(NoPrimary::NotWritable { .. } | NoPrimary::StandbyLeader { .. }));
        self.doubted || (withdrawn && self.in_force.is_some())
    }

    /// Whether a consistent state was ever read.
    #[must_use]
    pub(crate) fn is_known(&self) -> bool {
        self.revision > 0
    }

    /// Whether `name` is a member, or was one until `grace` ago.
    pub(crate) fn remembers(&self, name: &NodeName, grace: Duration, now: Moment) -> bool {
        match self.members.get(name) {
            None => false,
            Some(Verdict::Gone { since }) => now.since(*since) < grace,
            Some(_) => true,
        }
    }

    /// Whether sessions would go to the same places by `other`: positions do not count.
    pub(crate) fn same_routes(&self, other: &Truth) -> bool {
        let places = |targets: &[Target]| -> Vec<Target> {
            let place = |target: &Target| Target { lag: None, since: Moment::default(), ..target.clone() };
            targets.iter().map(place).collect()
        };
        let primary = |truth: &Truth| places(truth.primary.as_ref().ok().map_or(&[], std::slice::from_ref));
        self.in_force == other.in_force
            && self.doubted == other.doubted
            && primary(self) == primary(other)
            && places(&self.replicas) == places(&other.replicas)
            && places(&self.offline) == places(&other.offline)
    }
}

/// The next truth while etcd shows `seen`.
#[must_use]
pub(crate) fn follow(seen: &Seen, previous: &Truth, limits: &TruthLimits, now: Moment) -> Truth {
    // A smaller revision is another etcd (restored from a backup): its terms are not comparable with those before.
    let newest = previous.term.filter(|_| seen.revision >= previous.revision);
    let mut truth = Truth { revision: seen.revision, term: newest, ..Truth::closed("") };
    truth.primary = Err(NoPrimary::NoLeader);
    if let Some((leader, term)) = &seen.leader {
        truth.leader = Some(leader.clone());
        truth.term = newest.max(Some(*term));
        match newest.filter(|newest| newest > term) {
            Some(newest) => truth.primary = Err(NoPrimary::TermWentBack { term: *term, newest }),
            None => {
                truth.in_force = Some(*term);
                truth.primary = primary_of(seen, leader, *term);
                truth.handover = handover(seen, *term, previous, now);
                let holding = |handover: &Handover| now.since(handover.since) < limits.drain;
                truth.holds = truth.handover.as_ref().is_some_and(holding);
                if truth.holds && truth.primary.is_ok() {
                    truth.primary = Err(NoPrimary::HandingOver { leader: leader.clone() });
                }
            }
        }
        truth.leader_api = seen.members.get(leader).map(|member| member.api_url.clone());
    }
    for (name, member) in &seen.members {
        truth.apis.insert(name.clone(), member.api_url.clone());
        let verdict = judge(&truth, name, member, previous, limits, now);
        if let Some(mut target) = target_of(name, member) {
            target.sync = seen.sync.contains(name);
            target.since = usable_since(name, previous, now);
            target.lag = seen.position.zip(member.replayed).map(|(head, at)| head.bytes_since(at));
            truth.everybody.push(target.clone());
            match verdict {
                Verdict::Replica { .. } => truth.replicas.push(target),
                Verdict::Offline { .. } => truth.offline.push(target),
                _ => {}
            }
        }
        truth.members.insert(name.clone(), verdict);
    }
    for (name, verdict) in &previous.members {
        if !truth.members.contains_key(name) {
            let since = if let Verdict::Gone { since } = verdict { *since } else { now };
            // Twice the grace: long enough for everybody who asks, and then it is forgotten.
            if now.since(since) < limits.gone_grace * 2 {
                truth.members.insert(name.clone(), Verdict::Gone { since });
            }
        }
    }
    truth
}

/// The next truth while etcd is out of reach: what was believed, and in the end only what the leader's agent confirms.
/// `remembered` is the last truth that came from etcd itself.
#[must_use]
pub(crate) fn remember(
    remembered: &Truth,
    since: Moment,
    vouch: &Vouch,
    limits: &TruthLimits,
    now: Moment,
) -> Truth {
    let truth = remembered.clone();
    let Some((term, leader)) = remembered.in_force.zip(remembered.leader.clone()) else { return truth };
    // Who says himself that he is not the primary any more is believed at once: his PostgreSQL may be up again, for reading.
    let patient = now.since(since) < limits.etcd_patience && !vouch.denied;
    let vouched = vouch.why_not_now(term, limits.vouch_lifetime, now);
    match (patient, vouched) {
        (false, Err(why)) => disown(truth, leader, why),
        (true, _) | (false, Ok(())) => truth,
    }
}

/// Until when this truth is good for a session in a pooler, unless there is another sign: etcd last gave one of itself at `sign`, `None` where
/// that says nothing.
#[must_use]
pub(crate) fn good_until(truth: &Truth, sign: Option<Moment>, vouch: &Vouch, limits: &TruthLimits) -> Moment {
    let yes = vouch.writes.as_ref().filter(|(term, _)| truth.in_force == Some(*term));
    let by_agent = yes.map(|(_, at)| at.after(limits.vouch_lifetime));
    let by_etcd = sign.map(|sign| sign.after(limits.sign_lifetime));
    by_agent.max(by_etcd).unwrap_or_default()
}

/// Whether `after` shows that the leader of its term has begun to accept writes since `before`, which was true a moment ago.
#[must_use]
pub(crate) fn has_begun(before: &Truth, after: &Truth) -> bool {
    let not_yet =
        before.in_force != after.in_force || matches!(before.primary, Err(NoPrimary::NotWritable { .. }));
    before.is_known() && not_yet && after.in_force.is_some() && after.primary.is_ok()
}

/// The same without its leader, who says that it is none: whatever etcd says, or said when it was last heard.
#[must_use]
pub(crate) fn disown(mut truth: Truth, leader: NodeName, why: String) -> Truth {
    truth.in_force = None;
    truth.members.insert(leader.clone(), Verdict::LeaderNotUsed);
    truth.primary = Err(NoPrimary::Unconfirmed { leader, why });
    truth
}

impl Vouch {
    /// Whether its word for this term is there, and not too old.
    fn confirms(&self, term: Term, lifetime: Duration, now: Moment) -> bool {
        self.yes.as_ref().is_some_and(|(of, at)| *of == term && now.since(*at) < lifetime)
    }

    fn why_not_now(&self, term: Term, lifetime: Duration, now: Moment) -> Result<(), String> {
        if self.confirms(term, lifetime, now) {
            return Ok(());
        }
        match (&self.why_not, self.asked) {
            (Some(why), _) => Err(why.clone()),
            // The loss of etcd may be noticed late: the agent gets the time to answer all the same.
            (None, Some(asked)) if now.since(asked) < lifetime => Ok(()),
            (None, _) => Err("it has not answered".to_owned()),
        }
    }
}

/// The announcement for this term; known since it was first seen.
fn handover(seen: &Seen, term: Term, previous: &Truth, now: Moment) -> Option<Handover> {
    let (_, revision) = seen.handover.filter(|(of, _)| *of == term)?;
    let known = previous.handover.as_ref().filter(|known| known.revision == revision);
    Some(known.cloned().unwrap_or(Handover { revision, term, since: now }))
}

/// Since when a member can be used: since ever, when it could at the first look.
fn usable_since(name: &NodeName, previous: &Truth, now: Moment) -> Moment {
    if !previous.is_known() {
        return Moment::default();
    }
    let mut known = previous.replicas.iter().chain(&previous.offline);
    known.find(|target| target.name == *name).map_or(now, |target| target.since)
}

fn primary_of(seen: &Seen, leader: &NodeName, term: Term) -> Result<Target, NoPrimary> {
    let Some(member) = seen.members.get(leader) else {
        return Err(NoPrimary::LeaderUnknown { leader: leader.clone() });
    };
    if member.role == Some(Role::StandbyLeader) {
        return Err(NoPrimary::StandbyLeader { leader: leader.clone() });
    }
    if !accepts_writes(seen, leader, term, member) {
        return Err(NoPrimary::NotWritable { leader: leader.clone(), term });
    }
    target_of(leader, member)
        .ok_or_else(|| NoPrimary::LeaderAddress { leader: leader.clone(), conn_url: member.conn_url.clone() })
}

/// Whether the holder of the leader key accepts writes in `term`. Our agents say so in a key of its own. A Patroni has
/// no such key: it is believed when it calls itself a running primary, which it does only after the promotion.
fn accepts_writes(seen: &Seen, leader: &NodeName, term: Term, member: &Member) -> bool {
    match &seen.writable {
        Some((name, of)) if *of == term => name == leader,
        Some(_) | None => {
            !member.is_baton
                && member.role == Some(Role::Primary)
                && member.state == Some(PostgresState::Running)
        }
    }
}

fn judge(
    truth: &Truth,
    name: &NodeName,
    member: &Member,
    previous: &Truth,
    limits: &TruthLimits,
    now: Moment,
) -> Verdict {
    if truth.leader.as_ref() == Some(name) {
        return if truth.primary.is_ok() { Verdict::Primary } else { Verdict::LeaderNotUsed };
    }
    if member.state != Some(PostgresState::Running) {
        return Verdict::NotRunning { state: member.state_text.clone() };
    }
    if member.role != Some(Role::Replica) {
        return Verdict::WrongRole { role: member.role_text.clone() };
    }
    if target_of(name, member).is_none() {
        return Verdict::BadAddress { conn_url: member.conn_url.clone() };
    }
    if member.noloadbalance {
        return Verdict::NoLoadBalance;
    }
    let streaming_lost = match (member.streaming, previous.members.get(name)) {
        (true, _) => None,
        (false, Some(Verdict::NotStreaming)) => return Verdict::NotStreaming,
        // Without a primary nobody streams, and reads go on where they can.
        (false, _) if truth.primary.is_err() => None,
        (false, Some(Verdict::Replica { streaming_lost } | Verdict::Offline { streaming_lost })) => {
            let since = streaming_lost.unwrap_or(now);
            if now.since(since) >= limits.streaming_grace {
                return Verdict::NotStreaming;
            }
            Some(since)
        }
        (false, _) => return Verdict::NotStreaming,
    };
    if member.offline { Verdict::Offline { streaming_lost } } else { Verdict::Replica { streaming_lost } }
}

fn target_of(name: &NodeName, member: &Member) -> Option<Target> {
    let (host, port) = place_of(&member.conn_url)?;
    Some(Target {
        name: name.clone(),
        host,
        port,
        pooler: member.proxy_url.as_deref().and_then(place_of),
        lag: None,
        sync: false,
        since: Moment::default(),
    })
}

/// Host and port of a `postgres://host:port/db`.
fn place_of(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"))?;
    let authority = rest.split(['/', '?']).next()?;
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    let (host, port) = match place.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']')?;
            (host, after.strip_prefix(':').unwrap_or("5432"))
        }
        None => place.rsplit_once(':').unwrap_or((place, "5432")),
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let usable = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    usable.then(|| (host.to_owned(), port))
}

#[cfg(test)]
#[path = "truth_tests.rs"]
mod tests;
