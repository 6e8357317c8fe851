//! One file per command. Each takes its arguments, reads what it needs, asks, acts, and says how it went.

pub(crate) mod agent;
pub(crate) mod bgp_config;
pub(crate) mod check;
mod daemon;
pub(crate) mod demo;
pub(crate) mod dns;
pub(crate) mod dsn;
pub(crate) mod edit_config;
pub(crate) mod etcd;
pub(crate) mod failover;
pub(crate) mod flush;
pub(crate) mod generate_config;
pub(crate) mod haproxy_config;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod manual;
pub(crate) mod pause;
pub(crate) mod query;
pub(crate) mod reinit;
pub(crate) mod reload;
pub(crate) mod remove;
pub(crate) mod restart;
pub(crate) mod restore;
pub(crate) mod route;
pub(crate) mod router;
mod schedule;
mod service_manager;
pub(crate) mod show_config;
mod side_api;
pub(crate) mod standby_cluster;
pub(crate) mod switchover;
pub(crate) mod timelines;
pub(crate) mod topology;
pub(crate) mod version;
pub(crate) mod vip;
pub(crate) mod what_if;
pub(crate) mod why;

use crate::ask::{self, Terminal};
use crate::cli::{Cli, Command, MembersArg, RoleFilter};
use crate::context::Context;
use crate::exit_codes::Code;
use crate::failure::{ABORTED, Failure, Outcome};
use crate::invoked::Manner;
use crate::view::{Cluster, Member, Standing};
use jiff::Timestamp;

/// Runs the command.
pub(crate) fn run(cli: &Cli, manner: Manner) -> Outcome {
    let context = || Context::new(&cli.reach, manner);
    let ask = &mut Terminal;
    match &cli.command {
        Command::Agent(args) => agent::run(args),
        Command::Router(args) => router::run(args),
        Command::Route(args) => attended(route::run(args)),
        Command::HaproxyConfig(args) => attended(haproxy_config::run(args)),
        Command::Vip(args) => vip::run(args),
        Command::Dns(args) => dns::run(args),
        Command::BirdConfig(args) => attended(bgp_config::run(args, bgp_config::Dialect::Bird)),
        Command::FrrConfig(args) => attended(bgp_config::run(args, bgp_config::Dialect::Frr)),
        Command::Check(args) => check::run(args),
        Command::GenerateConfig(args) => attended(generate_config::run(args)),
        Command::Demo(args) => wait(demo::run(args)),
        Command::List(args) => attended(list::run(&context()?, args)),
        Command::Topology(args) => attended(topology::run(&context()?, args)),
        Command::Switchover(args) => attended(switchover::run(&context()?, args, ask)),
        Command::Failover(args) => attended(failover::run(&context()?, args, ask)),
        Command::Pause(args) => attended(pause::run(&context()?, args, true)),
        Command::Resume(args) => attended(pause::run(&context()?, args, false)),
        Command::Restart(args) => attended(restart::run(&context()?, args, ask)),
        Command::Reload(args) => attended(reload::run(&context()?, args, ask)),
        Command::Reinit(args) => attended(reinit::run(&context()?, args, ask)),
        Command::Flush(args) => attended(flush::run(&context()?, args, ask)),
        Command::Remove(args) => attended(remove::run(&context()?, args, ask)),
        Command::Dsn(args) => attended(dsn::run(&context()?, args)),
        Command::Query(args) => attended(query::run(&context()?, args)),
        Command::DemoteCluster(args) => attended(standby_cluster::demote(&context()?, args, ask)),
        Command::PromoteCluster(args) => attended(standby_cluster::promote(&context()?, args, ask)),
        Command::History(args) => attended(history::run(&context()?, args)),
        Command::Restore(args) => attended(restore::run(args, ask)),
        Command::Timelines(args) => attended(timelines::run(&context()?, args)),
        Command::Etcd(args) => attended(etcd::run(&context()?, args)),
        Command::ShowConfig(args) => attended(show_config::run(&context()?, args)),
        Command::EditConfig(args) => attended(edit_config::run(&context()?, args, ask)),
        Command::Why(args) => attended(why::run(&context()?, args)),
        Command::Completions(args) => manual::completions(args),
        Command::Manual(args) => manual::pages(args),
        Command::WhatIf(args) => attended(what_if::run(&context()?, args)),
        Command::Version(args) => attended(version::run(context, args, manner)),
        Command::Guard(_) => Err(Failure::refused("the guard must start before everything else")),
    }
}

/// Runs what waits for others. One thread would do for most; the demo wants one beside its screen.
fn wait(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::refused(format!("failed to start: {error}")))?.block_on(work)
}

/// Runs a command for somebody who may end it by Ctrl-C at any moment, also in the middle of a question.
fn attended(work: impl Future<Output = Outcome>) -> Outcome {
    wait(async {
        let watch = tokio::spawn(async {
            if tokio::signal::ctrl_c().await.is_ok() {
                left();
            }
        });
        let outcome = work.await;
        watch.abort();
        outcome
    })
}

/// Ends the process at once: the thread that waits for an answer cannot be told.
#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn left() {
    ask::show_typing();
    eprintln!("\n{ABORTED}");
    std::process::exit(1);
}

/// The wall clock as patronictl writes it.
fn timestamp() -> String {
    wall().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The same with a fraction, as it stands before the outcome of a switchover.
fn fine_timestamp() -> String {
    let mut text = wall().strftime("%Y-%m-%d %H:%M:%S%.6f").to_string();
    text.truncate("2026-01-01 00:00:00.00000".len());
    text
}

fn wall() -> jiff::Zoned {
    let now = Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(jiff::tz::TimeZone::system())
}

/// Tells something beside the output, in the form of a line of a log.
#[expect(clippy::print_stderr, reason = "told beside the output")]
fn warn(text: &str) {
    eprintln!("{} - WARNING - {text}", wall().strftime("%Y-%m-%d %H:%M:%S,%3f"));
}

/// How a command ends of which a part failed, which was said already: patronictl does not count that.
fn ended(context: &Context, failed: bool) -> Outcome {
    if failed && context.manner == Manner::Baton { Err(Failure::said(Code::Failed)) } else { Ok(()) }
}

impl RoleFilter {
    /// Whether a member of this standing is meant.
    fn admits(self, standing: Standing) -> bool {
        match self {
            RoleFilter::Any => true,
            RoleFilter::Leader => standing.leads(),
            RoleFilter::Primary => standing == Standing::Leader,
            RoleFilter::StandbyLeader => standing == Standing::StandbyLeader,
            RoleFilter::Replica | RoleFilter::Standby => !standing.leads(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            RoleFilter::Any => "any",
            RoleFilter::Leader => "leader",
            RoleFilter::Primary => "primary",
            RoleFilter::StandbyLeader => "standby-leader",
            RoleFilter::Replica => "replica",
            RoleFilter::Standby => "standby",
        }
    }
}

/// Whether anybody has this role at all: said before the table is shown.
fn populated(cluster: &Cluster, role: Option<RoleFilter>) -> Outcome {
    if cluster.members.iter().any(|member| role.unwrap_or_default().admits(member.standing)) {
        return Ok(());
    }
    Err(Failure::refused(format!("{} cluster doesn't have any members", cluster.name)))
}

/// The members that were named, else all, as far as their role is admitted. A name that nobody has is refused; patronictl
/// passes over it when another is known.
fn chosen<'a>(
    cluster: &'a Cluster,
    named: &[String],
    role: Option<RoleFilter>,
    manner: Manner,
) -> Result<Vec<&'a Member>, Failure> {
    let role = role.unwrap_or_default();
    let unknown = named.iter().find(|name| cluster.member(name).is_none());
    if let (Some(unknown), Manner::Baton) = (unknown, manner) {
        return Err(Failure::refused(format!("{unknown} is not a member of cluster {}", cluster.name)));
    }
    let members: Vec<&Member> = cluster
        .members
        .iter()
        .filter(|member| role.admits(member.standing))
        .filter(|member| named.is_empty() || named.contains(&member.name))
        .collect();
    if members.is_empty() {
        return Err(Failure::refused(format!("No '{}' among provided members", role.word())));
    }
    Ok(members)
}

/// Which cluster and which of its members: a first word that is the configured cluster's member, and a cluster of its
/// own nowhere, is taken for that member, so that `baton restart pg-1` does what it says.
async fn named(context: &Context, words: &MembersArg) -> Result<(String, Vec<String>, Cluster), Failure> {
    let scope = context.scope(words.cluster.as_deref())?;
    let (_, cluster) = context.look(&scope).await?;
    if !cluster.members.is_empty() || words.cluster.is_none() {
        return Ok((scope, words.members.clone(), cluster));
    }
    if let Ok(configured) = context.scope(None) {
        let (_, own) = context.look(&configured).await?;
        let members: Vec<String> = words.cluster.iter().chain(&words.members).cloned().collect();
        if members.iter().all(|name| own.member(name).is_some()) {
            return Ok((configured, members, own));
        }
    }
    Ok((scope, words.members.clone(), cluster))
}

fn names(members: &[&Member]) -> String {
    members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{chosen, names, populated};
    use crate::cli::RoleFilter;
    use crate::invoked::Manner;
    use crate::render::tests::rich;

    #[test]
    fn members_are_chosen_by_name_and_role() {
        let cluster = rich();
        let pick = |named: &[&str], role| {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            chosen(&cluster, &named, Some(role), Manner::Baton)
                .map(|members| names(&members))
                .map_err(|failure| failure.message)
        };
        assert_eq!(pick(&[], RoleFilter::Any).unwrap(), "pg-1, pg-2, pg-3, pg-4");
        assert_eq!(pick(&[], RoleFilter::Replica).unwrap(), "pg-2, pg-3, pg-4");
        assert_eq!(pick(&["pg-3", "pg-1"], RoleFilter::Any).unwrap(), "pg-1, pg-3");
        assert_eq!(pick(&["pg-1"], RoleFilter::Replica).unwrap_err(), "No 'replica' among provided members");
        assert_eq!(pick(&["pg-9"], RoleFilter::Any).unwrap_err(), "pg-9 is not a member of cluster demo");
        let none = populated(&cluster, Some(RoleFilter::StandbyLeader)).unwrap_err();
        assert_eq!(none.message, "demo cluster doesn't have any members");
        let words = ["pg-9".to_owned(), "pg-2".to_owned()];
        let lenient = chosen(&cluster, &words, None, Manner::Patronictl).unwrap();
        assert_eq!(names(&lenient), "pg-2");
    }
}
