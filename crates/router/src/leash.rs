//! The router's hold on one session: it may run, it is held at its next idle moment, or it has to end.
//!
//! ```text
//!   Free ◄──► Held          a planned switchover begins, or passes without one
//!     └────────┴──► Cut     for good, with the reason
//! ```

use crate::cut_reason::CutReason;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::Notify;

/// What a session may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rein {
    Free,
    Held,
    Cut,
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
    /// Somebody counts the sessions that are not at rest yet.
    calm: Arc<Notify>,
}

impl Leash {
    /// `calm` is told whenever a held session comes to rest.
    pub(crate) fn new(calm: Arc<Notify>) -> Leash {
        Leash(Arc::new(Inner {
            rein: AtomicU8::new(Rein::Free as u8),
            why: OnceLock::new(),
            resting: AtomicBool::new(false),
            pulled: Notify::new(),
            calm,
        }))
    }

    pub(crate) fn rein(&self) -> Rein {
        match self.0.rein.load(Ordering::Acquire) {
            0 => Rein::Free,
            1 => Rein::Held,
            _ => Rein::Cut,
        }
    }

    /// Ends the session; whether it had not been ended before.
    pub(crate) fn cut(&self, why: CutReason) -> bool {
        // The first reason stays.
        let first = self.0.why.set(Box::new(why)).is_ok();
        self.0.rein.store(Rein::Cut as u8, Ordering::Release);
        self.0.pulled.notify_waiters();
        first
    }

    /// Holds the session, or lets it go on; a cut one stays cut.
    pub(crate) fn hold(&self, held: bool) {
        let (from, to) = if held { (Rein::Free, Rein::Held) } else { (Rein::Held, Rein::Free) };
        if !held {
            self.0.resting.store(false, Ordering::Release);
        }
        let changed = self.0.rein.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire);
        if changed.is_ok() {
            self.0.pulled.notify_waiters();
        }
    }

    /// The held session sends nothing more.
    pub(crate) fn rest(&self) {
        if !self.0.resting.swap(true, Ordering::AcqRel) {
            self.0.calm.notify_one();
        }
    }

    /// Held, and not yet at rest.
    pub(crate) fn is_restless(&self) -> bool {
        self.rein() == Rein::Held && !self.0.resting.load(Ordering::Acquire)
    }

    /// Held, and at rest.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.rein() == Rein::Held && self.0.resting.load(Ordering::Acquire)
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
    use super::{Leash, Rein};
    use crate::cut_reason::CutReason;
    use std::sync::Arc;
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_cut_is_for_good_and_its_first_reason_stays() {
        let leash = Leash::new(Arc::new(Notify::new()));
        assert_eq!(leash.rein(), Rein::Free);
        leash.hold(true);
        assert!(leash.is_restless());
        leash.rest();
        assert!(!leash.is_restless());
        leash.hold(false);
        assert_eq!(leash.rein(), Rein::Free);
        let waits = tokio::spawn({
            let leash = leash.clone();
            async move { leash.cut_ordered().await }
        });
        assert!(leash.cut(CutReason::Stopping));
        assert!(!leash.cut(CutReason::HandedOver { member: "db1".into() }));
        leash.hold(true);
        leash.hold(false);
        assert_eq!(leash.rein(), Rein::Cut);
        assert_eq!(leash.why(), Some(&CutReason::Stopping));
        waits.await.unwrap();
    }
}
