//! Every interleaving of a small cluster: turns, time, crashes, freezes, deaths and cuts, exhaustively, by a model checker.
//!
//! With the guard no state has two primaries. Without it the checker must find them, and prints the shortest way there.
#![expect(clippy::expect_used, clippy::print_stdout, reason = "helpers of a test")]

mod cluster;
mod turn;

use cluster::{Small, State};
use stateright::{Checker, Model, Property};
use std::time::Duration;

impl Model for Small {
    type State = State;
    type Action = cluster::Step;

    fn init_states(&self) -> Vec<State> {
        vec![State::led_by_the_first(self)]
    }

    fn actions(&self, state: &State, steps: &mut Vec<cluster::Step>) {
        state.steps(self, steps);
    }

    fn next_state(&self, state: &State, step: cluster::Step) -> Option<State> {
        let mut next = state.clone();
        next.take(self, step);
        (next != *state).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Small>> {
        vec![
            Property::always("one writer", |_, state: &State| state.primaries() <= 1),
            Property::sometimes("another member leads", |_, state: &State| state.primary() == Some(1)),
            Property::sometimes("the first leads again", |_, state: &State| {
                state.faults > 0 && state.primary() == Some(0) && state.term > 1
            }),
        ]
    }

    fn within_boundary(&self, state: &State) -> bool {
        state.seconds <= self.seconds
    }
}

fn check(small: Small) {
    let name = format!("{small:?}");
    let checker = small.checker().threads(2).timeout(Duration::from_secs(120)).spawn_bfs().join();
    println!("{name}: {} states, {} different", checker.state_count(), checker.unique_state_count());
    assert!(checker.is_done(), "the time was not enough");
    checker.assert_properties();
}

#[test]
fn two_nodes_and_two_faults_keep_one_writer() {
    check(Small { nodes: 2, seconds: 5, faults: 2, guard: true });
}

#[test]
fn three_nodes_and_one_fault_keep_one_writer() {
    check(Small { nodes: 3, seconds: 4, faults: 1, guard: true });
}

#[test]
fn without_the_guard_the_split_brain_is_found() {
    let small = Small { nodes: 2, seconds: 8, faults: 1, guard: false };
    let checker = small.checker().spawn_bfs().join();
    let path = checker.discovery("one writer").expect("the checker finds two primaries");
    let steps = path.into_actions();
    println!("two primaries after {} steps: {steps:?}", steps.len());
    assert!(steps.len() <= 12, "{steps:?}");
}
