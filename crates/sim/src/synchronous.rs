//! Synchronous commit: who streams from a primary, whose confirmation its commits wait for, and when they are acknowledged.
//!
//! ```text
//!   the file ──► the processes that release commits ──► acknowledged when enough of the named have the commit
//!         └────► a session, as the probe sees it          each takes the file up at its own time
//! ```

use crate::config::Without;
use crate::event::Event;
use crate::note;
use crate::postgres::Proc;
use crate::router::Waiting;
use crate::world::{NodeNo, World};
use ha::{Replication, Standby};
use types::{Lsn, StandbyNames};

impl World {
    /// Who streams from this primary.
    fn followers(&self, node: NodeNo) -> impl Iterator<Item = NodeNo> + '_ {
        let follows = move |no: &NodeNo| matches!(self.nodes[*no].postgres.proc, Proc::Standby { upstream: Some(from), streaming: true, .. } if from == node);
        (0..self.nodes.len()).filter(follows)
    }

    /// As the agent of a primary sees it.
    #[must_use]
    pub fn senders(&self, node: NodeNo) -> Option<Replication> {
        if !self.nodes[node].postgres.accepts_writes() {
            return None;
        }
        let blind = self.config.without == Some(Without::Confirmation);
        let standby = |no: NodeNo| Standby {
            name: self.names[no].clone(),
            streaming: true,
            flushed: if blind { Lsn(u64::MAX) } else { self.nodes[no].postgres.end().unwrap_or_default() },
            stalled: None,
        };
        Some(Replication {
            asked: self.moment(node),
            names: self.nodes[node].postgres.names.shown.clone(),
            settled: true,
            standbys: self.followers(node).map(standby).collect(),
        })
    }

    /// The names are written to the file, and a running primary is told.
    pub fn set_names(&mut self, node: NodeNo, names: StandbyNames) {
        let postgres = &mut self.nodes[node].postgres;
        postgres.names.configured = names;
        let (life, running) = (postgres.starts, postgres.proc == Proc::Primary);
        if running {
            for shown in [false, true] {
                let at = self.now + self.rng.skewed(500, 40_000);
                self.queue.push(at, Event::Names { node, life, shown });
            }
        }
    }

    /// The processes take up what is in the file by now.
    pub fn names_are_taken_up(&mut self, node: NodeNo, life: u32, shown: bool) {
        let postgres = &mut self.nodes[node].postgres;
        if postgres.starts != life || postgres.proc != Proc::Primary {
            return;
        }
        let names = postgres.names.configured.clone();
        note!(self, Some(node), "commits wait for \"{names}\" (shown: {shown})");
        let own = &mut self.nodes[node].postgres.names;
        if shown {
            own.shown = names;
            self.postgres_changed(node);
        } else {
            own.effective = names;
            self.release_commits();
        }
    }

    /// A server that starts, or is promoted, reads its file.
    pub fn names_from_the_file(&mut self, node: NodeNo) {
        let names = &mut self.nodes[node].postgres.names;
        names.effective = names.configured.clone();
        names.shown = names.configured.clone();
    }

    /// Acknowledges the commits that enough standbys have; those of a primary that has ended are never heard of again.
    pub fn release_commits(&mut self) {
        let waiting = std::mem::take(&mut self.router.waiting);
        for commit in waiting {
            let postgres = &self.nodes[commit.node].postgres;
            if postgres.starts != commit.starts || postgres.proc != Proc::Primary {
                self.router.refused += 1;
            } else if postgres.hangs.is_none() && self.is_confirmed(&commit) {
                self.acknowledge(commit.node, commit.write);
            } else {
                self.router.waiting.push(commit);
            }
        }
    }

    fn is_confirmed(&self, commit: &Waiting) -> bool {
        let has = |no: &NodeNo| {
            let database = self.nodes[*no].postgres.disk.database();
            database.is_some_and(|database| database.wal.has(commit.write))
        };
        let mut having = self.followers(commit.node).filter(has);
        match &self.nodes[commit.node].postgres.names.effective {
            StandbyNames::Nobody | StandbyNames::Other(_) => true,
            StandbyNames::Everybody { .. } => having.next().is_some(),
            StandbyNames::First { count, names } | StandbyNames::Any { count, names } => {
                having.filter(|no| names.contains(&self.names[*no])).count() >= *count
            }
        }
    }
}
