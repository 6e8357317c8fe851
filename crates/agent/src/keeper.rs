//! The lease, renewed beside everything else.
//!
//! ```text
//!   no lease ──grant──► lease ──renew every ttl/3──► lease, deadline moved on
//!                         │ gone                       │ lead lost
//!                         ▼                            ▼
//!                       no lease                     lease without lead
//! ```
//!
//! A task of its own, so that nothing slow can delay it. It renews only while the loop turns: an agent whose decisions hang must lose
//! its lease. Every renewal that counts moves the guard's deadline; the deadline starts from the moment the request was *sent*.

use crate::guard::Warden;
use crate::wake::{Cell, Wake};
use crate::watchdog::Watchdog;
use etcd::{Etcd, Granted, Renewed};
use ha::{Authority, Rules};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use types::{LeaseId, Moment, NodeName, Term};

/// What is known of the lease.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lease {
    pub id: Option<LeaseId>,
    /// As granted.
    pub ttl_seconds: u32,
    /// As asked for; etcd raises what is below its own minimum.
    pub asked_ttl: u32,
    /// The end of what the lease allows: the sending of the last successful renewal + ttl − margin.
    pub deadline: Option<Moment>,
    /// The term in which we hold the lead.
    pub term: Option<Term>,
    /// When etcd last answered.
    pub answered: Option<Moment>,
    /// Raised with every change of `id` or `term`: an answer to a question asked before counts for nothing.
    pub generation: u64,
}

/// The lease's keeper; a cheap clone.
#[derive(Clone)]
pub(crate) struct Keeper {
    inner: Arc<Inner>,
}

struct Inner {
    etcd: Etcd,
    me: NodeName,
    warden: Arc<Warden>,
    watchdog: Watchdog,
    wake: Wake,
    renew: Wake,
    lease: Cell<Lease>,
    /// Told after each change of the lease or of what hangs on it.
    changes: watch::Sender<()>,
    /// The settings that the keeper needs, and when the loop last turned.
    pace: Cell<Pace>,
    /// Why etcd last would not hear of a renewal, while that goes on.
    refused: Cell<Option<String>>,
}

struct Pace {
    rules: Rules,
    turned: Moment,
}

impl Keeper {
    /// A keeper that takes up what an earlier agent left.
    pub(crate) fn new(
        etcd: Etcd,
        me: NodeName,
        warden: Arc<Warden>,
        watchdog: Watchdog,
        wake: Wake,
        rules: Rules,
    ) -> Keeper {
        // Only what a leader left: another lease may hold a claim to bootstrap that ended with the agent that made it.
        let left = warden.resumed().filter(|resumed| resumed.term.is_some());
        let lease = left.map_or_else(Lease::default, |resumed| Lease {
            id: Some(resumed.lease),
            ttl_seconds: resumed.ttl_seconds,
            asked_ttl: resumed.ttl_seconds,
            // The guard goes by it: it was proven by whoever moved it there.
            deadline: resumed.deadline,
            term: resumed.term,
            ..Lease::default()
        });
        let pace = Cell::new(Pace { rules, turned: clock::now() });
        Keeper {
            inner: Arc::new(Inner {
                etcd,
                me,
                warden,
                watchdog,
                wake,
                renew: Wake::default(),
                lease: Cell::new(lease),
                changes: watch::Sender::new(()),
                pace,
                refused: Cell::new(None),
            }),
        }
    }

    /// The loop has turned, with these settings.
    pub(crate) fn turned(&self, rules: &Rules) {
        self.inner.pace.with(|pace| {
            pace.turned = clock::now();
            if pace.rules != *rules {
                pace.rules = rules.clone();
            }
        });
    }

    /// What is known of the lease now.
    pub(crate) fn lease(&self) -> Lease {
        self.inner.lease.get()
    }

    /// Wakes whenever the lease changes, or what hangs on it.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// What the lease allows now.
    pub(crate) fn authority(&self) -> Authority {
        let lease = self.lease();
        match (lease.term, lease.deadline) {
            (Some(term), Some(deadline)) => Authority::Held { term, deadline },
            (Some(_), None) | (None, _) => Authority::None,
        }
    }

    /// The lead of this term was taken with the present lease.
    pub(crate) fn took_lead(&self, lease: LeaseId, term: Term) {
        self.change(|kept| {
            if kept.id == Some(lease) {
                kept.term = Some(term);
                kept.generation += 1;
            }
        });
        self.inner.renew.wake();
    }

    /// All others agreed that the lead of this term lasts until then. Whether it is held still.
    pub(crate) fn extend(&self, term: Term, until: Moment) -> bool {
        let mut held = false;
        self.change(|kept| {
            held = kept.term == Some(term);
            if held {
                kept.deadline = kept.deadline.max(Some(until));
            }
        });
        if held {
            let ttl = self.inner.pace.with(|pace| pace.rules.ttl);
            self.inner.watchdog.keep_alive(until.after(Rules::margin(ttl)));
        }
        held
    }

    /// The lead was given back.
    pub(crate) fn gave_lead_back(&self) {
        self.change(|kept| {
            kept.term = None;
            kept.generation += 1;
        });
    }

    /// The lead of this term is not renewed any more: its lease ends by itself, and nobody may lead before it has. The guard keeps the
    /// deadline that it has; this member goes on with another lease.
    pub(crate) fn forsake(&self, term: Term) {
        self.change(|kept| {
            if kept.term == Some(term) {
                *kept = Lease { generation: kept.generation + 1, ..Lease::default() };
            }
        });
        self.inner.renew.wake();
    }

    fn change(&self, change: impl FnOnce(&mut Lease)) {
        // In one step with the change, so that of two changes the guard hears the later one last.
        self.inner.lease.with(|lease| {
            change(lease);
            self.inner.warden.note(lease.id, lease.ttl_seconds, lease.term);
            if let (Some(_), Some(deadline)) = (lease.term, lease.deadline) {
                self.inner.warden.move_deadline(deadline);
            }
        });
        self.inner.changes.send_replace(());
        self.inner.wake.wake();
    }

    /// Renews for ever; ends when dropped.
    pub(crate) async fn run(self) {
        loop {
            let rest = self.beat().await;
            let _ = tokio::time::timeout(rest, self.inner.renew.changed()).await;
        }
    }

    /// One grant or renewal; returns the rest before the next.
    async fn beat(&self) -> Duration {
        let (rules, turned) = self.inner.pace.with(|pace| (pace.rules.clone(), pace.turned));
        let now = clock::now();
        if now.since(turned) > rules.ttl {
            tracing::error!(
                stalled_ms = now.since(turned).as_millis() as u64,
                "the agent's decisions stand still: the lease is not renewed until they go on"
            );
            return rules.renew_every();
        }
        let lease = self.lease();
        match lease.id {
            None => self.grant(&rules, None).await,
            Some(_) if lease.asked_ttl != seconds(rules.ttl) && lease.answered.is_some() => {
                self.grant(&rules, lease.term).await
            }
            Some(id) => self.renew(id, lease, &rules).await,
        }
    }

    /// One renewal or grant before the loop begins, so that it starts with what an earlier agent left.
    pub(crate) async fn first_beat(&self, within: Duration) {
        let _ = tokio::time::timeout(within, self.beat()).await;
    }

    /// Grants a lease; the lead of `term`, held under one with another time to live, is attached to the new one.
    async fn grant(&self, rules: &Rules, term: Option<Term>) -> Duration {
        let asked_ttl = seconds(rules.ttl);
        let by = clock::now().after(rules.retry_timeout);
        match self.inner.etcd.grant(asked_ttl, by).await {
            Ok(granted) => {
                if let Some(term) = term {
                    match self.inner.etcd.adopt_leader(&self.inner.me, term, granted.lease, by).await {
                        Ok(true) => {}
                        // The old lease is still the one that counts.
                        Ok(false) => return Duration::from_millis(250),
                        Err(error) => return self.doubt(&granted, &error),
                    }
                }
                self.change(|kept| {
                    *kept = Lease {
                        id: Some(granted.lease),
                        ttl_seconds: granted.ttl_seconds,
                        asked_ttl,
                        deadline: Some(end(granted.sent, granted.ttl_seconds)),
                        term,
                        answered: Some(clock::now()),
                        generation: kept.generation + 1,
                    };
                });
                rules.renew_every()
            }
            Err(error) => {
                tracing::debug!(%error, "failed to grant a lease");
                Duration::from_millis(250)
            }
        }
    }

    /// The leader key may hang on the new lease, or on the old one: until a renewal shows which, it ends with the first of both.
    fn doubt(&self, granted: &Granted, error: &etcd::Error) -> Duration {
        tracing::debug!(%error, "failed to attach the lead to a lease with another time to live");
        let ends = end(granted.sent, granted.ttl_seconds);
        self.change(|kept| kept.deadline = kept.deadline.map(|deadline| deadline.min(ends)));
        Duration::from_millis(250)
    }

    async fn renew(&self, id: LeaseId, asked: Lease, rules: &Rules) -> Duration {
        // A renewal that takes longer than the lease lives is of no use to anybody.
        let by = clock::now().after(rules.ttl.min(rules.retry_timeout * 2));
        let holding = asked.term.map(|term| (&self.inner.me, term));
        let renewed = self.inner.etcd.renew(id, holding, by).await;
        let mut rest = rules.renew_every();
        let mut stale = false;
        self.change(|kept| {
            if kept.generation != asked.generation {
                stale = true; // the question was about another lease or term: ask again
                return;
            }
            match &renewed {
                Ok(Renewed::Kept { ttl_seconds, sent }) => {
                    kept.ttl_seconds = *ttl_seconds;
                    // Without etcd the others may have agreed to more than an answer that was long under way.
                    kept.deadline = kept.deadline.max(Some(end(*sent, *ttl_seconds)));
                    kept.answered = Some(clock::now());
                }
                Ok(Renewed::LeadLost) => {
                    kept.term = None;
                    kept.generation += 1;
                    kept.answered = Some(clock::now());
                    rest = Duration::ZERO;
                }
                Ok(Renewed::Gone) => {
                    *kept = Lease {
                        generation: kept.generation + 1,
                        answered: Some(clock::now()),
                        ..Lease::default()
                    };
                    rest = Duration::ZERO;
                }
                Err(_) => rest = Duration::from_millis(100),
            }
        });
        if stale {
            return Duration::ZERO;
        }
        match &renewed {
            Ok(Renewed::LeadLost) => tracing::warn!("the leader key is no longer ours"),
            Ok(Renewed::Gone) => tracing::warn!(lease = %id, "the lease is gone; a new one is granted"),
            Ok(Renewed::Kept { ttl_seconds, sent }) => {
                if asked.term.is_some() {
                    self.inner.watchdog.keep_alive(sent.after(Duration::from_secs((*ttl_seconds).into())));
                }
            }
            Err(error) => tracing::debug!(%error, "failed to renew the lease"),
        }
        self.report_refusal(&renewed, asked.deadline.filter(|_| asked.term.is_some()));
        rest
    }
}

impl Keeper {
    /// Says it once when etcd answers and will not renew the lease. It is asked again all the same: that is an outage like any other,
    /// and the lead is kept until its deadline.
    fn report_refusal(&self, renewed: &Result<Renewed, etcd::Error>, deadline: Option<Moment>) {
        let why = match renewed {
            Err(etcd::Error::Refused { why }) => Some(why.clone()),
            Err(
                etcd::Error::Unreachable { .. }
                | etcd::Error::Conflict
                | etcd::Error::LeaseGone
                | etcd::Error::Unknown { .. }
                | etcd::Error::Protocol { .. },
            )
            | Ok(Renewed::Kept { .. } | Renewed::LeadLost | Renewed::Gone) => None,
        };
        let before = self.inner.refused.with(|kept| std::mem::replace(kept, why.clone()));
        match (why, before) {
            (Some(why), None) => {
                let left = deadline.map(|deadline| clock::now().until(deadline).as_secs());
                tracing::error!(
                    left,
                    "etcd answers and refuses to renew the lease: {why}; it is asked again until the lease ends (failsafe mode may go on longer): correct user, \
                     password and role of this cluster in etcd (docs/etcd.md)"
                );
            }
            (None, Some(_)) if renewed.is_ok() => tracing::info!("etcd renews the lease again"),
            (Some(_) | None, Some(_) | None) => {}
        }
    }
}

fn seconds(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX)
}

fn end(sent: Moment, ttl_seconds: u32) -> Moment {
    let ttl = Duration::from_secs(ttl_seconds.into());
    sent.after(ttl.saturating_sub(Rules::margin(ttl)))
}
