//! `baton dsn`: how to connect to a member.

use super::list::print;
use crate::cli::{DsnArgs, RoleFilter};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::view::{Cluster, Member};

/// Prints the address of the member that fits.
pub(crate) async fn run(context: &Context, args: &DsnArgs) -> Outcome {
    either(args.role, args.member.as_deref())?;
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let (_, cluster) = context.read(&scope).await?;
    let found = fitting(&cluster, args.role, args.member.as_deref());
    let member = found.first().ok_or_else(|| Failure::refused("Can not find a suitable member"))?;
    print(&format!("host={} port={}\n", member.host, member.port));
    Ok(())
}

/// A role or a member, not both.
pub(super) fn either(role: Option<RoleFilter>, member: Option<&str>) -> Outcome {
    match (role, member) {
        (Some(_), Some(_)) => Err(Failure::refused("--role and --member are mutually exclusive options")),
        (_, _) => Ok(()),
    }
}

/// The members that fit, the leader unless something else is said; only those that say where their PostgreSQL is.
pub(super) fn fitting<'a>(
    cluster: &'a Cluster,
    role: Option<RoleFilter>,
    member: Option<&str>,
) -> Vec<&'a Member> {
    let fits = |found: &&Member| match member {
        Some(name) => found.name == name,
        None => role.unwrap_or(RoleFilter::Leader).admits(found.standing),
    };
    cluster.members.iter().filter(|found| !found.host.is_empty()).filter(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::{either, fitting};
    use crate::cli::RoleFilter;
    use crate::render::tests::rich;

    #[test]
    fn the_leader_unless_something_else_is_said() {
        let cluster = rich();
        let names = |role, member| -> Vec<&str> {
            fitting(&cluster, role, member).iter().map(|member| member.name.as_str()).collect()
        };
        assert_eq!(names(None, None), ["pg-1"]);
        assert_eq!(names(Some(RoleFilter::Replica), None), ["pg-2", "pg-3", "pg-4"]);
        assert_eq!(names(None, Some("pg-3")), ["pg-3"]);
        assert!(names(Some(RoleFilter::StandbyLeader), None).is_empty());
        assert!(either(Some(RoleFilter::Any), Some("pg-1")).is_err());
    }
}
