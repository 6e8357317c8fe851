//! `baton flush`: take back a restart or a switchover that waits for its time.
//!
//!     restart     each member that has one is told to forget it
//!     switchover  the leader is told, else any member, else the order in etcd is emptied

use super::list::{print, show};
use super::{chosen, ended, fine_timestamp, names, populated, warn};
use crate::ask::{self, Answers};
use crate::cli::FlushArgs;
use crate::context::{Context, deadline};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::rest::told;
use crate::view::Cluster;
use etcd::Snapshot;
use http::Reply;

/// Takes it back.
pub(crate) async fn run(context: &Context, args: &FlushArgs, answers: &mut dyn Answers) -> Outcome {
    let (scope, members, what) = words(&args.words)?;
    let (snapshot, cluster) = context.look(scope).await?;
    match what {
        What::Restart => restart(context, args, &cluster, members, answers).await,
        What::Switchover => switchover(context, &snapshot, &cluster).await,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Restart,
    Switchover,
}

/// The cluster, the members, and the last word.
fn words(words: &[String]) -> Result<(&str, &[String], What), Failure> {
    let usage = |last: &str| {
        Failure::new(
            Code::Usage,
            format!("{last:?} cannot be flushed: the last word is restart or switchover"),
        )
    };
    let [scope, members @ .., last] = words else {
        return Err(usage(words.last().map(String::as_str).unwrap_or_default()));
    };
    match last.as_str() {
        "restart" => Ok((scope, members, What::Restart)),
        "switchover" => Ok((scope, members, What::Switchover)),
        other => Err(usage(other)),
    }
}

async fn restart(
    context: &Context,
    args: &FlushArgs,
    cluster: &Cluster,
    wanted: &[String],
    answers: &mut dyn Answers,
) -> Outcome {
    populated(cluster, args.role)?;
    show(cluster);
    let members = chosen(cluster, wanted, args.role, context.manner)?;
    if !args.force {
        let question = format!("Are you sure you want to flush members {}?", names(&members));
        ask::confirm(answers, &question, "Aborted flush")?;
    }
    let mut failed = false;
    for member in members {
        if member.scheduled_restart.is_none() {
            print(&format!("No scheduled restart for member {}\n", member.name));
            continue;
        }
        let reply = context.rest.withdraw(member, "/restart").await;
        let (line, well) = told("flush scheduled restart for member ", &member.name, &reply);
        print(&format!("{line}\n"));
        failed |= !well;
    }
    ended(context, failed)
}

async fn switchover(context: &Context, snapshot: &Snapshot, cluster: &Cluster) -> Outcome {
    if cluster.scheduled_switchover.is_none() {
        print("No pending scheduled switchover\n");
        return Ok(());
    }
    let others = cluster.members.iter().filter(|member| !member.standing.leads());
    for member in cluster.leader().into_iter().chain(others) {
        match context.rest.withdraw(member, "/switchover").await {
            Ok(Reply { status: 200, body, .. }) => {
                print(&format!("Success: {}\n", body.trim()));
                return Ok(());
            }
            Ok(Reply { status: 404, body, .. }) => {
                print(&format!("Failed: {}\n", body.trim()));
                return ended(context, true);
            }
            Ok(Reply { status, body, .. }) => {
                print(&format!("Failed: member={}, status_code={status}, ({})\n", member.name, body.trim()));
            }
            Err(trouble) => warn(&format!("Member {} is not accessible: {trouble}", member.name)),
        }
    }
    warn("Failing over to DCS");
    print(&format!(
        "{} Could not find any accessible member of cluster {}\n",
        fine_timestamp(),
        cluster.name
    ));
    match snapshot.failover_mod {
        Some(revision) => Ok(context.etcd(&cluster.name)?.clear_failover(revision, deadline()).await?),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{What, words};

    #[test]
    fn the_last_word_says_what() {
        let split = |line: &str| {
            let line: Vec<String> = line.split(' ').map(str::to_owned).collect();
            words(&line).map(|(scope, members, what)| (scope.to_owned(), members.len(), what)).ok()
        };
        assert_eq!(split("demo restart"), Some(("demo".into(), 0, What::Restart)));
        assert_eq!(split("demo pg-1 restart switchover"), Some(("demo".into(), 2, What::Switchover)));
        for bad in ["demo pg-1", "restart"] {
            assert_eq!(split(bad), None, "{bad}");
        }
    }
}
