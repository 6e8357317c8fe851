//! Counters and limits, kept for each service; written by many, read by `/metrics`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One number that only grows (or, for what is going on now, also shrinks).
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How many of something there are now. The limit is given with every wish, because it can change.
#[derive(Clone, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

/// One of those that a gauge counts; given back when dropped.
pub(crate) struct Held(Arc<AtomicUsize>);

impl Gauge {
    /// One more, unless there are `limit` already.
    pub(crate) fn take(&self, limit: usize) -> Option<Held> {
        let more = |count: usize| (count < limit).then_some(count + 1);
        let taken = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, more);
        taken.is_ok().then(|| Held(self.0.clone()))
    }

    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The bytes of a service.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) to_client: Count,
    pub(crate) to_server: Count,
}

impl Traffic {
    pub(crate) fn to_client(&self, bytes: usize) {
        self.to_client.add(bytes as u64);
    }

    pub(crate) fn to_server(&self, bytes: usize) {
        self.to_server.add(bytes as u64);
    }
}

/// What happened on one member in one term.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) opened: u64,
    pub(crate) cut: u64,
    pub(crate) failed: u64,
}

/// What happened on one service.
#[derive(Default)]
pub(crate) struct ServiceCounts {
    pub(crate) accepted: Count,
    pub(crate) opened: Count,
    pub(crate) cut: Count,
    pub(crate) held: Count,
    pub(crate) waiting: Gauge,
    pub(crate) held_in_vain: Count,
    pub(crate) refused: Count,
    /// Of those: who took too long to say what they want.
    pub(crate) late: Count,
    /// Connections that the kernel had and this process could not take.
    pub(crate) accept_failed: Count,
    pub(crate) connect_failed: Count,
    pub(crate) cancels: Count,
    pub(crate) traffic: Traffic,
}

#[cfg(test)]
mod tests {
    use super::Gauge;

    #[test]
    fn no_more_than_the_limit_of_that_moment() {
        let gauge = Gauge::default();
        let first = gauge.take(2).unwrap();
        let second = gauge.take(2).unwrap();
        assert!(gauge.take(2).is_none());
        drop(first);
        assert!(gauge.take(1).is_none(), "the limit was lowered");
        drop(second);
        assert!(gauge.take(1).is_some());
        assert_eq!(gauge.get(), 0);
    }
}
