//! The threads that serve clients. Each has an event loop of its own, and a session stays where it began.
//!
//! ```text
//!   listener, on one of them ──► the same thread, or one with clearly fewer sessions ──► the session's task and both sockets, to their end
//! ```
//!
//! A pool whose threads take work from each other wakes a neighbour for what is done before that is awake.

use crate::metrics::{Gauge, Held};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A session more than another thread has is no reason to wake that one.
const SLACK: usize = 1;

/// A timer that is nearer than all others wakes its event loop when it is set: two calls of the kernel more. Those of a client are further
/// away than this one, which is always set.
const TICK: Duration = Duration::from_millis(500);

/// Dropped, they end, and what they serve with them.
pub(crate) struct Workers {
    all: Vec<Worker>,
    /// Listeners that have found their thread.
    listeners: AtomicUsize,
    _end: DropGuard,
}

struct Worker {
    runtime: Handle,
    sessions: Gauge,
}

impl Workers {
    /// Starts so many.
    pub(crate) fn start(count: usize) -> io::Result<Workers> {
        let end = CancellationToken::new();
        let mut all = Vec::with_capacity(count);
        for number in 0..count.max(1) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.push(Worker { runtime: runtime.handle().clone(), sessions: Gauge::default() });
            let end = end.clone();
            let thread = std::thread::Builder::new().name(format!("clients-{number}"));
            thread.spawn(move || runtime.block_on(tick(end)))?;
        }
        Ok(Workers { all, listeners: AtomicUsize::new(0), _end: end.drop_guard() })
    }

    /// The thread that is to accept the clients of the next listener.
    pub(crate) fn next_home(&self) -> Option<(usize, &Handle)> {
        let home = self.listeners.fetch_add(1, Ordering::Relaxed) % self.all.len().max(1);
        self.all.get(home).map(|worker| (home, &worker.runtime))
    }

    /// Whom a client that was accepted at `home` goes to: it stays, unless another thread has clearly fewer.
    pub(crate) fn choose(&self, home: usize) -> Option<Chosen<'_>> {
        let (least, idlest) = self.all.iter().enumerate().min_by_key(|(_, worker)| worker.sessions.get())?;
        let own = self.all.get(home)?;
        let stays = least == home || own.sessions.get() <= idlest.sessions.get() + SLACK;
        let worker = if stays { own } else { idlest };
        Some(Chosen { stays, place: worker.sessions.take(usize::MAX)?, runtime: &worker.runtime })
    }
}

/// Keeps a timer set, until the end.
async fn tick(end: CancellationToken) {
    while tokio::time::timeout(TICK, end.cancelled()).await.is_err() {}
}

/// A thread for a session, and the session's place there.
pub(crate) struct Chosen<'a> {
    /// It is the one that accepted the client.
    pub(crate) stays: bool,
    pub(crate) place: Held,
    pub(crate) runtime: &'a Handle,
}
