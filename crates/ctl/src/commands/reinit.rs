//! `baton reinit`: throw away a replica's data and clone it again.
//!
//!     look ─▶ which, and sure? ─▶ order each ─▶ busy with something else? ask, then order with force ─▶ --wait: watch it

use super::list::{print, show};
use super::{chosen, ended, named, names, populated};
use crate::ask::{self, Answers};
use crate::cli::{ReinitArgs, RoleFilter};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::rest::told;
use crate::view::{Cluster, Member};
use http::Reply;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use types::Moment;

const PAUSE: Duration = Duration::from_millis(500);
/// How long a member may take to begin; cloning itself takes as long as it takes.
const BEGIN: Duration = Duration::from_secs(30);

/// Asks, then orders, then waits if that is wanted.
pub(crate) async fn run(context: &Context, args: &ReinitArgs, answers: &mut dyn Answers) -> Outcome {
    let (scope, wanted, cluster) = named(context, &args.members).await?;
    populated(&cluster, Some(RoleFilter::Replica))?;
    show(&cluster);
    let members = pick(&cluster, args, &wanted, context.manner, answers)?;
    let (mut failed, mut begun) = (false, Vec::new());
    for member in members {
        let well = order(context, args, member, answers).await?;
        failed |= !well;
        if well {
            begun.push(member.name.clone());
        }
    }
    if args.wait && !begun.is_empty() {
        wait(context, &scope, begun).await?;
    }
    ended(context, failed)
}

fn pick<'a>(
    cluster: &'a Cluster,
    args: &ReinitArgs,
    wanted: &[String],
    manner: Manner,
    answers: &mut dyn Answers,
) -> Result<Vec<&'a Member>, Failure> {
    let mut wanted = wanted.to_vec();
    let replica = Some(RoleFilter::Replica);
    if wanted.is_empty() {
        let replicas = chosen(cluster, &[], replica, manner)?;
        if args.force {
            return Err(Failure::refused(format!("which member? Name one of {}", names(&replicas))));
        }
        let question = format!("Which member do you want to reinitialize [{}]?", names(&replicas));
        let answer = ask::text(answers, &question, "")?;
        if replicas.iter().all(|replica| replica.name != answer) {
            return Err(Failure::refused(format!("{answer} is not a member of cluster")));
        }
        wanted.push(answer);
    }
    let members = chosen(cluster, &wanted, replica, manner)?;
    if !args.force {
        let question = format!("Are you sure you want to reinitialize members {}?", names(&members));
        ask::confirm(answers, &question, "Aborted reinitialize")?;
    }
    Ok(members)
}

/// Orders it, again with force if the member is busy and the person wants that. Whether it was taken.
async fn order(
    context: &Context,
    args: &ReinitArgs,
    member: &Member,
    answers: &mut dyn Answers,
) -> Result<bool, Failure> {
    let mut force = args.force;
    loop {
        let body = json!({"force": force, "from_leader": args.from_leader});
        let reply = context.rest.order(member, "/reinitialize", Some(&body)).await;
        let (line, well) = told("reinitialize for member ", &member.name, &reply);
        print(&format!("{line}\n"));
        let busy =
            matches!(&reply, Ok(Reply { status: 503, body: why, .. }) if why.contains("already in progress"));
        if well
            || args.force
            || !busy
            || !ask::yes(answers, "Do you want to cancel it and reinitialize anyway?")?
        {
            return Ok(well);
        }
        force = true;
    }
}

/// Watches the members until each has begun and streams again, telling every change on the way.
async fn wait(context: &Context, scope: &str, mut waiting: Vec<String>) -> Outcome {
    let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
    print(&format!("Waiting for reinitialize to complete on: {}\n", waiting.join(", ")));
    let start = clock::now();
    while !waiting.is_empty() {
        tokio::time::sleep(PAUSE).await;
        let (_, cluster) = context.read(scope).await?;
        let mut left = Vec::new();
        for name in waiting {
            let Some(member) = cluster.member(&name) else {
                left.push(name);
                continue;
            };
            let status = context.rest.get(member, "/patroni").await.ok().and_then(|reply| reply.json());
            let seen = watched.entry(name.clone()).or_default();
            let step = seen.look(member, status.as_ref(), clock::now(), start);
            match step {
                Step::Nothing => left.push(name),
                Step::Tell(line) => {
                    print(&format!("{name}: {line}\n"));
                    left.push(name);
                }
                Step::Done => print(&format!("Reinitialize is completed on: {name}\n")),
            }
        }
        waiting = left;
    }
    Ok(())
}

/// What was last told about a member.
#[derive(Default)]
struct Watched {
    begun: bool,
    told: String,
}

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Nothing,
    Tell(String),
    Done,
}

impl Watched {
    fn look(&mut self, member: &Member, status: Option<&Value>, now: Moment, start: Moment) -> Step {
        let well = matches!(member.state.as_str(), "running" | "streaming" | "in archive recovery");
        self.begun |= !well;
        // A small clone may be over before the first look.
        if well && (self.begun || now.since(start) >= BEGIN) {
            return Step::Done;
        }
        let percent = status.and_then(percent);
        let line = match (well, percent) {
            (true, _) => return Step::Nothing,
            (false, Some(percent)) => format!("{}, {percent:.0} %", member.state),
            (false, None) => member.state.clone(),
        };
        if line == self.told {
            return Step::Nothing;
        }
        self.told.clone_from(&line);
        Step::Tell(line)
    }
}

/// How much of its job the member has done.
fn percent(status: &Value) -> Option<f64> {
    let job = status.get("baton_job")?;
    let (done, total) = (job.get("done_bytes")?.as_f64()?, job.get("total_bytes")?.as_f64()?);
    (total > 0.0).then(|| (done / total * 100.0).min(100.0))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, Step, Watched, pick};
    use crate::ask::tests::Script;
    use crate::cli::{MembersArg, ReinitArgs};
    use crate::commands::names;
    use crate::invoked::Manner;
    use crate::render::tests::rich;
    use serde_json::json;
    use types::Moment;

    fn args(force: bool) -> ReinitArgs {
        ReinitArgs {
            members: MembersArg { cluster: None, members: Vec::new() },
            from_leader: false,
            wait: false,
            force,
        }
    }

    #[test]
    fn a_leader_is_never_reinitialized() {
        let wanted = ["pg-1".to_owned()];
        let failure = pick(&rich(), &args(true), &wanted, Manner::Baton, &mut Script::new(&[])).unwrap_err();
        assert_eq!(failure.message, "No 'replica' among provided members");
        assert!(pick(&rich(), &args(true), &[], Manner::Baton, &mut Script::new(&[])).is_err());
    }

    #[test]
    fn the_questions_are_patronictl_s() {
        let mut script = Script::new(&["pg-2", "y"]);
        assert_eq!(names(&pick(&rich(), &args(false), &[], Manner::Baton, &mut script).unwrap()), "pg-2");
        assert_eq!(script.seen[0], "Which member do you want to reinitialize [pg-2, pg-3, pg-4]? []: ");
        assert_eq!(script.seen[1], "Are you sure you want to reinitialize members pg-2? [y/N]: ");
    }

    #[test]
    fn it_is_done_when_it_had_begun_and_runs_again() {
        let mut member = rich().members[1].clone();
        let mut watched = Watched::default();
        let start = Moment(0);
        assert_eq!(watched.look(&member, None, Moment(500), start), Step::Nothing);
        member.state = "creating replica".into();
        assert_eq!(watched.look(&member, None, Moment(1000), start), Step::Tell("creating replica".into()));
        let status = json!({"baton_job": {"done_bytes": 417, "total_bytes": 1000}});
        assert_eq!(
            watched.look(&member, Some(&status), Moment(1500), start),
            Step::Tell("creating replica, 42 %".into())
        );
        assert_eq!(watched.look(&member, Some(&status), Moment(2000), start), Step::Nothing);
        member.state = "streaming".into();
        assert_eq!(watched.look(&member, None, Moment(2500), start), Step::Done);
        assert_eq!(Watched::default().look(&member, None, start.after(BEGIN), start), Step::Done);
    }
}
