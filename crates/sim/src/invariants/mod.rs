//! The laws, one file each, and what to do when one is broken.

mod law01_one_writer;
mod law02_acknowledged;
mod law03_authority;
mod law04_overlap;
mod law05_lineage;
mod law06_pause;
mod law07_undisturbed;
mod law08_copies;
mod law09_addresses;
mod law10_slots;
mod law11_healing;
mod law12_reasons;
mod law13_poolers;
mod must_wait;

use crate::clock::{SECOND, Time};
use crate::world::{NodeNo, World};
use ha::{Decision, Memory};
use std::collections::BTreeMap;

/// So many turns of one agent in one second are a wheel that spins.
const TURNS_IN_A_SECOND: u32 = 400;

/// A law that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    pub law: u8,
    pub what: String,
    pub at: Time,
}

/// What the laws have seen.
#[derive(Debug, Default)]
pub struct Laws {
    /// By law, how often it was looked at.
    pub checked: BTreeMap<u8, u64>,
    pub broken: Option<Broken>,
    pub lineage: law05_lineage::Lineage,
    pub healing: law11_healing::Healing,
    pub promised: law02_acknowledged::Promised,
}

impl Laws {
    /// Counts a look.
    pub fn looked(&mut self, law: u8) {
        *self.checked.entry(law).or_default() += 1;
    }

    /// The first breach stays.
    pub fn breaks(&mut self, law: u8, what: String) {
        if self.broken.is_none() {
            self.broken = Some(Broken { law, what, at: 0 });
        }
    }
}

impl World {
    /// After every event.
    pub fn check_laws(&mut self) {
        self.law_of_one_writer();
        self.law_of_overlap();
        self.law_of_address();
        let now = self.now;
        if let Some(broken) = self.laws.broken.as_mut().filter(|broken| broken.at == 0) {
            broken.at = now;
            let text = format!("LAW {} IS BROKEN: {}", broken.law, broken.what);
            self.note(None, &text);
        }
    }

    /// After every decision, before its actions.
    pub fn laws_of_decision(&mut self, node: NodeNo, before: &Memory, decision: &Decision) {
        self.law_of_pause(node, before, decision);
        self.law_of_reasons(node, decision);
        self.law_of_standby_cluster(node, decision);
        let second = self.now / SECOND;
        let agent = &mut self.nodes[node].agent;
        if agent.turns.0 == second {
            agent.turns.1 += 1;
        } else {
            agent.turns = (second, 1);
        }
        if agent.turns.1 > TURNS_IN_A_SECOND {
            let what = format!(
                "{}: more than {TURNS_IN_A_SECOND} turns in a second: {}",
                self.names[node], decision.reason
            );
            self.laws.breaks(11, what);
        }
    }
}
