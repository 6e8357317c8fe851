//! PostgreSQL's configuration files, written as Patroni writes them and without destroying the user's.
//!
//!     postgresql.base.conf   the user's original, never written to
//!     postgresql.conf        ours: includes the original, then one line per parameter, then the recovery settings
//!     pg_hba.conf, pg_ident.conf   ours when rules are given; the original is kept as *.backup
//!     postgresql.auto.conf   ALTER SYSTEM's, without the recovery settings that pg_basebackup or people left there
//!     standby.signal         there on a standby, not on a primary
//!
//! Every file is replaced in one step, and only if its content changes.

mod conninfo;
mod pgpass;
mod refusals;
mod render;

pub use conninfo::conninfo;
pub use pgpass::{PgPass, write_pgpass};
pub use refusals::{Refusal, refusals};

use crate::control;
use crate::error::Error;
use crate::files;
use crate::installation::Version;
use crate::parameter;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What the configuration shall be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wanted {
    /// Parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// The lines of `pg_hba.conf`; `None`: it is the user's affair.
    pub pg_hba: Option<Vec<String>>,
    /// The lines of `pg_ident.conf`; `None`: it is the user's affair.
    pub pg_ident: Option<Vec<String>>,
    /// A file to include instead of `postgresql.base.conf` (`custom_conf`).
    pub custom_conf: Option<PathBuf>,
    /// Whom to follow; `None`: this is a primary.
    pub standby: Option<Follow>,
}

/// How a standby gets its WAL.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Follow {
    /// The connection to the sender, in this order; empty: from the archive only.
    pub primary_conninfo: Vec<(String, String)>,
    /// The slot at the sender.
    pub slot: Option<String>,
    /// The command that fetches from the archive.
    pub restore_command: Option<String>,
    /// Other recovery settings, such as `recovery_min_apply_delay`.
    pub others: BTreeMap<String, String>,
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Written {
    /// Whether any file is different now.
    pub changed: bool,
    /// The parameters whose change takes effect only with a restart, as far as PostgreSQL itself has them.
    pub restart_needed: Vec<String>,
    /// Parameters that were left out because they are decided here: who follows whom is not configuration.
    pub ignored: Vec<String>,
}

const CONF: &str = "postgresql.conf";
const BASE: &str = "postgresql.base.conf";
const HBA: &str = "pg_hba.conf";
const IDENT: &str = "pg_ident.conf";

/// Makes the files in `config_dir` (the data directory unless given) say what is wanted.
pub fn write(
    data_dir: &Path,
    config_dir: Option<&Path>,
    wanted: &Wanted,
    version: Version,
) -> Result<Written, Error> {
    let place = Place { data_dir, config_dir: config_dir.unwrap_or(data_dir) };
    if wanted.standby.is_none() {
        place.check_may_be_primary()?;
    }
    let mut written = Written::default();
    let hba = place.rules(HBA, "hba_file", wanted.pg_hba.as_deref(), wanted, &mut written)?;
    let ident = place.rules(IDENT, "ident_file", wanted.pg_ident.as_deref(), wanted, &mut written)?;
    let include = place.keep_original(wanted)?;
    let (text, ignored) =
        render::postgresql_conf(wanted, &include, &[("hba_file", hba), ("ident_file", ident)])?;
    written.ignored = ignored;
    let path = place.config_dir.join(CONF);
    let before = files::read_if_there(&path)?.unwrap_or_default();
    if files::replace(&path, text.as_bytes(), place.mode())? {
        written.changed = true;
        written.restart_needed = restart_needed(&String::from_utf8_lossy(&before), &text, version);
    }
    written.changed |= place.clean_auto_conf()?;
    written.changed |= place.standby_signal(wanted.standby.is_some())?;
    Ok(written)
}

/// Keeps a file of the agent's own in the data directory, in one step and as open as the directory is.
pub fn keep(data_dir: &Path, name: &str, content: &[u8]) -> Result<bool, Error> {
    files::replace(&data_dir.join(name), content, files::mode_in(data_dir))
}

/// Where the files are.
struct Place<'a> {
    data_dir: &'a Path,
    config_dir: &'a Path,
}

impl Place<'_> {
    fn mode(&self) -> u32 {
        files::mode_in(self.data_dir)
    }

    /// A standby that is started without its signal goes on writing on a timeline that is not its own.
    fn check_may_be_primary(&self) -> Result<(), Error> {
        let signal = self.data_dir.join("standby.signal");
        if signal.exists() && control::read(self.data_dir)?.state.is_standby() {
            return Err(Error::Refused(format!(
                "configure {} as a primary: it is a standby; start it as one and promote it",
                self.data_dir.display()
            )));
        }
        Ok(())
    }

    /// Sees to it that the user's file is kept, and answers with what ours must include.
    fn keep_original(&self, wanted: &Wanted) -> Result<String, Error> {
        let (path, base) = (self.config_dir.join(CONF), self.config_dir.join(BASE));
        let present = files::read_if_there(&path)?;
        let ours = present.as_deref().is_none_or(render::is_managed);
        if !base.exists() {
            if ours {
                files::replace(&base, b"# The original postgresql.conf was not found.\n", self.mode())?;
            } else {
                fs::rename(&path, &base).map_err(|error| Error::io("rename", &path, error))?;
                files::sync_dir(self.config_dir)?;
            }
        } else if let Some(content) = present.filter(|_| !ours) {
            // Somebody wrote their own over ours: it has no effect any more, and is not lost either.
            files::replace(&files::beside(&path, ".backup"), &content, self.mode())?;
        }
        Ok(match &wanted.custom_conf {
            Some(custom) => custom.display().to_string(),
            None => BASE.to_owned(),
        })
    }

    /// Writes the rules if there are some, and answers with the file's path for `postgresql.conf`. A file that the
    /// parameters name is the user's affair.
    fn rules(
        &self,
        name: &str,
        parameter: &str,
        lines: Option<&[String]>,
        wanted: &Wanted,
        written: &mut Written,
    ) -> Result<Option<PathBuf>, Error> {
        if wanted.parameters.contains_key(parameter) {
            return Ok(None);
        }
        let path = self.config_dir.join(name);
        if let Some(lines) = lines {
            let present = files::read_if_there(&path)?;
            let backup = self.data_dir.join(format!("{name}.backup"));
            if let Some(original) = present.filter(|content| !render::is_managed(content)) {
                files::replace(&backup, &original, self.mode())?;
            }
            written.changed |= files::replace(&path, render::rules(lines)?.as_bytes(), self.mode())?;
        }
        let absolute = std::path::absolute(&path).map_err(|error| Error::io("resolve", &path, error))?;
        Ok(absolute.exists().then_some(absolute))
    }

    fn clean_auto_conf(&self) -> Result<bool, Error> {
        let path = self.data_dir.join("postgresql.auto.conf");
        let Some(before) = files::read_if_there(&path)? else { return Ok(false) };
        match render::without_recovery(&before) {
            Some(after) => files::replace(&path, &after, self.mode()),
            None => Ok(false),
        }
    }

    fn standby_signal(&self, standby: bool) -> Result<bool, Error> {
        let path = self.data_dir.join("standby.signal");
        match (standby, path.exists()) {
            (true, false) => files::write_new(&path, b"", self.mode()).and_then(|()| {
                files::sync_dir(self.data_dir)?;
                Ok(true)
            }),
            (false, true) => files::remove_if_there(&path),
            (true, true) | (false, false) => Ok(false),
        }
    }
}

fn restart_needed(before: &str, after: &str, version: Version) -> Vec<String> {
    let (before, after) = (render::settings(before), render::settings(after));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let changed = names.into_iter().filter(|name| before.get(*name) != after.get(*name));
    changed.filter(|name| parameter::needs_restart(name, version.major)).cloned().collect()
}
