//! The database users that Baton itself needs, made right after bootstrap.
//!
//! No password reaches the server: it gets the verifier that it would have computed itself. And because a verifier
//! is worth hiding too, everything that would write these statements to a log is switched off in the session.

use crate::connection::{ConnectTo, Connection, Mode, SqlError};

use postgres_protocol::escape::{escape_identifier, escape_literal};
use postgres_protocol::password;
use std::time::Duration;
use tokio::time::Instant;
use types::Secret;

/// A user and its password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// `None`: it logs in another way (peer, trust, certificate), and its password is left alone.
    pub password: Option<Secret>,
}

/// The users of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users {
    /// Exists since initdb.
    pub superuser: User,
    pub replication: User,
    /// Who runs pg_rewind against this server, with just enough rights for it; `None`: the superuser does.
    pub rewind: Option<User>,
}

/// What pg_rewind calls on its source.
pub(crate) const REWIND_FUNCTIONS: [&str; 4] = [
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
];

/// Switches off all that writes statements down. The settings of extensions are only names while the extension is
/// not loaded.
const QUIET: [&str; 12] = [
    "SET log_min_error_statement = 'panic'",
    "SET log_min_messages = 'panic'",
    "SET log_statement = 'none'",
    "SET log_min_duration_statement = -1",
    "SET log_min_duration_sample = -1",
    "SET log_transaction_sample_rate = 0",
    "SET pgaudit.log = 'none'",
    "SET pg_stat_statements.track = 'none'",
    "SET pg_stat_statements.track_utility = 'off'",
    "SET auto_explain.log_min_duration = -1",
    // A cluster born synchronous has no standby yet that could confirm.
    "SET synchronous_commit = 'local'",
    "SET search_path = 'pg_catalog'",
];

/// Creates the users, or gives existing ones the attributes, the password and the rights they need. `to` must be
/// the superuser. Doing it again changes nothing.
pub async fn ensure(to: &ConnectTo, users: &Users, within: Duration) -> Result<(), SqlError> {
    let deadline = Instant::now() + within;
    let mut session = Session { connection: Connection::open(to, Mode::Sql, &[], within).await?, deadline };
    for statement in QUIET {
        session.run(statement).await?;
    }
    let method = session.run("SHOW password_encryption").await?.unwrap_or_default();
    session.ensure_user(&users.superuser, "SUPERUSER LOGIN", &method).await?;
    session.ensure_user(&users.replication, "REPLICATION LOGIN", &method).await?;
    if let Some(rewind) = &users.rewind {
        session.ensure_user(rewind, "LOGIN", &method).await?;
        for function in REWIND_FUNCTIONS {
            let sql = format!("GRANT EXECUTE ON FUNCTION {function} TO {}", escape_identifier(&rewind.name));
            session.run(&sql).await?;
        }
    }
    Ok(())
}

struct Session {
    connection: Connection,
    deadline: Instant,
}

impl Session {
    async fn run(&mut self, sql: &str) -> Result<Option<String>, SqlError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        Ok(self.connection.query(sql, left).await?.single().map(str::to_owned))
    }

    async fn ensure_user(&mut self, user: &User, attributes: &str, method: &str) -> Result<(), SqlError> {
        let name = escape_identifier(&user.name);
        let known = format!("SELECT 1 FROM pg_roles WHERE rolname = {}", escape_literal(&user.name));
        if self.run(&known).await?.is_none() {
            match self.run(&format!("CREATE ROLE {name}")).await {
                // Somebody was faster.
                Err(error) if error.sqlstate() == Some("42710") => {}
                other => drop(other?),
            }
        }
        let password = user.password.as_ref().map(|secret| verifier(secret, &user.name, method));
        let password =
            password.map(|text| format!(" PASSWORD {}", escape_literal(&text))).unwrap_or_default();
        self.run(&format!("ALTER ROLE {name} WITH {attributes}{password}")).await.map(drop)
    }
}

/// What the server would store for this password under `password_encryption = method`.
fn verifier(secret: &Secret, user: &str, method: &str) -> String {
    match method {
        // `on` is how old servers and old configurations write it.
        "md5" | "on" => password::md5(secret.reveal().as_bytes(), user),
        _ => password::scram_sha_256(secret.reveal().as_bytes()),
    }
}
