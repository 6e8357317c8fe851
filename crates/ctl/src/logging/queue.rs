//! Lines that wait to be written, and the thread that writes them.
//!
//! Bounded: when as many wait as `log.max_queue_size` allows, a new one is lost and counted. A line that could not be written
//! counts as lost, too.

use super::sink::Sink;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) struct Queue {
    state: Mutex<State>,
    /// There is something to write.
    filled: Condvar,
    /// Everything was written.
    drained: Condvar,
}

struct State {
    lines: VecDeque<String>,
    most: usize,
    /// The sink to use from now on.
    next: Option<Sink>,
    /// Lines that were taken and are being written.
    busy: usize,
    lost: u64,
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start(sink: Sink, most: u64) -> io::Result<Arc<Queue>> {
        let queue = Arc::new(Queue::new(most));
        let writer = queue.clone();
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.write_forever(sink))?;
        Ok(queue)
    }

    fn new(most: u64) -> Queue {
        let state = State {
            lines: VecDeque::new(),
            most: usize::try_from(most).unwrap_or(usize::MAX),
            next: None,
            busy: 0,
            lost: 0,
        };
        Queue { state: Mutex::new(state), filled: Condvar::new(), drained: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line at the end, or loses it.
    pub(super) fn put(&self, line: String) {
        let mut state = self.state();
        if state.lines.len() >= state.most {
            state.lost += 1;
            return;
        }
        state.lines.push_back(line);
        self.filled.notify_one();
    }

    /// Writes to another sink from now on, and lets so many wait.
    pub(super) fn change(&self, sink: Sink, most: u64) {
        let mut state = self.state();
        state.most = usize::try_from(most).unwrap_or(usize::MAX);
        state.next = Some(sink);
        self.filled.notify_one();
    }

    /// How many lines wait.
    pub(super) fn waiting(&self) -> u64 {
        let state = self.state();
        (state.lines.len() + state.busy) as u64
    }

    /// How many lines were lost.
    pub(super) fn lost(&self) -> u64 {
        self.state().lost
    }

    /// Waits until everything is written, but no longer than this.
    pub(super) fn flush(&self, within: Duration) {
        let state = self.state();
        let waits = |state: &mut State| !state.lines.is_empty() || state.busy > 0;
        drop(self.drained.wait_timeout_while(state, within, waits));
    }

    fn write_forever(&self, mut sink: Sink) {
        loop {
            let mut state = self.state();
            while state.lines.is_empty() && state.next.is_none() {
                self.drained.notify_all();
                state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let next = state.next.take();
            let lines = std::mem::take(&mut state.lines);
            state.busy = lines.len();
            drop(state);
            if let Some(next) = next {
                sink = next;
            }
            let failed = lines.iter().filter(|line| sink.write(line).is_err()).count();
            let mut state = self.state();
            state.busy = 0;
            state.lost += failed as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Queue;

    #[test]
    fn what_finds_no_room_is_lost_and_counted() {
        let queue = Queue::new(2);
        for line in ["first", "second", "third"] {
            queue.put(format!("{line}\n"));
        }
        assert_eq!((queue.waiting(), queue.lost()), (2, 1));
    }
}
