//! The router's hold on one session: it may run, it is held at its next idle moment, or it has to end.
//!
//! ```text
//!   Free ◄──► Held             a planned switchover begins, or passes without one
//!     ◄─────► Distrusted       it is in a pooler, and whether that leads to a server that takes writes is not known now
//!     └──────────┴──► Cut      for good, with the reason
//! ```
//! A session in a pooler is distrusted by the clock as well: what the router knows is good until a moment, and a process that was stopped for a
//! while goes on where it was before anybody can tell it that the moment has passed.

use crate::cut_reason::CutReason;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;
use types::Moment;

const FREE: u8 = Rein::Free as u8;
const HELD: u8 = Rein::Held as u8;
const DISTRUSTED: u8 = Rein::Distrusted as u8;

/// What a session may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rein {
    Free,
    Held,
    /// As held; and one that cannot be held has to end.
    Distrusted,
    Cut,
}

impl Rein {
    /// Whether nothing new may begin.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Rein::Held | Rein::Distrusted)
    }
}

/// Until when what a router knows of the primary of a cluster is good, in milliseconds since the boot.
#[derive(Debug, Default)]
pub(crate) struct Trust(AtomicU64);

impl Trust {
    /// It is good until then; whether it had ended before `now`.
    pub(crate) fn lasts(&self, until: Moment, now: Moment) -> bool {
        Moment(self.0.swap(until.0, Ordering::AcqRel)) <= now
    }

    pub(crate) fn has_ended(&self, now: Moment) -> bool {
        Moment(self.0.load(Ordering::Acquire)) <= now
    }
}

/// A cheap clone: all clones are the same leash.
#[derive(Clone)]
pub(crate) struct Leash(Arc<Inner>);

struct Inner {
    rein: AtomicU8,
    why: OnceLock<Box<CutReason>>,
    /// While it is held: it has come to rest.
    resting: AtomicBool,
    pulled: Notify,
    /// What a session in a pooler rests on.
    trust: Option<Arc<Trust>>,
    /// Somebody counts the sessions that are not at rest yet.
    calm: Arc<Notify>,
}

impl Leash {
    /// `calm` is told whenever a held session comes to rest; `trust` is what one in a pooler rests on.
    pub(crate) fn new(calm: Arc<Notify>, trust: Option<Arc<Trust>>) -> Leash {
        Leash(Arc::new(Inner {
            rein: AtomicU8::new(Rein::Free as u8),
            why: OnceLock::new(),
            resting: AtomicBool::new(false),
            pulled: Notify::new(),
            trust,
            calm,
        }))
    }

    pub(crate) fn rein(&self) -> Rein {
        match self.0.rein.load(Ordering::Acquire) {
            FREE | HELD if self.trust_has_ended() => Rein::Distrusted,
            FREE => Rein::Free,
            HELD => Rein::Held,
            DISTRUSTED => Rein::Distrusted,
            _ => Rein::Cut,
        }
    }

    fn trust_has_ended(&self) -> bool {
        self.0.trust.as_ref().is_some_and(|trust| trust.has_ended(clock::now()))
    }

    /// Whether it is the leash of a session that is to write through a pooler.
    pub(crate) fn is_of_pooled(&self) -> bool {
        self.0.trust.is_some()
    }

    /// Ends the session; whether it had not been ended before.
    pub(crate) fn cut(&self, why: CutReason) -> bool {
        // The first reason stays.
        let first = self.0.why.set(Box::new(why)).is_ok();
        self.0.rein.store(Rein::Cut as u8, Ordering::Release);
        self.0.pulled.notify_waiters();
        first
    }

    /// Holds the session, distrusts it, or lets it go on; a cut one stays cut.
    pub(crate) fn pull(&self, to: Rein) {
        if to == Rein::Free {
            self.0.resting.store(false, Ordering::Release);
        }
        let changed = self.0.rein.fetch_update(Ordering::AcqRel, Ordering::Acquire, |rein| {
            (rein != to as u8 && rein != Rein::Cut as u8).then_some(to as u8)
        });
        if changed.is_ok() {
            self.0.pulled.notify_waiters();
        }
    }

    /// What the session rests on has ended, or is good again: who waits for a pull looks at it.
    pub(crate) fn look_again(&self) {
        self.0.pulled.notify_waiters();
    }

    /// The held session sends nothing more.
    pub(crate) fn rest(&self) {
        if !self.0.resting.swap(true, Ordering::AcqRel) {
            self.0.calm.notify_one();
        }
    }

    /// Held, and not yet at rest.
    pub(crate) fn is_restless(&self) -> bool {
        self.rein().holds() && !self.0.resting.load(Ordering::Acquire)
    }

    /// Held, and at rest.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.rein().holds() && self.0.resting.load(Ordering::Acquire)
    }

    pub(crate) fn why(&self) -> Option<&CutReason> {
        self.0.why.get().map(Box::as_ref)
    }

    /// Ends when it is pulled: when the session may do something else than `known`.
    pub(crate) async fn pulled(&self, known: Rein) {
        loop {
            let mut pulled = std::pin::pin!(self.0.pulled.notified());
            // From here on a pull is not missed.
            pulled.as_mut().enable();
            if self.rein() != known {
                return;
            }
            pulled.await;
        }
    }

    /// Ends when the session has to.
    pub(crate) async fn cut_ordered(&self) {
        loop {
            match self.rein() {
                Rein::Cut => return,
                other => self.pulled(other).await,
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // One session less to wait for, if anybody waits.
        if *self.rein.get_mut() != Rein::Free as u8 {
            self.calm.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Leash, Rein, Trust};
    use crate::cut_reason::CutReason;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_cut_is_for_good_and_its_first_reason_stays() {
        let leash = Leash::new(Arc::new(Notify::new()), None);
        assert_eq!(leash.rein(), Rein::Free);
        leash.pull(Rein::Held);
        assert!(leash.is_restless());
        leash.rest();
        assert!(!leash.is_restless());
        leash.pull(Rein::Free);
        assert_eq!(leash.rein(), Rein::Free);
        let waits = tokio::spawn({
            let leash = leash.clone();
            async move { leash.cut_ordered().await }
        });
        assert!(leash.cut(CutReason::Stopping));
        assert!(!leash.cut(CutReason::HandedOver { member: "db1".into() }));
        leash.pull(Rein::Held);
        leash.pull(Rein::Free);
        assert_eq!(leash.rein(), Rein::Cut);
        assert_eq!(leash.why(), Some(&CutReason::Stopping));
        waits.await.unwrap();
    }

    /// Nobody needs to be there to say that the time is up.
    #[tokio::test]
    async fn trust_ends_by_the_clock_and_comes_back() {
        let trust = Arc::new(Trust::default());
        let leash = Leash::new(Arc::new(Notify::new()), Some(trust.clone()));
        assert_eq!(leash.rein(), Rein::Distrusted, "before anything is known");
        let now = clock::now();
        assert!(trust.lasts(now.after(Duration::from_secs(60)), now));
        assert_eq!(leash.rein(), Rein::Free);
        leash.pull(Rein::Held);
        assert_eq!(leash.rein(), Rein::Held);
        leash.pull(Rein::Free);
        assert!(!trust.lasts(now, now), "it had not ended");
        assert_eq!(leash.rein(), Rein::Distrusted);
        let waits = tokio::spawn({
            let leash = leash.clone();
            async move { leash.pulled(Rein::Distrusted).await }
        });
        tokio::task::yield_now().await;
        assert!(trust.lasts(now.after(Duration::from_secs(60)), now));
        leash.look_again();
        waits.await.unwrap();
        leash.cut(CutReason::Stopping);
        assert_eq!(leash.rein(), Rein::Cut);
    }
}
