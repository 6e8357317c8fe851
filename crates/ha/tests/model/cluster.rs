//! The small cluster: one second is one step of time; an agent that is neither frozen, dead nor cut off renews in each.

use ha::{Cluster, Guard, Memory, Peers};
use types::{Moment, Term, Timeline};

/// How large the world is.
#[derive(Clone, Debug)]
pub(crate) struct Small {
    pub(crate) nodes: usize,
    pub(crate) seconds: u64,
    pub(crate) faults: u8,
    pub(crate) guard: bool,
}

/// Time to live of the lease, in seconds.
pub(crate) const TTL: u64 = 3;

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Pg {
    Stopped,
    Standby,
    Primary,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Node {
    pub(crate) pg: Pg,
    pub(crate) clean: bool,
    pub(crate) standby: bool,
    pub(crate) timeline: Timeline,
    pub(crate) upstream: Option<usize>,
    pub(crate) memory: Memory,
    pub(crate) authority: Option<(Term, Moment)>,
    pub(crate) armed: Option<Moment>,
    pub(crate) frozen: bool,
    pub(crate) dead: bool,
    pub(crate) cut: bool,
    pub(crate) view: Option<Cluster>,
    pub(crate) peers: Peers,
    pub(crate) finished: Option<ha::Finished>,
}

impl Node {
    pub(crate) fn guard(&self) -> Guard {
        if self.armed.is_some() { Guard::Armed } else { Guard::Disarmed }
    }

    pub(crate) fn answers(&self) -> bool {
        !self.frozen && !self.dead && !self.cut
    }
}

/// The leader key, and the moment its lease runs out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Leader {
    pub(crate) node: usize,
    pub(crate) term: Term,
    pub(crate) ends: u64,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct State {
    pub(crate) seconds: u64,
    pub(crate) faults: u8,
    pub(crate) nodes: Vec<Node>,
    pub(crate) leader: Option<Leader>,
    pub(crate) writable: Option<(usize, Term, Timeline)>,
    /// The last term, and the last timeline anybody took.
    pub(crate) term: i64,
    pub(crate) timeline: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    Second,
    Turn(usize),
    Crash(usize),
    Freeze(usize),
    Thaw(usize),
    Kill(usize),
    Restart(usize),
    Cut(usize),
    Join(usize),
}

impl State {
    pub(crate) fn led_by_the_first(small: &Small) -> State {
        let now = Moment(0);
        let node = |no| Node {
            pg: if no == 0 { Pg::Primary } else { Pg::Standby },
            clean: false,
            standby: no != 0,
            timeline: Timeline(1),
            upstream: (no != 0).then_some(0),
            memory: Memory { matched: true, ..Memory::default() },
            authority: (no == 0).then_some((Term(1), deadline(now))),
            armed: (no == 0).then_some(deadline(now)),
            frozen: false,
            dead: false,
            cut: false,
            view: None,
            peers: Peers::default(),
            finished: None,
        };
        State {
            seconds: 0,
            faults: 0,
            nodes: (0..small.nodes).map(node).collect(),
            leader: Some(Leader { node: 0, term: Term(1), ends: TTL }),
            writable: Some((0, Term(1), Timeline(1))),
            term: 1,
            timeline: 1,
        }
    }

    pub(crate) fn now(&self) -> Moment {
        Moment(self.seconds * 1000)
    }

    pub(crate) fn primaries(&self) -> usize {
        self.nodes.iter().filter(|node| node.pg == Pg::Primary).count()
    }

    pub(crate) fn primary(&self) -> Option<usize> {
        self.nodes.iter().position(|node| node.pg == Pg::Primary)
    }

    pub(crate) fn steps(&self, small: &Small, steps: &mut Vec<Step>) {
        steps.push(Step::Second);
        let more = self.faults < small.faults;
        for (no, node) in self.nodes.iter().enumerate() {
            if !node.frozen && !node.dead {
                steps.push(Step::Turn(no));
            }
            if node.frozen {
                steps.push(Step::Thaw(no));
            }
            if node.dead {
                steps.push(Step::Restart(no));
            }
            if node.cut {
                steps.push(Step::Join(no));
            }
            if more {
                steps.extend([Step::Crash(no), Step::Freeze(no), Step::Kill(no), Step::Cut(no)]);
            }
        }
    }

    pub(crate) fn take(&mut self, small: &Small, step: Step) {
        match step {
            Step::Second => self.second(small),
            Step::Turn(no) => self.turn(no),
            Step::Crash(no) if self.nodes[no].pg != Pg::Stopped => {
                self.nodes[no].pg = Pg::Stopped;
                self.nodes[no].clean = false;
                self.faults += 1;
            }
            Step::Crash(_) => {}
            Step::Freeze(no) => self.fault(no, |node| node.frozen = true),
            Step::Thaw(no) => self.nodes[no].frozen = false,
            Step::Kill(no) => self.fault(no, |node| node.dead = true),
            Step::Restart(no) => {
                let node = &mut self.nodes[no];
                node.dead = false;
                node.memory = Memory::default();
                node.view = None;
                node.peers = Peers::default();
            }
            Step::Cut(no) => self.fault(no, |node| node.cut = true),
            Step::Join(no) => self.nodes[no].cut = false,
        }
    }

    fn fault(&mut self, no: usize, what: impl Fn(&mut Node)) {
        let before = self.nodes[no].clone();
        what(&mut self.nodes[no]);
        self.faults += u8::from(before != self.nodes[no]);
    }

    /// A second passes: deadlines come before the ends of leases, as the margin has it, and renewals after both.
    fn second(&mut self, small: &Small) {
        self.seconds += 1;
        let now = self.now();
        for node in &mut self.nodes {
            if small.guard && node.armed.is_some_and(|deadline| now >= deadline) && node.pg != Pg::Stopped {
                node.pg = Pg::Stopped;
                node.clean = false;
            }
        }
        if self.leader.is_some_and(|leader| leader.ends <= self.seconds) {
            self.leader = None;
        }
        for (no, node) in self.nodes.iter_mut().enumerate() {
            if !node.answers() {
                continue;
            }
            let held = self.leader.as_mut().filter(|leader| leader.node == no);
            match (held, node.authority) {
                (Some(leader), authority) => {
                    leader.ends = self.seconds + TTL;
                    if authority.is_some_and(|(term, _)| term == leader.term) {
                        node.authority = Some((leader.term, deadline(now)));
                        node.armed = node.armed.map(|_| deadline(now));
                    }
                }
                (None, _) => node.authority = None,
            }
        }
    }
}

/// The end of the authority that a renewal sent at `sent` gives.
pub(crate) fn deadline(sent: Moment) -> Moment {
    Moment(sent.0 + TTL * 1000 - 150)
}
