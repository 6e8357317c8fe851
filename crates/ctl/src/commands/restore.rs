//! `baton restore`: a point in time, from pgBackRest into a new directory or in the place of the old one.
//!
//! ```text
//!   plan ─► backup into DIR.restoring ─► PostgreSQL recovers there, alone, to the target, and stops cleanly
//!        ─► in place: the old directory aside ─► DIR.restoring becomes DIR ─► etcd forgets all but the configuration
//! ```
//! Until the last two steps, which are renames, what was there is as it was. It is never deleted.

use super::agent::load;
use super::list::print;
use crate::ask::{self, Answers};
use crate::backups::Question;
use crate::cli::RestoreArgs;
use crate::context::{deadline, etcd_config};
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::restore::{Plan, Target, Wish, plan};
use etcd::{Etcd, Initialize, Keys, Snapshot};
use jiff::Timestamp;
use postgres::control::{self, ControlState};
use postgres::data_dir::{self, DataDir};
use postgres::installation::Installation;
use postgres::postmaster::{Postmaster, StartOptions, Stop, last_log_lines};
use settings::Settings;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use types::SystemId;

const STOP_WITHIN: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// Restores, after everything that can be checked was checked.
pub(crate) async fn run(args: &RestoreArgs, answers: &mut dyn Answers) -> Outcome {
    let loaded = load(Some(&args.file))
        .ok_or_else(|| Failure::new(Code::Usage, "which configuration? `baton restore FILE`"))?
        .map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
    let settings = loaded.settings;
    if rustix::process::geteuid().is_root() {
        return Err(Failure::refused(
            "PostgreSQL does not run as root: run this as the user that owns its data",
        ));
    }
    let own = &settings.postgresql.data_dir;
    let target = args.to.as_deref().unwrap_or(own);
    let snapshot = cluster(&settings, args).await?;
    let place = check(target, snapshot.as_ref(), args, &settings)?;
    let question = question(args, snapshot.as_ref())?;
    let backups = question.ask(place.system).await.map_err(Failure::refused)?;
    let scratch = beside(target, ".restoring");
    let wish = wish(args, &question)?;
    let plan = plan(&wish, &backups, &scratch).map_err(Failure::refused)?;
    print(&told(&plan, target, place.occupied));
    if args.dry_run {
        return Ok(());
    }
    if !args.force && !ask::yes(answers, "Are you sure you want to restore?")? {
        return Err(Failure::aborted());
    }
    let installation = Installation::find(settings.postgresql.bin_dir.as_deref()).await;
    let installation =
        installation.map_err(|error| Failure::new(Code::MissingBinaries, format!("failed to {error}")))?;
    fetch(&plan, &scratch).await?;
    recover(&installation, &plan, &scratch).await?;
    put_in_place(&scratch, target, place.occupied)?;
    if args.in_place { forget(&settings).await } else { Ok(()) }
}

/// What etcd remembers is about the data that were replaced: who wrote last, and where. A member that has come meanwhile keeps its keys.
async fn forget(settings: &Settings) -> Outcome {
    let etcd = Etcd::new(etcd_config(&settings.etcd), Keys::new(&settings.namespace, &settings.scope))?;
    let scope = &settings.scope;
    etcd.forget_past(deadline()).await.map_err(|error| {
        Failure::refused(format!(
            "the restored database is in its place, but failed to {error}: what etcd remembers of {scope} is about the old one. \
             Stop all agents, then `baton remove {scope}` before the agent here is started"
        ))
    })?;
    print(&format!(
        "etcd has forgotten what {scope} was, but for its configuration: start the agent of this host now, the others when it leads.\n"
    ));
    Ok(())
}

/// What etcd says of the cluster whose place is taken; a directory elsewhere is nobody's.
async fn cluster(settings: &Settings, args: &RestoreArgs) -> Result<Option<Snapshot>, Failure> {
    if args.to.is_some() && args.stanza.is_some() {
        return Ok(None);
    }
    let etcd = Etcd::new(etcd_config(&settings.etcd), Keys::new(&settings.namespace, &settings.scope))?;
    Ok(Some(etcd.snapshot(deadline()).await?))
}

/// Where it goes.
struct Place {
    /// A database is there, which is moved aside.
    occupied: bool,
    /// Whose backups are meant.
    system: Option<SystemId>,
}

/// Nothing is replaced that serves anybody, and nothing is written where something else is.
fn check(
    target: &Path,
    snapshot: Option<&Snapshot>,
    args: &RestoreArgs,
    settings: &Settings,
) -> Result<Place, Failure> {
    let scratch = beside(target, ".restoring");
    if scratch.exists() {
        return Err(Failure::refused(format!(
            "{} is there already, from a restore that was interrupted or that runs: remove it when none runs",
            scratch.display()
        )));
    }
    let found = data_dir::inspect(target).map_err(|error| Failure::refused(format!("failed to {error}")))?;
    let shown = target.display();
    let occupied = match found {
        DataDir::Missing | DataDir::Empty => false,
        DataDir::Present { .. } | DataDir::Incomplete { .. } if args.in_place => true,
        DataDir::Present { .. } | DataDir::Incomplete { .. } => {
            return Err(Failure::refused(format!(
                "{shown} holds a database: --in-place moves it aside and puts the restored one there, --to names another directory"
            )));
        }
        DataDir::Foreign { why } => {
            return Err(Failure::refused(format!("{shown} is not ours to replace: {why}")));
        }
    };
    let served = Postmaster::adopt(target).map_err(|error| Failure::refused(format!("failed to {error}")))?;
    if let Some(postmaster) = served {
        return Err(Failure::refused(format!(
            "process {} serves {shown}: stop the agents of the whole cluster first, replicas before the leader",
            postmaster.pid
        )));
    }
    if args.in_place
        && let Some(snapshot) = snapshot
    {
        if let Some(leader) = &snapshot.leader {
            return Err(Failure::refused(format!(
                "{} leads {}: while a member serves it, nothing is put in its place. Stop the agents of the whole cluster first, or restore into another directory by --to",
                leader.name, settings.scope
            )));
        }
        let running: Vec<&str> = snapshot.members.keys().map(|name| name.as_str()).collect();
        if !running.is_empty() {
            return Err(Failure::refused(format!(
                "agents of {} still run: stop those of {} first",
                settings.scope,
                running.join(", ")
            )));
        }
    }
    let system = match snapshot.and_then(|snapshot| snapshot.initialize) {
        Some(Initialize::System(id)) => Some(id),
        Some(Initialize::Bootstrapping) | None => control::read(target).ok().map(|control| control.system_id),
    };
    Ok(Place { occupied, system })
}

fn question(args: &RestoreArgs, snapshot: Option<&Snapshot>) -> Result<Question, Failure> {
    let archived = || {
        let config = &snapshot?.config.as_ref()?.value;
        Question::of(config.pointer("/postgresql/parameters/archive_command")?.as_str()?)
    };
    let found = args.stanza.as_deref().map(Question::stanza).or_else(archived);
    let mut question = found.ok_or_else(|| {
        Failure::new(
            Code::Usage,
            "which stanza of pgBackRest? The cluster's archive_command names none: give --stanza",
        )
    })?;
    if let Some(config) = &args.pgbackrest_config {
        question = question.with(format!("--config={}", config.display()));
    }
    Ok(question)
}

fn wish(args: &RestoreArgs, question: &Question) -> Result<Wish, Failure> {
    let usage = |text: String| Failure::new(Code::Usage, text);
    let target = if let Some(time) = &args.time {
        Target::Time(time.parse::<Timestamp>().map_err(|error| {
            usage(format!(
                "--time {time}: {error}; write it with its offset, such as 2026-11-27T10:00:00+01:00"
            ))
        })?)
    } else if let Some(lsn) = &args.lsn {
        Target::Lsn(lsn.parse().map_err(|error| usage(format!("--lsn: failed to {error}")))?)
    } else if let Some(xid) = args.xid {
        Target::Xid(xid)
    } else if let Some(name) = &args.name {
        Target::Name(name.clone())
    } else if args.immediate {
        Target::Immediate
    } else {
        Target::Latest
    };
    Ok(Wish {
        target,
        exclusive: args.exclusive,
        timeline: args.timeline,
        set: args.set.clone(),
        words: question.words().to_vec(),
        program: question.program.clone(),
    })
}

fn told(plan: &Plan, target: &Path, occupied: bool) -> String {
    let mut text = format!("Backup {} is restored into {}", plan.backup, target.display());
    text.push_str(if occupied { "; what is there is moved aside.\n" } else { ".\n" });
    let words: Vec<String> = plan
        .restore
        .iter()
        .map(|word| shlex::try_quote(word).map_or_else(|_| word.clone(), Into::into))
        .collect();
    text.push_str(&format!("  {}\n", words.join(" ")));
    for (name, value) in &plan.recovery {
        text.push_str(&format!("  {name} = {value}\n"));
    }
    text
}

async fn fetch(plan: &Plan, scratch: &Path) -> Outcome {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().mode(0o700).create(scratch);
    made.map_err(|error| Failure::refused(format!("failed to make {}: {error}", scratch.display())))?;
    let (program, words) = plan.restore.split_first().ok_or_else(|| Failure::refused("nothing to run"))?;
    let status = Command::new(program).args(words).stdin(Stdio::null()).status().await;
    let status = status.map_err(|error| Failure::refused(format!("failed to run {program}: {error}")))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::refused(format!(
        "pgbackrest restore failed ({status}), see above; nothing was replaced, and {} can be removed",
        scratch.display()
    )))
}

/// Lets PostgreSQL replay what the target asks for: on no address, with nothing archived until the cluster has its real settings.
async fn recover(installation: &Installation, plan: &Plan, scratch: &Path) -> Outcome {
    let failed = |what: String| {
        Failure::refused(format!(
            "{what}; nothing was replaced, and what was restored is {}",
            scratch.display()
        ))
    };
    fs::write(scratch.join("recovery.signal"), "")
        .map_err(|error| failed(format!("failed to begin the recovery: {error}")))?;
    let log_file = beside(scratch, ".log");
    // Without any address PostgreSQL does not start. Nobody else can enter this directory.
    let socket = tempfile::tempdir();
    let socket =
        socket.map_err(|error| failed(format!("failed to make a directory for a socket: {error}; let TMPDIR name one in which this user may write")))?;
    let mut args: Vec<(String, String)> = [
        ("listen_addresses", ""),
        ("unix_socket_directories", &socket.path().display().to_string()),
        ("hot_standby", "off"),
        // What is written here waits for the real command.
        ("archive_mode", "on"),
        ("archive_command", ""),
        ("logging_collector", "off"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    args.extend(plan.recovery.iter().cloned());
    let options = StartOptions { args, log_file: log_file.clone(), ..StartOptions::default() };
    let started = Postmaster::start(installation, scratch, &options).await;
    let postmaster = started.map_err(|error| failed(format!("failed to {error}")))?;
    loop {
        if !postmaster.alive() {
            let last = last_log_lines(&log_file, 12).join("\n");
            return Err(failed(format!("PostgreSQL ended before it reached the target:\n{last}\n")));
        }
        // The control file of a backup may say "in production" before anything was done.
        let done = !scratch.join("recovery.signal").exists();
        if done && control::read(scratch).is_ok_and(|control| control.state == ControlState::InProduction) {
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    postmaster.signal(Stop::Fast).map_err(|error| failed(format!("failed to {error}")))?;
    if tokio::time::timeout(STOP_WITHIN, postmaster.exited()).await.is_err() {
        return Err(failed(format!("PostgreSQL, process {}, does not end", postmaster.pid)));
    }
    let control = control::read(scratch).map_err(|error| failed(format!("failed to {error}")))?;
    if !control.state.is_clean() {
        return Err(failed("PostgreSQL did not stop cleanly after the recovery".to_owned()));
    }
    print(&format!(
        "It recovered up to {} and is on timeline {} now.\n",
        control.checkpoint, control.timeline
    ));
    // It told what it is there for; a failed one stays to be read.
    let _ = fs::remove_file(&log_file);
    Ok(())
}

fn put_in_place(scratch: &Path, target: &Path, occupied: bool) -> Outcome {
    let failed =
        |what: String| Failure::refused(format!("{what}; the restored database is {}", scratch.display()));
    if occupied {
        // A mark of unfinished work is about what was here.
        let aside = data_dir::move_aside(target, "before_restore");
        let aside = aside.map_err(|error| failed(format!("failed to {error}")))?;
        data_dir::clear_mark(target).map_err(|error| failed(format!("failed to {error}")))?;
        print(&format!("What was there is kept as {}.\n", aside.display()));
    } else if target.exists() {
        fs::remove_dir(target)
            .map_err(|error| failed(format!("failed to replace the empty {}: {error}", target.display())))?;
    }
    fs::rename(scratch, target)
        .map_err(|error| failed(format!("failed to rename it to {}: {error}", target.display())))?;
    print(&format!("The restored database is {}.\n", target.display()));
    Ok(())
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
