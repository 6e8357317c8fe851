//! `baton pause` and `baton resume`: whether the cluster manages itself. The change goes through the leader's REST API,
//! else through any member's, else it is written to etcd, where all members watch for it.

use super::list::print;
use crate::cli::PauseArgs;
use crate::context::{Context, deadline};
use crate::failure::{Failure, Outcome};
use crate::view::{Cluster, Member};
use etcd::Snapshot;
use serde_json::{Value, json};
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(200);
/// How long all members may take to see it; a Patroni looks every `loop_wait`.
const PATIENCE: Duration = Duration::from_secs(90);

/// Pauses (`true`) or resumes (`false`).
pub(crate) async fn run(context: &Context, args: &PauseArgs, pause: bool) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (snapshot, cluster) = context.read(&scope).await?;
    if cluster.paused == pause {
        return Err(Failure::refused(if pause {
            "Cluster is already paused"
        } else {
            "Cluster is not paused"
        }));
    }
    let patch = if pause { json!({"pause": true}) } else { json!({"pause": null}) };
    if !change(context, &snapshot, &cluster, &patch).await? {
        return Ok(());
    }
    if args.wait {
        let verb = if pause { "pause" } else { "resume" };
        print(&format!("'{verb}' request sent, waiting until it is recognized by all nodes\n"));
        wait(context, &scope, pause).await?;
    }
    print(&format!("Success: cluster management is {}\n", if pause { "paused" } else { "resumed" }));
    Ok(())
}

/// Whether it was written.
async fn change(
    context: &Context,
    snapshot: &Snapshot,
    cluster: &Cluster,
    patch: &Value,
) -> Result<bool, Failure> {
    let others = cluster.members.iter().filter(|member| !member.standing.leads());
    for member in cluster.leader().into_iter().chain(others) {
        match context.rest.patch_config(member, patch).await {
            Ok(reply) if reply.ok() => return Ok(true),
            Ok(reply) => {
                let verb = if patch.get("pause") == Some(&Value::Null) { "resume" } else { "pause" };
                print(&format!(
                    "Failed: {verb} cluster management status code={}, ({})\n",
                    reply.status,
                    reply.body.trim()
                ));
                return super::ended(context, true).map(|()| false);
            }
            // A member that is not there is passed over; etcd is there for all.
            Err(trouble) => super::warn(&format!("Member {} is not accessible: {trouble}", member.name)),
        }
    }
    let config =
        snapshot.config.as_ref().ok_or_else(|| Failure::refused("Can not find accessible cluster member"))?;
    let value = settings::patch(&config.value, patch);
    context.etcd(&cluster.name)?.put_config(&value, Some(config.mod_revision), deadline()).await?;
    Ok(true)
}

async fn wait(context: &Context, scope: &str, pause: bool) -> Outcome {
    let end = clock::now().after(PATIENCE);
    loop {
        let (_, cluster) = context.read(scope).await?;
        let late: Vec<&Member> = cluster
            .members
            .iter()
            .filter(|member| member.paused != pause && member.state != "gone")
            .collect();
        if late.is_empty() {
            return Ok(());
        }
        if clock::now() >= end {
            return Err(Failure::refused(format!(
                "it is written, but these members have not seen it within {} s: {}",
                PATIENCE.as_secs(),
                super::names(&late)
            )));
        }
        tokio::time::sleep(PAUSE).await;
    }
}
