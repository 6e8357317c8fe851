//! Which members may get a session: a pure function of the service, the truth and what keeps members out just now.

use crate::config::{Destination, Fallback, Role, Service};
use crate::truth::{Target, Truth};
use crate::verdict::NoPrimary;
use std::collections::BTreeSet;
use std::fmt;
use types::{NodeName, Term};

/// A member that may get the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Candidate<'a> {
    pub(crate) target: &'a Target,
    /// As the primary of this term; `None` as a member for reading.
    pub(crate) term: Option<Term>,
}

/// Why a session has to wait: what is missing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    Primary(NoPrimary),
    /// No member for reading, and no primary to stand in where it may.
    NoReplica(Option<NoPrimary>),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Primary(why) => write!(f, "{why}"),
            Why::NoReplica(Some(why)) => write!(f, "no replica can be used, and {why}"),
            Why::NoReplica(None) => write!(f, "no replica can be used"),
        }
    }
}

/// What keeps members out besides the truth.
pub(crate) struct Out<'a> {
    /// This client has just tried them in vain.
    pub(crate) failed: &'a [NodeName],
    /// A person took them out.
    pub(crate) drained: &'a BTreeSet<NodeName>,
    /// Too far behind for this service.
    pub(crate) lagging: &'a BTreeSet<NodeName>,
    /// A person sent this service here: nobody else is used while one of them can be.
    pub(crate) pinned: &'a BTreeSet<NodeName>,
}

/// Host and port of a member for this service; `None` when it has no such place.
#[must_use]
pub(crate) fn place_of(service: &Service, target: &Target) -> Option<(String, u16)> {
    match service.destination {
        Destination::Postgres => Some((target.host.clone(), target.port)),
        Destination::Port(port) => Some((target.host.clone(), port)),
        Destination::Pooler => target.pooler.clone(),
    }
}

/// The members that may get a new session of `service`: at least one, or why not.
pub(crate) fn choose<'a>(
    service: &Service,
    truth: &'a Truth,
    out: &Out<'_>,
) -> Result<Vec<Candidate<'a>>, Why> {
    let pinned = pinned(service, truth, out);
    if pinned.is_empty() { by_role(service, truth, out) } else { Ok(pinned) }
}

/// Those of the members that a person sent the service to which can serve it. A weight of 0 and the order of the tiers do not count
/// against a person's word; what makes a member unfit does.
fn pinned<'a>(service: &Service, truth: &'a Truth, out: &Out<'_>) -> Vec<Candidate<'a>> {
    if out.pinned.is_empty() {
        return Vec::new();
    }
    let primary = truth.primary.as_ref().ok().map(|target| &target.name);
    let usable = |target: &&Target| {
        let name = &target.name;
        out.pinned.contains(name)
            && !out.failed.contains(name)
            && !out.drained.contains(name)
            && !out.lagging.contains(name)
            && place_of(service, target).is_some()
    };
    let term = |target: &Target| truth.in_force.filter(|_| primary == Some(&target.name));
    homes(service, truth)
        .into_iter()
        .filter(usable)
        .map(|target| Candidate { target, term: term(target) })
        .collect()
}

fn by_role<'a>(service: &Service, truth: &'a Truth, out: &Out<'_>) -> Result<Vec<Candidate<'a>>, Why> {
    let reading = |targets: &mut dyn Iterator<Item = &'a Target>| -> Vec<Candidate<'a>> {
        let usable = |target: &&Target| {
            let name = &target.name;
            !out.failed.contains(name)
                && !out.drained.contains(name)
                && !out.lagging.contains(name)
                && service.weights.get(name) != Some(&0)
                && place_of(service, target).is_some()
        };
        targets.filter(usable).map(|target| Candidate { target, term: None }).collect()
    };
    let (replicas, offline) = (truth.replicas.iter(), truth.offline.iter());
    let mut tiers: Vec<Vec<Candidate<'a>>> = Vec::new();
    match service.role {
        Role::Primary => {
            let primary = primary(service, truth, out).map_err(Why::Primary)?;
            if truth.doubted && service.is_pooled_to_write() {
                return Err(Why::Primary(NoPrimary::Doubted { leader: primary.target.name.clone() }));
            }
            return Ok(vec![primary]);
        }
        Role::Any => {
            let mut all = reading(&mut replicas.chain(offline));
            let stands = primary(service, truth, out);
            all.extend(stands.iter().filter(|candidate| !out.failed.contains(&candidate.target.name)));
            return if all.is_empty() { Err(Why::NoReplica(stands.err())) } else { Ok(all) };
        }
        Role::Replica => {
            tiers.push(reading(&mut replicas.clone()));
            tiers.push(reading(&mut offline.clone()));
        }
        Role::Offline => {
            tiers.push(reading(&mut offline.clone()));
            if service.fallback != Fallback::None {
                tiers.push(reading(&mut replicas.clone()));
            }
        }
        Role::Sync => {
            tiers.push(reading(&mut replicas.clone().chain(offline.clone()).filter(|target| target.sync)));
            if service.fallback == Fallback::Replica {
                tiers.push(reading(&mut replicas.clone()));
            }
        }
    }
    if let Some(tier) = tiers.into_iter().find(|tier| !tier.is_empty()) {
        return Ok(tier);
    }
    if service.fallback != Fallback::Primary {
        return Err(Why::NoReplica(None));
    }
    let primary = primary(service, truth, out).map_err(|why| Why::NoReplica(Some(why)))?;
    Ok(vec![primary])
}

fn primary<'a>(service: &Service, truth: &'a Truth, out: &Out<'_>) -> Result<Candidate<'a>, NoPrimary> {
    let target = truth.primary.as_ref().map_err(NoPrimary::clone)?;
    let term = truth.in_force.ok_or(NoPrimary::NoLeader)?;
    let leader = target.name.clone();
    if out.drained.contains(&target.name) {
        return Err(NoPrimary::Drained { leader });
    }
    if place_of(service, target).is_none() {
        return Err(NoPrimary::NoPooler { leader });
    }
    Ok(Candidate { target, term: Some(term) })
}

/// Every member that a new session of `service` may come to, as things are.
#[must_use]
pub(crate) fn homes<'a>(service: &Service, truth: &'a Truth) -> Vec<&'a Target> {
    let primary = truth.primary.iter().filter(|_| truth.in_force.is_some());
    let reading = truth.replicas.iter().chain(&truth.offline);
    match service.role {
        Role::Primary => primary.collect(),
        Role::Replica | Role::Sync | Role::Any => reading.chain(primary).collect(),
        Role::Offline => match service.fallback {
            Fallback::Primary => reading.chain(primary).collect(),
            Fallback::None | Fallback::Replica => reading.collect(),
        },
    }
}

#[cfg(test)]
#[path = "choose_tests.rs"]
mod tests;
