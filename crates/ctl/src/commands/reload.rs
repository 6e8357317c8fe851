//! `baton reload`: make members read their configuration files again.

use super::list::{print, show};
use super::{chosen, ended, named, names, populated};
use crate::ask::{self, Answers};
use crate::cli::ReloadArgs;
use crate::context::Context;
use crate::failure::Outcome;
use http::Reply;

/// Asks, then reloads.
pub(crate) async fn run(context: &Context, args: &ReloadArgs, answers: &mut dyn Answers) -> Outcome {
    let (scope, wanted, cluster) = named(context, &args.members).await?;
    populated(&cluster, args.role)?;
    show(&cluster);
    let members = chosen(&cluster, &wanted, args.role, context.manner)?;
    if !args.force {
        let question = format!("Are you sure you want to reload members {}?", names(&members));
        ask::confirm(answers, &question, "Aborted reload")?;
    }
    let (snapshot, _) = context.read(&scope).await?;
    let within =
        snapshot.config.as_ref().and_then(|config| config.value.get("loop_wait")?.as_u64()).unwrap_or(10);
    let mut failed = false;
    for member in members {
        let name = &member.name;
        let line = match context.rest.order(member, "/reload", None).await {
            Ok(Reply { status: 200, .. }) => format!("No changes to apply on member {name}"),
            Ok(Reply { status: 202, .. }) => {
                format!(
                    "Reload request received for member {name} and will be processed within {within} seconds"
                )
            }
            reply @ (Ok(_) | Err(_)) => {
                failed = true;
                crate::rest::told("reload for member ", name, &reply).0
            }
        };
        print(&format!("{line}\n"));
    }
    ended(context, failed)
}
