//! The guard of a node: it holds the deadline, outlives the agent, and kills PostgreSQL when the deadline passes.

use crate::clock::SECOND;
use crate::event::Event;
use crate::note;
use crate::postgres::{DiskTrouble, Proc};
use crate::world::{NodeNo, World};
use types::Moment;

/// The guard process.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guard {
    /// It runs.
    pub there: bool,
    /// The deadline it was given.
    pub armed: Option<Moment>,
    /// A kill is under way.
    killing: bool,
}

impl Guard {
    /// As the agent sees it.
    #[must_use]
    pub fn seen(&self) -> ha::Guard {
        match (self.there, self.armed) {
            (false, _) => ha::Guard::Absent,
            (true, None) => ha::Guard::Disarmed,
            (true, Some(_)) => ha::Guard::Armed,
        }
    }
}

impl World {
    /// Gives the guard a deadline.
    pub fn arm_guard(&mut self, node: NodeNo, deadline: Moment) {
        self.nodes[node].guard.armed = Some(deadline);
        self.guard_wakes_at(node, deadline);
    }

    fn guard_wakes_at(&mut self, node: NodeNo, deadline: Moment) {
        let late = self.rng.below(3000);
        let at = self.nodes[node].clock.when(deadline).max(self.now) + late;
        self.queue.push(at, Event::Guard { node, deadline });
    }

    /// A process of PostgreSQL appeared: the guard looks at it, too.
    pub fn guard_sees_process(&mut self, node: NodeNo) {
        if let Some(deadline) = self.nodes[node].guard.armed {
            self.guard_wakes_at(node, deadline);
        }
    }

    /// The guard looks whether its deadline has passed.
    pub fn guard_looks(&mut self, node: NodeNo, deadline: Moment) {
        if self.nodes[node].suspended.is_some() {
            return;
        }
        let now = self.moment(node);
        if self.nodes[node].guard.armed != Some(deadline) {
            return;
        }
        if now < deadline {
            // Its clock has slowed down since.
            self.guard_wakes_at(node, deadline);
            return;
        }
        let host = &mut self.nodes[node];
        let idle = host.guard.killing || host.postgres.proc == Proc::Stopped;
        if !host.guard.there || idle || self.config.lacks_guard() {
            return;
        }
        host.guard.killing = true;
        let token = self.nodes[node].postgres.starts;
        let at = self.now + self.rng.between(500, self.config.kill_takes);
        note!(self, Some(node), "GUARD: the deadline has passed, PostgreSQL is killed");
        self.queue.push(at, Event::Killed { node, token: u64::from(token) });
    }

    /// The host goes on after it stood still, or its disk does: the guard has the first word. Its priority is above theirs, and a kill
    /// that was sent is carried out before the killed process does anything.
    pub fn guard_wakes_first(&mut self, node: NodeNo) {
        let now = self.moment(node);
        let guard = self.nodes[node].guard;
        let passed = guard.there && guard.armed.is_some_and(|deadline| now >= deadline);
        if (passed || guard.killing) && !self.config.lacks_guard() {
            self.nodes[node].guard.killing = false;
            self.postgres_dies(node);
        }
        self.guard_sees_process(node);
    }

    /// The killed processes are gone.
    pub fn guard_killed(&mut self, node: NodeNo, token: u64) {
        let host = &self.nodes[node];
        if host.suspended.is_some() || host.postgres.trouble == DiskTrouble::Hangs {
            // A process that waits for the disk ends when it has its answer, before it does anything else.
            self.queue.push(self.now + SECOND / 20, Event::Killed { node, token });
            return;
        }
        self.nodes[node].guard.killing = false;
        if u64::from(self.nodes[node].postgres.starts) == token {
            self.postgres_dies(node);
        }
        self.guard_sees_process(node);
    }
}
