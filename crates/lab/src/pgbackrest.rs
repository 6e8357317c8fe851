//! pgBackRest for the nodes of a lab: a program of ours before the real one, with a configuration and a repository of their own.
//!
//! ```text
//!   DIR/pgbackrest ──► the real one ──► DIR/repo        archive_command, restore_command, baton.archive_check, backups
//! ```
//! The configuration names the first node. What runs in a data directory means that one, and a backup says whose it is.

use crate::binaries::pgbackrest_binary;
use crate::lab::Lab;
use crate::node::Node;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The name of the stanza.
const STANZA: &str = "--stanza=main";

/// One repository and what is needed to use it.
#[derive(Clone, Debug)]
pub struct PgBackRest {
    dir: PathBuf,
}

impl PgBackRest {
    /// What will be in `dir`, which the account of the lab can pass through.
    #[must_use]
    pub fn at(dir: &Path) -> PgBackRest {
        PgBackRest { dir: dir.to_owned() }
    }

    /// The program, and how it is called with the stanza.
    #[must_use]
    pub fn call(&self, words: &str) -> String {
        format!("{} {STANZA} {words}", self.dir.join("pgbackrest").display())
    }

    /// What a cluster is told that archives there.
    #[must_use]
    pub fn dynamic(&self) -> Value {
        json!({
            "baton": { "archive_check": self.call("archive-get %f \"%p\"") },
            "postgresql": {
                "parameters": { "archive_mode": "on", "archive_command": self.call("archive-push %p") },
                "recovery_conf": { "restore_command": self.call("archive-get %f \"%p\"") },
            },
        })
    }

    /// The repository.
    #[must_use]
    pub fn repository(&self) -> PathBuf {
        self.dir.join("repo")
    }

    /// Writes the program, its configuration and its directories. `more`: lines for the section `[global]`, in the place of the
    /// local repository when they name one.
    pub fn install(&self, lab: &Lab, more: &str) -> Result<()> {
        let account = lab.account();
        account.own(&self.dir)?;
        for name in ["repo", "log", "lock", "spool"] {
            let dir = self.dir.join(name);
            fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
            account.own(&dir)?;
        }
        let first = lab.nodes.first().ok_or_else(|| anyhow!("a lab without nodes"))?;
        let at = |name: &str| self.dir.join(name).display().to_string();
        let repository = match more.contains("repo1-") {
            true => String::new(),
            false => format!("repo1-path={}\n", at("repo")),
        };
        let config = format!(
            "[global]\n{repository}{more}repo1-retention-full=2\nlog-path={}\nlock-path={}\nspool-path={}\nstart-fast=y\ncompress-level=1\n\n\
             [main]\npg1-path={}\npg1-socket-path={}\npg1-port={}\npg1-user=postgres\n",
            at("log"),
            at("lock"),
            at("spool"),
            first.data_dir().display(),
            first.socket_dir().display(),
            first.postgres_port,
        );
        let file = self.dir.join("pgbackrest.conf");
        fs::write(&file, config).with_context(|| format!("write {}", file.display()))?;
        let program = self.dir.join("pgbackrest");
        let body = format!(
            "#!/bin/sh\nhere=--pg1-path=\"$PWD\"\n[ -e PG_VERSION ] || here=\ncase \"$*\" in *--pg1-path=*) here= ;; esac\n\
             exec {} --config={} $here \"$@\"\n",
            pgbackrest_binary()?.display(),
            file.display(),
        );
        fs::write(&program, body).with_context(|| format!("write {}", program.display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).context("make it a program")?;
        account.own(&program)
    }

    /// Runs it as the lab's account, about this node; answers with what it printed.
    pub fn run(&self, lab: &Lab, node: &Node, words: &[&str]) -> Result<String> {
        let target = lab.own_socket(node);
        let mut program = Command::new(self.dir.join("pgbackrest"));
        program.arg(STANZA).args(words).env("PGPASSWORD", &target.password).current_dir(&self.dir);
        if words.iter().any(|word| ["stanza-create", "backup", "check"].contains(word)) {
            program.arg(format!("--pg1-path={}", node.data_dir().display()));
            program
                .args([format!("--pg1-socket-path={}", target.host), format!("--pg1-port={}", target.port)]);
        }
        lab.account().apply(&mut program);
        let done = program.output().context("run pgbackrest")?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if !done.status.success() {
            bail!("run pgbackrest {words:?}: {}{}", text(&done.stdout), text(&done.stderr));
        }
        Ok(text(&done.stdout))
    }
}
