//! `baton demote-cluster` and `baton promote-cluster`: make the whole cluster follow another one, and stand alone again.
//! The section `standby_cluster` of the dynamic configuration is written through a member; then its leader is watched.

use super::list::{print, show};
use super::{timestamp, warn};
use crate::ask::{self, Answers};
use crate::cli::{DemoteClusterArgs, PromoteClusterArgs};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::view::{Cluster, Standing};
use etcd::Snapshot;
use serde_json::{Map, Value, json};
use std::time::Duration;

const PAUSE: Duration = Duration::from_secs(1);
/// How long the leader may take: it stops, archives its last WAL and starts again, or replays what is left.
const PATIENCE: Duration = Duration::from_secs(600);

/// One of the two directions.
struct Turn {
    verb: &'static str,
    noun: &'static str,
    done: &'static str,
    wanted: Standing,
}

const DEMOTE: Turn =
    Turn { verb: "demote", noun: "demotion", done: "demoted", wanted: Standing::StandbyLeader };
const PROMOTE: Turn = Turn { verb: "promote", noun: "promotion", done: "promoted", wanted: Standing::Leader };

/// Makes it follow.
pub(crate) async fn demote(
    context: &Context,
    args: &DemoteClusterArgs,
    answers: &mut dyn Answers,
) -> Outcome {
    let section = section(args)?;
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    turn(context, &DEMOTE, &scope, section, args.force, answers).await
}

/// Makes it stand alone.
pub(crate) async fn promote(
    context: &Context,
    args: &PromoteClusterArgs,
    answers: &mut dyn Answers,
) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    turn(context, &PROMOTE, &scope, Value::Null, args.force, answers).await
}

fn section(args: &DemoteClusterArgs) -> Result<Value, Failure> {
    if args.host.is_none() && args.port.is_none() && args.restore_command.is_none() {
        return Err(Failure::refused("At least --host, --port or --restore-command should be specified"));
    }
    let fields = [
        ("host", args.host.clone().map(Value::from)),
        ("port", args.port.map(Value::from)),
        ("primary_slot_name", args.primary_slot_name.clone().map(Value::from)),
        ("restore_command", args.restore_command.clone().map(Value::from)),
    ];
    let fields = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Ok(Value::Object(fields.collect::<Map<_, _>>()))
}

async fn turn(
    context: &Context,
    turn: &Turn,
    scope: &str,
    section: Value,
    force: bool,
    answers: &mut dyn Answers,
) -> Outcome {
    let (snapshot, cluster) = context.look(scope).await?;
    if cluster.leader().is_none() {
        return Err(Failure::refused(format!("Cluster has no leader, {} is not possible", turn.noun)));
    }
    if follows(&snapshot) == (turn.wanted == Standing::StandbyLeader) {
        return Err(Failure::refused("Cluster is already in the required state"));
    }
    print("Current cluster topology\n");
    show(&cluster);
    if !force {
        let question = format!("Are you sure you want to {} {scope} cluster?", turn.verb);
        ask::confirm(answers, &question, &format!("Aborted cluster {}", turn.noun))?;
    }
    order(context, &cluster, &json!({"standby_cluster": section}))
        .await
        .map_err(|why| Failure::refused(format!("Failed to {} {scope} cluster: {why}", turn.verb)))?;
    await_turn(context, turn, scope).await
}

/// Whether the dynamic configuration has a section `standby_cluster`.
fn follows(snapshot: &Snapshot) -> bool {
    let section =
        snapshot.config.as_ref().and_then(|config| config.value.get("standby_cluster")?.as_object());
    section.is_some_and(|section| !section.is_empty())
}

/// Changes the configuration through the leader, else through any member that answers.
async fn order(context: &Context, cluster: &Cluster, patch: &Value) -> Result<(), String> {
    let others = cluster.members.iter().filter(|member| !member.standing.leads());
    for member in cluster.leader().into_iter().chain(others) {
        match context.rest.patch_config(member, patch).await {
            Ok(reply) if reply.ok() => return Ok(()),
            Ok(reply) => {
                return Err(format!("/config PATCH status code={}, ({})", reply.status, reply.body.trim()));
            }
            Err(trouble) => warn(&format!("Member {} is not accessible: {trouble}", member.name)),
        }
    }
    Err("Can not find accessible cluster member".to_owned())
}

async fn await_turn(context: &Context, turn: &Turn, scope: &str) -> Outcome {
    let end = clock::now().after(PATIENCE);
    while clock::now() < end {
        let (_, cluster) = context.read(scope).await?;
        let leader = cluster.leader();
        if leader.is_some_and(|leader| leader.standing == turn.wanted && leader.state == "running") {
            print(&format!("{} cluster is successfully {}\n", timestamp(), turn.done));
            return Ok(());
        }
        let role = leader.map_or("None", |leader| match leader.standing {
            Standing::StandbyLeader => "standby_leader",
            Standing::Leader | Standing::SyncStandby | Standing::QuorumStandby | Standing::Replica => {
                "primary"
            }
        });
        let state = leader.map_or("None", |leader| leader.state.as_str());
        let unlocked = if leader.is_none() { "True" } else { "False" };
        print(&format!(
            "{} cluster is unlocked: {unlocked}, leader role: {role}, leader state: {state}\n",
            timestamp()
        ));
        tokio::time::sleep(PAUSE).await;
    }
    Err(Failure::refused(format!(
        "it is ordered, but the cluster was not {} within {} s; `baton list` and `baton why` tell more",
        turn.done,
        PATIENCE.as_secs()
    )))
}

#[cfg(test)]
mod tests {
    use super::section;
    use crate::cli::{Cli, Command, DemoteClusterArgs};
    use clap::Parser;
    use serde_json::json;

    fn args(line: &str) -> DemoteClusterArgs {
        let words = ["baton", "demote-cluster"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::DemoteCluster(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_section_holds_what_was_said() {
        let full = args("--host h --port 1 --restore-command cp --primary-slot-name s");
        let section = section(&full).unwrap();
        let expected = json!({"host": "h", "port": 1, "primary_slot_name": "s", "restore_command": "cp"});
        assert_eq!(section, expected);
        assert!(super::section(&args("--primary-slot-name s")).is_err());
    }
}
