//! What an imagined event is reckoned from: what the loop saw last, and what the other members answer when they are asked now.
//!
//! The loop leaves what it saw and goes on; everything else happens on the thread of the REST API.

use crate::peers;
use crate::wake::Cell;
use crate::wal_growth::WalGrowth;
use etcd::Snapshot;
use ha::{Memory, Observation, Postgres, Running};
use http::Client;
use std::sync::Arc;
use std::time::Duration;
use types::{Moment, NodeName};

/// Answers of this age are as good as new ones: all questions of one person cost the other members one.
const FRESH: Duration = Duration::from_secs(1);

/// What the last turn saw.
#[derive(Debug)]
pub(crate) struct Scene {
    pub seen: Observation,
    pub memory: Memory,
    pub at: Moment,
}

/// The last scene, how much is written, and the last answers of the others.
pub(crate) struct WhatIf {
    scene: Cell<Option<Arc<Scene>>>,
    growth: Cell<WalGrowth>,
    answers: tokio::sync::Mutex<Option<ha::Peers>>,
}

impl WhatIf {
    pub(crate) fn new() -> WhatIf {
        WhatIf {
            scene: Cell::new(None),
            growth: Cell::new(WalGrowth::default()),
            answers: tokio::sync::Mutex::new(None),
        }
    }

    /// A turn is over.
    pub(crate) fn leave(&self, scene: Scene) {
        let (running, at) = (&scene.seen.postgres, scene.at);
        self.growth.with(|growth| match running {
            Postgres::Running(Running::Primary { lsn, .. }) => growth.note(at, *lsn),
            Postgres::Running(Running::Standby { .. })
            | Postgres::Stopped
            | Postgres::Starting { .. }
            | Postgres::Stopping { .. }
            | Postgres::Unresponsive { .. } => growth.forget(),
        });
        let scene = Some(Arc::new(scene));
        // Dropped outside the lock.
        let _old = self.scene.with(|kept| std::mem::replace(kept, scene));
    }

    /// What the last turn saw; `None` before the first.
    pub(crate) fn scene(&self) -> Option<Arc<Scene>> {
        self.scene.get()
    }

    /// The most WAL that this primary wrote in any `span` of the last minutes.
    pub(crate) fn most_in(&self, span: Duration) -> u64 {
        self.growth.with(|growth| growth.most_in(span))
    }

    /// What all other members answer; each has less than a second. One question at a time is under way.
    pub(crate) async fn ask(&self, client: &Client, snapshot: Option<&Snapshot>, me: &NodeName) -> ha::Peers {
        let mut kept = self.answers.lock().await;
        let now = clock::now();
        if let Some(peers) = kept.as_ref().filter(|peers| peers.asked.is_some_and(|at| now.since(at) < FRESH))
        {
            return peers.clone();
        }
        let members = snapshot.iter().flat_map(|snapshot| snapshot.members.keys());
        let others: Vec<NodeName> = members.filter(|name| *name != me).cloned().collect();
        let answers = peers::ask_all(client, &others, snapshot).await;
        let peers = ha::Peers { asked: Some(now), answers };
        *kept = Some(peers.clone());
        peers
    }
}
