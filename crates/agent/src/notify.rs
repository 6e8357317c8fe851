//! What the service manager is told: ready, reloading, stopping, and the line that `systemctl status` shows. Nothing happens where
//! there is none (`NOTIFY_SOCKET`).

use ha::{Contact, Etcd, LeaderKey, Observation, Postgres, Running};
use sd_notify::NotifyState;
use types::Moment;

/// The line that `systemctl status` shows, told when it changes.
#[derive(Default)]
pub(crate) struct Status {
    standing: String,
    lag: Option<u64>,
    told: Moment,
}

impl Status {
    /// Tells what the member is now; a lag that changes all the time is told once every `loop_wait`.
    pub(crate) fn follow(&mut self, seen: &Observation, now: Moment) {
        let (standing, lag) = (standing(seen, now), lag(seen));
        let other = standing != self.standing;
        if !other && (lag == self.lag || now.since(self.told) < seen.rules.loop_wait) {
            return;
        }
        *self = Status { standing, lag, told: now };
        tell(&[NotifyState::Status(&self.line())]);
    }

    fn line(&self) -> String {
        match self.lag {
            Some(bytes) => format!("{}, {bytes} bytes behind", self.standing),
            None => self.standing.clone(),
        }
    }
}

/// Role, term and timeline.
fn standing(seen: &Observation, now: Moment) -> String {
    let Some(cluster) = seen.cluster() else { return "waiting for etcd".to_owned() };
    let pause = if seen.rules.pause { "paused: " } else { "" };
    let lead = match (&cluster.leader, seen.leads(now)) {
        (_, Some(term)) => format!("leads in term {term}"),
        (LeaderKey::Held { name, term, .. }, None) => format!("{name} leads in term {term}"),
        (LeaderKey::Free | LeaderKey::Spoiled { .. }, None) => "nobody leads".to_owned(),
    };
    let role = match &seen.postgres {
        Postgres::Stopped => "PostgreSQL is stopped".to_owned(),
        Postgres::Starting { .. } => "PostgreSQL is starting".to_owned(),
        Postgres::Stopping { .. } => "PostgreSQL is stopping".to_owned(),
        Postgres::Unresponsive { .. } => "PostgreSQL does not answer".to_owned(),
        Postgres::Running(Running::Primary { timeline, .. }) => format!("primary on timeline {timeline}"),
        Postgres::Running(Running::Standby { timeline, streaming, .. }) => {
            let how = if *streaming { "" } else { ", not streaming" };
            format!("replica on timeline {timeline}{how}")
        }
    };
    let etcd = match &seen.etcd {
        Etcd::Seen { contact: Contact::Lost { .. }, .. } => ", etcd does not answer",
        Etcd::Seen { contact: Contact::Live, .. } | Etcd::Never { .. } => "",
    };
    format!("{pause}{role}, {lead}{etcd}")
}

/// How many bytes a replica lacks of what the leader last reported.
fn lag(seen: &Observation) -> Option<u64> {
    let Postgres::Running(Running::Standby { lsn, .. }) = &seen.postgres else { return None };
    Some(seen.cluster()?.optime?.bytes_since(*lsn))
}

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
