//! `baton agent --generate-config`, `--generate-sample-config`, and `baton generate-config`: a configuration to begin
//! with, as an example or from a PostgreSQL that runs on this host.
//!
//!     connection string, PG… variables ─▶ running (what PostgreSQL says) ─┐
//!     PATRONI_… variables ────────────────────────────────────────────────┴▶ layout ─▶ FILE (mode 0600) or standard output

mod layout;
mod running;

use super::list::print;
use crate::ask;
use crate::cli::GenerateConfigArgs;
use crate::exit_codes::Code;
use crate::failure::{Failure, Outcome};
use crate::libpq::Words;
use postgres::connection::{ConnectTo, Connection, Mode, SqlError};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::Duration;

/// The example of this repository; its tests read it as an agent would.
const SAMPLE: &str = include_str!("../../../../examples/baton.yml");

/// How long PostgreSQL may take for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints or writes it.
pub(crate) async fn run(args: &GenerateConfigArgs) -> Outcome {
    let text = if args.sample { SAMPLE.to_owned() } else { of_running(args.dsn.as_deref()).await? };
    match &args.file {
        None => {
            print(&text);
            Ok(())
        }
        Some(file) => write(file, &text)
            .map_err(|error| Failure::refused(format!("failed to write {}: {error}", file.display()))),
    }
}

async fn of_running(dsn: Option<&str>) -> Result<String, Failure> {
    let usage =
        |why: String| Failure::new(Code::Usage, format!("failed to read the connection string: {why}"));
    let words = dsn.map(Words::of_dsn).transpose().map_err(usage)?.unwrap_or_default();
    let words = words.or_environment(|name| std::env::var(name).ok());
    let (session, to) = connect(&words).await?;
    let found = running::read(session, to.password.as_ref()).await?;
    let own = settings::environment(&settings::ProcessEnv).map_err(|problems| {
        Failure::new(Code::Configuration, format!("failed to read the environment\n{problems}"))
    })?;
    Ok(layout::text(found, &words, own, &layout::Host::this()))
}

/// A session of the superuser. A password is asked for where PostgreSQL wants one that nobody gave.
async fn connect(words: &Words) -> Result<(Connection, ConnectTo), Failure> {
    let words = if words.get("dbname").is_some() {
        words.clone()
    } else {
        words.clone().with("dbname", Some("postgres"))
    };
    let mut to = words.connect_to("Patroni generate-config").map_err(Failure::refused)?;
    let mut opened = Connection::open(&to, Mode::Sql, &[], PATIENCE).await;
    if matches!(opened, Err(SqlError::Login { .. }))
        && to.password.is_none()
        && std::io::stdin().is_terminal()
    {
        to.password = Some(ask::secret("Please enter the user password:")?.into());
        opened = Connection::open(&to, Mode::Sql, &[], PATIENCE).await;
    }
    match opened {
        Ok(session) => Ok((session, to)),
        Err(error) => Err(Failure::refused(format!("failed to {error}"))),
    }
}

/// Writes the file for its owner alone: it holds passwords.
fn write(file: &Path, text: &str) -> std::io::Result<()> {
    let directory = file.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory {
        std::fs::create_dir_all(directory)?;
    }
    // A new file in the place of the old one, which others may have been allowed to read.
    let mut fresh = tempfile::NamedTempFile::new_in(directory.unwrap_or(Path::new(".")))?;
    fresh.write_all(text.as_bytes())?;
    fresh.as_file().sync_all()?;
    fresh.persist(file).map_err(|error| error.error)?;
    Ok(())
}
