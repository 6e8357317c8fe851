//! The virtual address of the primary on each host, as `crates/vip/src/hold.rs` holds it: the kernel is told a lifetime that ends
//! before the right does, so an agent that hangs or dies leaves none behind.
//!
//! ```text
//!   announced in this term + authority ─► right until the deadline ─► told to the kernel ─► gone at its end, whoever lives
//! ```

use crate::clock::{SECOND, Time, span};
use crate::event::{Event, ForAgent};
use crate::known_bugs::KnownBug;
use crate::note;
use crate::world::{NodeNo, World};
use ha::Authority;
use std::time::Duration;
use types::{Moment, Term};

/// The kernel looks at lifetimes with timers of its own: an address may outlive its own by so much.
const LATE: Duration = Duration::from_millis(400);
/// A lifetime that ends this much later is worth telling the kernel.
const WORTH: Duration = Duration::from_millis(500);
/// The longest lifetime that is told.
const LONGEST: Duration = Duration::from_secs(30);
/// The right is looked at this often.
const TICK: Time = SECOND / 4;

/// The address on an interface.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The end that the kernel was told.
    told: Moment,
    /// The end of the right that it was installed by.
    pub right: Moment,
    /// When the kernel removes it.
    ends: Time,
    serial: u64,
    /// The host was suspended while it had it, and the agent has not looked since: the kernel does not count that time.
    pub slept: bool,
}

/// What an agent goes by.
#[derive(Clone, Copy, Debug, Default)]
pub struct Word {
    /// The term in which this member was announced as writable.
    writable: Option<Term>,
    /// The term in which that was taken back: an older look at etcd does not bring it back.
    withdrawn: Option<Term>,
    look: u64,
}

impl World {
    fn right(&self, node: NodeNo) -> Option<Moment> {
        let agent = &self.nodes[node].agent;
        match agent.seen.authority {
            Authority::Held { term, deadline } if agent.word.writable == Some(term) => Some(deadline),
            Authority::Held { .. } | Authority::None => None,
        }
    }

    /// The agent looks at its right, at once and again and again.
    pub fn look_at_address(&mut self, node: NodeNo) {
        self.decide_address(node);
        let due = self.nodes[node].agent.word.writable.is_some() || self.nodes[node].address.is_some();
        let look = self.token();
        self.nodes[node].agent.word.look = look;
        if due {
            self.tell_agent(node, self.now + TICK, ForAgent::Address { look });
        }
    }

    /// A look is due.
    pub fn address_tick(&mut self, node: NodeNo, look: u64) {
        if self.nodes[node].agent.word.look == look {
            self.look_at_address(node);
        }
    }

    fn decide_address(&mut self, node: NodeNo) {
        let now = self.moment(node);
        let stays = self.config.bug == Some(KnownBug::VipStays);
        if let Some(held) = &mut self.nodes[node].address {
            held.slept = false;
        }
        let agent = &self.nodes[node].agent;
        let live = !agent.lost;
        let led = agent.view.as_ref().and_then(|keys| keys.leader).is_some_and(|leader| leader.node != node);
        let held = self.nodes[node].address;
        let Some(until) = self.right(node) else {
            if held.is_some() && (!stays || live && led) {
                self.nodes[node].address = None;
            }
            return;
        };
        let rest = now.until(until).min(LONGEST).saturating_sub(LATE).as_secs();
        if rest == 0 && !stays {
            self.nodes[node].address = None;
            return;
        }
        let told = now.after(Duration::from_secs(rest));
        let fits = |held: Address| held.told.after(LATE) <= until;
        if let Some(held) = &mut self.nodes[node].address
            && told <= held.told.after(WORTH)
            && fits(*held)
        {
            held.right = until;
            return;
        }
        if held.is_none() {
            note!(self, Some(node), "the virtual address is installed");
        }
        let serial = self.token();
        let late = self.rng.below(span(LATE));
        let ends = self.nodes[node].clock.when(told) + late;
        self.nodes[node].address = Some(Address { told, right: until, ends, serial, slept: false });
        if !stays {
            self.queue.push(ends, Event::AddressEnds { node, serial });
        }
    }

    /// The kernel looks whether the lifetime is over.
    pub fn address_ends(&mut self, node: NodeNo, serial: u64) {
        let Some(held) = self.nodes[node].address.filter(|held| held.serial == serial) else {
            return;
        };
        if self.nodes[node].suspended.is_some() {
            return;
        }
        if self.now < held.ends {
            self.queue.push(held.ends, Event::AddressEnds { node, serial });
            return;
        }
        self.nodes[node].address = None;
        note!(self, Some(node), "the lifetime of the virtual address is over");
    }

    /// The host goes on: the kernel counts the lifetime from where it was.
    pub fn address_wakes(&mut self, node: NodeNo, slept: Time) {
        if let Some(held) = &mut self.nodes[node].address {
            held.ends += slept;
            held.told = held.told.after(Duration::from_micros(slept));
            held.slept = true;
            let (ends, serial) = (held.ends, held.serial);
            self.queue.push(ends, Event::AddressEnds { node, serial });
        }
    }

    /// This member was announced as writable.
    pub fn address_announced(&mut self, node: NodeNo, term: Term) {
        let word = &mut self.nodes[node].agent.word;
        word.writable = Some(term);
        word.withdrawn = None;
        self.look_at_address(node);
    }

    /// What etcd says of it, for an agent that was started again and did not announce it itself.
    pub fn address_learns(&mut self, node: NodeNo) {
        let agent = &self.nodes[node].agent;
        let writable = agent.view.as_ref().and_then(|keys| keys.writable.as_ref());
        let Some(term) = writable.filter(|said| said.name == agent.seen.me).map(|said| said.term) else {
            return;
        };
        if agent.word.writable != Some(term) && agent.word.withdrawn != Some(term) {
            self.nodes[node].agent.word.writable = Some(term);
            self.look_at_address(node);
        }
    }

    /// It is given up before anything that ends writing is done.
    pub fn give_address_up(&mut self, node: NodeNo) {
        let word = &mut self.nodes[node].agent.word;
        let had = word.writable.take();
        word.withdrawn = had.or(word.withdrawn);
        if had.is_some() && self.config.bug != Some(KnownBug::VipStays) {
            self.nodes[node].address = None;
        }
    }
}
