//! `baton query`: run SQL on a member and print its rows.
//!
//!     which member? ─▶ connect ─▶ is it what the role asks for? ─▶ run ─▶ rows, or one line with the SQLSTATE

use super::dsn::{either, fitting};
use super::list::repeat;
use super::timestamp;
use crate::ask;
use crate::cli::{QueryArgs, RoleFilter};
use crate::context::Context;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::invoked::Manner;
use crate::render::rows::rows;
use crate::sql::{Login, Rows, Session, Trouble};
use crate::view::Member;
use std::cell::Cell;
use std::io::Read;

/// The longest SQL that is read from a file.
const MAX_INPUT: u64 = 1 << 20;

/// Runs the SQL, again and again if asked.
pub(crate) async fn run(context: &Context, args: &QueryArgs) -> Outcome {
    either(args.role, args.member.as_deref())?;
    let sql = sql(args)?;
    let scope = context.scope(args.cluster.cluster.as_deref())?;
    let password = if args.password { Some(ask::secret("Password: ")?) } else { None };
    let login = Login::new(args.username.as_deref(), args.dbname.as_deref(), password)?;
    let failed = Cell::new(false);
    repeat(args.repeat, async || {
        let answer = answer(context, args, &scope, &login, &sql).await?;
        failed.set(answer.is_err());
        Ok(match answer {
            Ok(found) => rows(&found, args.format, &args.delimiter),
            Err(why) => format!("{}{}{why}\n", timestamp(), args.delimiter),
        })
    })
    .await?;
    super::ended(context, failed.get())
}

fn sql(args: &QueryArgs) -> Result<String, Failure> {
    let file = match (&args.command, &args.file) {
        (Some(_), Some(_)) => {
            return Err(Failure::refused("--file and --command are mutually exclusive options"));
        }
        (None, None) => {
            return Err(Failure::refused("You need to specify either --command or --file"));
        }
        (Some(sql), None) => return Ok(sql.clone()),
        (None, Some(file)) => file,
    };
    let mut text = String::new();
    let read = if file == "-" {
        std::io::stdin().lock().take(MAX_INPUT).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|opened| opened.take(MAX_INPUT).read_to_string(&mut text))
    };
    read.map_err(|error| Failure::new(Code::Usage, format!("failed to read {file}: {error}")))?;
    Ok(text)
}

/// The rows, or the line that tells why there are none.
async fn answer(
    context: &Context,
    args: &QueryArgs,
    scope: &str,
    login: &Login,
    sql: &str,
) -> Result<Result<Rows, String>, Failure> {
    let (_, cluster) = context.read(scope).await?;
    let members = fitting(&cluster, args.role, args.member.as_deref());
    let mut trouble = None;
    for member in members {
        match attempt(member, args, login, sql).await {
            Ok(Some(found)) if found.columns.is_empty() && context.manner == Manner::Patronictl => {
                return Ok(Err("ERROR, SQLSTATE: no results to fetch".to_owned()));
            }
            Ok(Some(found)) => return Ok(Ok(found)),
            Ok(None) => continue,
            Err(Trouble::Sql { sqlstate, message }) => {
                super::warn(&format!("{}: {message}", member.name));
                return Ok(Err(format!("ERROR, SQLSTATE: {sqlstate}")));
            }
            Err(Trouble::Connection(why)) => trouble = Some(why),
        }
    }
    Ok(Err(match (trouble, &args.member, args.role) {
        (Some(why), _, _) => format!("ERROR, SQLSTATE: {why}"),
        (None, Some(name), _) => format!("No connection to member {name} is available"),
        (None, None, Some(role)) => format!("No connection to role '{}' is available", role.word()),
        (None, None, None) => "No connection is available".to_owned(),
    }))
}

/// The rows; none when the member is not what its role says.
async fn attempt(
    member: &Member,
    args: &QueryArgs,
    login: &Login,
    sql: &str,
) -> Result<Option<Rows>, Trouble> {
    let mut session = Session::connect(&member.host, member.port, login).await?;
    let role = match (args.role, &args.member) {
        (Some(role), _) => role,
        (None, Some(_)) => RoleFilter::Any,
        (None, None) => RoleFilter::Leader,
    };
    let fits = match role {
        RoleFilter::Any | RoleFilter::Leader => true,
        RoleFilter::Primary => !session.in_recovery().await?,
        RoleFilter::Replica | RoleFilter::Standby | RoleFilter::StandbyLeader => {
            session.in_recovery().await?
        }
    };
    if fits { session.run(sql).await.map(Some) } else { Ok(None) }
}
