//! What the service manager is told: ready, reloading, stopping. Nothing happens where there is none (`NOTIFY_SOCKET`).

use sd_notify::NotifyState;

/// The agent does its work, also while it waits for etcd.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The settings are being read again; [`ready`] ends it.
pub(crate) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "failed to tell the service manager of a reload"),
    }
}

/// The agent ends.
pub(crate) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

fn tell(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::debug!(%error, "failed to tell the service manager");
    }
}
