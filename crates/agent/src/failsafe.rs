//! Failsafe mode: what this member asks the others when it leads without etcd, and what it tells them when they do.
//!
//! ```text
//!   leader without etcd ──POST /failsafe──► all others of /failsafe, within 800 ms ──► round: who agreed
//!   POST /failsafe here ─► lead held or being taken: refused ─► else a promise: nothing is taken for a ttl
//! ```
//! One lock stands between the two: while a promise holds, no lead is begun to be taken; while one is being taken, nothing is promised.

use crate::act::NotYet;
use crate::wake::{Cell, Wake};
use ha::{FailsafePromise, FailsafeRound};
use http::{Client, Method};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use types::{Lsn, Moment, NodeName, Term};

/// Who has not agreed within this time has not agreed.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);

/// This member's part of failsafe mode; a cheap clone.
#[derive(Clone)]
pub(crate) struct Failsafe {
    inner: Arc<Inner>,
}

struct Inner {
    wake: Wake,
    began: Moment,
    /// `/failsafe` as an earlier life of this agent kept it in the term that we took up.
    kept: Option<BTreeMap<NodeName, String>>,
    state: Cell<State>,
}

#[derive(Default)]
struct State {
    /// The lead is being taken: until the outcome is known, nothing is promised.
    taking: bool,
    promise: Option<FailsafePromise>,
    /// The positions of the slots of the leader that we promised to.
    slots: BTreeMap<String, Lsn>,
    /// How far those who agreed with us were.
    reached: BTreeMap<NodeName, Lsn>,
    round: Option<FailsafeRound>,
    /// Until when the lead goes on by the word of the others.
    extended: Option<Moment>,
    /// What we wrote into `/failsafe`, as long as it is not certain that this is what stands there.
    listed: BTreeMap<NodeName, String>,
}

/// A leader that asks whether it may lead on.
pub(crate) struct Call {
    pub name: NodeName,
    /// What it takes for the ttl, when it says so.
    pub ttl: Option<Duration>,
    pub slots: BTreeMap<String, Lsn>,
}

impl Failsafe {
    pub(crate) fn new(wake: Wake, kept: Option<BTreeMap<NodeName, String>>) -> Failsafe {
        let (began, state) = (clock::now(), Cell::new(State::default()));
        Failsafe { inner: Arc::new(Inner { wake, began, kept, state }) }
    }

    /// Whom an earlier life of this agent listed in the term that we took up, and where they are.
    pub(crate) fn kept(&self) -> Option<&BTreeMap<NodeName, String>> {
        self.inner.kept.as_ref()
    }

    /// As the decisions see it.
    pub(crate) fn observe(&self) -> ha::Failsafe {
        self.inner.state.with(|state| ha::Failsafe {
            began: self.inner.began,
            listed: state.listed.keys().cloned().collect(),
            kept: self.inner.kept.as_ref().map(|kept| kept.keys().cloned().collect()),
            round: state.round.clone(),
            promise: state.promise.clone(),
        })
    }

    /// The member that leads without etcd by our word, and where its slots were when it asked last.
    pub(crate) fn promised(&self) -> Option<(NodeName, BTreeMap<String, Lsn>)> {
        self.inner.state.with(|state| {
            let promise = state.promise.as_ref().filter(|promise| clock::now() < promise.until)?;
            Some((promise.to.clone(), state.slots.clone()))
        })
    }

    /// How far the members are that gave us their word, while the lead goes on by it.
    pub(crate) fn reached(&self) -> BTreeMap<NodeName, Lsn> {
        self.inner.state.with(|state| {
            let leads = state.extended.is_some_and(|until| clock::now() < until);
            if leads { state.reached.clone() } else { BTreeMap::new() }
        })
    }

    /// Whether the lead goes on by the word of the others, here (`deadline` is not that of a later renewal) or by ours elsewhere;
    /// or is being asked for.
    pub(crate) fn is_active(&self, deadline: Option<Moment>) -> bool {
        let now = clock::now();
        self.inner.state.with(|state| {
            let asking = state.round.as_ref().is_some_and(|round| !round.over);
            let leads = |until: &Moment| now < *until && deadline.is_none_or(|deadline| deadline <= *until);
            let follows = state.promise.as_ref().is_some_and(|promise| now < promise.until);
            asking || state.extended.as_ref().is_some_and(leads) || follows
        })
    }

    /// Whether this agent began less than a ttl ago.
    pub(crate) fn is_young(&self, ttl: Duration) -> bool {
        clock::now() < self.inner.began.after(ttl)
    }

    /// Begins to take or to use the lead. Refused while a promise holds.
    pub(crate) fn take(&self) -> Result<Taking, NotYet> {
        self.inner.state.with(|state| match &state.promise {
            Some(promise) if clock::now() < promise.until => {
                let why = format!("lead: {} leads without etcd (failsafe mode) by our word", promise.to);
                Err(NotYet(why))
            }
            Some(_) | None => {
                state.taking = true;
                Ok(Taking(self.clone()))
            }
        })
    }

    /// A leader asks. Whether we agree: then nothing is taken here for a ttl.
    pub(crate) fn accept(&self, call: Call, ttl: Duration, leads: impl FnOnce() -> bool) -> bool {
        let agreed = self.inner.state.with(|state| {
            if state.taking || leads() {
                return false;
            }
            let until = clock::now().after(ttl.max(call.ttl.unwrap_or_default()));
            let before = state.promise.as_ref().map_or(until, |promise| promise.until);
            state.promise = Some(FailsafePromise { to: call.name, until: until.max(before) });
            state.slots = call.slots;
            true
        });
        self.inner.wake.wake();
        agreed
    }

    /// The lead goes on by the word of all others until then.
    pub(crate) fn extended(&self, until: Moment) {
        self.inner.state.with(|state| state.extended = Some(until));
    }

    /// `/failsafe` is about to be written like this: from now on those in it may race.
    pub(crate) fn lists(&self, names: &BTreeMap<NodeName, String>) {
        self.inner.state.with(|state| {
            state.listed.extend(names.iter().map(|(name, url)| (name.clone(), url.clone())));
        });
    }

    /// All that may stand in `/failsafe`, when the last that was seen there is this.
    pub(crate) fn possible(&self, seen: Option<&BTreeMap<NodeName, String>>) -> BTreeMap<NodeName, String> {
        let mut all = seen.cloned().unwrap_or_default();
        self.inner.state.with(|state| all.extend(state.listed.clone()));
        all
    }

    /// What stands in `/failsafe` is certain and seen.
    pub(crate) fn listed(&self) {
        self.inner.state.with(|state| state.listed.clear());
    }

    /// Asks these members, all at once, whether we may lead on.
    pub(crate) fn ask(
        &self,
        client: &Client,
        term: Term,
        names: &[NodeName],
        urls: &BTreeMap<NodeName, String>,
        question: Value,
    ) {
        let asked = clock::now();
        let round = FailsafeRound { term, asked, over: false, accepted: BTreeSet::new() };
        let targets = self.inner.state.with(|state| {
            state.round = Some(round);
            let url = |name: &NodeName| state.listed.get(name).or_else(|| urls.get(name)).cloned();
            names.iter().map(|name| (name.clone(), url(name))).collect::<Vec<_>>()
        });
        let (failsafe, client, question) = (self.clone(), client.clone(), Arc::new(question));
        tokio::spawn(async move {
            let questions = targets.into_iter().map(|(name, url)| {
                let (failsafe, client, question) = (failsafe.clone(), client.clone(), question.clone());
                async move {
                    let url = url.unwrap_or_default();
                    match client.call(Method::POST, &url, "/failsafe", Some(&question), ANSWER_WITHIN).await {
                        Ok(reply) if reply.status == 200 => {
                            let lsn =
                                reply.headers.get("lsn").and_then(|lsn| lsn.to_str().ok()?.parse().ok());
                            failsafe.reaches(&name, lsn.map(Lsn));
                            failsafe.note(asked, |round| {
                                round.accepted.insert(name);
                            });
                        }
                        Ok(reply) => tracing::warn!(
                            member = %name, status = reply.status, answer = reply.body,
                            "has not agreed that this member leads on without etcd"
                        ),
                        Err(trouble) => tracing::warn!(
                            member = %name, %trouble,
                            "has not answered whether this member may lead on without etcd"
                        ),
                    }
                }
            });
            futures_util::future::join_all(questions).await;
            failsafe.note(asked, |round| round.over = true);
        });
    }

    fn reaches(&self, name: &NodeName, lsn: Option<Lsn>) {
        if let Some(lsn) = lsn {
            self.inner.state.with(|state| state.reached.insert(name.clone(), lsn));
        }
    }

    fn note(&self, asked: Moment, change: impl FnOnce(&mut FailsafeRound)) {
        self.inner.state.with(|state| {
            if let Some(round) = state.round.as_mut().filter(|round| round.asked == asked) {
                change(round);
            }
        });
        self.inner.wake.wake();
    }
}

/// While it lives nothing is promised.
pub(crate) struct Taking(Failsafe);

impl Drop for Taking {
    fn drop(&mut self) {
        self.0.inner.state.with(|state| state.taking = false);
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Failsafe};
    use crate::wake::Wake;
    use std::collections::BTreeMap;
    use std::time::Duration;
    use types::NodeName;

    fn call(ttl: u64) -> Call {
        Call { name: NodeName::from("b"), ttl: Some(Duration::from_secs(ttl)), slots: BTreeMap::new() }
    }

    #[test]
    fn a_lead_is_taken_or_promised_but_never_both() {
        let failsafe = Failsafe::new(Wake::default(), None);
        let ttl = Duration::from_secs(5);
        let taking = failsafe.take().ok().unwrap();
        assert!(!failsafe.accept(call(5), ttl, || false), "the outcome is not known");
        drop(taking);
        assert!(!failsafe.accept(call(5), ttl, || true), "a leader agrees to nobody else");
        assert!(failsafe.take().is_ok());
        assert!(failsafe.accept(call(30), ttl, || false));
        assert!(failsafe.take().is_err(), "it promised");
        let until = failsafe.observe().promise.unwrap().until;
        assert!(until >= clock::now().after(Duration::from_secs(20)), "the longer ttl counts");
        assert!(failsafe.accept(call(1), ttl, || false));
        assert_eq!(failsafe.observe().promise.unwrap().until, until, "a promise is not made shorter");
    }
}
