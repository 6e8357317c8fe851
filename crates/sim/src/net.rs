//! Who can talk to whom, how slowly, and with what losses.

use crate::clock::Time;
use crate::rng::Rng;
use crate::world::NodeNo;

/// One end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Party {
    Node(NodeNo),
    Etcd,
    Router,
}

/// What is wrong between a node and etcd, or the others.
#[derive(Clone, Copy, Default, Debug)]
pub struct Trouble {
    /// Nothing from the node reaches etcd.
    pub cut_up: bool,
    /// Nothing from etcd reaches the node.
    pub cut_down: bool,
    /// So many of a thousand messages are lost.
    pub loss: u64,
    /// Every message may take up to so much longer.
    pub slow: Time,
}

/// The network.
#[derive(Clone, Debug)]
pub struct Net {
    /// By node: between it and etcd.
    pub etcd: Vec<Trouble>,
    /// By node and node: cut, both ways.
    cut: Vec<Vec<bool>>,
    /// By node: between it and all others.
    pub peers: Vec<Trouble>,
    /// By node: between it and the router.
    pub router: Vec<bool>,
    /// Between the router and etcd.
    pub router_etcd: bool,
}

impl Net {
    /// A network in which all is well.
    #[must_use]
    pub fn new(nodes: usize) -> Net {
        Net {
            etcd: vec![Trouble::default(); nodes],
            cut: vec![vec![false; nodes]; nodes],
            peers: vec![Trouble::default(); nodes],
            router: vec![false; nodes],
            router_etcd: false,
        }
    }

    /// All is well again.
    pub fn heal(&mut self) {
        *self = Net::new(self.etcd.len());
    }

    /// Cuts or joins two nodes.
    pub fn set_cut(&mut self, a: NodeNo, b: NodeNo, cut: bool) {
        self.cut[a][b] = cut;
        self.cut[b][a] = cut;
    }

    /// Whether two nodes can talk.
    #[must_use]
    pub fn joined(&self, a: NodeNo, b: NodeNo) -> bool {
        !self.cut[a][b]
    }

    /// How long this message takes; `None` when it is lost.
    pub fn send(&self, from: Party, to: Party, rng: &mut Rng) -> Option<Time> {
        let normal = rng.skewed(150, 2500);
        match (from, to) {
            (Party::Node(node), Party::Etcd) => self.with_etcd(node, true, normal, rng),
            (Party::Etcd, Party::Node(node)) => self.with_etcd(node, false, normal, rng),
            (Party::Node(a), Party::Node(b)) if !self.joined(a, b) => None,
            (Party::Node(a), Party::Node(b)) => {
                let after = through(self.peers[a], normal, rng)?;
                through(self.peers[b], after, rng)
            }
            (Party::Router, Party::Node(node)) | (Party::Node(node), Party::Router) => {
                (!self.router[node]).then_some(normal)
            }
            (Party::Router | Party::Etcd, Party::Router | Party::Etcd) => {
                (!self.router_etcd).then_some(normal)
            }
        }
    }

    fn with_etcd(&self, node: NodeNo, up: bool, normal: Time, rng: &mut Rng) -> Option<Time> {
        let trouble = self.etcd[node];
        let cut = if up { trouble.cut_up } else { trouble.cut_down };
        if cut { None } else { through(trouble, normal, rng) }
    }
}

fn through(trouble: Trouble, normal: Time, rng: &mut Rng) -> Option<Time> {
    if trouble.loss > 0 && rng.chance(trouble.loss) {
        return None;
    }
    Some(normal + if trouble.slow > 0 { rng.below(trouble.slow) } else { 0 })
}
