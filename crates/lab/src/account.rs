//! Who the processes of a lab run as: user `postgres` when the lab is started by root (PostgreSQL refuses to run as
//! root), else the user who started it.

use anyhow::{Context, Result, anyhow};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// The account that the processes of a lab run under.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name, for messages.
    pub name: String,
    /// Set when it is not the account of this process.
    other: Option<(u32, u32)>,
}

impl Account {
    /// The account for a lab started by this process.
    pub fn choose() -> Result<Account> {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
        if uid != 0 {
            let name = passwd.lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                (fields.get(2)?.parse() == Ok(uid)).then(|| fields.first().map(|name| (*name).to_owned()))?
            });
            return Ok(Account { name: name.unwrap_or_else(|| uid.to_string()), other: None });
        }
        let ids = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields.first() == Some(&"postgres"))
                .then(|| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)))?
        });
        let ids = ids.ok_or_else(|| {
            anyhow!("there is no user postgres to become: run tools/setup, or start as an ordinary user")
        })?;
        Ok(Account { name: "postgres".to_owned(), other: Some(ids) })
    }

    /// Makes `command` run under this account.
    pub fn apply(&self, command: &mut Command) {
        if let Some((uid, gid)) = self.other {
            command.uid(uid).gid(gid);
        }
    }

    /// A command under this account that may also set addresses and send frames, as a unit of systemd with ambient capabilities may.
    #[must_use]
    pub fn with_network_rights(&self, program: &Path) -> Command {
        const RIGHTS: &str = "+net_admin,+net_raw";
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={}", self.name), format!("--regid={}", self.name)]);
        command.args(["--clear-groups", "--bounding-set=-all,+net_admin,+net_raw"]);
        command.args(["--inh-caps", RIGHTS, "--ambient-caps", RIGHTS]).arg(program);
        command
    }

    /// Gives `path` to this account.
    pub fn own(&self, path: &Path) -> Result<()> {
        if let Some((uid, gid)) = self.other {
            chown(path, Some(uid), Some(gid))
                .with_context(|| format!("give {} to {}", path.display(), self.name))?;
        }
        Ok(())
    }
}
