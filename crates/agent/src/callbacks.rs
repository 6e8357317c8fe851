//! `postgresql.callbacks`: what changed at PostgreSQL since the last turn, and the command that the operator wants to run then.
//!
//! ```text
//!   not running ─► running, same role as before     on_restart when that was ordered, else on_start
//!   not running ─► running, another role            on_role_change instead
//!   running     ─► running, another role            on_role_change
//!   running     ─► stopped                          on_stop
//! ```
//! One command at a time: a newer one ends the older with all its children. `on_reload` has a place of its own.

use crate::wake::Cell;
use ha::{Observation, Order, Postgres, Running};
use rustix::process::{Pid, Signal, kill_process_group};
use settings::Callbacks;
use std::process::Stdio;
use std::sync::Arc;
use tokio::process::Command;
use tokio::task::JoinHandle;

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
    /// The role in which it ran last.
    role: Option<&'static str>,
    running: bool,
    /// It is down because a restart was ordered.
    restarts: bool,
}

impl Changes {
    /// What has changed since the last turn, and the role to report.
    pub(crate) fn since(&mut self, seen: &Observation) -> Option<(Event, &'static str)> {
        let role = match &seen.postgres {
            Postgres::Running(Running::Primary { .. }) => Some("primary"),
            Postgres::Running(Running::Standby { .. }) if seen.rules.standby_cluster => {
                Some(if seen.leads(clock::now()).is_some() { "standby_leader" } else { "replica" })
            }
            Postgres::Running(Running::Standby { .. }) => Some("replica"),
            Postgres::Stopped => None,
            Postgres::Starting { .. } | Postgres::Stopping { .. } | Postgres::Unresponsive { .. } => {
                return None;
            }
        };
        if matches!(seen.order, Some(Order::Restart { .. })) {
            self.restarts = true;
        }
        let (before, ran) = (self.role, self.running);
        self.running = role.is_some();
        let Some(role) = role else {
            return ran.then_some((Event::Stop, before.unwrap_or("replica")));
        };
        self.role = Some(role);
        let restarted = !ran && std::mem::take(&mut self.restarts);
        match before {
            Some(before) if before != role => Some((Event::RoleChange, role)),
            Some(_) if ran => None,
            Some(_) if restarted => Some((Event::Restart, role)),
            Some(_) | None => Some((Event::Start, role)),
        }
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

    /// Runs the command for this event, if there is one.
    pub(crate) fn run(&self, callbacks: &Callbacks, event: Event, role: &'static str) {
        let Some(command) = event.command(callbacks) else { return };
        let (command, scope, name) = (command.to_owned(), self.scope.clone(), event.name());
        self.running.with(|[usual, reload]| {
            let place = if event == Event::Reload { reload } else { usual };
            if let Some(older) = place.take() {
                older.abort();
            }
            *place = Some(tokio::spawn(async move { carry_out(&command, name, role, &scope).await }));
        });
    }
}

/// A command with its children: they end when this is dropped before it has ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone in between: there is nothing left to end.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn carry_out(command: &str, action: &'static str, role: &'static str, scope: &str) {
    let spawned = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("exec {command} \"$@\""))
        .args([action, action, role, scope])
        .stdin(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            tracing::error!(action, command, %error, "failed to run a callback");
            return;
        }
    };
    tracing::info!(action, role, "runs a callback");
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let ended = child.wait().await;
    group.0 = None;
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
