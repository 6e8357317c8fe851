//! What the members' own answers to "what if" come to, put together. Pure: answers in, a [`Forecast`] out.
//!
//! ```text
//!   every member: would it lead, why not, its slots ─┐
//!   the leader: its position, its lease, the bound ──┼──► verdict, loss, slots, etcd, traffic ──► render::what_if, exit code
//!   etcd: its members, the promised slots ───────────┘
//! ```

use crate::cli::EventArg;
use crate::exit_codes::Code;
use ha::slots::{Fate, Promised, fates};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use types::{Lsn, Slot, SlotKind};

/// A promotion, from the key to the first write, usually takes less than this.
const PROMOTION: f64 = 0.5;

/// Who is ready at most so many milliseconds after the first may be faster in fact.
const AT_ONCE: u64 = 300;

/// What is imagined, and of whom.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scenario {
    pub event: EventArg,
    /// In a switchover who shall lead.
    pub member: Option<String>,
}

/// What one member answers. What it does not say is not known.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct Said {
    pub outcome: String,
    #[serde(default)]
    pub after_ms: u64,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub text: String,
    pub timeline: Option<u32>,
    pub lsn: Option<u64>,
    #[serde(default)]
    pub silent: BTreeSet<String>,
    #[serde(default)]
    pub rules: Rules,
    #[serde(default)]
    pub loss: Bound,
    pub lease_ms: Option<u64>,
    #[serde(default)]
    pub slots: Vec<SaidSlot>,
    #[serde(default)]
    pub unready_slots: Vec<String>,
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Whom commits would wait for if this member led then; `None`: for nobody, or it does not say.
    #[serde(default)]
    pub commits: Option<Commits>,
}

/// The standbys that commits wait for.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Commits {
    pub names: Vec<String>,
    #[serde(default)]
    pub count: usize,
    #[serde(default)]
    pub wanted: usize,
    /// Commits under way wait for one that is gone until the leader has noticed.
    #[serde(default)]
    pub interrupted: bool,
    /// Nobody is left to wait for, and commits stand still until somebody is.
    #[serde(default)]
    pub stand: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct Rules {
    #[serde(default)]
    pub ttl: u64,
    #[serde(default)]
    pub synchronous_mode: String,
    #[serde(default)]
    pub pause: bool,
    #[serde(default)]
    pub standby_cluster: bool,
    /// `baton.await_routers`.
    #[serde(default)]
    pub await_routers_ms: u64,
}

/// What a failover may lose at most, and how that comes about.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub(crate) struct Bound {
    #[serde(default)]
    pub bytes: u64,
    #[serde(default)]
    pub allowed: u64,
    #[serde(default)]
    pub unseen: u64,
    #[serde(default)]
    pub span_ms: u64,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub(crate) struct SaidSlot {
    pub name: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    pub position: Option<u64>,
    #[serde(default)]
    pub lost: bool,
    #[serde(default)]
    pub temporary: bool,
    #[serde(default)]
    pub failover: bool,
    #[serde(default)]
    pub synced: bool,
}

/// What is known beside the answers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct World {
    pub leader: Option<String>,
    /// The last position that the leader published.
    pub optime: Option<u64>,
    /// Where its slots were then.
    pub status_slots: BTreeMap<String, u64>,
    /// The permanent slots, and whether PostgreSQL shall keep them itself.
    pub permanent: BTreeMap<String, bool>,
    /// The routers that are there, by what they call themselves in etcd.
    pub routers: BTreeSet<String>,
    /// The host of each member.
    pub hosts: BTreeMap<String, String>,
    /// The members of etcd: name, hosts, whether it answers. Empty when no majority answers.
    pub etcd: Vec<(String, BTreeSet<String>, bool)>,
}

/// The answers, or why there are none.
pub(crate) type Answers = BTreeMap<String, Result<Said, String>>;

/// What would happen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Forecast {
    pub scenario: Scenario,
    pub leader: Option<String>,
    pub verdict: Verdict,
    /// Of each member: what becomes of it.
    pub members: BTreeMap<String, String>,
    /// What the next leader lacks at this moment of what this one has.
    pub lacks: Option<u64>,
    /// What could be lost at most; `None`: nothing.
    pub bound: Option<Bound>,
    /// Why nothing can be lost.
    pub lossless: Option<&'static str>,
    /// Whom commits wait for then; `None`: for nobody, as now, or it is not known.
    pub commits: Option<Commits>,
    /// What becomes of the leader's slots.
    pub slots: BTreeMap<String, Fate>,
    /// etcd's members: how many there are, how many answer, those on the host, whether the rest is a majority.
    pub etcd: Option<Rest>,
    pub routers: usize,
    /// Whose word the promotion would wait for.
    pub witnesses: Option<Witnesses>,
    pub addresses: Vec<String>,
}

/// The routers that are to say that they have no session left on the old leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witnesses {
    pub routers: BTreeSet<String>,
    /// So long at most.
    pub ms: u64,
}

/// Who accepts writes then.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// One of these, the first of them most likely; after so many seconds, of which so many until the lease has ended.
    Leads {
        names: Vec<String>,
        seconds: f64,
        lease: f64,
    },
    /// The one that leads now.
    Stays {
        name: String,
        text: String,
    },
    /// What was to be done is refused, and nothing changes.
    Refused {
        text: String,
    },
    Nobody {
        why: String,
    },
}

/// What is left of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub members: usize,
    pub answer: usize,
    pub on_host: Vec<String>,
    pub majority: bool,
}

impl Forecast {
    /// How the command ends.
    pub(crate) fn code(&self) -> Code {
        match &self.verdict {
            Verdict::Nobody { .. } => Code::NobodyWouldLead,
            Verdict::Refused { .. } => Code::Failed,
            Verdict::Leads { .. } | Verdict::Stays { .. } => {
                let kept = |fate: &Fate| matches!(fate, Fate::Survives | Fate::NotPromised);
                if self.bound.is_none() && self.slots.values().all(kept) { Code::Ok } else { Code::WouldLose }
            }
        }
    }
}

/// Puts the answers together.
pub(crate) fn forecast(scenario: &Scenario, world: &World, answers: &Answers) -> Forecast {
    let etcd = rest_of_etcd(scenario, world);
    let mut verdict = verdict(scenario, world, answers);
    if let (Verdict::Leads { .. }, Some(Rest { majority: false, .. })) = (&verdict, &etcd) {
        verdict = Verdict::Nobody {
            why: "etcd would have no majority left, and without one nobody takes the lead".to_owned(),
        };
    }
    let leader = world.leader.as_ref().and_then(|leader| said(answers, leader));
    let next = match &verdict {
        Verdict::Leads { names, .. } => names.first().and_then(|name| said(answers, name)),
        Verdict::Stays { .. } | Verdict::Refused { .. } | Verdict::Nobody { .. } => None,
    };
    let (lossless, bound) = loss(scenario, &verdict, leader, next);
    let lacks = next.filter(|_| bound.is_some()).and_then(|next| {
        let end = leader.and_then(|leader| leader.lsn).or(world.optime)?;
        Some(end.saturating_sub(next.lsn?))
    });
    let text = |answer: &Result<Said, String>| match answer {
        Ok(said) => described(said),
        Err(why) => format!("is not known: {why}"),
    };
    Forecast {
        scenario: scenario.clone(),
        leader: world.leader.clone(),
        members: answers.iter().map(|(name, answer)| (name.clone(), text(answer))).collect(),
        lacks,
        bound,
        lossless,
        commits: leads_then(&verdict).and_then(|name| said(answers, name)?.commits.clone()),
        slots: next.map(|next| slots(world, leader, next)).unwrap_or_default(),
        etcd,
        routers: world.routers.len(),
        witnesses: next.and_then(|next| witnesses(scenario, world, &next.rules)),
        addresses: leader.map(|leader| leader.addresses.clone()).unwrap_or_default(),
        verdict,
    }
}

/// Who accepts writes then.
fn leads_then(verdict: &Verdict) -> Option<&str> {
    match verdict {
        Verdict::Leads { names, .. } => names.first().map(String::as_str),
        Verdict::Stays { name, .. } => Some(name),
        Verdict::Refused { .. } | Verdict::Nobody { .. } => None,
    }
}

fn said<'a>(answers: &'a Answers, name: &str) -> Option<&'a Said> {
    answers.get(name)?.as_ref().ok()
}

fn described(said: &Said) -> String {
    match said.outcome.as_str() {
        "takes the lead" => "would take the lead".to_owned(),
        "keeps the lead" => format!("would go on leading: {}", said.text),
        "hands over" => format!("would hand the lead over: {}", said.text),
        "ends" => format!("would stop accepting writes before its lease ends: {}", said.text),
        "gone" => "would be gone".to_owned(),
        _ => format!("would not lead: {}", said.text),
    }
}

fn verdict(scenario: &Scenario, world: &World, answers: &Answers) -> Verdict {
    let Some(leader) = &world.leader else {
        return candidates(answers, 0.0).unwrap_or_else(|| nobody(answers, "nobody leads at the moment"));
    };
    let of_leader = scenario.member.as_ref() == Some(leader);
    let said = said(answers, leader);
    let lost = matches!(scenario.event, EventArg::Dies | EventArg::Unplugged) && of_leader;
    if lost {
        let ttl = answers.values().flatten().map(|said| said.rules.ttl).max().unwrap_or_default();
        let lease = said.and_then(|said| said.lease_ms).unwrap_or(ttl.saturating_mul(1000)) as f64 / 1000.0;
        return candidates(answers, lease).unwrap_or_else(|| nobody(answers, "nobody could take over"));
    }
    let Some(said) = said else {
        return Verdict::Nobody { why: format!("{leader}, which leads, does not say what it would do") };
    };
    let text = said.text.clone();
    match said.outcome.as_str() {
        "keeps the lead" if scenario.event == EventArg::Switchover => Verdict::Refused { text },
        "keeps the lead" => Verdict::Stays { name: leader.clone(), text },
        "hands over" => {
            candidates(answers, 0.0).unwrap_or_else(|| nobody(answers, "nobody would take the lead"))
        }
        _ => Verdict::Nobody { why: text },
    }
}

/// Those that would take the lead: the quickest, and of those the one that has most.
fn candidates(answers: &Answers, lease: f64) -> Option<Verdict> {
    let mut able: Vec<(&String, &Said)> = answers
        .iter()
        .filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)))
        .filter(|(_, said)| said.outcome == "takes the lead")
        .collect();
    able.sort_by_key(|(_, said)| (said.after_ms, std::cmp::Reverse((said.timeline, said.lsn))));
    let first = able.first()?.1.after_ms;
    // The others would wait for longer than the first needs.
    able.retain(|(_, said)| said.after_ms <= first.saturating_add(AT_ONCE));
    let after = first as f64 / 1000.0;
    let names = able.into_iter().map(|(name, _)| name.clone()).collect();
    Some(Verdict::Leads { names, seconds: lease + after + PROMOTION, lease })
}

fn nobody(answers: &Answers, what: &str) -> Verdict {
    let paused = answers.values().flatten().any(|said| said.rules.pause);
    let pause = "the cluster is paused, and in pause nobody takes over by itself";
    Verdict::Nobody { why: if paused { pause.to_owned() } else { what.to_owned() } }
}

/// Why nothing is lost, or how much could be.
fn loss(
    scenario: &Scenario,
    verdict: &Verdict,
    leader: Option<&Said>,
    next: Option<&Said>,
) -> (Option<&'static str>, Option<Bound>) {
    match verdict {
        Verdict::Stays { .. } | Verdict::Refused { .. } => return (Some("the leader keeps its data"), None),
        Verdict::Nobody { .. } => return (Some("nobody else takes over from what was written"), None),
        Verdict::Leads { .. } => {}
    }
    if scenario.event == EventArg::Switchover {
        let why = "the old leader stops only when the standbys have everything";
        return (Some(why), None);
    }
    let Some(bound) = leader.or(next).map(|said| said.loss) else { return (None, None) };
    if bound.bytes == 0 && leader.or(next).is_some_and(|said| said.rules.synchronous_mode != "off") {
        let why = "replication is synchronous: whoever leads has every acknowledged commit";
        return (Some(why), None);
    }
    (None, Some(bound))
}

/// What becomes of the leader's slots on the next one.
fn slots(world: &World, leader: Option<&Said>, next: &Said) -> BTreeMap<String, Fate> {
    let mut promised: BTreeMap<String, Promised> = BTreeMap::new();
    for (name, failover) in &world.permanent {
        let position = world.status_slots.get(name).copied().map(Lsn);
        let failover = *failover && leader.is_some_and(|said| said.slots.iter().any(|slot| slot.failover));
        promised
            .insert(name.clone(), Promised { permanent: true, failover, position, ..Promised::default() });
    }
    for slot in leader.into_iter().flat_map(|leader| &leader.slots).filter(|slot| !slot.temporary) {
        let permanent = world.permanent.contains_key(&slot.name);
        let logical = slot.kind == "logical";
        // The physical slots of members are made by whoever leads.
        if logical || permanent {
            let position = slot.position.map(Lsn);
            let row = Promised { logical, permanent, failover: slot.failover, position };
            promised.insert(slot.name.clone(), row);
        }
    }
    let there: Vec<Slot> = next.slots.iter().map(read).collect();
    fates(&promised, &there, &next.unready_slots)
}

fn read(said: &SaidSlot) -> Slot {
    let position = said.position.map(Lsn);
    let logical = said.kind == "logical";
    Slot {
        kind: if logical { SlotKind::Logical } else { SlotKind::Physical },
        temporary: said.temporary,
        restart_lsn: position,
        confirmed_flush_lsn: position.filter(|_| logical),
        wal_status: said.lost.then(|| "lost".to_owned()),
        failover: said.failover,
        synced: said.synced,
        ..Slot::physical(&said.name)
    }
}

/// Before a switchover the routers have been told, and in a standby cluster nobody is promoted.
fn witnesses(scenario: &Scenario, world: &World, rules: &Rules) -> Option<Witnesses> {
    let (planned, ms) = (scenario.event == EventArg::Switchover, rules.await_routers_ms);
    let waits = ms > 0 && !planned && !rules.standby_cluster && !world.routers.is_empty();
    waits.then(|| Witnesses { routers: world.routers.clone(), ms })
}

/// What a lost host takes of etcd along.
fn rest_of_etcd(scenario: &Scenario, world: &World) -> Option<Rest> {
    let lost = matches!(scenario.event, EventArg::Dies | EventArg::Unplugged);
    let host = scenario.member.as_ref().filter(|_| lost).and_then(|name| world.hosts.get(name))?;
    if world.etcd.is_empty() {
        return None;
    }
    let on_host: Vec<String> = world
        .etcd
        .iter()
        .filter(|(_, hosts, _)| hosts.contains(host))
        .map(|(name, _, _)| name.clone())
        .collect();
    let answer = world.etcd.iter().filter(|(_, _, answers)| *answers).count();
    let left = world.etcd.iter().filter(|(name, _, answers)| *answers && !on_host.contains(name)).count();
    Some(Rest { members: world.etcd.len(), answer, majority: left > world.etcd.len() / 2, on_host })
}
