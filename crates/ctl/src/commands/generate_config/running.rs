//! What a running PostgreSQL says of itself.

use crate::failure::Failure;
use postgres::connection::{Connection, Rows};
use std::collections::BTreeMap;
use types::Secret;

use super::PATIENCE;

/// Who we are, before anything that only a superuser may ask.
const WHO: &str = "SELECT rolname, rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user";

/// Everything that is asked in one round trip: where it is, and what belongs to it.
const FACTS: &str = "SELECT \
    (SELECT setting FROM pg_config WHERE name = 'BINDIR') AS bin_dir, \
    current_setting('data_directory') AS data_dir, \
    current_setting('listen_addresses') AS listen_addresses, current_setting('port') AS port, \
    current_setting('cluster_name') AS cluster_name, \
    current_setting('config_file') AS config_file, \
    current_setting('hba_file') AS hba_file, current_setting('ident_file') AS ident_file, \
    current_setting('data_checksums') AS data_checksums, \
    (SELECT CASE count(*) WHEN 1 THEN min(rolname) END FROM pg_roles WHERE rolreplication AND NOT rolsuper) AS replication";

/// The parameters of configuration files and of the command line. What the session itself sets hides nothing: it sets only
/// its name and its encoding. A command of an archiver that is off is not told.
const PARAMETERS: &str = "SELECT name, current_setting(name) FROM pg_settings \
    WHERE source IN ('configuration file', 'command line') AND context <> 'internal' \
    AND current_setting(name) <> '(disabled)'";

/// The parameters that must be equal on all members, also where nobody set them.
const EQUAL: &str = "SELECT name, current_setting(name) FROM pg_settings WHERE name IN ('wal_level', 'max_connections', \
    'max_wal_senders', 'max_prepared_transactions', 'max_locks_per_transaction', 'track_commit_timestamp', \
    'max_replication_slots', 'max_worker_processes')";

/// What was found. The password is the one that the user gave.
pub(super) struct Running {
    pub superuser: String,
    pub password: Option<Secret>,
    /// The only role that may replicate and is no superuser.
    pub replication: Option<String>,
    pub bin_dir: Option<String>,
    pub data_dir: String,
    pub listen_addresses: String,
    pub port: u16,
    pub cluster_name: String,
    pub config_file: String,
    pub data_checksums: bool,
    pub parameters: BTreeMap<String, String>,
    /// The lines that mean something.
    pub pg_hba: Vec<String>,
    pub pg_ident: Vec<String>,
}

/// Reads it all.
pub(super) async fn read(mut session: Connection, password: Option<&Secret>) -> Result<Running, Failure> {
    let who = ask(&mut session, WHO).await?;
    let superuser = who.first("rolname").unwrap_or_default().to_owned();
    if who.first("rolsuper") != Some("t") {
        return Err(Failure::refused(format!(
            "failed to read the configuration: {superuser} is no superuser; connect as one"
        )));
    }
    let facts = ask(&mut session, FACTS).await?;
    let fact = |name: &str| facts.first(name).unwrap_or_default().to_owned();
    let mut parameters = pairs(&ask(&mut session, PARAMETERS).await?);
    parameters.extend(pairs(&ask(&mut session, EQUAL).await?));
    let pg_hba = rules(&mut session, &fact("hba_file")).await?;
    let pg_ident = rules(&mut session, &fact("ident_file")).await?;
    Ok(Running {
        superuser,
        password: password.cloned(),
        replication: facts.first("replication").map(str::to_owned),
        bin_dir: facts.first("bin_dir").map(str::to_owned),
        data_dir: fact("data_dir"),
        listen_addresses: fact("listen_addresses"),
        port: fact("port").parse().unwrap_or(5432),
        cluster_name: fact("cluster_name"),
        config_file: fact("config_file"),
        data_checksums: fact("data_checksums") == "on",
        parameters,
        pg_hba,
        pg_ident,
    })
}

async fn ask(session: &mut Connection, sql: &str) -> Result<Rows, Failure> {
    session.query(sql, PATIENCE).await.map_err(|error| Failure::refused(format!("failed to {error}")))
}

fn pairs(answer: &Rows) -> BTreeMap<String, String> {
    let pair = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(name), Some(value)] => Some((name.clone(), value.clone())),
        _ => None,
    };
    answer.rows.iter().filter_map(pair).collect()
}

/// The rules of a file, read by PostgreSQL itself, which may when we may not.
async fn rules(session: &mut Connection, path: &str) -> Result<Vec<String>, Failure> {
    let quoted = path.replace('\'', "''");
    let answer = ask(session, &format!("SELECT pg_catalog.pg_read_file('{quoted}')")).await?;
    let lines = answer.single().unwrap_or_default().lines().map(str::trim);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}
