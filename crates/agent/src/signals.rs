//! The signals of the agent.
//!
//! ```text
//!   SIGTERM, SIGINT   stop PostgreSQL, handing the lead over first, and end
//!   SIGUSR2           end and leave PostgreSQL, the lease and the guard as they are: another agent takes them up in time
//!   SIGHUP            read the settings again; POST /reload asks for the same
//! ```
//! While the agent waits for its first sight of etcd, the first two end it and PostgreSQL stays as it is; a reload comes afterwards.

use crate::wake::{Cell, Wake};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Signal {
    Stop,
    Detach,
    Reload,
}

/// The signals that have come.
#[derive(Clone)]
pub(crate) struct Signals {
    pending: Arc<Cell<Vec<Signal>>>,
    wake: Wake,
}

impl Signals {
    /// Without the process's signals yet: those of the REST API alone.
    pub(crate) fn new(wake: Wake) -> Signals {
        Signals { pending: Arc::new(Cell::new(Vec::new())), wake }
    }

    /// Takes over the process's signals.
    pub(crate) fn install(&self) -> std::io::Result<()> {
        let kinds = [
            (SignalKind::terminate(), Signal::Stop),
            (SignalKind::interrupt(), Signal::Stop),
            (SignalKind::user_defined2(), Signal::Detach),
            (SignalKind::hangup(), Signal::Reload),
        ];
        for (kind, meaning) in kinds {
            let mut stream = signal(kind)?;
            let signals = self.clone();
            tokio::spawn(async move {
                while stream.recv().await.is_some() {
                    signals.raise(meaning);
                }
            });
        }
        Ok(())
    }

    /// Asks for this, as if the signal had come.
    pub(crate) fn raise(&self, meaning: Signal) {
        self.pending.with(|pending| {
            if !pending.contains(&meaning) {
                pending.push(meaning);
            }
        });
        self.wake.wake();
    }

    /// Waits for one that ends the agent, and leaves it to be taken.
    pub(crate) async fn told_to_end(&self, wake: &Wake) {
        let ends = |signal: &Signal| matches!(signal, Signal::Stop | Signal::Detach);
        while !self.pending.with(|pending| pending.iter().any(ends)) {
            wake.changed().await;
        }
    }

    /// The signal that came first and was not taken yet.
    pub(crate) fn take(&self) -> Option<Signal> {
        self.pending.with(|pending| if pending.is_empty() { None } else { Some(pending.remove(0)) })
    }
}
