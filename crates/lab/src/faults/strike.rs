//! A fault made to happen, and what ends it.

use super::kind::{Kind, Who};
use crate::etcd_member::EtcdMember;
use crate::lab::Lab;
use crate::rest;
use anyhow::{Context, Result};
use serde_json::json;
use std::time::Duration;

/// What ends a fault.
#[derive(Clone, Debug)]
pub(super) enum Undo {
    Nothing,
    StartAgent(String),
    ThawAgent(String),
    ThawPostgres(String),
    StartEtcd(String),
    ThawEtcd(String),
    Plug(String),
    MendToEtcd(String),
    ClearWal(String),
}

/// Who was what when it was last seen.
pub(super) struct Roles {
    primary: String,
    standbys: Vec<String>,
    synchronous: Vec<String>,
    etcd_leader: String,
}

const ORDER: Duration = Duration::from_secs(20);
const ENDS: Duration = Duration::from_secs(5);
const FILLS: Duration = Duration::from_secs(30);

impl Roles {
    /// As etcd says now.
    pub(super) async fn of(lab: &Lab) -> Result<Roles> {
        let view = lab.view().await?;
        let primary = view.primary().context("see who is the primary")?.to_owned();
        let names = lab.nodes.iter().map(|node| node.name.clone());
        Ok(Roles {
            standbys: names.filter(|name| *name != primary).collect(),
            primary,
            synchronous: view.synchronous,
            etcd_leader: lab.etcd_leader().await?,
        })
    }

    fn name(&self, who: Who) -> Result<String> {
        let found = match who {
            Who::Primary => Some(&self.primary),
            Who::Synchronous => self.synchronous.first().or(self.standbys.first()),
            Who::Other => self.standbys.iter().rfind(|name| !self.is_first_synchronous(name)),
        };
        found.cloned().with_context(|| format!("find the {who}"))
    }

    fn is_first_synchronous(&self, name: &str) -> bool {
        self.synchronous.first().is_some_and(|first| first == name)
    }
}

/// Makes it happen to whoever has the role now; while nobody can say who that is, to whoever had it before.
pub(super) async fn happen(kind: Kind, lab: &mut Lab, roles: &mut Roles) -> Result<Undo> {
    if let Ok(Ok(now)) = tokio::time::timeout(Duration::from_millis(500), Roles::of(lab)).await {
        *roles = now;
    }
    Ok(match kind {
        Kind::KillPostmaster(who) => {
            // One that does not run at the moment is as dead as it can be.
            let _ = lab.node(&roles.name(who)?)?.kill_postmaster();
            Undo::Nothing
        }
        Kind::KillBackend => {
            lab.node(&roles.primary)?.kill_backend();
            Undo::Nothing
        }
        Kind::HangPostgres(who) => {
            let name = roles.name(who)?;
            lab.node(&name)?.freeze_postgres();
            Undo::ThawPostgres(name)
        }
        Kind::KillHost(who) => {
            let name = roles.name(who)?;
            lab.node(&name)?.kill_host();
            Undo::StartAgent(name)
        }
        Kind::KillAgent(who) => {
            let name = roles.name(who)?;
            lab.node(&name)?.kill_agent();
            Undo::StartAgent(name)
        }
        Kind::FreezeAgent(who) => {
            let name = roles.name(who)?;
            lab.node(&name)?.freeze_agent();
            Undo::ThawAgent(name)
        }
        Kind::RestartAgent(who) => {
            let name = roles.name(who)?;
            // A frozen one hears nothing, and is killed in the end.
            lab.node(&name)?.detach_agent(ENDS).await;
            Undo::StartAgent(name)
        }
        Kind::StopInOrder(who) => {
            let name = roles.name(who)?;
            lab.node(&name)?.tell_agent_to_end();
            Undo::StartAgent(name)
        }
        Kind::Switchover => order(lab, roles, "/switchover", json!({ "leader": roles.primary }))?,
        Kind::FailoverToSynchronous => {
            let candidate = roles.name(Who::Synchronous)?;
            order(lab, roles, "/failover", json!({ "candidate": candidate }))?
        }
        Kind::KillEtcdLeader | Kind::StopEtcdFollower | Kind::FreezeEtcdLeader => {
            etcd(kind, lab, roles).await
        }
        Kind::UnplugHost(who) => {
            let name = roles.name(who)?;
            lab.unplug(&name)?;
            Undo::Plug(name)
        }
        Kind::CutFromEtcd(who) => {
            let name = roles.name(who)?;
            lab.cut_from_etcd(&name)?;
            Undo::MendToEtcd(name)
        }
        Kind::UnplugEtcdLeader => {
            lab.unplug(&roles.etcd_leader)?;
            Undo::Plug(roles.etcd_leader.clone())
        }
        Kind::FillWalDisk => {
            let name = roles.primary.clone();
            // One that is being replaced may not get to its next segment any more.
            let _ = tokio::time::timeout(FILLS, lab.use_up_wal(&name)).await;
            Undo::ClearWal(name)
        }
    })
}

/// An order to the primary's agent. What comes of it is not waited for: the next fault may strike meanwhile.
fn order(lab: &mut Lab, roles: &Roles, path: &'static str, body: serde_json::Value) -> Result<Undo> {
    let agent = lab.node(&roles.primary)?.rest;
    tokio::spawn(async move { rest::send(agent, "POST", path, &body, ORDER).await.map(drop) });
    Ok(Undo::Nothing)
}

async fn etcd(kind: Kind, lab: &mut Lab, roles: &Roles) -> Undo {
    let leads = kind != Kind::StopEtcdFollower;
    let found = lab.etcd.iter_mut().find(|member| (member.name == roles.etcd_leader) == leads);
    let Some(member) = found else { return Undo::Nothing };
    let name = member.name.clone();
    if kind == Kind::FreezeEtcdLeader {
        member.freeze();
        return Undo::ThawEtcd(name);
    }
    if leads {
        member.kill()
    } else {
        member.stop().await
    }
    Undo::StartEtcd(name)
}

impl Undo {
    /// Ends the fault.
    pub(super) fn happen(self, lab: &mut Lab) -> Result<()> {
        match self {
            Undo::Nothing => Ok(()),
            Undo::StartAgent(name) => {
                let node = lab.node(&name)?;
                if node.agent_runs() { Ok(()) } else { node.start_agent() }
            }
            Undo::ThawAgent(name) => {
                lab.node(&name)?.thaw_agent();
                Ok(())
            }
            Undo::ThawPostgres(name) => {
                lab.node(&name)?.thaw_postgres();
                Ok(())
            }
            Undo::StartEtcd(name) => {
                let mut dead = lab.etcd.iter_mut().filter(|member| member.name == name);
                dead.find_map(|member| (!member.running()).then(|| member.start())).unwrap_or(Ok(()))
            }
            Undo::ThawEtcd(name) => {
                lab.etcd.iter_mut().filter(|member| member.name == name).for_each(EtcdMember::thaw);
                Ok(())
            }
            Undo::Plug(name) => lab.plug(&name),
            Undo::MendToEtcd(name) => lab.mend_to_etcd(&name),
            Undo::ClearWal(name) => lab.node(&name)?.clear_wal(),
        }
    }
}
