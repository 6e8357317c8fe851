//! `baton what-if`: what would happen if. Every member is asked what it would do, by its own decisions; nothing is changed.

use super::list::print;
use crate::cli::{EventArg, WhatIfArgs};
use crate::context::{Context, deadline};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::forecast::{Answers, Forecast, Said, Scenario, World, forecast};
use crate::render::Format;
use crate::render::what_if::{at_length, document, in_lines};
use crate::view::{Cluster, Member};
use etcd::{Health, Snapshot};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::collections::BTreeSet;

/// Asks, and prints what it comes to. Ends as the worst of the forecasts asks for.
pub(crate) async fn run(context: &Context, args: &WhatIfArgs) -> Outcome {
    let scope = context.scope(args.cluster.as_deref())?;
    let (snapshot, cluster) = context.read(&scope).await?;
    if cluster.members.is_empty() {
        return Err(Failure::refused(format!("cluster {scope} has no members to ask")));
    }
    if let Some(named) = args.member.as_ref().filter(|named| cluster.member(named).is_none()) {
        let known: Vec<&str> = cluster.members.iter().map(|member| member.name.as_str()).collect();
        let known = known.join(", ");
        return Err(Failure::refused(format!(
            "{named} is not a member of cluster {scope}; its members are {known}"
        )));
    }
    let health = context.etcd(&scope)?.health(deadline()).await;
    let world = world(&snapshot, &cluster, &health);
    let mut forecasts: Vec<Forecast> = Vec::new();
    for scenario in scenarios(args, &cluster)? {
        let answers = ask(context, &cluster, &scenario).await;
        forecasts.push(forecast(&scenario, &world, &answers));
    }
    print(&match (args.format, forecasts.as_slice()) {
        (Format::Json | Format::Yaml, all) => document(all, args.format),
        (Format::Pretty | Format::Tsv, [one]) if !args.all => at_length(one),
        (Format::Pretty | Format::Tsv, all) => in_lines(all),
    });
    let worst = forecasts.iter().map(Forecast::code).max_by_key(|code| match code {
        Code::NobodyWouldLead => 3,
        Code::WouldLose => 2,
        Code::Failed => 1,
        _ => 0,
    });
    match worst {
        None | Some(Code::Ok) => Ok(()),
        // In a list of everything a switchover to a member that may not lead is no failure.
        Some(Code::Failed) if args.all => Ok(()),
        Some(code) => Err(Failure::said(code)),
    }
}

fn scenarios(args: &WhatIfArgs, cluster: &Cluster) -> Result<Vec<Scenario>, Failure> {
    let leader = cluster.lead.as_ref().map(|lead| lead.name.clone());
    if !args.all {
        let wanted = match (args.event, &args.member) {
            (EventArg::Switchover | EventArg::EtcdAway, member) => member.clone(),
            (EventArg::Dies | EventArg::Unplugged | EventArg::PostgresCrashes, None) => {
                let none = || Failure::refused("nobody leads at the moment: name the member that it befalls");
                Some(leader.ok_or_else(none)?)
            }
            (EventArg::Dies | EventArg::Unplugged | EventArg::PostgresCrashes, member) => member.clone(),
        };
        return Ok(vec![Scenario { event: args.event, member: wanted }]);
    }
    let mut all = Vec::new();
    for member in &cluster.members {
        for event in [EventArg::Dies, EventArg::Unplugged, EventArg::PostgresCrashes] {
            all.push(Scenario { event, member: Some(member.name.clone()) });
        }
    }
    for member in cluster.members.iter().filter(|member| Some(&member.name) != leader.as_ref()) {
        all.push(Scenario { event: EventArg::Switchover, member: Some(member.name.clone()) });
    }
    all.push(Scenario { event: EventArg::EtcdAway, member: None });
    Ok(all)
}

/// Asks all members, the leader last: what it has then and a standby had before is what would be lost at most.
async fn ask(context: &Context, cluster: &Cluster, scenario: &Scenario) -> Answers {
    let (leaders, others): (Vec<&Member>, Vec<&Member>) =
        cluster.members.iter().partition(|member| member.standing.leads());
    let mut answers = Answers::new();
    for group in [others, leaders] {
        let questions = group
            .into_iter()
            .map(|member| async move { (member.name.clone(), ask_one(context, member, scenario).await) });
        answers.extend(futures_util::future::join_all(questions).await);
    }
    answers
}

async fn ask_one(context: &Context, member: &Member, scenario: &Scenario) -> Result<Said, String> {
    if member.api_url.is_empty() {
        return Err("it is not there".to_owned());
    }
    let named = scenario.member.as_deref().unwrap_or_default();
    let named = utf8_percent_encode(named, NON_ALPHANUMERIC);
    let path = format!("/baton/what-if?event={}&member={named}", scenario.event.word());
    match context.rest.get(member, &path).await {
        Ok(reply) if reply.ok() => {
            let body = reply.json().ok_or_else(|| "its answer is no JSON".to_owned())?;
            serde_json::from_value(body).map_err(|error| format!("its answer is not understood: {error}"))
        }
        Ok(reply) if reply.status == 503 && reply.body.contains("not decided") => Err(reply.body),
        // Patroni answers unknown paths with its status and 503.
        Ok(reply) => Err(format!(
            "it answers {}, so it cannot tell: is it a Patroni, or an older agent?",
            reply.status
        )),
        Err(trouble) => Err(format!("it does not answer at {}: {trouble}", member.api_url)),
    }
}

fn world(snapshot: &Snapshot, cluster: &Cluster, health: &Health) -> World {
    let config = snapshot.config.as_ref().map(|config| settings::dynamic(&config.value, false).0);
    let slots = config.map(|config| config.slots).unwrap_or_default();
    let status = snapshot.status.clone().unwrap_or_default();
    World {
        leader: cluster.lead.as_ref().map(|lead| lead.name.clone()),
        optime: snapshot.optime().map(|lsn| lsn.0),
        status_slots: status.slots.into_iter().map(|(name, lsn)| (name, lsn.0)).collect(),
        permanent: slots.into_iter().map(|(name, slot)| (name, slot.wish.is_failover())).collect(),
        routers: snapshot.routers.keys().cloned().collect(),
        hosts: cluster.members.iter().map(|member| (member.name.clone(), member.host.clone())).collect(),
        etcd: members_of_etcd(health),
    }
}

/// Name, hosts, and whether it answers, of each member that counts for the majority.
fn members_of_etcd(health: &Health) -> Vec<(String, BTreeSet<String>, bool)> {
    let Ok(whole) = &health.cluster else { return Vec::new() };
    let answers = |id: u64| {
        health
            .endpoints
            .iter()
            .any(|endpoint| endpoint.status.as_ref().is_ok_and(|status| status.member == id))
    };
    let host = |url: &String| {
        let place = url.split_once("://").map_or(url.as_str(), |(_, place)| place);
        let place = place.trim_end_matches('/');
        place.rsplit_once(':').map_or(place, |(host, _)| host).trim_matches(['[', ']']).to_owned()
    };
    let counted = whole.members.iter().filter(|member| !member.learner);
    counted
        .map(|member| {
            (member.name.clone(), member.client_urls.iter().map(host).collect(), answers(member.id))
        })
        .collect()
}
