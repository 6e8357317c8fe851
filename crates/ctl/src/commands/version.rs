//! `baton version`: of this program and, when a cluster is named, of its members and their PostgreSQL.

use super::list::print;
use crate::cli::VersionArgs;
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use serde_json::Value;

/// Prints the versions.
pub(crate) async fn run(
    context: impl FnOnce() -> Result<Context, Failure>,
    args: &VersionArgs,
    manner: Manner,
) -> Outcome {
    print(&match manner {
        Manner::Baton => concat!("baton version ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
        // Scripts take the second word here, the third below, for the version of the contract.
        Manner::Patroni => {
            format!("patroni {} (baton {})\n", agent::CONTRACT_VERSION, env!("CARGO_PKG_VERSION"))
        }
        Manner::Patronictl => {
            format!("patronictl version {} (baton {})\n", agent::CONTRACT_VERSION, env!("CARGO_PKG_VERSION"))
        }
    });
    if args.members.cluster.is_none() {
        return Ok(());
    }
    let context = context()?;
    let (_, members, cluster) = super::named(&context, &args.members).await?;
    print("\n");
    let mut missing = false;
    for member in super::chosen(&cluster, &members, None, manner)? {
        let line = match context.rest.get(member, "/patroni").await {
            Ok(reply) => {
                reply.json().map_or_else(|| "failed to read the answer".to_owned(), |body| versions(&body))
            }
            Err(trouble) => {
                missing = true;
                format!("failed to get version: {trouble}")
            }
        };
        print(&format!("{}: {line}\n", member.name));
    }
    super::ended(&context, missing)
}

fn versions(body: &Value) -> String {
    let own = |key: &str| body.pointer(key).and_then(Value::as_str);
    let program = match (own("/baton/version"), own("/patroni/version")) {
        (Some(version), _) => format!("Baton {version}"),
        (None, Some(version)) => format!("Patroni {version}"),
        (None, None) => "unknown version".to_owned(),
    };
    let number = body.get("server_version").and_then(Value::as_u64);
    number.map_or(program.clone(), |number| format!("{program} PostgreSQL {}", server_version(number)))
}

/// 150018 is 15.18.
fn server_version(number: u64) -> String {
    format!("{}.{}", number / 10_000, number % 10_000)
}

#[cfg(test)]
mod tests {
    use super::versions;
    use serde_json::json;

    #[test]
    fn versions_are_read_from_the_status() {
        assert_eq!(
            versions(&json!({"server_version": 150_018, "patroni": {"version": "4.1.5"}})),
            "Patroni 4.1.5 PostgreSQL 15.18"
        );
        assert_eq!(
            versions(&json!({"patroni": {"version": "4.1.5"}, "baton": {"version": "0.1.0"}})),
            "Baton 0.1.0"
        );
        assert_eq!(versions(&json!({})), "unknown version");
    }
}
