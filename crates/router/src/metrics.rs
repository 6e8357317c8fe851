//! Counters, kept for each service; written by many, read by `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows (or, for what is going on now, also shrinks).
#[derive(Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
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

/// What happened on one service.
#[derive(Default)]
pub(crate) struct ServiceCounts {
    pub(crate) accepted: Count,
    pub(crate) opened: Count,
    pub(crate) cut: Count,
    pub(crate) held: Count,
    pub(crate) waiting: Count,
    pub(crate) held_in_vain: Count,
    pub(crate) refused: Count,
    pub(crate) connect_failed: Count,
    pub(crate) cancels: Count,
    pub(crate) traffic: Traffic,
}
