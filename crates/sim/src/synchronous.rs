//! Synchronous commit: who streams from a primary, whose confirmation its commits wait for, and when they are acknowledged.
//!
//! ```text
//!   the file ──► the processes that release commits ──► acknowledged when enough of the named have the commit
//!         └────► a session, as the probe sees it          each takes the file up at its own time
//! ```

use crate::clock::Time;
use crate::config::Without;
use crate::event::Event;
use crate::note;
use crate::postgres::Proc;
use crate::router::Waiting;
use crate::world::{NodeNo, World};
use ha::{Replication, Standby};
use std::collections::BTreeMap;
use types::{Lsn, StandbyNames};

impl World {
    /// Who streams from this primary.
    pub fn followers(&self, node: NodeNo) -> impl Iterator<Item = NodeNo> + '_ {
        let follows = move |no: &NodeNo| matches!(self.nodes[*no].postgres.proc, Proc::Standby { upstream: Some(from), streaming: true, .. } if from == node);
        (0..self.nodes.len()).filter(follows)
    }

    /// Which standbys each primary takes for connected. One that ends says so; one that vanishes is believed to be there until its
    /// walsender has heard nothing of it for `wal_sender_timeout`.
    pub fn watch_walsenders(&mut self) {
        for node in 0..self.nodes.len() {
            let postgres = &self.nodes[node].postgres;
            if !matches!(postgres.proc, Proc::Primary | Proc::Stopping { primary: true, .. }) {
                self.nodes[node].postgres.walsenders.clear();
                continue;
            }
            if self.nodes[node].suspended.is_some() {
                continue;
            }
            let mut now: BTreeMap<NodeNo, (Lsn, Option<Time>)> = BTreeMap::new();
            for no in self.followers(node) {
                now.insert(no, (self.nodes[no].postgres.end().unwrap_or_default(), None));
            }
            let silent = self.now + self.config.walsender_patience;
            let mut lost = false;
            for (no, (flushed, until)) in &postgres.walsenders {
                let until = until.unwrap_or(silent);
                if now.contains_key(no) {
                    continue;
                }
                if self.has_vanished(*no, node) && self.now < until {
                    now.insert(*no, (*flushed, Some(until)));
                } else {
                    lost = true;
                }
            }
            self.nodes[node].postgres.walsenders = now;
            if lost {
                self.postgres_changed(node);
            }
        }
    }

    /// A standby that cannot tell its primary that it has gone.
    fn has_vanished(&self, no: NodeNo, primary: NodeNo) -> bool {
        let host = &self.nodes[no];
        !host.up || host.suspended.is_some() || host.postgres.hangs.is_some() || !self.net.joined(no, primary)
    }

    /// As the agent of a primary sees it.
    #[must_use]
    pub fn senders(&self, node: NodeNo) -> Option<Replication> {
        if !self.nodes[node].postgres.accepts_writes() {
            return None;
        }
        let blind = self.config.without == Some(Without::Confirmation);
        let standby = |(no, (flushed, _)): (&NodeNo, &(Lsn, Option<Time>))| Standby {
            name: self.names[*no].clone(),
            streaming: true,
            flushed: if blind { Lsn(u64::MAX) } else { *flushed },
            stalled: None,
        };
        Some(Replication {
            asked: self.moment(node),
            names: self.nodes[node].postgres.names.shown.clone(),
            settled: true,
            standbys: self.nodes[node].postgres.walsenders.iter().map(standby).collect(),
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
