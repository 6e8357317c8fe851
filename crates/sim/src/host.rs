//! What happens to the PostgreSQL of a node: started, promoted, stopped, crashed, fed by its upstream.

use crate::clock::{SECOND, Time};
use crate::event::{Event, ForAgent};
use crate::known_bugs::KnownBug;
use crate::note;
use crate::postgres::{Database, Disk, DiskTrouble, Proc, Torn};
use crate::world::{NodeNo, World};
use ha::StopMode;
use types::Timeline;

/// The rest between two rounds of replication.
const REPLICATE_EVERY: Time = 50_000;

impl World {
    /// The agent's probe and its pidfd notice a change.
    pub fn postgres_changed(&mut self, node: NodeNo) {
        let at = self.now + self.rng.between(200, 20_000);
        self.tell_agent(node, at, ForAgent::PostgresChanged);
    }

    fn steps_at(&mut self, node: NodeNo, at: Time) {
        let token = self.token();
        self.nodes[node].postgres.token = token;
        self.queue.push(at, Event::Postgres { node, token });
    }

    /// The postmaster is spawned.
    pub fn spawn_postgres(&mut self, node: NodeNo, primary: bool, upstream: Option<NodeNo>) -> bool {
        let since = self.moment(node);
        self.take_torn_for_whole(node);
        let postgres = &mut self.nodes[node].postgres;
        let (Proc::Stopped, Disk::Present(database)) = (&postgres.proc, &mut postgres.disk) else {
            return false;
        };
        database.standby = !primary;
        if !primary {
            postgres.names.configured = types::StandbyNames::Nobody;
        }
        let clean = database.clean;
        postgres.proc = Proc::Starting { since, upstream };
        postgres.starts += 1;
        let takes = if clean {
            self.rng.skewed(30_000, SECOND / 2)
        } else {
            self.rng.skewed(100_000, self.config.recovery)
        };
        let at = self.now + takes;
        self.steps_at(node, at);
        self.guard_sees_process(node);
        true
    }

    /// With a known bug: what a broken job left is started like any other.
    fn take_torn_for_whole(&mut self, node: NodeNo) {
        let bug = self.config.bug;
        let postgres = &mut self.nodes[node].postgres;
        let wanted = |torn: &mut Torn| {
            bug == Some(if torn.by_rewind { KnownBug::HalfRewound } else { KnownBug::HalfCopied })
        };
        if postgres.disk == Disk::Incomplete
            && let Some(torn) = postgres.torn.take_if(wanted)
        {
            postgres.disk = Disk::Present(Database { torn: true, ..torn.database });
        }
    }

    /// The running standby is told to promote.
    pub fn signal_promote(&mut self, node: NodeNo) -> bool {
        match &mut self.nodes[node].postgres.proc {
            Proc::Standby { promoting, .. } => *promoting = true,
            Proc::Stopped | Proc::Starting { .. } | Proc::Primary | Proc::Stopping { .. } => return false,
        }
        let takes = self.rng.skewed(15_000, self.config.promotion);
        let at = self.now + takes;
        self.nodes[node].postgres.receives_until = self.now + self.rng.between(0, takes);
        self.steps_at(node, at);
        true
    }

    /// The postmaster is told to stop.
    pub fn signal_stop(&mut self, node: NodeNo, mode: StopMode) {
        let since = self.moment(node);
        let hangs = self.nodes[node].postgres.hangs.is_some();
        let checkpointed = self.now.saturating_sub(self.nodes[node].postgres.checkpointed) < 10 * SECOND;
        let (primary, upstream) = match &self.nodes[node].postgres.proc {
            Proc::Stopped => return,
            Proc::Stopping { mode: asked, .. } if *asked >= mode => return,
            Proc::Stopping { primary, upstream, .. } => (*primary, *upstream),
            Proc::Primary => (true, None),
            Proc::Starting { upstream, .. } => (false, *upstream),
            Proc::Standby { upstream, .. } => (false, *upstream),
        };
        self.nodes[node].postgres.proc = Proc::Stopping { since, mode, primary, upstream };
        let takes = match mode {
            StopMode::Fast if !primary || checkpointed => self.rng.skewed(20_000, SECOND / 2),
            StopMode::Fast => self.rng.skewed(50_000, 4 * SECOND),
            StopMode::Immediate | StopMode::Kill => self.rng.skewed(2_000, 50_000),
        };
        if hangs && mode != StopMode::Kill {
            self.nodes[node].postgres.token = 0;
        } else {
            let at = self.now + takes;
            self.steps_at(node, at);
        }
        self.postgres_changed(node);
    }

    /// All processes are gone at once.
    pub fn postgres_dies(&mut self, node: NodeNo) {
        let postgres = &mut self.nodes[node].postgres;
        if postgres.proc == Proc::Stopped {
            return;
        }
        postgres.proc = Proc::Stopped;
        postgres.hangs = None;
        postgres.token = 0;
        if let Some(database) = postgres.disk.database_mut() {
            database.clean = false;
        }
        note!(self, Some(node), "PostgreSQL has died");
        self.postgres_changed(node);
    }

    /// PostgreSQL has come as far as it was on its way to.
    pub fn postgres_steps(&mut self, node: NodeNo, token: u64) {
        let postgres = &self.nodes[node].postgres;
        if postgres.token != token {
            return;
        }
        let killed = matches!(postgres.proc, Proc::Stopping { mode: StopMode::Kill, .. });
        let waits = postgres.hangs.is_some() && !killed || postgres.trouble == DiskTrouble::Hangs;
        if waits || self.nodes[node].suspended.is_some() {
            self.queue.push(self.now + SECOND / 10, Event::Postgres { node, token });
            return;
        }
        match postgres.proc.clone() {
            Proc::Starting { upstream, .. } => self.has_started(node, upstream),
            Proc::Standby { promoting: true, .. } => self.has_promoted(node),
            Proc::Stopping { mode, primary, upstream, .. } => self.has_stopped(node, mode, primary, upstream),
            Proc::Stopped | Proc::Primary | Proc::Standby { .. } => return,
        }
        self.postgres_changed(node);
    }

    fn has_started(&mut self, node: NodeNo, upstream: Option<NodeNo>) {
        let full = self.nodes[node].postgres.trouble == DiskTrouble::Full;
        let fails = self.healing.is_none() && self.chaos.start_fails[node] > 0;
        if fails || full {
            self.chaos.start_fails[node] = self.chaos.start_fails[node].saturating_sub(1);
            self.postgres_dies(node);
            return;
        }
        self.law_of_whole(node);
        let branch = self.branch();
        let postgres = &mut self.nodes[node].postgres;
        let Some(database) = postgres.disk.database_mut() else {
            return;
        };
        database.clean = false;
        if database.standby {
            database.reached = database.wal.end();
            postgres.proc = Proc::Standby { upstream, streaming: false, promoting: false };
            note!(self, Some(node), "PostgreSQL runs as a standby");
        } else {
            let timeline = database.wal.timeline();
            database.wal.fork(branch, timeline);
            postgres.proc = Proc::Primary;
            self.names_from_the_file(node);
            note!(self, Some(node), "PostgreSQL runs as a PRIMARY on timeline {timeline}");
            self.became_primary(node);
            self.crash_again(node);
        }
    }

    /// It came up and dies again a moment later, as often as the fault says.
    fn crash_again(&mut self, node: NodeNo) {
        if self.healing.is_none() && self.chaos.crash_loops[node] > 0 {
            self.chaos.crash_loops[node] -= 1;
            let starts = self.nodes[node].postgres.starts;
            let at = self.now + self.rng.between(SECOND / 3, 5 * SECOND);
            self.queue.push(at, Event::Crash { node, starts });
        }
    }

    /// It dies, if it is still the same.
    pub fn crash_in_life(&mut self, node: NodeNo, starts: u32) {
        if self.nodes[node].postgres.starts == starts && self.healing.is_none() {
            self.postgres_dies(node);
        }
    }

    fn has_promoted(&mut self, node: NodeNo) {
        let branch = self.branch();
        let postgres = &mut self.nodes[node].postgres;
        postgres.proc = Proc::Primary;
        let claimed = postgres.claimed;
        if let Some(database) = postgres.disk.database_mut() {
            let next = Timeline(database.wal.timeline().0 + 1).max(claimed);
            database.wal.fork(branch, next);
            database.standby = false;
            database.checkpoint = database.wal.end();
            let end = database.wal.end();
            self.names_from_the_file(node);
            note!(self, Some(node), "PostgreSQL has been PROMOTED to timeline {next} at {end}");
        }
        self.nodes[node].postgres.first_checkpoint = self.now + self.rng.skewed(SECOND / 10, 20 * SECOND);
        self.law_of_slots(node);
        self.became_primary(node);
        self.crash_again(node);
    }

    fn has_stopped(&mut self, node: NodeNo, mode: StopMode, primary: bool, upstream: Option<NodeNo>) {
        let postgres = &mut self.nodes[node].postgres;
        postgres.proc = Proc::Stopped;
        postgres.hangs = None;
        let fast = mode == StopMode::Fast;
        if let Some(database) = postgres.disk.database_mut() {
            if fast && primary {
                database.wal.write(104);
                database.checkpoint = database.wal.end();
            }
            if fast && database.standby {
                database.reached = database.wal.end();
            }
            database.clean = fast && (primary || upstream.is_some() || database.standby);
        }
        note!(self, Some(node), "PostgreSQL has stopped ({mode:?})");
        if fast && primary {
            for other in 0..self.nodes.len() {
                self.feed(other, Some(node));
            }
        }
    }

    /// Every standby takes what its upstream has.
    pub fn replicate(&mut self) {
        self.queue.push(self.now + REPLICATE_EVERY, Event::Replicate);
        for node in 0..self.nodes.len() {
            self.feed(node, None);
        }
        self.watch_walsenders();
        self.release_commits();
        self.watch_slots();
    }

    /// A standby takes what its upstream has. `ended` is a primary that sends its last bytes before it ends.
    fn feed(&mut self, node: NodeNo, ended: Option<NodeNo>) {
        let (upstream, was) = match &self.nodes[node].postgres.proc {
            // Seen with PostgreSQL 15: told to promote, it goes on to receive, and to confirm, until it has replayed what it has.
            // Only then it ends its WAL receiver; what came until then is part of the new timeline's past.
            Proc::Standby { promoting: true, streaming, .. }
                if !streaming || self.now >= self.nodes[node].postgres.receives_until =>
            {
                return;
            }
            Proc::Standby { upstream, streaming, .. } => (*upstream, *streaming),
            Proc::Stopped | Proc::Starting { .. } | Proc::Primary | Proc::Stopping { .. } => return,
        };
        if ended.is_some() && (upstream != ended || !was) {
            return;
        }
        let streaming = upstream.is_some_and(|from| self.streams(node, from, ended));
        let mine = &self.nodes[node].postgres;
        let lagging = mine.lags_until > self.now || mine.trouble == DiskTrouble::Hangs;
        if let (true, Some(from), false) = (streaming, upstream, lagging && ended.is_none()) {
            let theirs = self.nodes[from].postgres.disk.database().map(|database| database.wal.clone());
            if let (Some(theirs), Some(database)) = (theirs, self.nodes[node].postgres.disk.database_mut())
                && database.wal != theirs
            {
                database.wal.advance(&theirs, theirs.end());
            }
        }
        if streaming != was {
            if let Proc::Standby { streaming: flag, .. } = &mut self.nodes[node].postgres.proc {
                *flag = streaming;
            }
            note!(self, Some(node), "streaming: {streaming}");
            self.postgres_changed(node);
            if let Some(from) = upstream {
                self.postgres_changed(from);
            }
        }
    }

    fn streams(&self, node: NodeNo, from: NodeNo, ended: Option<NodeNo>) -> bool {
        if node == from || !self.net.joined(node, from) || self.nodes[node].postgres.hangs.is_some() {
            return false;
        }
        let asleep = self.nodes[node].suspended.is_some() || self.nodes[from].suspended.is_some();
        if asleep || self.nodes[node].postgres.trouble == DiskTrouble::Full {
            return false;
        }
        let (mine, theirs) = (&self.nodes[node].postgres, &self.nodes[from].postgres);
        let serves = theirs.serves() || ended == Some(from);
        match (mine.disk.database(), theirs.disk.database()) {
            (Some(mine), Some(theirs)) => {
                serves && mine.system_id == theirs.system_id && mine.wal.is_within(&theirs.wal)
            }
            (Some(_) | None, Some(_) | None) => false,
        }
    }

    /// The host loses its power.
    pub fn node_dies(&mut self, node: NodeNo) {
        self.agent_dies(node);
        self.postgres_dies(node);
        let host = &mut self.nodes[node];
        host.up = false;
        host.guard = Default::default();
        host.address = None;
        host.suspended = None;
        host.legacy = None;
        host.supervisor = 0;
    }
}
