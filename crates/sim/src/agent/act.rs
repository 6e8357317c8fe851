//! The executor: does what was decided, in its order, until the first that fails.

use crate::agent::Pending;
use crate::clock::SECOND;
use crate::config::Without;
use crate::etcd::{Request, Write};
use crate::event::ForAgent;
use crate::known_bugs::KnownBug;
use crate::note;
use crate::world::{NodeNo, World};
use ha::{Action, Authority, ExitWhy, Upstream, Writable};
use types::{NodeName, Term, Timeline};

/// What became of an action.
enum Came {
    Done,
    Failed,
    /// It goes on with an event.
    Waits,
}

fn came(ok: bool) -> Came {
    if ok { Came::Done } else { Came::Failed }
}

impl World {
    /// Does the actions one after the other.
    pub fn act(&mut self, node: NodeNo) {
        while let Some(action) =
            self.nodes[node].agent.acting.as_mut().and_then(std::collections::VecDeque::pop_front)
        {
            match self.perform(node, action.clone()) {
                Came::Done => {}
                Came::Failed => {
                    note!(self, Some(node), "  failed: {action:?}");
                    self.act_failed(node, &action);
                    return;
                }
                Came::Waits => return,
            }
            if !self.nodes[node].agent.alive {
                return;
            }
        }
        self.nodes[node].agent.acting = None;
        let at = self.now + 300;
        self.turn_at(node, at);
    }

    /// An action failed: it and the rest are void.
    pub fn act_failed(&mut self, node: NodeNo, action: &Action) {
        let agent = &mut self.nodes[node].agent;
        let rest = agent.acting.take().into_iter().flatten();
        let void: Vec<Action> = std::iter::once(action.clone()).chain(rest).collect();
        agent.memory.void(&void);
        let at = self.now + SECOND / 20;
        self.turn_at(node, at);
    }

    fn number(&self, name: &NodeName) -> Option<NodeNo> {
        self.names.iter().position(|known| known == name)
    }

    fn perform(&mut self, node: NodeNo, action: Action) -> Came {
        if matches!(
            action,
            Action::WithdrawWritable(_)
                | Action::Stop(_)
                | Action::ReleaseLeader(_)
                | Action::HandLeadTo { .. }
        ) {
            self.give_address_up(node);
        }
        if self.is_left_out(node, &action) {
            return Came::Done;
        }
        match &action {
            Action::CreateInitialize
            | Action::ConfirmInitialize(_)
            | Action::RemoveInitialize
            | Action::AcquireLeader
            | Action::AdoptLeader(_)
            | Action::ReleaseLeader(_)
            | Action::HandLeadTo { .. }
            | Action::AnnounceWritable { .. }
            | Action::WithdrawWritable(_)
            | Action::ClearFailover(_)
            | Action::PutSync { .. }
            | Action::DeleteSync { .. } => self.write(node, action),
            Action::ForsakeLead(_) => {
                let agent = &mut self.nodes[node].agent;
                agent.seen.authority = Authority::None;
                agent.lease = None;
                Came::Done
            }
            // The simulated world has no routers, which are the only ones to listen.
            Action::AnnounceHandover(_) => Came::Done,
            Action::SetSynchronous(names) => {
                self.set_names(node, names.clone().unwrap_or_default());
                Came::Done
            }
            Action::AskPeers(names) => {
                let peers: Vec<NodeNo> = names.iter().filter_map(|name| self.number(name)).collect();
                self.ask_peers(node, peers);
                Came::Done
            }
            Action::AskFailsafe { term, names } => {
                let peers: Vec<NodeNo> = names.iter().filter_map(|name| self.number(name)).collect();
                self.ask_failsafe(node, *term, peers);
                Came::Done
            }
            Action::ExtendLead { term, until } => came(self.extend_lead(node, *term, *until)),
            Action::ReadLeaderHistory(of) => {
                if let Some(leader) = of.member().and_then(|name| self.number(name)) {
                    self.ask_history(node, leader);
                }
                Came::Done
            }
            Action::ArmGuard(term) => self.arm(node, *term),
            Action::DisarmGuard => {
                self.nodes[node].guard.armed = None;
                Came::Done
            }
            // First a timeline number that nobody has used, then the door.
            Action::Promote(_) if !self.config.skips_claims() => self.write(node, action),
            Action::StartPrimary | Action::Promote(_) => self.approach_door(node, action),
            Action::StartStandby(upstream) => {
                self.place_copies(node);
                self.nodes[node].postgres.remote = *upstream == Upstream::Remote;
                let upstream = upstream.member().and_then(|name| self.number(name));
                came(self.spawn_postgres(node, false, upstream))
            }
            Action::Follow(upstream) => {
                self.nodes[node].postgres.remote = *upstream == Upstream::Remote;
                let upstream = upstream.member().and_then(|name| self.number(name));
                self.follow(node, upstream)
            }
            Action::Stop(mode) => {
                self.law_of_stop(node);
                self.signal_stop(node, *mode);
                Came::Done
            }
            Action::Begin(work) => came(self.begin_job(node, work.clone())),
            Action::CancelJob => {
                self.job_is_cut(node);
                Came::Done
            }
            Action::BeginPlannedRestart | Action::DropPlannedRestart => Came::Done,
            Action::FinishOrder { .. } => {
                self.nodes[node].agent.orders.pop_front();
                Came::Done
            }
            Action::Exit(why) => {
                self.exit(node, *why);
                Came::Done
            }
        }
    }

    /// What a known bug leaves out, or takes for done.
    fn is_left_out(&self, node: NodeNo, action: &Action) -> bool {
        let agent = &self.nodes[node].agent;
        match (self.config.bug, action) {
            (Some(KnownBug::IsolatedPrimary), Action::Stop(_)) => agent.last_duty == "keep deadline",
            (Some(KnownBug::PreferredDurability), Action::PutSync { promise, .. }) => {
                let key = agent.view.as_ref().and_then(|keys| keys.sync.as_ref());
                let ours = key.filter(|key| key.is_led_by(&agent.seen.me));
                promise.voters.is_empty() && ours.is_some_and(|key| !key.promise.voters.is_empty())
            }
            (Some(_) | None, _) => false,
        }
    }

    fn follow(&mut self, node: NodeNo, leader: Option<NodeNo>) -> Came {
        match &mut self.nodes[node].postgres.proc {
            crate::postgres::Proc::Standby { upstream, streaming, .. } => {
                *upstream = leader;
                *streaming = false;
                Came::Done
            }
            crate::postgres::Proc::Stopped
            | crate::postgres::Proc::Starting { .. }
            | crate::postgres::Proc::Primary
            | crate::postgres::Proc::Stopping { .. } => Came::Failed,
        }
    }

    fn arm(&mut self, node: NodeNo, term: Term) -> Came {
        match self.nodes[node].agent.seen.authority {
            Authority::Held { term: held, deadline } if held == term && self.nodes[node].guard.there => {
                self.arm_guard(node, deadline);
                Came::Done
            }
            Authority::Held { .. } | Authority::None => Came::Failed,
        }
    }

    /// A fresh look at the clock, right before the signal; what happens between the two is the guard's business.
    fn approach_door(&mut self, node: NodeNo, action: Action) -> Came {
        let wanted = match action {
            Action::Promote(term) => Some(term),
            _ => None,
        };
        if self.is_promised(node) || !self.is_open(node, wanted) {
            return Came::Failed;
        }
        self.law_of_door(node, wanted);
        let token = self.token();
        self.nodes[node].agent.at_door = Some((token, action));
        let at = self.now + self.rng.between(20, 300);
        self.tell_agent(node, at, ForAgent::Door { token });
        if self.chaos.freeze_at_door[node] && self.healing.is_none() {
            self.chaos.freeze_at_door[node] = false;
            self.freeze_agent(node);
        }
        Came::Waits
    }

    /// Whether the authority lasts, in the `wanted` term where there is one.
    fn is_open(&self, node: NodeNo, wanted: Option<Term>) -> bool {
        let lasts = match self.nodes[node].agent.seen.authority {
            Authority::None => false,
            Authority::Held { term, deadline } => {
                self.moment(node) < deadline && wanted.is_none_or(|wanted| wanted == term)
            }
        };
        lasts || self.config.without == Some(Without::Door)
    }

    /// The signal is sent, the postmaster spawned: the new process looks at the clock itself before it becomes PostgreSQL.
    pub fn through_the_door(&mut self, node: NodeNo, token: u64) {
        let Some((_, action)) = self.nodes[node].agent.at_door.take().filter(|(set, _)| *set == token) else {
            return;
        };
        let ok = match &action {
            Action::Promote(_) => self.signal_promote(node),
            _ => self.is_open(node, None) && self.spawn_postgres(node, true, None),
        };
        if ok { self.act(node) } else { self.act_failed(node, &action) }
    }

    fn write(&mut self, node: NodeNo, action: Action) -> Came {
        if let Action::ReleaseLeader(_) | Action::HandLeadTo { .. } = action {
            // From here on it is somebody else's, whether an answer comes or not.
            self.nodes[node].agent.seen.authority = Authority::None;
            self.bequeath(node);
        }
        let takes = matches!(action, Action::AcquireLeader | Action::AdoptLeader(_));
        if takes && self.is_promised(node) {
            return Came::Failed;
        }
        if action == Action::AcquireLeader {
            self.law_of_race(node);
        }
        let agent = &self.nodes[node].agent;
        let Some(lease) = agent.lease else {
            return Came::Failed;
        };
        let write = match &action {
            Action::CreateInitialize => Write::CreateInitialize { lease },
            Action::ConfirmInitialize(id) => Write::ConfirmInitialize(*id),
            Action::RemoveInitialize => Write::RemoveInitialize,
            Action::AcquireLeader => {
                let revision = agent.view.as_ref().map_or(0, |keys| keys.sync_revision());
                let failover = agent.view.as_ref().map_or(0, |keys| keys.failover_revision());
                let failsafe = agent.view.as_ref().map_or(0, |keys| keys.failsafe_modified);
                Write::Acquire { lease, sync: revision, failover, failsafe }
            }
            Action::PutSync { promise, over, term } => Write::PutSync {
                leader: agent.seen.me.clone(),
                promise: promise.clone(),
                over: *over,
                term: *term,
            },
            Action::DeleteSync { over, term } => Write::DeleteSync { over: *over, term: *term },
            Action::Promote(term) => {
                let timeline = self.nodes[node].postgres.disk.database().map(|d| d.wal.timeline());
                Write::Claim { term: *term, timeline: timeline.unwrap_or(Timeline(1)) }
            }
            Action::AdoptLeader(term) => Write::Adopt { term: *term, lease },
            Action::ReleaseLeader(term) => {
                let leader = agent.view.as_ref().and_then(|keys| keys.leader);
                let modified = leader.map_or(0, |leader| leader.modified);
                Write::Release { term: *term, modified, wish: None }
            }
            Action::HandLeadTo { term, to } => {
                let leader = agent.view.as_ref().and_then(|keys| keys.leader);
                let modified = leader.map_or(0, |leader| leader.modified);
                let wish = Some((agent.seen.me.clone(), to.clone()));
                Write::Release { term: *term, modified, wish }
            }
            Action::WithdrawWritable(term) => Write::Withdraw(*term),
            Action::ClearFailover(revision) => Write::ClearFailover(*revision),
            Action::AnnounceWritable { term, timeline, guarded, .. } => {
                let history =
                    self.nodes[node].postgres.disk.database().map(|database| database.wal.history());
                let lines = history.into_iter().flat_map(|history| history.lines);
                let writable = Writable { name: agent.seen.me.clone(), term: *term, timeline: *timeline };
                Write::Announce {
                    writable,
                    guarded: *guarded,
                    history: lines.map(|line| (line.timeline, line.end)).collect(),
                }
            }
            _ => return Came::Failed,
        };
        self.ask_etcd(node, Pending::Act(action), Request::Write(write), SECOND);
        Came::Waits
    }

    /// etcd answered the action.
    pub fn act_answered(&mut self, node: NodeNo, action: Action, ok: bool, revision: i64) {
        if !ok {
            note!(self, Some(node), "  refused by etcd: {action:?}");
            self.act_failed(node, &action);
            return;
        }
        if let Action::Promote(_) = action {
            match self.approach_door(node, action.clone()) {
                Came::Waits => {}
                Came::Done | Came::Failed => self.act_failed(node, &action),
            }
            return;
        }
        let deadline = self.deadline(node);
        let agent = &mut self.nodes[node].agent;
        match action {
            Action::AcquireLeader => {
                agent.seen.authority = Authority::Held { term: Term(revision), deadline }
            }
            Action::AdoptLeader(term) => agent.seen.authority = Authority::Held { term, deadline },
            _ => {}
        }
        if let Action::AnnounceWritable { term, .. } = action {
            self.address_announced(node, term);
        }
        self.bequeath(node);
        self.act(node);
    }

    fn exit(&mut self, node: NodeNo, why: ExitWhy) {
        note!(self, Some(node), "the agent ends itself: {why:?}");
        let agent = &mut self.nodes[node].agent;
        agent.acting = None;
        agent.gone = Some(why);
        let lease = agent.lease;
        if let (Some(lease), false) = (lease, agent.seen.rules.pause) {
            self.ask_etcd(node, Pending::Read, Request::Write(Write::Leave { lease }), SECOND);
        }
        self.agent_dies(node);
        if why == ExitWhy::BootstrapFailed {
            let at = self.now + 5 * SECOND;
            self.start_agent_at(node, at);
        }
    }
}
