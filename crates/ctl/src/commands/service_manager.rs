//! What the service manager is told of a router, a holder of addresses or a name server: ready, and the line that `systemctl status`
//! shows. Nothing happens where there is none (`NOTIFY_SOCKET`). The agent tells of itself.

use etcd::{Contact, View};
use sd_notify::NotifyState;
use std::time::Duration;

/// The line is looked at so often, and told when it has changed.
const LOOK: Duration = Duration::from_secs(1);

/// From now on work is done; `line` says how it stands. Needs a tokio runtime.
pub(super) fn ready(line: impl Fn() -> String + Send + 'static) {
    let mut told = line();
    tell(&[NotifyState::Ready, NotifyState::Status(&told)]);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = line();
            if now != told {
                tell(&[NotifyState::Status(&now)]);
                told = now;
            }
        }
    });
}

pub(super) fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "failed to tell the service manager");
    }
}

/// Who leads, as etcd says.
pub(super) fn lead(view: &View) -> String {
    let Some(snapshot) = &view.snapshot else { return "waiting for etcd".to_owned() };
    let lead = match &snapshot.leader {
        Some(leader) => format!("{} leads in term {}", leader.name, leader.term),
        None => "nobody leads".to_owned(),
    };
    match view.contact {
        Contact::Live { .. } => lead,
        Contact::Never { .. } | Contact::Lost { .. } => format!("{lead}, etcd does not answer"),
    }
}
