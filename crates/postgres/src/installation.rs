//! PostgreSQL's programs on this host, and the environment they run in.
//!
//! `find`: the configured directory, else the first directory of PATH with a `postgres`, else the newest version in
//! the places where distributions keep it. All programs must be there and answer.

use crate::error::Error;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

/// The programs that Baton runs.
const PROGRAMS: [&str; 5] = ["postgres", "initdb", "pg_basebackup", "pg_rewind", "pg_waldump"];

/// Where distributions put them, with the version in the place of `*`.
const VERSIONED: [(&str, &str, &str); 2] = [("/usr/lib/postgresql", "", "bin"), ("/usr", "pgsql-", "bin")];

/// The major versions that Baton knows the file formats of.
pub const SUPPORTED: std::ops::RangeInclusive<u32> = 13..=18;

/// The version of an installation, such as 15.18.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Version {
    /// 15 of 15.18.
    pub major: u32,
    /// 18 of 15.18; 0 for a beta or a release candidate.
    pub minor: u32,
}

impl Version {
    /// The number as `server_version_num` has it: 150018.
    #[must_use]
    pub fn num(self) -> u32 {
        self.major * 10_000 + self.minor
    }

    /// Reads what `postgres --version` prints: `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let (_, rest) = text.split_once("(PostgreSQL) ")?;
        let word = rest.split_whitespace().next()?;
        let digits = |text: &str| -> String { text.chars().take_while(char::is_ascii_digit).collect() };
        let (major, minor) = word.split_once('.').unwrap_or((word, "0"));
        Some(Version { major: digits(major).parse().ok()?, minor: digits(minor).parse().unwrap_or(0) })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// One PostgreSQL installation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Installation {
    /// The directory of its programs, absolute.
    pub bin_dir: PathBuf,
    /// What `postgres --version` says.
    pub version: Version,
    /// The user and group its programs run as; `None`: the agent's own, which is the case in production.
    pub run_as: Option<(u32, u32)>,
}

impl Installation {
    /// Finds the programs in `bin_dir`, or where they usually are, and asks them for their version.
    pub async fn find(bin_dir: Option<&Path>) -> Result<Installation, Error> {
        let bin_dir = match bin_dir {
            Some(dir) => dir.to_owned(),
            None => in_path().or_else(newest).ok_or_else(nowhere)?,
        };
        let bin_dir = std::path::absolute(&bin_dir).map_err(|error| Error::io("resolve", &bin_dir, error))?;
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !bin_dir.join(name).is_file()).collect();
        if !missing.is_empty() {
            return Err(Error::Installation(format!(
                "{} {} not in {}; install the server and client packages of PostgreSQL (Debian, Ubuntu: \
                 postgresql-15; Red Hat: postgresql15-server) or correct postgresql.bin_dir",
                missing.join(", "),
                if missing.len() == 1 { "is" } else { "are" },
                bin_dir.display()
            )));
        }
        let version = version_of(&bin_dir.join("postgres")).await?;
        if !SUPPORTED.contains(&version.major) {
            return Err(Error::Installation(format!(
                "{} is version {version}; versions {} to {} are supported: point postgresql.bin_dir at one of them",
                bin_dir.display(),
                SUPPORTED.start(),
                SUPPORTED.end()
            )));
        }
        Ok(Installation { bin_dir, version, run_as: None })
    }

    /// `program` of this installation, ready for arguments: messages in English, no input, a working directory that
    /// every user can enter, and the agent's environment without what is not PostgreSQL's business. It goes on
    /// running when the handle is dropped.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        self.prepared(Command::new(self.bin_dir.join(program)))
    }

    /// An operator's program, found in PATH unless it is a path, in the same environment.
    #[must_use]
    pub(crate) fn script(&self, program: &str) -> Command {
        self.prepared(Command::new(program))
    }

    fn prepared(&self, command: Command) -> Command {
        let mut command = without_secrets(command);
        // PostgreSQL takes its locale from the configuration; the messages of its programs are read by us.
        command.env("LC_ALL", "C");
        if env::var_os("PATH").is_none() {
            command.env("PATH", "/usr/local/bin:/usr/bin:/bin");
        }
        if let Some(arenas) = env::var_os("PG_MALLOC_ARENA_MAX") {
            command.env("MALLOC_ARENA_MAX", arenas);
        }
        command.current_dir("/").stdin(Stdio::null()).kill_on_drop(false);
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        command
    }
}

/// The command, without the variables that are the agent's own.
pub(crate) fn without_secrets(mut command: Command) -> Command {
    command.env_clear().envs(env::vars_os().filter(|(name, _)| !name.to_str().is_some_and(is_private)));
    command
}

/// Whether a variable is the agent's own, or would make PostgreSQL's programs connect elsewhere than we tell them.
/// Everything else is kept: `archive_command` and `restore_command` are configured through it.
fn is_private(name: &str) -> bool {
    const PREFIXES: [&str; 3] = ["BATON_", "PATRONI_", "KUBERNETES_"];
    const SYSTEMD: [&str; 6] =
        ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];
    const LIBPQ: [&str; 10] = [
        "PGDATA",
        "PGHOST",
        "PGHOSTADDR",
        "PGPORT",
        "PGDATABASE",
        "PGUSER",
        "PGPASSWORD",
        "PGPASSFILE",
        "PGOPTIONS",
        "PGAPPNAME",
    ];
    const LIBPQ_MORE: [&str; 12] = [
        "PGSERVICE",
        "PGSERVICEFILE",
        "PGSSLMODE",
        "PGSSLCERT",
        "PGSSLKEY",
        "PGSSLROOTCERT",
        "PGSSLCRL",
        "PGREQUIREAUTH",
        "PGCHANNELBINDING",
        "PGTARGETSESSIONATTRS",
        "PGCONNECT_TIMEOUT",
        "PGCLIENTENCODING",
    ];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SYSTEMD.contains(&name)
        || LIBPQ.contains(&name)
        || LIBPQ_MORE.contains(&name)
}

async fn version_of(postgres: &Path) -> Result<Version, Error> {
    let mut command = Command::new(postgres);
    command.arg("--version").current_dir("/").env("LC_ALL", "C").stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| Error::io("run", postgres, error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    Version::parse(&text).ok_or_else(|| Error::Program {
        program: postgres.display().to_string(),
        how: "--version did not tell the version".to_owned(),
        last_words: format!("{} {}", text.trim(), String::from_utf8_lossy(&output.stderr).trim()),
    })
}

fn in_path() -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).find(|dir| dir.is_absolute() && dir.join("postgres").is_file())
}

fn newest() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for (parent, prefix, bin) in VERSIONED {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_prefix(prefix)).and_then(|n| n.parse().ok());
            let dir = entry.path().join(bin);
            if let Some(number) =
                number.filter(|number| SUPPORTED.contains(number) && dir.join("postgres").is_file())
            {
                found.push((number, dir));
            }
        }
    }
    found.into_iter().max().map(|(_, dir)| dir)
}

fn nowhere() -> Error {
    Error::Installation(format!(
        "{} are neither in PATH nor in /usr/lib/postgresql/*/bin nor in /usr/pgsql-*/bin; install PostgreSQL (Debian, \
         Ubuntu: apt install postgresql) or set postgresql.bin_dir",
        PROGRAMS.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::{Installation, Version, is_private};
    use std::path::Path;

    #[test]
    fn versions_are_read() {
        let version = |text| Version::parse(text).map(|version| version.num());
        assert_eq!(version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(150_018));
        assert_eq!(version("postgres (PostgreSQL) 18.0"), Some(180_000));
        assert_eq!(version("postgres (PostgreSQL) 19beta2"), Some(190_000));
        assert_eq!(version("postgres (PostgreSQL) devel"), None);
        assert_eq!(version("postgres: command not found"), None);
    }

    #[test]
    fn the_environment_of_scripts_is_kept_and_ours_is_not() {
        for ours in ["BATON_RESTAPI_PASSWORD", "PATRONI_NAME", "NOTIFY_SOCKET", "PGPASSWORD", "PGHOST"] {
            assert!(is_private(ours), "{ours}");
        }
        for theirs in ["PGBACKREST_STANZA", "WALG_S3_PREFIX", "PATH", "HOME", "TZ", "LD_LIBRARY_PATH"] {
            assert!(!is_private(theirs), "{theirs}");
        }
    }

    #[tokio::test]
    async fn missing_programs_are_named() {
        let error = Installation::find(Some(Path::new("/var/empty"))).await.unwrap_err().to_string();
        assert!(error.contains("pg_rewind") && error.contains("postgresql.bin_dir"), "{error}");
    }
}
