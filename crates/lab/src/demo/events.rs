//! What can happen to a cluster, made to happen, and what clients saw of it.

use crate::client::{FailureKind, WorkReport, Workload};
use crate::lab::Lab;
use crate::primaries::PrimariesReport;
use crate::rest;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::time::Duration;
use types::Moment;

/// Something that happens to the primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// `kill -9` of its postmaster.
    KillPostmaster,
    /// All processes of its host are killed; the host comes back once the others have taken over.
    KillHost,
    /// Its agent gets SIGSTOP, and SIGCONT once the others have taken over.
    FreezeAgent,
    /// Its agent gets SIGKILL and is not started again until the others have taken over.
    KillAgent,
    /// A planned switchover to another member.
    Switchover,
}

/// When something happened and when the cluster was whole again.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub event: Event,
    pub from: Moment,
    pub to: Moment,
}

/// What clients saw of one event.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub event: Event,
    pub pause: Duration,
    pub failed_statements: usize,
    pub failed_connections: usize,
    pub missing: usize,
    pub two_primaries: Duration,
}

/// Longer than any pause that the reference has.
const RECOVERY: Duration = Duration::from_secs(60);
/// This many commits after a pause count as normal work.
const NORMAL: usize = 50;

impl Event {
    /// A few words for a table.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Event::KillPostmaster => "kill -9 of the primary's postmaster",
            Event::KillHost => "all processes of the primary's host killed",
            Event::FreezeAgent => "primary's agent frozen with SIGSTOP",
            Event::KillAgent => "primary's agent killed with SIGKILL, not restarted",
            Event::Switchover => "planned switchover",
        }
    }

    /// Makes it happen under a running workload, waits until clients work again and all members are healthy.
    pub async fn happen(self, lab: &mut Lab, work: &Workload) -> Result<Window> {
        let primary = lab.primary().await?;
        let from = clock::now();
        match self {
            Event::KillPostmaster => drop(lab.node(&primary)?.kill_postmaster()?),
            Event::KillHost => lab.node(&primary)?.kill_host(),
            Event::FreezeAgent => lab.node(&primary)?.freeze_agent(),
            Event::KillAgent => lab.node(&primary)?.kill_agent(),
            Event::Switchover => switchover(lab, &primary).await?,
        }
        match self {
            Event::KillPostmaster => work.await_progress(NORMAL, RECOVERY).await?,
            Event::Switchover | Event::KillHost | Event::FreezeAgent | Event::KillAgent => {
                another_leads(lab, &primary).await?;
                work.await_progress(NORMAL, RECOVERY).await?;
            }
        }
        let node = lab.node(&primary)?;
        match self {
            Event::FreezeAgent => node.thaw_agent(),
            Event::KillHost | Event::KillAgent => node.start_agent()?,
            Event::KillPostmaster | Event::Switchover => {}
        }
        lab.await_healthy(lab.nodes.len()).await.with_context(|| format!("after: {}", self.describe()))?;
        work.await_progress(NORMAL, RECOVERY).await?;
        Ok(Window { event: self, from, to: clock::now() })
    }
}

async fn another_leads(lab: &Lab, old: &str) -> Result<()> {
    crate::wait::until(RECOVERY, &format!("another primary than {old}"), async || {
        let view = lab.view().await.ok()?;
        view.primary().filter(|name| *name != old).map(drop)
    })
    .await
}

/// Asks the leader for a planned switchover to whoever it finds best.
pub(crate) async fn switchover(lab: &mut Lab, primary: &str) -> Result<()> {
    let agent = lab.node(primary)?.rest;
    let answer = rest::send(agent, "POST", "/switchover", &json!({ "leader": primary }), RECOVERY).await?;
    match answer.status {
        200 | 202 => Ok(()),
        status => bail!("switch over from {primary}: its agent answered {status}: {}", answer.body),
    }
}

impl Outcome {
    /// What a workload and the watchers of primaries saw in a window.
    #[must_use]
    pub fn of(window: &Window, work: &WorkReport, primaries: &PrimariesReport, missing: usize) -> Outcome {
        Outcome {
            event: window.event,
            pause: work.longest_pause(window.from, window.to),
            failed_statements: work.failed(FailureKind::Statement, window.from, window.to),
            failed_connections: work.failed(FailureKind::Connection, window.from, window.to),
            missing,
            two_primaries: primaries.two_primaries_between(window.from, window.to),
        }
    }
}
