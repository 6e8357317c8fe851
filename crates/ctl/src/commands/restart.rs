//! `baton restart`: restart PostgreSQL on members, one after the other.

use super::list::{print, show};
use super::{chosen, ended, named, names, populated, schedule};
use crate::ask::{self, Answers};
use crate::cli::RestartArgs;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::rest::told;
use crate::view::{Cluster, Member};
use http::{Reply, Trouble};
use serde_json::{Map, Value, json};

/// Asks, then restarts.
pub(crate) async fn run(context: &Context, args: &RestartArgs, answers: &mut dyn Answers) -> Outcome {
    let (_, wanted, cluster) = named(context, &args.members).await?;
    populated(&cluster, args.role)?;
    show(&cluster);
    let members = pick(&cluster, args, &wanted, context.manner)?;
    let filter = filter(&cluster, args, &members, answers)?;
    let mut failed = false;
    for member in members {
        if args.force && filter.contains_key("schedule") && member.scheduled_restart.is_some() {
            // One restart can be scheduled; with force the new one takes its place. The order tells if that fails.
            let _outcome = context.rest.withdraw(member, "/restart").await;
        }
        let reply = context.rest.order(member, "/restart", Some(&Value::Object(filter.clone()))).await;
        let (line, well) = outcome(&member.name, &reply);
        print(&format!("{line}\n"));
        failed |= !well;
    }
    ended(context, failed)
}

fn outcome(member: &str, reply: &Result<Reply, Trouble>) -> (String, bool) {
    match reply {
        Ok(Reply { status: 202, .. }) => (format!("Success: restart scheduled on member {member}"), true),
        Ok(Reply { status: 409, .. }) => {
            (format!("Failed: another restart is already scheduled on member {member}"), false)
        }
        reply => told("restart on member ", member, reply),
    }
}

/// The members to restart: those that wait for it with `--pending`, one of them with `--any`.
fn pick<'a>(
    cluster: &'a Cluster,
    args: &RestartArgs,
    wanted: &[String],
    manner: Manner,
) -> Result<Vec<&'a Member>, Failure> {
    let mut members = chosen(cluster, wanted, args.role, manner)?;
    if args.pending {
        members.retain(|member| member.pending_restart);
        if members.is_empty() && manner == Manner::Baton {
            return Err(Failure::refused("no restart is pending on these members"));
        }
    }
    if args.any {
        // A replica rather than the leader: nobody's session ends.
        members.sort_by_key(|member| member.standing.leads());
        members.truncate(1);
    }
    Ok(members)
}

/// Asks for what was not said and writes the order's body.
fn filter(
    cluster: &Cluster,
    args: &RestartArgs,
    members: &[&Member],
    answers: &mut dyn Answers,
) -> Result<Map<String, Value>, Failure> {
    let when = match &args.scheduled {
        Some(time) => time.clone(),
        None if args.force => String::new(),
        None => {
            let question = format!("When should the restart take place (e.g. {}) ", schedule::example());
            ask::text(answers, &question, "now")?
        }
    };
    let when = schedule::read(&when)?;
    if when.is_some() && cluster.paused {
        return Err(Failure::refused("Can't schedule restart in the paused state"));
    }
    let mut version = args.pg_version.clone();
    if !args.force {
        let question = match &when {
            None => format!("Are you sure you want to restart members {}?", names(members)),
            Some(when) => format!(
                "Are you sure you want to schedule restart of members {} at {}?",
                names(members),
                when.shown()
            ),
        };
        ask::confirm(answers, &question, "Aborted restart")?;
        if version.is_none() {
            let question = "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ";
            version = Some(ask::text(answers, question, "")?).filter(|version| !version.is_empty());
        }
    }
    if let Some(unreadable) = version.as_deref().filter(|version| !is_version(version)) {
        return Err(Failure::refused(format!("Invalid PostgreSQL version: {unreadable}")));
    }
    let fields = [
        ("restart_pending", args.pending.then_some(json!(true))),
        ("postgres_version", version.map(Value::String)),
        ("schedule", when.map(|when| Value::String(when.iso()))),
        ("timeout", args.timeout.clone().map(Value::String)),
    ];
    Ok(fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}

/// `15`, `15.2` or `9.6.24`.
fn is_version(text: &str) -> bool {
    let parts: Vec<&str> = text.split('.').collect();
    parts.len() <= 3 && parts.iter().all(|part| part.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::{filter, outcome, pick};
    use crate::ask::tests::Script;
    use crate::cli::{Cli, Command, RestartArgs};
    use crate::commands::names;
    use crate::invoked::Manner;
    use crate::render::tests::rich;
    use clap::Parser;
    use http::Reply;
    use serde_json::{Value, json};

    fn args(line: &str) -> RestartArgs {
        match Cli::try_parse_from(["baton", "restart"].into_iter().chain(line.split_whitespace()))
            .unwrap()
            .command
        {
            Command::Restart(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pending_and_any_narrow_the_choice() {
        let cluster = rich();
        let picked = |line| names(&pick(&cluster, &args(line), &[], Manner::Baton).unwrap());
        assert_eq!(picked(""), "pg-1, pg-2, pg-3, pg-4");
        assert_eq!(picked("--pending"), "pg-1");
        assert_eq!(picked("--any"), "pg-2");
        assert!(pick(&cluster, &args("--pending -r replica"), &[], Manner::Baton).is_err());
    }

    #[test]
    fn the_body_holds_only_what_was_asked() {
        let cluster = rich();
        let body = |line, answers: &[&'static str]| {
            let args = args(line);
            let members = pick(&cluster, &args, &[], Manner::Baton).unwrap();
            Value::Object(filter(&cluster, &args, &members, &mut Script::new(answers)).unwrap())
        };
        assert_eq!(body("--force", &[]), json!({}));
        assert_eq!(body("", &["now", "y", ""]), json!({}));
        assert_eq!(body("", &["", "y", "15.1"]), json!({"postgres_version": "15.1"}));
        assert_eq!(
            body("--force --pending --timeout 30 --scheduled 2030-01-01T00:00Z", &[]),
            json!({"restart_pending": true, "timeout": "30", "schedule": "2030-01-01T00:00:00+00:00"})
        );
        let args = args("--force --pg-version x");
        let failure = filter(&cluster, &args, &[], &mut Script::new(&[])).unwrap_err();
        assert_eq!(failure.message, "Invalid PostgreSQL version: x");
    }

    #[test]
    fn a_schedule_is_told_as_such() {
        let line = |status| outcome("pg-1", &Ok(Reply::new(status, ""))).0;
        assert_eq!(line(202), "Success: restart scheduled on member pg-1");
        assert_eq!(line(409), "Failed: another restart is already scheduled on member pg-1");
        assert_eq!(line(200), "Success: restart on member pg-1");
    }
}
