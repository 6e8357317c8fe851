//! What can happen to a cluster, made to happen, and what clients saw of it.

use crate::client::{FailureKind, WorkReport, Workload};
use crate::etcd_member::EtcdMember;
use crate::lab::Lab;
use crate::primaries::PrimariesReport;
use crate::rest;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::time::Duration;
use types::Moment;

/// Something that happens to a cluster, most often to its primary.
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
    /// All processes of the host of a synchronous standby are killed; it comes back once clients work again.
    KillSyncStandby,
    /// Every process of its PostgreSQL gets SIGSTOP: connections stay, nothing answers.
    HangPostgres,
    /// `kill -9` of the etcd member that leads.
    KillEtcdLeader,
    /// All etcd members are killed and come back after so many seconds.
    StopEtcd(u32),
    /// The cable of its host is pulled, and plugged in once the others have taken over. Needs cables.
    UnplugHost,
    /// It alone reaches no etcd any more, until the others have taken over. Needs cables.
    CutFromEtcd,
    /// The disk of its WAL is full until the others have taken over, or have not. Needs WAL disks.
    FillWalDisk,
    /// The agent of a synchronous standby is told to end, with its PostgreSQL; it comes back once clients have worked on.
    StopSyncStandby,
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
/// A full disk may be survived where it is.
const FULL: Duration = Duration::from_secs(30);
/// This many commits after a pause count as normal work.
const NORMAL: usize = 50;

impl Event {
    /// A few words for a table.
    #[must_use]
    pub fn describe(self) -> String {
        let words = match self {
            Event::KillPostmaster => "kill -9 of the primary's postmaster",
            Event::KillHost => "all processes of the primary's host killed",
            Event::FreezeAgent => "primary's agent frozen with SIGSTOP",
            Event::KillAgent => "primary's agent killed with SIGKILL, not restarted",
            Event::Switchover => "planned switchover",
            Event::KillSyncStandby => "all processes of a synchronous standby's host killed",
            Event::HangPostgres => "primary's PostgreSQL frozen with SIGSTOP",
            Event::KillEtcdLeader => "etcd's leader killed",
            Event::StopEtcd(seconds) => return format!("all of etcd killed, for {seconds} s"),
            Event::UnplugHost => "the primary's host unplugged (cable pulled, nothing killed)",
            Event::CutFromEtcd => "primary alone cut off from etcd",
            Event::FillWalDisk => "the disk of the primary's WAL full",
            Event::StopSyncStandby => "a synchronous standby stopped in order",
        };
        words.to_owned()
    }

    /// Whether it happens to a synchronous standby.
    #[must_use]
    pub fn needs_synchronous(self) -> bool {
        matches!(self, Event::KillSyncStandby | Event::StopSyncStandby)
    }

    /// Whether it needs a lab with cables.
    #[must_use]
    pub fn needs_cables(self) -> bool {
        matches!(self, Event::UnplugHost | Event::CutFromEtcd)
    }

    /// Whether it needs a lab with disks for WAL.
    #[must_use]
    pub fn needs_wal_disk(self) -> bool {
        self == Event::FillWalDisk
    }

    /// Makes it happen under a running workload, waits until clients work again and all members are healthy.
    pub async fn happen(self, lab: &mut Lab, work: &Workload) -> Result<Window> {
        let primary = lab.primary().await?;
        let from = clock::now();
        match self {
            Event::KillPostmaster => {
                lab.node(&primary)?.kill_postmaster()?;
                work.await_progress(NORMAL, RECOVERY).await?;
            }
            Event::Switchover => {
                switchover(lab, &primary).await?;
                taken_over(lab, work, &primary).await?;
            }
            Event::KillHost | Event::KillAgent => {
                let node = lab.node(&primary)?;
                if self == Event::KillHost {
                    node.kill_host()
                } else {
                    node.kill_agent()
                }
                taken_over(lab, work, &primary).await?;
                lab.node(&primary)?.start_agent()?;
            }
            Event::FreezeAgent => {
                lab.node(&primary)?.freeze_agent();
                taken_over(lab, work, &primary).await?;
                lab.node(&primary)?.thaw_agent();
            }
            Event::HangPostgres => {
                lab.node(&primary)?.freeze_postgres();
                taken_over(lab, work, &primary).await?;
            }
            Event::KillSyncStandby | Event::StopSyncStandby => {
                let standby = lab.view().await?.synchronous.first().cloned();
                let standby =
                    standby.context("find a synchronous standby: this needs --mode on or quorum")?;
                let node = lab.node(&standby)?;
                if self == Event::KillSyncStandby {
                    node.kill_host();
                } else if !node.stop_agent(RECOVERY).await {
                    bail!("stop {standby}: it did not end within {} s", RECOVERY.as_secs());
                }
                work.await_progress(NORMAL, RECOVERY).await?;
                lab.node(&standby)?.start_agent()?;
            }
            Event::KillEtcdLeader => {
                let member = lab.etcd_leader().await?;
                lab.etcd.iter_mut().filter(|etcd| etcd.name == member).for_each(EtcdMember::kill);
                work.await_progress(NORMAL, RECOVERY).await?;
                lab.start_again(&member)?;
            }
            Event::StopEtcd(seconds) => {
                lab.etcd.iter_mut().for_each(EtcdMember::kill);
                tokio::time::sleep(Duration::from_secs(seconds.into())).await;
                lab.start_etcd().await?;
            }
            Event::UnplugHost => {
                lab.unplug(&primary)?;
                taken_over(lab, work, &primary).await?;
                lab.plug(&primary)?;
            }
            Event::CutFromEtcd => {
                lab.cut_from_etcd(&primary)?;
                taken_over(lab, work, &primary).await?;
                lab.mend_to_etcd(&primary)?;
            }
            Event::FillWalDisk => {
                lab.use_up_wal(&primary).await?;
                // Whoever writes then is told by the pause.
                let _ = another_leads(lab, &primary, FULL).await;
                lab.node(&primary)?.clear_wal()?;
                work.await_progress(NORMAL, RECOVERY).await?;
            }
        }
        lab.await_healthy(lab.nodes.len()).await.with_context(|| format!("after: {}", self.describe()))?;
        work.await_progress(NORMAL, RECOVERY).await?;
        Ok(Window { event: self, from, to: clock::now() })
    }
}

/// Waits until another member than `old` is the primary, and clients work.
async fn taken_over(lab: &Lab, work: &Workload, old: &str) -> Result<()> {
    another_leads(lab, old, RECOVERY).await?;
    work.await_progress(NORMAL, RECOVERY).await
}

async fn another_leads(lab: &Lab, old: &str, within: Duration) -> Result<()> {
    crate::wait::until(within, &format!("another primary than {old}"), async || {
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
