//! `postgresql.callbacks`: what changed at PostgreSQL since the last turn, and the command that the operator wants to run then.
//!
//! ```text
//!   not running ─► running, same role as before     on_restart when that was ordered, else on_start
//!   not running ─► running, another role            on_role_change instead
//!   running     ─► running, another role            on_role_change
//!   told to stop ─► stopped                         on_stop with the role before, `demoted` when the lead was handed over;
//!                                                   nothing for an ordered restart
//!   crashed, and the lead given away                on_role_change demoted
//!   killed without the lead                         on_stop
//!   its files were read again                       on_reload
//! ```
//! As a real Patroni was seen to do it (`lab/tests/stories/hooks.rs` compares both).
//! One command at a time: a newer one ends the older with all its children. `on_reload` has a place of its own.

use crate::wake::Cell;
use ha::{Action, Decision, Observation, Order, Postgres, Reason, Running, StepAsideWhy};
use postgres::script;
use rustix::process::{Pid, Signal, kill_process_group};
use settings::Callbacks;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// The agent's end waits so long for the last commands.
const FINISH_WITHIN: Duration = Duration::from_secs(15);

/// Something that a command may be there for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Event {
    Start,
    Stop,
    Restart,
    Reload,
    RoleChange,
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Start => "on_start",
            Event::Stop => "on_stop",
            Event::Restart => "on_restart",
            Event::Reload => "on_reload",
            Event::RoleChange => "on_role_change",
        }
    }

    fn command(self, callbacks: &Callbacks) -> Option<&str> {
        match self {
            Event::Start => callbacks.on_start.as_deref(),
            Event::Stop => callbacks.on_stop.as_deref(),
            Event::Restart => callbacks.on_restart.as_deref(),
            Event::Reload => callbacks.on_reload.as_deref(),
            Event::RoleChange => callbacks.on_role_change.as_deref(),
        }
    }
}

/// What was seen of PostgreSQL so far, as far as a command depends on it.
#[derive(Default)]
pub(crate) struct Changes {
    /// The role that was reported last.
    role: Option<&'static str>,
    running: bool,
    /// It was told to stop, with the role to report when it has.
    told: Option<&'static str>,
    /// It is down because a restart was ordered.
    restarts: bool,
}

impl Changes {
    /// The role that was reported last.
    pub(crate) fn role(&self) -> Option<&'static str> {
        self.role
    }

    /// What has changed since the last turn, and the role to report.
    pub(crate) fn since(&mut self, seen: &Observation, decision: &Decision) -> Option<(Event, &'static str)> {
        let role = running_role(seen);
        self.note_stop(seen, decision);
        match (&seen.postgres, role) {
            (Postgres::Running(_), Some(role)) => self.runs_as(role),
            (Postgres::Stopped, _) => self.stopped(seen, decision),
            (
                Postgres::Running(_)
                | Postgres::Starting { .. }
                | Postgres::Stopping { .. }
                | Postgres::Unresponsive { .. },
                _,
            ) => None,
        }
    }

    fn note_stop(&mut self, seen: &Observation, decision: &Decision) {
        let stops = decision.actions.iter().any(|action| matches!(action, Action::Stop(_)));
        // What recovers or does not answer has crashed already.
        let runs = matches!(seen.postgres, Postgres::Running(_));
        if !stops || !runs || !self.running || self.told.is_some() {
            return;
        }
        let aside = decision.memory.step_aside.as_ref();
        let hands_over = aside.is_some_and(|aside| aside.why != StepAsideWhy::Shutdown);
        let before = self.role.unwrap_or("replica");
        self.told = Some(if hands_over && before == "primary" { "demoted" } else { before });
        self.restarts = matches!(seen.order, Some(Order::Restart { .. } | Order::LoadSlots));
    }

    fn runs_as(&mut self, role: &'static str) -> Option<(Event, &'static str)> {
        let (before, ran) = (self.role.replace(role), self.running);
        self.running = true;
        if !ran {
            self.told = None;
        }
        let restarted = !ran && std::mem::take(&mut self.restarts);
        match before {
            Some(before) if before != role => Some((Event::RoleChange, role)),
            Some(_) if ran => None,
            Some(_) if restarted => Some((Event::Restart, role)),
            Some(_) | None => Some((Event::Start, role)),
        }
    }

    fn stopped(&mut self, seen: &Observation, decision: &Decision) -> Option<(Event, &'static str)> {
        let ran = std::mem::take(&mut self.running);
        let primary = self.role == Some("primary");
        let gives = |action: &Action| matches!(action, Action::ReleaseLeader(_) | Action::HandLeadTo { .. });
        let released = decision.actions.iter().any(gives);
        if primary && self.told.is_none() && released && matches!(decision.reason, Reason::Recover(_)) {
            self.role = Some("demoted");
            return Some((Event::RoleChange, "demoted"));
        }
        if !ran || self.restarts {
            return None;
        }
        match self.told {
            Some(role) => Some((Event::Stop, role)),
            // The guard killed it, or somebody stopped it while the lead was lost.
            None if primary && seen.leads(clock::now()).is_none() => Some((Event::Stop, "primary")),
            None => None,
        }
    }
}

/// The role of a PostgreSQL that runs.
fn running_role(seen: &Observation) -> Option<&'static str> {
    match &seen.postgres {
        Postgres::Running(Running::Primary { .. }) => Some("primary"),
        Postgres::Running(Running::Standby { .. }) if seen.rules.standby_cluster => {
            Some(if seen.leads(clock::now()).is_some() { "standby_leader" } else { "replica" })
        }
        Postgres::Running(Running::Standby { .. }) => Some("replica"),
        Postgres::Stopped
        | Postgres::Starting { .. }
        | Postgres::Stopping { .. }
        | Postgres::Unresponsive { .. } => None,
    }
}

/// Runs the commands; a cheap clone.
#[derive(Clone)]
pub(crate) struct Runner {
    scope: String,
    /// The command that runs, and the one for reloads.
    running: Arc<Cell<[Option<JoinHandle<()>>; 2]>>,
}

impl Runner {
    pub(crate) fn new(scope: &str) -> Runner {
        Runner { scope: scope.to_owned(), running: Arc::new(Cell::new([None, None])) }
    }

    /// Waits for the commands that run; one that takes too long is ended.
    pub(crate) async fn finish(&self) {
        let running = self.running.with(|places| places.each_mut().map(Option::take));
        for command in running.into_iter().flatten() {
            let end = command.abort_handle();
            if tokio::time::timeout(FINISH_WITHIN, command).await.is_err() {
                tracing::warn!(
                    "a callback has not ended within {FINISH_WITHIN:?} and is ended with the agent"
                );
                end.abort();
            }
        }
    }

    /// Runs the command for this event, if there is one.
    pub(crate) fn run(&self, callbacks: &Callbacks, event: Event, role: &'static str) {
        let Some(command) = event.command(callbacks) else { return };
        let name = event.name();
        let words = shlex::split(command).filter(|words| !words.is_empty());
        let Some((program, own)) = words.as_deref().and_then(<[String]>::split_first) else {
            tracing::error!(action = name, command, "failed to run a callback: its quotes do not match");
            return;
        };
        let mut process = script::command(program);
        process.args(own).args([name, role, &self.scope]).process_group(0).kill_on_drop(true);
        self.running.with(|[usual, reload]| {
            let place = if event == Event::Reload { reload } else { usual };
            if let Some(older) = place.take() {
                older.abort();
            }
            *place = Some(tokio::spawn(carry_out(process, name, role)));
        });
    }
}

/// A command with its children: they end when this is dropped before it has ended by itself.
pub(crate) struct Group(Option<Pid>);

impl Group {
    /// Of a command that was started in a group of its own.
    pub(crate) fn of(child: &tokio::process::Child) -> Group {
        Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }

    /// It has ended by itself.
    pub(crate) fn ended(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone in between: there is nothing left to end.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn carry_out(mut process: tokio::process::Command, action: &'static str, role: &'static str) {
    let mut child = match process.spawn() {
        Ok(child) => child,
        Err(error) => {
            tracing::error!(action, %error, "failed to run a callback");
            return;
        }
    };
    tracing::info!(action, role, "runs a callback");
    let mut group = Group::of(&child);
    let ended = child.wait().await;
    group.ended();
    match ended {
        Ok(status) if status.success() => {}
        Ok(status) => tracing::warn!(action, role, %status, "a callback failed"),
        Err(error) => tracing::warn!(action, role, %error, "failed to wait for a callback"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Runner};
    use settings::Callbacks;
    use std::time::Duration;

    async fn lines(path: &std::path::Path, wanted: usize) -> Vec<String> {
        let read = async {
            loop {
                let text = tokio::fs::read_to_string(path).await.unwrap_or_default();
                if text.lines().count() >= wanted {
                    return text.lines().map(str::to_owned).collect();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read).await.unwrap()
    }

    #[tokio::test]
    async fn a_newer_command_ends_the_older_with_its_children_but_not_that_of_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let note = format!("sh -c 'echo \"$1 $2 $3\" >> {}' note", log.display());
        let slow = dir.path().join("slow.sh");
        let script = format!("echo began >> {0}; sleep 300; echo survived >> {0}\n", log.display());
        std::fs::write(&slow, script).unwrap();
        let callbacks = Callbacks {
            on_start: Some(format!("sh {}", slow.display())),
            on_role_change: Some(note.clone()),
            on_reload: Some(note),
            ..Callbacks::default()
        };
        let runner = Runner::new("scope 1");
        runner.run(&callbacks, Event::Start, "replica");
        assert_eq!(lines(&log, 1).await, ["began"]);
        runner.run(&callbacks, Event::Reload, "replica");
        assert_eq!(lines(&log, 2).await, ["began", "on_reload replica scope 1"]);
        let sleeping = || {
            std::fs::read_dir("/proc").unwrap().any(|entry| {
                let entry = entry.unwrap().path();
                std::fs::read_to_string(entry.join("cmdline"))
                    .is_ok_and(|line| line.contains(&*slow.to_string_lossy()))
            })
        };
        assert!(sleeping(), "a reload ends nothing");
        runner.run(&callbacks, Event::RoleChange, "primary");
        assert_eq!(lines(&log, 3).await.last().unwrap(), "on_role_change primary scope 1");
        let ended = async {
            while sleeping() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap();
    }
}
