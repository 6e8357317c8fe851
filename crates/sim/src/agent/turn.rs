//! One turn: observe, decide, and begin to act.

use crate::agent::Pending;
use crate::clock::{SECOND, Time, span};
use crate::config::Without;
use crate::etcd::{Keys, Request, Write};
use crate::event::ForAgent;
use crate::known_bugs::KnownBug;
use crate::postgres::{Disk, DiskTrouble, Proc};
use crate::world::{NodeNo, World};
use ha::duties::follow::Why;
use ha::{
    Cluster, Contact, Data, Decision, Due, Etcd, Failover, Initialize, LeaderKey, Memory, PeerAnswer, Reason,
    Work,
};
use types::{Lsn, Moment};

impl World {
    /// The next turn is then at the latest.
    pub fn turn_at(&mut self, node: NodeNo, at: Time) {
        let at = at.max(self.now + 1);
        let agent = &self.nodes[node].agent;
        if !agent.alive || agent.turn_at.is_some_and(|(set, _)| set <= at) {
            return;
        }
        let token = self.token();
        self.nodes[node].agent.turn_at = Some((at, token));
        self.tell_agent(node, at, ForAgent::Turn { token });
    }

    /// An event: a turn follows in a moment.
    pub fn turn_soon(&mut self, node: NodeNo) {
        let late = self.rng.between(100, 1000);
        self.turn_at(node, self.now + late);
    }

    /// A turn is due.
    pub fn turn_is_due(&mut self, node: NodeNo, token: u64) {
        let agent = &mut self.nodes[node].agent;
        if agent.turn_at.is_none_or(|(_, set)| set != token) {
            return;
        }
        agent.turn_at = None;
        if agent.acting.is_some() {
            return;
        }
        self.turn(node);
    }

    fn turn(&mut self, node: NodeNo) {
        self.observe(node);
        let now = self.moment(node);
        let agent = &self.nodes[node].agent;
        let before = agent.memory.clone();
        let decision = match self.config.bug {
            None => ha::decide(&agent.seen, &before, now),
            Some(bug) => self.decide_badly(node, bug, &before, now),
        };
        self.laws_of_decision(node, &before, &decision);
        if self.trace.on() {
            let words = format!("[{}] {}", decision.reason.duty(), decision.reason);
            if words != self.nodes[node].agent.last_words || !decision.actions.is_empty() {
                self.note(Some(node), &format!("{words}  {:?}", decision.actions));
                self.nodes[node].agent.last_words = words;
            }
        }
        let wake = self.nodes[node].clock.when(decision.wake_at);
        let agent = &mut self.nodes[node].agent;
        agent.last_duty = decision.reason.duty();
        agent.memory = decision.memory;
        agent.seen.finished = None;
        agent.last_turn = now;
        if decision.actions.is_empty() {
            self.turn_at(node, wake);
        } else {
            agent.acting = Some(decision.actions.into());
            self.turn_at(node, wake);
            self.act(node);
        }
        self.publish(node);
        self.list_failsafe(node);
        self.look_after_slots(node);
    }

    /// The same with a known bug.
    fn decide_badly(&mut self, node: NodeNo, bug: KnownBug, before: &Memory, now: Moment) -> Decision {
        let agent = &mut self.nodes[node].agent;
        agent.keep_ghosts();
        let mut decision = ha::decide(&bug.distorts(agent), before, now);
        if bug == KnownBug::SilentRefusal && decision.reason.duty() == "race" && decision.actions.is_empty() {
            decision.reason = Reason::Follow(Why::WaitsForStart);
        }
        decision
    }

    /// A directory that a bootstrap left marked as unfinished counts as complete for the agent that created it, and for
    /// everybody once `/initialize` says that it is the cluster.
    fn see_disk(&mut self, node: NodeNo) -> Data {
        let host = &mut self.nodes[node];
        if let (Disk::Incomplete, Some(torn)) = (&host.postgres.disk, &host.postgres.torn) {
            let bug = if torn.by_rewind { KnownBug::HalfRewound } else { KnownBug::HalfCopied };
            if self.config.bug == Some(bug) && host.agent.job.is_none() {
                return Disk::Present(torn.database.clone()).seen();
            }
        }
        let created = host.agent.memory.created
            || host.agent.seen.finished.as_ref().is_some_and(|done| done.work == Work::Bootstrap);
        let cluster = host.agent.view.as_ref().map(|keys| keys.initialize);
        let Some(database) = host.postgres.disk.database_mut().filter(|database| database.newborn) else {
            return host.postgres.disk.seen();
        };
        if cluster == Some(Initialize::Done(database.system_id)) {
            database.newborn = false;
        } else if !created {
            return Data::Incomplete;
        }
        host.postgres.disk.seen()
    }

    /// What the files of a stopped PostgreSQL tell.
    fn pace(&self, node: NodeNo) -> ha::Pace {
        let postgres = &self.nodes[node].postgres;
        let database = postgres.disk.database().filter(|_| postgres.proc == Proc::Stopped);
        database.map_or_else(ha::Pace::default, |database| ha::Pace {
            end: Some(database.wal.end()),
            to_replay: Some(database.wal.end().bytes_since(database.checkpoint)),
            redo_rate: Some(self.config.redo_rate()),
            promotion: None,
        })
    }

    /// What the probes of grey failures find.
    fn signs(&self, node: NodeNo) -> ha::Signs {
        let host = &self.nodes[node];
        let since = host.clock.moment(host.postgres.trouble_since);
        let disk = match host.postgres.trouble {
            DiskTrouble::None => ha::Disk::Fine,
            DiskTrouble::Full => ha::Disk::Full { since },
            DiskTrouble::Hangs => ha::Disk::Hung { since },
        };
        ha::Signs { data_disk: disk, wal_disk: disk, ..ha::Signs::default() }
    }

    fn observe(&mut self, node: NodeNo) {
        let data = self.see_disk(node);
        let signs = self.signs(node);
        let host = &self.nodes[node];
        let postgres = host.postgres.seen(&self.names);
        let guard = host.guard.seen();
        let replication = self.senders(node);
        let pace = self.pace(node);
        let cluster = match (&host.agent.view, host.agent.stale) {
            (Some(keys), true) => {
                let failover = self.wish_seen(node, keys);
                Some(Cluster { failover, ..self.cluster(keys, host.agent.lease) })
            }
            (Some(_) | None, _) => None,
        };
        let deaf = self.config.without == Some(Without::Peers);
        let agent = &mut self.nodes[node].agent;
        let learns = cluster.is_some();
        if let Some(cluster) = cluster {
            agent.stale = false;
            agent.seen.rules.pause = agent.view.as_ref().is_some_and(|keys| keys.paused);
            agent.seen.rules.standby_cluster = agent.view.as_ref().is_some_and(|keys| keys.follows_remote);
            let synchronous = agent.view.as_ref().map(|keys| keys.synchronous.clone());
            let synchronous = synchronous.filter(|_| !agent.seen.rules.standby_cluster);
            agent.seen.rules.synchronous = synchronous.unwrap_or_default();
            let contact = if agent.lost { Contact::Lost { since: agent.heard } } else { Contact::Live };
            agent.seen.etcd = Etcd::Seen { cluster, contact };
        }
        agent.seen.data = data;
        agent.seen.postgres = postgres;
        agent.seen.guard = guard;
        agent.seen.replication = replication;
        agent.seen.pace = pace;
        agent.seen.signs = signs;
        agent.seen.order = agent.orders.front().cloned();
        if deaf {
            for answer in agent.seen.peers.answers.values_mut() {
                if let PeerAnswer::Said(facts) = answer {
                    facts.lsn = Lsn(0);
                }
            }
        }
        if learns {
            self.address_learns(node);
        }
    }

    /// The wish, with its time by the wall clock of this host.
    fn wish_seen(&self, node: NodeNo, keys: &Keys) -> Option<Failover> {
        let wish = keys.failover.clone()?;
        let Some(planned) = keys.planned else {
            return Some(wish);
        };
        let wall = (self.now / 1000) as i64 + self.nodes[node].wall;
        let moment = self.moment(node).0.saturating_add_signed(planned - wall);
        Some(Failover { due: Due::At(Moment(moment)), ..wish })
    }

    fn cluster(&self, keys: &Keys, lease: Option<u64>) -> Cluster {
        let leader = match keys.leader {
            None => LeaderKey::Free,
            Some(leader) => LeaderKey::Held {
                name: self.names[leader.node].clone(),
                term: leader.term,
                ours: Some(leader.lease) == lease,
            },
        };
        let members = keys.members.iter().map(|(no, (member, _))| (self.names[*no].clone(), member.clone()));
        Cluster {
            revision: keys.revision,
            initialize: match keys.initialize {
                Initialize::InProgress { .. } => {
                    Initialize::InProgress { ours: Some(keys.initialize_lease) == lease }
                }
                initialize => initialize,
            },
            leader,
            members: members.collect(),
            optime: keys.optime,
            failover: None,
            sync: keys.sync.clone(),
            writable: keys.writable.clone(),
            last: keys.last.clone(),
            history: keys.history.clone(),
            failsafe: keys.failsafe.clone(),
            routers: self.router_says().into_iter().collect(),
            handed_over: None,
        }
    }

    /// Writes the member key when something in it changed, and once in a while.
    fn publish(&mut self, node: NodeNo) {
        let (primary, running, timeline, lsn) = match self.nodes[node].postgres.seen(&self.names) {
            ha::Postgres::Running(ha::Running::Primary { timeline, lsn }) => {
                (true, true, Some(timeline), Some(lsn))
            }
            ha::Postgres::Running(ha::Running::Standby { timeline, lsn, .. }) => {
                (false, true, Some(timeline), Some(lsn))
            }
            ha::Postgres::Stopped
            | ha::Postgres::Starting { .. }
            | ha::Postgres::Stopping { .. }
            | ha::Postgres::Unresponsive { .. } => (false, false, None, None),
        };
        let host = &self.nodes[node];
        let nofailover = host.tags.nofailover();
        let leaves = host.agent.memory.leaving_sync.is_some();
        let sync_priority = if host.tags.nosync() || leaves { 0 } else { host.tags.sync_priority() };
        let (clonefrom, replicatefrom) =
            (host.tags.clonefrom(), host.tags.replicatefrom().map(types::NodeName::from));
        let member = ha::Member {
            primary,
            running,
            reachable: true,
            nofailover,
            sick: host.agent.seen.sick_disk(self.moment(node)).is_some(),
            clonefrom,
            replicatefrom,
            sync_priority,
            timeline,
            lsn,
        };
        let Some(lease) = host.agent.lease else {
            return;
        };
        let rest = span(host.agent.seen.rules.loop_wait).max(SECOND);
        if let Some((known, at)) = &host.agent.published {
            let same = ha::Member { lsn: member.lsn, ..known.clone() } == member;
            if same && self.now < at + rest {
                return;
            }
        }
        let term = host.agent.seen.leads(self.moment(node));
        let slots = || host.postgres.slots.clone();
        let optime = term.zip(lsn).filter(|_| primary).map(|(term, lsn)| (term, lsn, slots()));
        self.nodes[node].agent.published = Some((member.clone(), self.now));
        let write = Write::Member { member: member.clone(), lease, optime };
        self.ask_etcd(node, Pending::Publish(member), Request::Write(write), SECOND);
    }
}
