//! One turn of one agent: observe, decide, act, all at once.

use crate::cluster::{Leader, Pg, State, TTL, deadline};
use ha::{
    Action, Authority, Cluster, Contact, Control, CrashRule, Data, Etcd, Finished, Initialize, Job, Last,
    LeaderHistory, LeaderKey, Member, Observation, PeerAnswer, PeerFacts, Peers, Postgres, Rules, Running,
    Synchronous, Upstream, Work, Writable,
};
use std::time::Duration;
use types::{History, HistoryLine, Lsn, NodeName, SystemId, Tags, Term, Timeline};

const SYSTEM: SystemId = SystemId(7_000_000_000_000_000_001);
const LSN: Lsn = Lsn(5000);

fn name(no: usize) -> NodeName {
    NodeName::from(["a", "b", "c"][no])
}

fn number(name: &NodeName) -> usize {
    ["a", "b", "c"].iter().position(|known| *known == name.as_str()).expect("a known name")
}

fn rules() -> Rules {
    Rules {
        ttl: Duration::from_secs(TTL),
        loop_wait: Duration::from_secs(1),
        retry_timeout: Duration::from_secs(1),
        maximum_lag_on_failover: 1 << 20,
        pause: false,
        failsafe: false,
        check_timeline: false,
        primary_start_timeout: Duration::from_secs(300),
        primary_stop_timeout: Duration::from_secs(5),
        synchronous: Synchronous::default(),
        pre_promote: false,
        await_routers: Duration::ZERO,
        pooler: false,
        may_bootstrap: true,
        may_rewind: true,
        may_copy_without_leader: false,
        standby_cluster: false,
        crash: CrashRule::Auto,
    }
}

impl State {
    fn cluster(&self, me: usize) -> Cluster {
        let leader = match self.leader {
            None => LeaderKey::Free,
            Some(leader) => {
                LeaderKey::Held { name: name(leader.node), term: leader.term, ours: leader.node == me }
            }
        };
        let member = |no: usize| Member {
            primary: self.nodes[no].pg == Pg::Primary,
            running: self.nodes[no].pg != Pg::Stopped,
            reachable: true,
            nofailover: false,
            sick: false,
            clonefrom: false,
            replicatefrom: None,
            sync_priority: 1,
            timeline: Some(self.nodes[no].timeline),
            lsn: Some(LSN),
        };
        let said = self.writable;
        Cluster {
            revision: self.term,
            initialize: Initialize::Done(SYSTEM),
            leader,
            members: (0..self.nodes.len()).map(|no| (name(no), member(no))).collect(),
            optime: Some(LSN),
            failover: None,
            sync: None,
            writable: said.map(|(no, term, timeline)| Writable { name: name(no), term, timeline }),
            last: said.map(|(no, term, timeline)| Last { name: name(no), term, timeline, guarded: true }),
            history: (1..said.map_or(1, |(_, _, timeline)| timeline.0))
                .map(|no| (Timeline(no), LSN))
                .collect(),
            failsafe: None,
            routers: Vec::new(),
            handed_over: None,
        }
    }

    fn observe(&mut self, me: usize) -> Observation {
        if !self.nodes[me].cut {
            self.nodes[me].view = Some(self.cluster(me));
        }
        let node = &self.nodes[me];
        let contact = if node.cut { Contact::Lost { since: self.now() } } else { Contact::Live };
        let (timeline, lsn) = (node.timeline, LSN);
        let lines = |timeline: Timeline| {
            (1..timeline.0).map(|no| HistoryLine { timeline: Timeline(no), end: LSN, reason: String::new() })
        };
        Observation {
            me: name(me),
            tags: Tags::default(),
            rules: rules(),
            etcd: match &node.view {
                Some(cluster) => Etcd::Seen { cluster: cluster.clone(), contact },
                None => Etcd::Never { since: self.now() },
            },
            authority: match node.authority {
                Some((term, deadline)) => Authority::Held { term, deadline },
                None => Authority::None,
            },
            data: Data::Present(Control {
                system_id: SYSTEM,
                timeline,
                checkpoint: Lsn(LSN.0 - 100),
                reached: LSN,
                clean: node.clean,
                standby: node.standby,
                rewindable: true,
            }),
            postgres: match node.pg {
                Pg::Stopped => Postgres::Stopped,
                Pg::Primary => Postgres::Running(Running::Primary { timeline, lsn }),
                Pg::Standby => Postgres::Running(Running::Standby {
                    timeline,
                    lsn,
                    streaming: node.upstream.is_some_and(|from| self.nodes[from].pg == Pg::Primary),
                    upstream: node.upstream.map(|no| Upstream::Member(name(no))),
                }),
            },
            replication: None,
            pace: ha::Pace::default(),
            job: Job::Idle,
            finished: node.finished.clone(),
            guard: node.guard(),
            watchdog: ha::Watchdog::Fine,
            signs: ha::Signs::default(),
            peers: node.peers.clone(),
            leader_history: match self.leader {
                Some(leader) => {
                    let timeline = self.nodes[leader.node].timeline;
                    let history = History { timeline, lines: lines(timeline).collect() };
                    LeaderHistory::Known {
                        of: Upstream::Member(name(leader.node)),
                        history,
                        asked: self.now(),
                    }
                }
                None => LeaderHistory::Unknown,
            },
            order: None,
            planned: None,
            failsafe: ha::Failsafe::default(),
            vouched: None,
        }
    }

    pub(crate) fn turn(&mut self, me: usize) {
        let seen = self.observe(me);
        let decision = ha::decide(&seen, &self.nodes[me].memory, self.now());
        self.nodes[me].memory = decision.memory;
        self.nodes[me].finished = None;
        for action in decision.actions {
            if !self.act(me, action) {
                break;
            }
        }
    }

    fn act(&mut self, me: usize, action: Action) -> bool {
        let now = self.now();
        let cut = self.nodes[me].cut;
        let ahead = self.nodes[me].authority.filter(|(_, deadline)| now < *deadline);
        match action {
            Action::AcquireLeader if !cut && self.leader.is_none() => self.takes(me, Term(self.term + 1)),
            Action::AdoptLeader(term) if !cut && self.leader.is_some_and(|leader| leader.term == term) => {
                self.takes(me, term)
            }
            Action::ReleaseLeader(term) | Action::HandLeadTo { term, .. } => {
                self.nodes[me].authority = None;
                if !cut && self.leader.is_some_and(|leader| leader.term == term) {
                    self.leader = None;
                }
            }
            Action::AnnounceWritable { term, timeline, .. }
                if !cut && self.leader.is_some_and(|leader| leader.term == term) =>
            {
                self.writable = Some((me, term, timeline));
            }
            Action::AskPeers(names) => self.ask(me, &names),
            Action::ArmGuard(_) if ahead.is_some() => {
                self.nodes[me].armed = ahead.map(|(_, deadline)| deadline)
            }
            Action::DisarmGuard => self.nodes[me].armed = None,
            Action::StartPrimary if ahead.is_some() => {
                (self.nodes[me].pg, self.nodes[me].standby) = (Pg::Primary, false);
            }
            Action::Promote(term) if ahead.is_some_and(|(held, _)| held == term) => {
                if self.nodes[me].pg == Pg::Standby {
                    self.timeline += 1;
                    let node = &mut self.nodes[me];
                    (node.pg, node.standby, node.timeline) = (Pg::Primary, false, Timeline(self.timeline));
                }
            }
            Action::StartStandby(upstream) => {
                let node = &mut self.nodes[me];
                (node.pg, node.standby) = (Pg::Standby, true);
                node.upstream = upstream.member().map(number);
            }
            Action::Follow(upstream) => self.nodes[me].upstream = upstream.member().map(number),
            Action::Stop(_) => (self.nodes[me].pg, self.nodes[me].clean) = (Pg::Stopped, true),
            Action::Begin(work) => self.works(me, work),
            Action::ReadLeaderHistory(_) | Action::AskFailsafe { .. } | Action::ExtendLead { .. } => {}
            _ => return false,
        }
        true
    }

    fn takes(&mut self, me: usize, term: Term) {
        self.term = self.term.max(term.0);
        self.leader = Some(Leader { node: me, term, ends: self.seconds + TTL });
        self.nodes[me].authority = Some((term, deadline(self.now())));
    }

    fn ask(&mut self, me: usize, names: &[NodeName]) {
        let answer = |name: &NodeName| {
            let node = &self.nodes[number(name)];
            if self.nodes[me].cut || !node.answers() {
                return PeerAnswer::Silent;
            }
            let runs = node.pg != Pg::Stopped;
            PeerAnswer::Said(PeerFacts {
                primary: node.pg == Pg::Primary,
                timeline: runs.then_some(node.timeline),
                lsn: if runs { LSN } else { Lsn(0) },
                nofailover: false,
                failover_priority: 1,
                replayed: None,
                takes_wal: false,
                unprotected: false,
                sick: false,
                failsafe_active: false,
            })
        };
        let answers = names.iter().map(|name| (name.clone(), answer(name))).collect();
        self.nodes[me].peers = Peers { asked: Some(self.now()), answers };
    }

    /// A rewind or copy, done at once.
    fn works(&mut self, me: usize, work: Work) {
        let ok = match &work {
            Work::Rewind { from, .. } | Work::Clone(from) => {
                let source = self.nodes[number(from.member().expect("a member"))].clone();
                let ok = source.pg == Pg::Primary && !source.cut && !self.nodes[me].cut;
                if ok {
                    (self.nodes[me].timeline, self.nodes[me].standby) = (source.timeline, true);
                }
                ok
            }
            Work::Bootstrap
            | Work::Checkpoint
            | Work::ArchiveTail
            | Work::PrePromote(_)
            | Work::HandTail { .. } => true,
        };
        self.nodes[me].finished = Some(Finished { work, ok });
    }
}
