//! The processes that send WAL to the standbys: the end of one is noticed at once, not with the next probe.

use crate::wake::{Cell, Wake};
use std::collections::BTreeSet;
use std::sync::Arc;

/// More are not watched; the probe sees them all.
const MOST: usize = 100;

/// Watches them.
pub(crate) struct Senders {
    watched: Arc<Cell<BTreeSet<u32>>>,
    poke: Wake,
}

impl Senders {
    /// Pokes the prober when one ends.
    pub(crate) fn new(poke: Wake) -> Senders {
        Senders { watched: Arc::new(Cell::new(BTreeSet::new())), poke }
    }

    /// These run now.
    pub(crate) fn watch(&self, pids: impl Iterator<Item = u32>) {
        for pid in pids {
            let new = self.watched.with(|watched| watched.len() < MOST && watched.insert(pid));
            if !new {
                continue;
            }
            let (watched, poke) = (self.watched.clone(), self.poke.clone());
            tokio::spawn(async move {
                postgres::postmaster::ended(pid).await;
                watched.with(|watched| watched.remove(&pid));
                poke.wake();
            });
        }
    }
}
