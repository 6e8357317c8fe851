//! Whether PostgreSQL lives when it does not answer.
//!
//! ```text
//!   postmaster stopped by a signal ────────────────────► halted
//!   a query is late, or a while has passed ─► knock ─┬─► greeted: it lives, a lock or much work is in the way
//!                                                    └─► silence ─► it computes or waits for a processor: it lives
//!                                                                ├─► it sleeps and has done nothing: rests
//!                                                                └─► it hangs in the kernel: blocked
//! ```
//! What a process does is read from /proc, which asks no disk.

use super::{Signs, TICK};
use ha::Pulse;
use postgres::connection::{Knock, knock};
use postgres::postmaster::{Look, Postmaster};
use std::time::Duration;
use types::Moment;

/// A query that takes longer is a reason to knock.
const QUERY_IS_LATE: Duration = Duration::from_millis(400);
/// Without any reason it is knocked this often: old connections may answer when nobody can connect any more.
const ANYWAY: Duration = Duration::from_secs(10);
/// A greeting takes a fork and a few bytes.
const GREETED_WITHIN: Duration = Duration::from_secs(1);

impl Signs {
    pub(super) async fn take_pulse(&self) {
        let mut last: Option<Moment> = None;
        let mut halted: Option<Moment> = None;
        loop {
            tokio::time::sleep(TICK).await;
            let life = self.inner.local.life();
            let postmaster = life.postmaster.filter(|_| life.stopping.is_none());
            let Some((postmaster, look)) = postmaster.and_then(|one| one.look().map(|look| (one, look)))
            else {
                (last, halted) = (None, None);
                self.feel(Pulse::Unknown);
                continue;
            };
            let now = clock::now();
            if look.state == 'T' {
                let since = *halted.get_or_insert(now);
                if now > since {
                    self.feel(Pulse::Halted { since });
                }
                continue;
            }
            halted = None;
            let asked = self.inner.local.waits_since();
            let late = asked.is_some_and(|asked| now.since(asked) >= QUERY_IS_LATE);
            let bad = since(self.inner.pulse.get());
            let due = last.is_none_or(|last| now.since(last) >= ANYWAY);
            if late || bad.is_some() || due || look.state == 'D' {
                last = Some(now);
                let began = bad.or(asked.filter(|_| late)).unwrap_or(now);
                let pulse = self.knock(&postmaster, look, began).await;
                self.feel(pulse);
            }
        }
    }

    async fn knock(&self, postmaster: &Postmaster, before: Look, since: Moment) -> Pulse {
        match knock(&self.inner.local.connect(), GREETED_WITHIN).await {
            Knock::Greeted => Pulse::Beats,
            Knock::Closed => Pulse::Unknown,
            Knock::Silent => postmaster.look().map_or(Pulse::Unknown, |after| judge(before, after, since)),
        }
    }

    fn feel(&self, pulse: Pulse) {
        let before = self.inner.pulse.with(|kept| std::mem::replace(kept, pulse));
        if before != pulse {
            self.inner.wake.wake();
        }
    }
}

/// What a postmaster does that greets nobody.
fn judge(before: Look, after: Look, since: Moment) -> Pulse {
    match after.state {
        'T' => Pulse::Halted { since },
        'D' => Pulse::Blocked { since },
        'S' | 'I' if after.ticks == before.ticks => Pulse::Rests { since },
        // Computes, waits for a processor, or is held by a debugger.
        _ => Pulse::Beats,
    }
}

/// Since when it does not beat.
fn since(pulse: Pulse) -> Option<Moment> {
    match pulse {
        Pulse::Unknown | Pulse::Beats => None,
        Pulse::Halted { since } | Pulse::Rests { since } | Pulse::Blocked { since } => Some(since),
    }
}

#[cfg(test)]
mod tests {
    use super::judge;
    use ha::Pulse;
    use postgres::postmaster::Look;
    use types::Moment;

    #[test]
    fn a_busy_postmaster_is_told_from_a_dead_one() {
        let look = |state, ticks| Look { state, ticks };
        let since = Moment(7);
        let of = |before, after| judge(before, after, since);
        assert_eq!(of(look('S', 10), look('S', 10)), Pulse::Rests { since });
        // In a storm of connections it forks all the time.
        assert_eq!(of(look('S', 10), look('S', 60)), Pulse::Beats);
        // It wants the processor and does not get it.
        assert_eq!(of(look('R', 10), look('R', 10)), Pulse::Beats);
        assert_eq!(of(look('S', 10), look('T', 10)), Pulse::Halted { since });
        assert_eq!(of(look('D', 10), look('D', 10)), Pulse::Blocked { since });
        assert_eq!(of(look('S', 10), look('t', 10)), Pulse::Beats);
    }
}
