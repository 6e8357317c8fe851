//! `baton failover`: make a certain member lead, also when the leader is lost, also when it may lack commits.

use super::list::{print, show};
use super::switchover::{Plan, asynchronous, candidate, carry_out};
use crate::ask::{self, Answers};
use crate::cli::FailoverArgs;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::view::Cluster;

/// Plans, orders and follows a failover.
pub(crate) async fn run(context: &Context, args: &FailoverArgs, answers: &mut dyn Answers) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (_, cluster) = context.look(&scope).await?;
    print("Current cluster topology\n");
    show(&cluster);
    let plan = plan(&cluster, args, answers)?;
    Box::pin(carry_out(context, &cluster, &plan, "failover")).await
}

fn plan(cluster: &Cluster, args: &FailoverArgs, answers: &mut dyn Answers) -> Result<Plan, Failure> {
    let candidate = candidate(cluster, args.candidate.as_deref(), args.force, "failover", answers)?;
    let candidate = candidate
        .ok_or_else(|| Failure::refused("Failover could be performed only to a specific candidate"))?;
    if !args.force {
        if asynchronous(cluster, &candidate) {
            let question = format!("Are you sure you want to failover to the asynchronous node {candidate}?");
            ask::confirm(answers, &question, "Aborting failover")?;
        }
        let demoting = cluster.lead.as_ref().map(|lead| format!(", demoting current leader {}", lead.name));
        let question = format!(
            "Are you sure you want to failover cluster {}{}?",
            cluster.name,
            demoting.unwrap_or_default()
        );
        ask::confirm(answers, &question, "Aborting failover")?;
    }
    Ok(Plan { leader: None, candidate: Some(candidate), scheduled: None })
}

#[cfg(test)]
mod tests {
    use super::plan;
    use crate::ask::tests::Script;
    use crate::cli::{ClusterArg, FailoverArgs};
    use crate::render::tests::rich;

    fn args(candidate: Option<&str>, force: bool) -> FailoverArgs {
        FailoverArgs { cluster: ClusterArg { cluster: None }, candidate: candidate.map(str::to_owned), force }
    }

    #[test]
    fn a_candidate_is_needed() {
        let failure = plan(&rich(), &args(None, true), &mut Script::new(&[])).unwrap_err();
        assert_eq!(failure.message, "Failover could be performed only to a specific candidate");
    }

    #[test]
    fn an_asynchronous_candidate_is_asked_about_twice() {
        let mut script = Script::new(&["y", "y"]);
        plan(&rich(), &args(Some("pg-3"), false), &mut script).unwrap();
        assert_eq!(
            script.seen,
            [
                "Are you sure you want to failover to the asynchronous node pg-3? [y/N]: ",
                "Are you sure you want to failover cluster demo, demoting current leader pg-1? [y/N]: ",
            ]
        );
        let mut script = Script::new(&["y"]);
        plan(&rich(), &args(Some("pg-2"), false), &mut script).unwrap();
        assert_eq!(script.seen.len(), 1);
    }

    #[test]
    fn without_a_leader_nobody_is_demoted() {
        let mut cluster = rich();
        cluster.lead = None;
        let mut script = Script::new(&["n"]);
        let failure = plan(&cluster, &args(Some("pg-2"), false), &mut script).unwrap_err();
        assert_eq!(failure.message, "Aborting failover");
        assert_eq!(script.seen, ["Are you sure you want to failover cluster demo? [y/N]: "]);
    }
}
