//! Making a new database cluster.

use crate::data_dir::{self, DataDir, Work};
use crate::error::Error;
use crate::files;
use crate::installation::Installation;
use std::env;
use std::path::{Path, PathBuf};
use tokio::process::Command;
use types::Secret;

/// How to make it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct InitdbOptions {
    /// Options by name without dashes, with or without a value: `data-checksums`, `encoding` = `UTF8`.
    pub options: Vec<(String, Option<String>)>,
    /// The name of the first superuser.
    pub superuser: String,
    /// Its password.
    pub superuser_password: Option<Secret>,
    /// Whether the mark of unfinished work stays after success, for a caller who has more to do before the cluster can
    /// be used, and clears it with [`data_dir::clear_mark`].
    pub keep_mark: bool,
}

/// Options that would contradict what Baton does itself.
const BLOCKED: [&str; 6] = ["pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version"];

/// Runs initdb on `data_dir`, which must be missing or empty. When it fails, what it left is moved to
/// `<data_dir>.failed`.
pub async fn run(installation: &Installation, data_dir: &Path, options: &InitdbOptions) -> Result<(), Error> {
    for (name, _) in &options.options {
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !plain || name.starts_with('-') || BLOCKED.contains(&name.as_str()) {
            let what =
                format!("run initdb with the option {name:?}: Baton sets it itself or it is none; remove it");
            return Err(Error::Refused(what));
        }
    }
    match data_dir::inspect(data_dir)? {
        DataDir::Missing | DataDir::Empty => {}
        // The mark of an earlier attempt that left nothing else.
        DataDir::Incomplete { work: Work::Bootstrap, .. } if is_vacant(data_dir) => {}
        DataDir::Incomplete { .. } | DataDir::Present { .. } | DataDir::Foreign { .. } => {
            let what = format!("run initdb on {}: it is not empty; move it aside first", data_dir.display());
            return Err(Error::Refused(what));
        }
    }
    data_dir::mark_incomplete(data_dir, Work::Bootstrap)?;
    match initdb(installation, data_dir, options).await {
        Ok(()) if options.keep_mark => Ok(()),
        Ok(()) => data_dir::clear_mark(data_dir),
        Err(error) => {
            data_dir::set_failed_aside(data_dir)?;
            data_dir::clear_mark(data_dir)?;
            Err(error)
        }
    }
}

fn is_vacant(data_dir: &Path) -> bool {
    std::fs::read_dir(data_dir).map_or(true, |mut entries| entries.next().is_none())
}

async fn initdb(installation: &Installation, data_dir: &Path, options: &InitdbOptions) -> Result<(), Error> {
    let mut command = installation.command("initdb");
    locale_of_agent(&mut command);
    command.arg("--pgdata").arg(data_dir).arg(format!("--username={}", options.superuser));
    for (name, value) in &options.options {
        match value {
            Some(value) => command.arg(format!("--{name}={value}")),
            None => command.arg(format!("--{name}")),
        };
    }
    let password = options.superuser_password.as_ref().map(|secret| PasswordFile::write(data_dir, secret));
    let password = password.transpose()?;
    if let Some(file) = &password {
        command.arg("--pwfile").arg(&file.path);
    }
    command.kill_on_drop(true);
    let output = command
        .output()
        .await
        .map_err(|error| Error::io("run", &installation.bin_dir.join("initdb"), error))?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let mut last: Vec<&str> = words.lines().rev().take(10).collect();
    last.reverse();
    Err(Error::Program {
        program: "initdb".to_owned(),
        how: output.status.to_string(),
        last_words: last.join("\n"),
    })
}

/// initdb takes the cluster's locale and encoding from its environment unless options say otherwise: that must be the
/// agent's, as with Patroni, and UTF-8 rather than ASCII where the agent has none. Messages stay in English.
fn locale_of_agent(command: &mut Command) {
    let names = ["LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MONETARY", "LC_NUMERIC", "LC_TIME"];
    let of_agent: Vec<_> = names.into_iter().filter_map(|name| Some((name, env::var_os(name)?))).collect();
    if of_agent.is_empty() {
        command.env("LC_ALL", "C.UTF-8");
    } else {
        command.env_remove("LC_ALL").envs(of_agent);
    }
}

/// The superuser's password in a file beside the data directory, for as long as initdb runs.
struct PasswordFile {
    path: PathBuf,
}

impl PasswordFile {
    fn write(data_dir: &Path, secret: &Secret) -> Result<PasswordFile, Error> {
        if secret.reveal().contains(['\n', '\r', '\0']) {
            let what =
                "set the superuser's password: it holds a line break, which initdb cannot read; change it";
            return Err(Error::Refused(what.to_owned()));
        }
        let path = files::beside(data_dir, ".baton-pwfile");
        files::remove_if_there(&path)?;
        let file = PasswordFile { path };
        files::write_new(&file.path, format!("{}\n", secret.reveal()).as_bytes(), 0o600)?;
        Ok(file)
    }
}

impl Drop for PasswordFile {
    fn drop(&mut self) {
        if let Err(error) = files::remove_if_there(&self.path) {
            tracing::warn!("{error}; remove it by hand: it holds the superuser's password");
        }
    }
}
