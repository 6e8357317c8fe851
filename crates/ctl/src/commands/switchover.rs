//! `baton switchover`: hand the lead to a replica in good order.
//!
//!     look ─▶ plan (questions and checks, before anything is sent) ─▶ order the leader
//!                                            no answer ─▶ write /failover to etcd ─▶ wait for a new leader
//!     meanwhile every step that etcd shows is told on standard error

use super::list::{print, show};
use crate::ask::{self, Answers};
use crate::cli::SwitchoverArgs;
use crate::context::{Context, deadline};
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::progress;
use crate::view::{Cluster, Member, Standing, Synchronous};
use etcd::Failover;
use http::{Reply, Trouble};
use serde_json::{Value, json};
use types::NodeName;

/// What is going to be ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) leader: Option<String>,
    pub(super) candidate: Option<String>,
    pub(super) scheduled: Option<String>,
}

/// Plans, orders and follows a switchover.
pub(crate) async fn run(context: &Context, args: &SwitchoverArgs, answers: &mut dyn Answers) -> Outcome {
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (_, cluster) = context.look(&scope).await?;
    print("Current cluster topology\n");
    show(&cluster);
    let plan = plan(&cluster, args, answers)?;
    Box::pin(carry_out(context, &cluster, &plan, "switchover")).await
}

/// Checks what was asked for and asks for the rest, in patronictl's order and words.
fn plan(cluster: &Cluster, args: &SwitchoverArgs, answers: &mut dyn Answers) -> Result<Plan, Failure> {
    let name = &cluster.name;
    let current = cluster.lead.as_ref().map(|lead| lead.name.as_str());
    let current = current.ok_or_else(|| Failure::refused("This cluster has no leader"))?;
    let leader = match &args.leader {
        Some(leader) => leader.clone(),
        None if args.force => current.to_owned(),
        None => ask::text(answers, title(cluster), current)?,
    };
    if leader != current {
        return Err(Failure::refused(format!("Member {leader} is not the leader of cluster {name}")));
    }
    let candidate = candidate(cluster, args.candidate.as_deref(), args.force, "switchover", answers)?;
    let scheduled = match &args.scheduled {
        Some(time) => time.clone(),
        None if args.force => String::new(),
        None => {
            let question =
                format!("When should the switchover take place (e.g. {} ) ", super::schedule::example());
            ask::text(answers, &question, "now")?
        }
    };
    let scheduled = super::schedule::read(&scheduled)?.map(|at| at.iso());
    if scheduled.is_some() && cluster.paused {
        return Err(Failure::refused("Can't schedule switchover in the paused state"));
    }
    if !args.force {
        let (question, otherwise) = match &scheduled {
            Some(at) => (
                format!(
                    "Are you sure you want to schedule switchover of cluster {name} at {at}, demoting current leader {leader}?"
                ),
                "Aborting scheduled switchover",
            ),
            None => (
                format!(
                    "Are you sure you want to switchover cluster {name}, demoting current leader {leader}?"
                ),
                "Aborting switchover",
            ),
        };
        ask::confirm(answers, &question, otherwise)?;
    }
    Ok(Plan { leader: Some(leader), candidate, scheduled })
}

/// What the leader is called in the first question.
fn title(cluster: &Cluster) -> &'static str {
    match cluster.leader() {
        Some(Member { standing: Standing::StandbyLeader, .. }) => "Standby Leader",
        Some(_) | None => "Primary",
    }
}

/// The candidate that was named, or that the person names now; none leaves the choice to the cluster.
pub(super) fn candidate(
    cluster: &Cluster,
    named: Option<&str>,
    force: bool,
    action: &str,
    answers: &mut dyn Answers,
) -> Result<Option<String>, Failure> {
    let candidates: Vec<&str> = cluster.candidates().iter().map(|member| member.name.as_str()).collect();
    if candidates.is_empty() {
        return Err(Failure::refused(format!("No candidates found to {action} to")));
    }
    let candidate = match named {
        Some(named) => named.to_owned(),
        None if force => String::new(),
        None => {
            let quoted: Vec<String> = candidates.iter().map(|name| format!("'{name}'")).collect();
            ask::text(answers, &format!("Candidate [{}]", quoted.join(", ")), "")?
        }
    };
    if candidate.is_empty() {
        return Ok(None);
    }
    if cluster.lead.as_ref().is_some_and(|lead| lead.name == candidate) {
        return Err(Failure::refused(format!(
            "Member {candidate} is already the leader of cluster {}",
            cluster.name
        )));
    }
    if !candidates.contains(&candidate.as_str()) {
        return Err(Failure::refused(format!(
            "Member {candidate} does not exist in cluster {} or is tagged as nofailover",
            cluster.name
        )));
    }
    Ok(Some(candidate))
}

/// Whether commits acknowledged so far may be missing on this member.
pub(super) fn asynchronous(cluster: &Cluster, candidate: &str) -> bool {
    let confirmed =
        |member: &Member| matches!(member.standing, Standing::SyncStandby | Standing::QuorumStandby);
    cluster.synchronous != Synchronous::Off && !cluster.member(candidate).is_some_and(confirmed)
}

/// Sends the order, tells every step, and ends when the cluster has a new leader or has refused.
pub(super) async fn carry_out(context: &Context, cluster: &Cluster, plan: &Plan, action: &str) -> Outcome {
    let receiver = cluster.leader().filter(|member| member.state != "gone");
    let receiver = receiver.or_else(|| plan.candidate.as_deref().and_then(|name| cluster.member(name)));
    let answer = match receiver {
        Some(member) => {
            let body = body(plan);
            let path = format!("/{action}");
            let order = context.rest.order(member, &path, Some(&body));
            Box::pin(progress::during(context, cluster, order)).await
        }
        None => Err(Trouble::Silence("no member to send it to".to_owned())),
    };
    match answer {
        Ok(reply) if reply.ok() => {
            print(&format!("{} {}\n", super::fine_timestamp(), reply.body.trim()));
        }
        Ok(reply) => {
            print(&format!("{}\n", refusal(&reply, action)));
            return super::ended(context, true);
        }
        Err(trouble) => {
            let whom = receiver.map_or("the leader", |member| member.name.as_str());
            super::warn(&format!("{whom} does not answer ({trouble}). Failing over to DCS"));
            order_through_etcd(context, cluster, plan, action).await?;
        }
    }
    let (_, after) = context.look(&cluster.name).await?;
    show(&after);
    Ok(())
}

fn body(plan: &Plan) -> Value {
    match (&plan.leader, &plan.scheduled) {
        (None, _) => json!({"candidate": plan.candidate}),
        (Some(leader), None) => json!({"leader": leader, "candidate": plan.candidate}),
        (Some(leader), Some(at)) => {
            json!({"leader": leader, "candidate": plan.candidate, "scheduled_at": at})
        }
    }
}

/// What the member said when it refused.
fn refusal(reply: &Reply, action: &str) -> String {
    let mut title = action.to_owned();
    if let Some(first) = title.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    format!("{title} failed, details: {}, {}", reply.status, reply.body.trim())
}

/// Writes the order to etcd, where every member watches for it. patronictl leaves it at that; otherwise it ends when
/// somebody else leads.
async fn order_through_etcd(context: &Context, cluster: &Cluster, plan: &Plan, action: &str) -> Outcome {
    let etcd = context.etcd(&cluster.name)?;
    let (before, _) = context.read(&cluster.name).await?;
    let order = Failover {
        leader: plan.leader.as_deref().map(NodeName::from),
        member: plan.candidate.as_deref().map(NodeName::from),
        scheduled_at: plan.scheduled.clone(),
        mod_revision: 0,
    };
    etcd.put_failover(&order, before.failover_mod, deadline()).await?;
    let now = super::fine_timestamp();
    print(&format!("{now} Could not {action} using Patroni api, falling back to DCS\n"));
    if plan.scheduled.is_some() || context.manner == Manner::Patronictl {
        return Ok(());
    }
    match progress::until_led_anew(context, cluster).await? {
        Some(leader) => print(&format!("{} {leader} leads now\n", super::fine_timestamp())),
        None => {
            return Err(Failure::refused(format!(
                "the {action} is ordered in etcd, but nobody has taken the lead yet; `baton list` and `baton why` tell more"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{asynchronous, body, plan, title};
    use crate::ask::tests::Script;
    use crate::cli::{Cli, Command, SwitchoverArgs};
    use crate::render::tests::{plain, rich};
    use clap::Parser;
    use http::Reply;
    use serde_json::json;

    fn args(line: &str) -> SwitchoverArgs {
        let words = ["baton", "switchover"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Switchover(args) => args,
            other => panic!("{other:?}"),
        }
    }

    fn refusal(line: &str, answers: &[&'static str]) -> String {
        plan(&rich(), &args(line), &mut Script::new(answers)).unwrap_err().message
    }

    #[test]
    fn force_asks_nothing() {
        let mut script = Script::new(&[]);
        let plan = plan(&rich(), &args("--candidate pg-2 --force"), &mut script).unwrap();
        assert!(script.seen.is_empty());
        assert_eq!(body(&plan), json!({"leader": "pg-1", "candidate": "pg-2"}));
    }

    #[test]
    fn the_questions_are_patronictl_s() {
        let mut script = Script::new(&["", "pg-3", "", "y"]);
        let plan = plan(&rich(), &args(""), &mut script).unwrap();
        assert_eq!(body(&plan), json!({"leader": "pg-1", "candidate": "pg-3"}));
        assert_eq!(script.seen[0], "Primary [pg-1]: ");
        assert_eq!(script.seen[1], "Candidate ['pg-2', 'pg-3'] []: ");
        assert!(
            script.seen[2].starts_with("When should the switchover take place (e.g. 2"),
            "{:?}",
            script.seen
        );
        assert!(script.seen[2].ends_with(" )  [now]: "), "{:?}", script.seen);
        assert_eq!(
            script.seen[3],
            "Are you sure you want to switchover cluster demo, demoting current leader pg-1? [y/N]: "
        );
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_is_sent() {
        assert_eq!(refusal("--leader pg-2 --force", &[]), "Member pg-2 is not the leader of cluster demo");
        assert_eq!(
            refusal("--candidate pg-1 --force", &[]),
            "Member pg-1 is already the leader of cluster demo"
        );
        let unknown = "Member pg-9 does not exist in cluster demo or is tagged as nofailover";
        assert_eq!(refusal("--candidate pg-9 --force", &[]), unknown);
        assert_eq!(refusal("--candidate pg-4 --force", &[]), unknown.replace("pg-9", "pg-4"));
        assert_eq!(refusal("", &["", "", "", "n"]), "Aborting switchover");
        assert_eq!(refusal("", &["", "", "2030-01-01T10:00Z", "n"]), "Aborting scheduled switchover");
        let mut alone = rich();
        alone.members.truncate(1);
        let failure = plan(&alone, &args("--force"), &mut Script::new(&[])).unwrap_err();
        assert_eq!(failure.message, "No candidates found to switchover to");
        alone.lead = None;
        let failure = plan(&alone, &args("--force"), &mut Script::new(&[])).unwrap_err();
        assert_eq!(failure.message, "This cluster has no leader");
        let failure = plan(&plain(), &args("--scheduled 2030-01-01T10:00Z --force"), &mut Script::new(&[]))
            .unwrap_err();
        assert_eq!(failure.message, "Can't schedule switchover in the paused state");
    }

    #[test]
    fn the_leader_of_a_standby_cluster_is_called_so() {
        let mut cluster = rich();
        assert_eq!(title(&cluster), "Primary");
        cluster.members[0].standing = crate::view::Standing::StandbyLeader;
        assert_eq!(title(&cluster), "Standby Leader");
    }

    #[test]
    fn a_member_that_confirms_commits_is_not_asynchronous() {
        assert!(!asynchronous(&rich(), "pg-2"));
        assert!(asynchronous(&rich(), "pg-3"));
    }

    #[test]
    fn a_refusal_is_told_with_its_status() {
        let reply = Reply::new(412, "leader name does not match");
        let line = super::refusal(&reply, "switchover");
        assert_eq!(line, "Switchover failed, details: 412, leader name does not match");
    }
}
