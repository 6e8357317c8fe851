//! `baton why`: what the members decided lately, and why, for somebody who was woken by it.

use super::list::print;
use crate::cli::WhyArgs;
use crate::context::Context;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::render::decisions::{Diary, decisions};
use crate::view::Member;
use serde_json::{Value, json};

/// Asks the members and prints their answers.
pub(crate) async fn run(context: &Context, args: &WhyArgs) -> Outcome {
    let scope = context.scope(args.cluster.as_deref())?;
    let (_, cluster) = context.read(&scope).await?;
    let members: Vec<&Member> = match &args.member {
        None => cluster.members.iter().collect(),
        Some(name) => vec![cluster.member(name).ok_or_else(|| {
            let known: Vec<&str> = cluster.members.iter().map(|member| member.name.as_str()).collect();
            Failure::refused(format!(
                "{name} is not a member of cluster {scope}; its members are {}",
                known.join(", ")
            ))
        })?],
    };
    if members.is_empty() {
        return Err(Failure::refused(format!("cluster {scope} has no members to ask")));
    }
    let mut diaries = Vec::new();
    for member in members {
        diaries.push((member.name.clone(), diary(context, member).await));
    }
    let silent = diaries.iter().all(|(_, diary)| diary.is_err());
    if args.json {
        let all: Vec<Value> = diaries
            .into_iter()
            .map(|(name, diary)| diary.unwrap_or_else(|why| json!({"member": name, "error": why})))
            .collect();
        print(&format!("{}\n", Value::Array(all)));
    } else {
        for (name, diary) in &diaries {
            let read = diary.as_ref().map_err(String::clone).and_then(Diary::read);
            print(&decisions(name, &read, args.count));
        }
    }
    if silent { Err(Failure::said(Code::Failed)) } else { Ok(()) }
}

async fn diary(context: &Context, member: &Member) -> Result<Value, String> {
    match context.rest.get(member, "/baton/why").await {
        Ok(reply) if reply.ok() => reply.json().ok_or_else(|| "its answer is no JSON".to_owned()),
        // Patroni answers unknown paths with its status and 503.
        Ok(reply) => Err(format!("it answers {}, so it keeps no diary: is it a Patroni?", reply.status)),
        Err(trouble) => Err(format!("it does not answer at {}: {trouble}", member.api_url)),
    }
}
