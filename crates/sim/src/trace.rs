//! The story of a run, kept only when somebody wants to read it.

use crate::clock::{SECOND, Time};
use std::collections::VecDeque;

/// So many of the last lines are shown with a broken law.
const KEPT: usize = 60;

/// The lines, or nothing.
#[derive(Debug)]
pub struct Trace {
    lines: Option<VecDeque<String>>,
    all: bool,
}

impl Trace {
    /// A trace that keeps every line, or none.
    #[must_use]
    pub fn new(on: bool) -> Trace {
        Trace { lines: on.then(VecDeque::new), all: on }
    }

    /// Whether lines are kept.
    #[must_use]
    pub fn on(&self) -> bool {
        self.lines.is_some()
    }

    /// One more line.
    pub fn line(&mut self, now: Time, who: &str, text: &str) {
        if let Some(lines) = &mut self.lines {
            if !self.all && lines.len() >= KEPT {
                lines.pop_front();
            }
            let (seconds, millis) = (now / SECOND, now % SECOND / 1000);
            lines.push_back(format!("{seconds:5}.{millis:03}  {who:>4}  {text}"));
        }
    }

    /// Every line.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().flatten().map(String::as_str)
    }

    /// The last lines.
    #[must_use]
    pub fn tail(&self) -> Vec<&str> {
        let all: Vec<&str> = self.lines().collect();
        all.get(all.len().saturating_sub(KEPT)..).unwrap_or_default().to_vec()
    }
}
