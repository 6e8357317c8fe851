//! One file per command. Each takes its arguments, reads what it needs, asks, acts, and says how it went.

pub(crate) mod agent;
pub(crate) mod check;
mod daemon;
pub(crate) mod demo;
pub(crate) mod edit_config;
pub(crate) mod etcd;
pub(crate) mod failover;
pub(crate) mod generate_config;
pub(crate) mod history;
pub(crate) mod list;
pub(crate) mod pause;
pub(crate) mod reinit;
pub(crate) mod reload;
pub(crate) mod restart;
pub(crate) mod router;
pub(crate) mod show_config;
pub(crate) mod switchover;
pub(crate) mod topology;
pub(crate) mod version;
pub(crate) mod why;

use crate::ask::Terminal;
use crate::cli::{Cli, Command, MembersArg, RoleFilter};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::view::{Cluster, Member, Standing};
use jiff::Timestamp;

/// Runs the command.
pub(crate) fn run(cli: &Cli) -> Outcome {
    let context = || Context::new(&cli.reach);
    let ask = &mut Terminal;
    match &cli.command {
        Command::Agent(args) => agent::run(args),
        Command::Router(args) => router::run(args),
        Command::Check(args) => check::run(args),
        Command::GenerateConfig(args) => generate_config::run(args),
        Command::Demo(args) => wait(demo::run(args)),
        Command::List(args) => wait(list::run(&context()?, args)),
        Command::Topology(args) => wait(topology::run(&context()?, args)),
        Command::Switchover(args) => wait(switchover::run(&context()?, args, ask)),
        Command::Failover(args) => wait(failover::run(&context()?, args, ask)),
        Command::Pause(args) => wait(pause::run(&context()?, args, true)),
        Command::Resume(args) => wait(pause::run(&context()?, args, false)),
        Command::Restart(args) => wait(restart::run(&context()?, args, ask)),
        Command::Reload(args) => wait(reload::run(&context()?, args, ask)),
        Command::Reinit(args) => wait(reinit::run(&context()?, args, ask)),
        Command::History(args) => wait(history::run(&context()?, args)),
        Command::Etcd(args) => wait(etcd::run(&context()?, args)),
        Command::ShowConfig(args) => wait(show_config::run(&context()?, args)),
        Command::EditConfig(args) => wait(edit_config::run(&context()?, args, ask)),
        Command::Why(args) => wait(why::run(&context()?, args)),
        Command::Version(args) => wait(version::run(context, args)),
        Command::Guard(_) => Err(Failure::refused("the guard must start before everything else")),
    }
}

/// Runs what waits for others. One thread would do for most; the demo wants one beside its screen.
fn wait(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|error| Failure::refused(format!("failed to start: {error}")))?.block_on(work)
}

/// The wall clock as patronictl writes it before an outcome.
fn timestamp() -> String {
    wall().strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn wall() -> jiff::Zoned {
    let now = Timestamp::try_from(clock::wall()).unwrap_or(Timestamp::UNIX_EPOCH);
    now.to_zoned(jiff::tz::TimeZone::system())
}

/// Reads a time that a person wrote; `now` and nothing are none. One without an offset is local time.
fn schedule(text: &str) -> Result<Option<String>, Failure> {
    if text.is_empty() || text == "now" {
        return Ok(None);
    }
    let fail = || {
        Failure::refused(format!(
            "unable to read the time {text:?}: it should be unambiguous, such as 2030-01-01T10:00+00:00"
        ))
    };
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Ok(Some(instant.display_with_offset(jiff::tz::Offset::UTC).to_string()));
    }
    let local: jiff::civil::DateTime = text.parse().map_err(|_| fail())?;
    let zoned = local.to_zoned(jiff::tz::TimeZone::system()).map_err(|_| fail())?;
    Ok(Some(zoned.timestamp().display_with_offset(zoned.offset()).to_string()))
}

/// The time an hour from now, as an example of how to write one.
fn example_time() -> String {
    let soon = wall().checked_add(jiff::Span::new().hours(1)).unwrap_or_else(|_| wall());
    soon.strftime("%Y-%m-%dT%H:%M").to_string()
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

/// The members that were named, else all, as far as their role is admitted.
fn chosen<'a>(cluster: &'a Cluster, named: &[String], role: RoleFilter) -> Result<Vec<&'a Member>, Failure> {
    if cluster.members.is_empty() {
        return Err(Failure::refused(format!("cluster {} has no members", cluster.name)));
    }
    if let Some(unknown) = named.iter().find(|name| cluster.member(name).is_none()) {
        return Err(Failure::refused(format!("{unknown} is not a member of cluster {}", cluster.name)));
    }
    let members: Vec<&Member> = cluster
        .members
        .iter()
        .filter(|member| named.is_empty() || named.contains(&member.name))
        .filter(|member| role.admits(member.standing))
        .collect();
    if members.is_empty() {
        return Err(Failure::refused(format!("No {} among provided members", role.word())));
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
    use super::{chosen, names, schedule};
    use crate::cli::RoleFilter;
    use crate::render::tests::rich;

    #[test]
    fn members_are_chosen_by_name_and_role() {
        let cluster = rich();
        let pick = |named: &[&str], role| {
            let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
            chosen(&cluster, &named, role).map(|members| names(&members)).map_err(|failure| failure.message)
        };
        assert_eq!(pick(&[], RoleFilter::Any).unwrap(), "pg-1, pg-2, pg-3, pg-4");
        assert_eq!(pick(&[], RoleFilter::Replica).unwrap(), "pg-2, pg-3, pg-4");
        assert_eq!(pick(&["pg-3", "pg-1"], RoleFilter::Any).unwrap(), "pg-1, pg-3");
        assert_eq!(pick(&["pg-1"], RoleFilter::Replica).unwrap_err(), "No replica among provided members");
        assert_eq!(pick(&["pg-9"], RoleFilter::Any).unwrap_err(), "pg-9 is not a member of cluster demo");
    }

    #[test]
    fn times_are_read() {
        assert_eq!(schedule("now").unwrap(), None);
        assert_eq!(schedule("").unwrap(), None);
        assert_eq!(schedule("2030-01-01T10:00:00Z").unwrap().unwrap(), "2030-01-01T10:00:00+00:00");
        assert_eq!(schedule("2030-01-01T10:00+02:00").unwrap().unwrap(), "2030-01-01T08:00:00+00:00");
        assert!(schedule("2030-01-01T10:00").unwrap().is_some());
        assert!(schedule("tomorrow").is_err());
    }
}
