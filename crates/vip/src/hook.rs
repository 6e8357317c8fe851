//! The operator's command that moves an address: for clouds, where an address moves by a call and not by ARP.
//!
//! ```text
//!   right came ─► COMMAND acquire ─► done        right went ─► COMMAND release ─► done
//!        │             └── the right ends: killed at once, then release           └── failed: again, a few times
//!        └── a new term: acquire again            takes too long: killed, and counts as failed
//! ```
//! Never two at once. No kernel ends what a cloud holds: that one machine has the address is the cloud's to keep.

use crate::address::Role;
use crate::hold::Right;
use crate::holder::Rights;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fmt;
use std::net::IpAddr;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use types::{Moment, Term};

/// An address that a command moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    pub ip: IpAddr,
    pub role: Role,
    /// The program and its first arguments.
    pub command: Vec<String>,
    pub timeout: Duration,
}

/// How it stands, for metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    pub ip: IpAddr,
    pub role: Role,
    /// Since when the command has said that the address is here.
    pub since: Option<Moment>,
    pub runs: u64,
    pub failures: u64,
}

/// What the command is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Acquire,
    Release,
}

/// The last run that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Past {
    pub action: Action,
    pub term: Term,
    pub at: Moment,
    /// How often it has failed by now; 0: it did what it was asked for.
    pub failed: u32,
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Run(Action, Term),
    Kill,
    /// Until then, unless something changes.
    Rest(Option<Moment>),
}

/// A release that failed this often is given up: the cloud gives the address to the next one all the same.
const ENOUGH: u32 = 5;
/// The first pause after a failure; it doubles up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So much of what the command complains of is logged.
const COMPLAINT: u64 = 1000;
/// Rights change without news when they end; this often is looked at the least.
const TICK: Duration = Duration::from_millis(250);

/// Decides.
#[must_use]
pub(crate) fn order(
    right: Option<Right>,
    past: Option<Past>,
    running: Option<(Action, Term)>,
    now: Moment,
) -> Order {
    let wanted = right.filter(|right| right.until > now).map(|right| right.term);
    match (running, wanted) {
        (Some((Action::Acquire, term)), wanted) if wanted != Some(term) => return Order::Kill,
        (Some(_), _) => return Order::Rest(None),
        (None, _) => {}
    }
    let again =
        |past: Past| past.at.after((PAUSE * 2_u32.saturating_pow(past.failed.min(6) - 1)).min(LONGEST_PAUSE));
    match (wanted, past) {
        (Some(term), Some(past)) if past.action == Action::Acquire && past.term == term => {
            match past.failed {
                0 => Order::Rest(None),
                _ if now < again(past) => Order::Rest(Some(again(past))),
                _ => Order::Run(Action::Acquire, term),
            }
        }
        (Some(term), _) => Order::Run(Action::Acquire, term),
        (None, None) => Order::Rest(None),
        (None, Some(past)) => match past.action {
            Action::Acquire => Order::Run(Action::Release, past.term),
            Action::Release if past.failed == 0 || past.failed >= ENOUGH => Order::Rest(None),
            Action::Release if now < again(past) => Order::Rest(Some(again(past))),
            Action::Release => Order::Run(Action::Release, past.term),
        },
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Acquire => "acquire",
            Action::Release => "release",
        })
    }
}

struct Run {
    child: Child,
    action: Action,
    term: Term,
    by: Moment,
}

/// One hook at work.
pub(crate) struct Mover {
    hook: Hook,
    rights: Arc<dyn Rights>,
    state: watch::Sender<HookState>,
    past: Option<Past>,
    run: Option<Run>,
    /// The address was told to be here.
    here: bool,
}

impl Mover {
    pub(crate) fn new(hook: Hook, rights: Arc<dyn Rights>) -> (Mover, watch::Receiver<HookState>) {
        let begin = HookState { ip: hook.ip, role: hook.role, since: None, runs: 0, failures: 0 };
        let (state, seen) = watch::channel(begin);
        (Mover { hook, rights, state, past: None, run: None, here: false }, seen)
    }

    /// Works until `end`, and then until the address is released or nobody waits any more.
    pub(crate) async fn work(mut self, poke: Arc<Notify>, end: CancellationToken) {
        loop {
            let poked = poke.notified();
            tokio::pin!(poked);
            poked.as_mut().enable();
            let ending = end.is_cancelled();
            let right = self.rights.right(self.hook.role, self.hook.ip).filter(|_| !ending);
            let running = self.run.as_ref().map(|run| (run.action, run.term));
            let now = clock::now();
            match order(right, self.past, running, now) {
                Order::Run(action, term) => self.start(action, term, now),
                Order::Kill => self.kill(now),
                Order::Rest(until) => {
                    if ending && self.run.is_none() {
                        return;
                    }
                    let rest = until.map_or(TICK, |until| now.until(until).min(TICK));
                    tokio::select! {
                        () = poked => {}
                        ended = ended(self.run.as_mut()) => self.ended(ended).await,
                        () = tokio::time::sleep(rest) => {}
                    }
                    if self.run.as_ref().is_some_and(|run| clock::now() >= run.by) {
                        self.kill(clock::now());
                    }
                }
            }
        }
    }

    fn start(&mut self, action: Action, term: Term, now: Moment) {
        let Hook { ip, role, command, timeout } = &self.hook;
        let Some((program, first)) = command.split_first() else { return };
        let mut process = Command::new(program);
        process.args(first).arg(action.to_string()).arg(ip.to_string());
        process.env("BATON_VIP_ACTION", action.to_string()).env("BATON_VIP_ADDRESS", ip.to_string());
        process.env("BATON_VIP_ROLE", role.to_string()).env("BATON_TERM", term.0.to_string());
        process.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        process.process_group(0).kill_on_drop(true);
        self.state.send_modify(|state| state.runs += 1);
        match process.spawn() {
            Ok(child) => {
                tracing::info!(
                    address = ip.to_string(),
                    term = term.0,
                    "runs the command to {action} the address"
                );
                self.run = Some(Run { child, action, term, by: now.after(*timeout) });
            }
            Err(error) => self.note(action, term, Some(format!("start {program:?}: {error}"))),
        }
    }

    /// Ends the command and all that it has started.
    fn kill(&mut self, now: Moment) {
        let Some(run) = self.run.take() else { return };
        let group = run.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let why = match now >= run.by {
            true => format!("end within {:?}: killed", self.hook.timeout),
            false => "end before the right to the address did: killed".to_owned(),
        };
        self.note(run.action, run.term, Some(why));
    }

    async fn ended(&mut self, status: std::io::Result<ExitStatus>) {
        let Some(mut run) = self.run.take() else { return };
        let why = match status {
            Ok(status) if status.success() => None,
            Ok(status) => {
                let mut said = Vec::new();
                if let Some(stderr) = run.child.stderr.take() {
                    // A grandchild may keep the pipe open: what is there now is enough.
                    let read = stderr.take(COMPLAINT);
                    tokio::pin!(read);
                    let _ = tokio::time::timeout(TICK, read.read_to_end(&mut said)).await;
                }
                let said = String::from_utf8_lossy(&said).trim().replace('\n', " / ");
                Some(format!("succeed ({status}): {said}"))
            }
            Err(error) => Some(format!("be waited for: {error}")),
        };
        self.note(run.action, run.term, why);
    }

    fn note(&mut self, action: Action, term: Term, why: Option<String>) {
        let now = clock::now();
        let before = self.past.filter(|past| past.action == action && past.term == term);
        let failed = if why.is_some() { before.map_or(0, |past| past.failed).saturating_add(1) } else { 0 };
        self.past = Some(Past { action, term, at: now, failed });
        // A release that is given up must not keep the address from others.
        let here = match action {
            Action::Acquire => self.here || failed == 0,
            Action::Release => self.here && failed > 0 && failed < ENOUGH,
        };
        if here != self.here {
            self.here = here;
            self.rights.here(self.hook.ip, here);
        }
        let address = self.hook.ip.to_string();
        match why {
            None => {
                tracing::info!(address, term = term.0, "the command to {action} the address has succeeded")
            }
            Some(why) => tracing::error!(
                address,
                term = term.0,
                "the command to {action} the address failed to {why}; see what it does when it is started by hand"
            ),
        }
        self.state.send_modify(|state| {
            state.failures += u64::from(failed > 0);
            state.since = (action == Action::Acquire && failed == 0).then_some(now);
        });
    }
}

async fn ended(run: Option<&mut Run>) -> std::io::Result<ExitStatus> {
    match run {
        Some(run) => run.child.wait().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Order, Past, order};
    use crate::hold::Right;
    use types::{Moment, Term};

    const NOW: Moment = Moment(50_000);

    fn right(term: i64) -> Option<Right> {
        Some(Right { term: Term(term), until: Moment(NOW.0 + 9000) })
    }

    fn past(action: Action, term: i64, failed: u32, ago: u64) -> Option<Past> {
        Some(Past { action, term: Term(term), at: Moment(NOW.0 - ago), failed })
    }

    #[test]
    fn it_is_acquired_once_in_each_term_and_released_once() {
        assert_eq!(order(None, None, None, NOW), Order::Rest(None), "what was never had is not released");
        assert_eq!(order(right(3), None, None, NOW), Order::Run(Action::Acquire, Term(3)));
        assert_eq!(order(right(3), past(Action::Acquire, 3, 0, 9), None, NOW), Order::Rest(None));
        assert_eq!(
            order(right(4), past(Action::Acquire, 3, 0, 9), None, NOW),
            Order::Run(Action::Acquire, Term(4))
        );
        assert_eq!(
            order(None, past(Action::Acquire, 3, 0, 9), None, NOW),
            Order::Run(Action::Release, Term(3))
        );
        assert_eq!(order(None, past(Action::Release, 3, 0, 9), None, NOW), Order::Rest(None));
        let over = Some(Right { term: Term(3), until: NOW });
        assert_eq!(
            order(over, past(Action::Acquire, 3, 0, 9), None, NOW),
            Order::Run(Action::Release, Term(3))
        );
    }

    #[test]
    fn never_two_at_once_and_a_late_acquire_is_killed() {
        assert_eq!(order(right(3), None, Some((Action::Acquire, Term(3))), NOW), Order::Rest(None));
        assert_eq!(order(None, None, Some((Action::Acquire, Term(3))), NOW), Order::Kill);
        assert_eq!(order(right(4), None, Some((Action::Acquire, Term(3))), NOW), Order::Kill);
        assert_eq!(order(right(4), None, Some((Action::Release, Term(3))), NOW), Order::Rest(None));
    }

    #[test]
    fn what_failed_is_tried_again_more_and_more_rarely() {
        let wait = Order::Rest(Some(Moment(NOW.0 + 500)));
        assert_eq!(order(right(3), past(Action::Acquire, 3, 1, 500), None, NOW), wait);
        assert_eq!(
            order(right(3), past(Action::Acquire, 3, 1, 1000), None, NOW),
            Order::Run(Action::Acquire, Term(3))
        );
        assert_eq!(order(right(3), past(Action::Acquire, 3, 99, 29_500), None, NOW), wait);
        assert_eq!(
            order(None, past(Action::Release, 3, 2, 2000), None, NOW),
            Order::Run(Action::Release, Term(3))
        );
        assert_eq!(order(None, past(Action::Release, 3, 5, 40_000), None, NOW), Order::Rest(None), "enough");
    }
}
