//! The attempts of one call: which endpoint next, for how long, when to pause, when to give up.
//!
//! A round tries every endpoint once. Between rounds is a pause that grows from 50 ms to 1 s. The deadline's remainder
//! is shared among the endpoints of the round that have not been tried, so one that hangs cannot use it up.

use crate::endpoints::Endpoints;
use crate::error::{Attempt, Error};
use crate::failure::{Failure, Kind};
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;
use types::Moment;

pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(50);
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Repeats at one endpoint that are not failures, within one round.
const MOST_REPEATS: u32 = 3;

/// One attempt to make.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) slot: usize,
    pub(crate) allowance: Duration,
    /// The newest raft term known when the request is sent.
    pub(crate) known_term: u64,
}

pub(crate) struct Rounds<'a> {
    endpoints: &'a Endpoints,
    by: Moment,
    queue: VecDeque<usize>,
    pause: Option<Duration>,
    repeats: u32,
    stale: bool,
    authenticated_again: bool,
    tried: BTreeMap<usize, String>,
}

impl<'a> Rounds<'a> {
    pub(crate) fn new(endpoints: &'a Endpoints, by: Moment) -> Rounds<'a> {
        Rounds {
            endpoints,
            by,
            queue: VecDeque::new(),
            pause: None,
            repeats: 0,
            stale: false,
            authenticated_again: false,
            tried: BTreeMap::new(),
        }
    }

    /// The next attempt, after a pause where one is due; `None` when the deadline has passed.
    pub(crate) async fn next(&mut self) -> Option<Turn> {
        if self.queue.is_empty() {
            self.begin_round().await;
        }
        let remaining = clock::now().until(self.by);
        if remaining.is_zero() {
            return None;
        }
        let share = remaining / u32::try_from(self.queue.len().max(1)).unwrap_or(u32::MAX);
        let slot = self.queue.pop_front()?;
        let allowance = share.min(self.endpoints.attempt_length());
        Some(Turn { slot, allowance, known_term: self.endpoints.raft_term() })
    }

    /// The same endpoint once more: it works, but the answer asked for another request. Too many of these in a row
    /// count as a failure, so that the call pauses.
    pub(crate) fn again(&mut self, turn: &Turn) {
        self.repeats += 1;
        if self.repeats <= MOST_REPEATS {
            self.queue.push_front(turn.slot);
        }
    }

    /// Takes note of a failed attempt; the error when no other attempt can help.
    pub(crate) fn failed(&mut self, turn: &Turn, failure: Failure) -> Result<(), Error> {
        match failure.kind {
            Kind::NotServed | Kind::Lost => {}
            Kind::Stale => self.stale = true,
            Kind::Unauthenticated if !self.authenticated_again => {
                self.authenticated_again = true;
                self.queue.push_front(turn.slot);
            }
            Kind::Unauthenticated | Kind::Refused => return Err(Error::Refused { why: failure.why }),
            Kind::LeaseGone => return Err(Error::LeaseGone),
            Kind::Protocol => return Err(Error::Protocol { why: failure.why }),
        }
        self.tried.insert(turn.slot, failure.why);
        Ok(())
    }

    /// The error of a call whose deadline has passed without anything being changed.
    pub(crate) fn unreachable(&self) -> Error {
        let attempt = |(slot, why): (&usize, &String)| Attempt {
            endpoint: self.endpoints.url(*slot).to_owned(),
            why: why.clone(),
        };
        Error::Unreachable { tried: self.tried.iter().map(attempt).collect() }
    }

    async fn begin_round(&mut self) {
        if let Some(pause) = self.pause {
            if std::mem::take(&mut self.stale) {
                self.endpoints.forget();
            }
            tokio::time::sleep(pause.min(clock::now().until(self.by))).await;
        }
        self.pause = Some(self.pause.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE)));
        self.repeats = 0;
        self.queue = self.endpoints.order().into();
    }
}
