//! Jobs: they take their time, can fail, and die with the agent.

use crate::clock::{SECOND, Time};
use crate::event::ForAgent;
use crate::known_bugs::KnownBug;
use crate::note;
use crate::postgres::{Database, Disk, DiskTrouble, OURS, Proc, Torn};
use crate::wal::Wal;
use crate::world::{NodeNo, World};
use ha::{Finished, Job, Upstream, Work};
use types::{Lsn, NodeName, SystemId, Term};

/// The running job.
#[derive(Clone, Debug)]
pub struct Running {
    token: u64,
    work: Work,
}

impl World {
    fn node_named(&self, name: &NodeName) -> Option<NodeNo> {
        self.names.iter().position(|known| known == name)
    }

    /// Begins a job.
    pub fn begin_job(&mut self, node: NodeNo, work: Work) -> bool {
        if self.nodes[node].agent.job.is_some() {
            return false;
        }
        let fails = self.healing.is_none() && self.rng.chance(self.config.job_failures);
        let idle = self.nodes[node].postgres.proc == Proc::Stopped;
        let takes = match &work {
            Work::Bootstrap => self.rng.between(SECOND / 2, 3 * SECOND),
            Work::Clone(_) => self.rng.between(SECOND, self.config.clone),
            Work::Rewind { .. } => self.rng.between(SECOND / 3, 5 * SECOND),
            Work::Checkpoint | Work::ArchiveTail | Work::PrePromote(_) | Work::HandTail { .. } => {
                self.rng.between(SECOND / 50, SECOND)
            }
        };
        if !idle && !matches!(work, Work::Checkpoint | Work::PrePromote(_)) {
            self.laws
                .breaks(8, format!("{}: {work:?} while PostgreSQL runs on the directory", self.names[node]));
            return false;
        }
        match &work {
            Work::Bootstrap => self.nodes[node].postgres.disk = Disk::Incomplete,
            // The source is asked before anything is moved aside.
            Work::Clone(from) if self.copy_of(node, from).is_some() => {
                self.law_of_wipe(node);
                self.keep_tail(node);
                let database = self.copy_of(node, from);
                let postgres = &mut self.nodes[node].postgres;
                postgres.torn = database.map(|database| Torn { database, by_rewind: false });
                postgres.disk = Disk::Incomplete;
                postgres.slots.clear();
            }
            Work::Clone(_) => {}
            Work::Rewind { .. } => {
                self.law_of_rewind(node, &work);
                self.keep_tail(node);
            }
            Work::Checkpoint | Work::ArchiveTail | Work::PrePromote(_) | Work::HandTail { .. } => {}
        }
        let token = self.token();
        self.nodes[node].agent.job = Some(Running { token, work: work.clone() });
        let since = self.moment(node);
        self.nodes[node].agent.seen.job = Job::Running { work, since };
        let at = self.now + if fails { self.rng.below(takes) } else { takes };
        self.tell_agent(node, at, ForAgent::JobDone { token, ok: !fails });
        true
    }

    /// A job ends.
    pub fn job_done(&mut self, node: NodeNo, token: u64, ok: bool) {
        let running = self.nodes[node].agent.job.as_ref().filter(|job| job.token == token);
        if let Some(waits) = running.and_then(|job| self.job_waits(node, &job.work)) {
            self.tell_agent(node, self.now + waits, ForAgent::JobDone { token, ok });
            return;
        }
        let ok = ok && self.nodes[node].postgres.trouble != DiskTrouble::Full;
        let Some(Running { work, .. }) = self.nodes[node].agent.job.take_if(|job| job.token == token) else {
            return;
        };
        let ok = self.finish(node, &work, ok);
        note!(self, Some(node), "the job ends, {}: {work:?}", if ok { "well" } else { "badly" });
        let agent = &mut self.nodes[node].agent;
        agent.seen.job = Job::Idle;
        agent.seen.finished = Some(Finished { work, ok });
        self.turn_soon(node);
    }

    /// A job that cannot go on yet: the disk hangs, or the one to rewind to has not written its first checkpoint.
    fn job_waits(&self, node: NodeNo, work: &Work) -> Option<Time> {
        if self.nodes[node].postgres.trouble == DiskTrouble::Hangs {
            return Some(SECOND / 4);
        }
        let early = self.is_early(work) && self.config.bug != Some(KnownBug::EarlyRewind);
        early.then_some(SECOND / 4)
    }

    fn is_early(&self, work: &Work) -> bool {
        let Work::Rewind { from, .. } = work else {
            return false;
        };
        let source = from.member().and_then(|name| self.node_named(name));
        source.is_some_and(|source| {
            let source = &self.nodes[source].postgres;
            source.proc == Proc::Primary && self.now < source.first_checkpoint
        })
    }

    /// The divergent tail is kept before anything is done to it.
    fn keep_tail(&mut self, node: NodeNo) {
        let host = &mut self.nodes[node];
        if let Some(database) = host.postgres.disk.database() {
            let tail = database.wal.last_write();
            host.postgres.aside = Some(database.wal.clone());
            host.postgres.torn = Some(Torn { database: database.clone(), by_rewind: true });
            if self.config.bug != Some(KnownBug::TailThrownAway) && !host.tails.contains(&tail) {
                host.tails.push(tail);
            }
        }
    }

    /// The job of a node dies.
    pub fn job_dies(&mut self, node: NodeNo) {
        if let Some(token) = self.nodes[node].agent.job.as_ref().map(|job| job.token) {
            self.job_done(node, token, false);
        }
    }

    fn finish(&mut self, node: NodeNo, work: &Work, ok: bool) -> bool {
        match work {
            Work::Bootstrap if ok => self.bootstrapped(node),
            Work::Bootstrap => {
                self.nodes[node].postgres.disk = Disk::Empty;
                return false;
            }
            Work::Clone(from) => match self.copy_of(node, from).filter(|_| ok) {
                Some(copy) => {
                    self.law_of_tail(node, &copy.wal);
                    self.replace_data(node, copy);
                }
                None => return false,
            },
            Work::Rewind { from, .. } if self.copy_of(node, from).is_none() => return false,
            // With a known bug: it sees the old timeline, says that there is nothing to do, and changes nothing.
            Work::Rewind { .. } if self.is_early(work) => {}
            Work::Rewind { from, .. } => match self.copy_of(node, from).filter(|_| ok) {
                Some(copy) => {
                    self.law_of_tail(node, &copy.wal);
                    self.replace_data(node, copy);
                }
                None => {
                    if self.rng.chance(500) {
                        self.nodes[node].postgres.disk = Disk::Incomplete;
                    }
                    return false;
                }
            },
            Work::HandTail { to, term, .. } => return self.hand_tail(node, to, *term, ok),
            Work::Checkpoint => {
                let postgres = &mut self.nodes[node].postgres;
                postgres.checkpointed = self.now;
                postgres.first_checkpoint = postgres.first_checkpoint.min(self.now);
            }
            Work::ArchiveTail | Work::PrePromote(_) => {}
        }
        if let Work::Rewind { from, .. } = work {
            self.law_of_rewound(node, from.member().and_then(|name| self.node_named(name)));
        }
        ok
    }

    /// The last WAL of a crashed primary goes into that of a standby; a part of it, when the job fails on the way.
    fn hand_tail(&mut self, node: NodeNo, to: &NodeName, term: Term, ok: bool) -> bool {
        let Some(to) = self.node_named(to).filter(|to| self.net.joined(node, *to)) else { return false };
        let named = self.nodes[to].agent.view.as_ref().and_then(|keys| keys.leader);
        let named = named.is_some_and(|leader| leader.node == node && leader.term == term);
        let (sender, taker) = (&self.nodes[node], &self.nodes[to]);
        let follows = match taker.postgres.proc {
            Proc::Standby { upstream, streaming, promoting } => {
                upstream == Some(node) && !streaming && !promoting
            }
            Proc::Stopped | Proc::Starting { .. } | Proc::Primary | Proc::Stopping { .. } => false,
        };
        let awake = taker.agent.answers() && taker.postgres.hangs.is_none() && !taker.agent.lost;
        let (Some(ours), Some(theirs)) = (sender.postgres.disk.database(), taker.postgres.disk.database())
        else {
            return false;
        };
        let same = ours.system_id == theirs.system_id && ours.wal.timeline() == theirs.wal.timeline();
        if !named || !follows || !awake || !same || !theirs.wal.is_within(&ours.wal) {
            return false;
        }
        let ours = ours.wal.clone();
        let have = theirs.wal.end();
        let part = Lsn(have.0 + ours.end().bytes_since(have) / 2);
        let limit = if ok { ours.end() } else { part };
        if let Some(theirs) = self.nodes[to].postgres.disk.database_mut() {
            theirs.wal.advance(&ours, limit);
        }
        ok
    }

    fn replace_data(&mut self, node: NodeNo, copy: Database) {
        let postgres = &mut self.nodes[node].postgres;
        postgres.disk = Disk::Present(copy);
        postgres.torn = None;
        postgres.slots.clear();
    }

    fn bootstrapped(&mut self, node: NodeNo) {
        let branch = self.branch();
        let wal = Wal::born(branch);
        let (checkpoint, reached) = (wal.end(), wal.end());
        let system_id = SystemId(OURS + u64::from(branch));
        let rewindable = self.rng.chance(900);
        let database = Database {
            system_id,
            wal,
            standby: false,
            clean: true,
            checkpoint,
            reached,
            rewindable,
            newborn: true,
            torn: false,
        };
        self.nodes[node].postgres.disk = Disk::Present(database);
    }

    /// A copy of what the named node has now, as a standby.
    fn copy_of(&self, node: NodeNo, from: &Upstream) -> Option<Database> {
        let from = from
            .member()
            .and_then(|name| self.node_named(name))
            .filter(|from| self.net.joined(node, *from) && *from != node)?;
        let source = &self.nodes[from].postgres;
        let database = source.disk.database().filter(|_| source.serves() && self.nodes[from].up)?;
        let reached = database.wal.end();
        Some(Database {
            standby: true,
            clean: false,
            newborn: false,
            torn: false,
            reached,
            ..database.clone()
        })
    }

    /// The job's processes are gone before it was done.
    pub fn job_is_cut(&mut self, node: NodeNo) {
        let cut = self.nodes[node].agent.job.take();
        self.nodes[node].agent.seen.job = Job::Idle;
        match cut.map(|job| job.work) {
            Some(Work::Rewind { .. }) => self.nodes[node].postgres.disk = Disk::Incomplete,
            Some(
                Work::Bootstrap
                | Work::Clone(_)
                | Work::Checkpoint
                | Work::ArchiveTail
                | Work::PrePromote(_)
                | Work::HandTail { .. },
            )
            | None => {}
        }
    }
}
