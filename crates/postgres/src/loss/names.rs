//! The names of relations, from a primary that descends from the same data: what was made or rewritten after the fork
//! has none there.

use super::{Account, Touched};
use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// For all names together.
const WITHIN: Duration = Duration::from_secs(10);
const DATABASE_WITHIN: Duration = Duration::from_secs(3);
/// More databases are not asked.
const DATABASES: usize = 20;

/// Names what the account touched, as far as the primary at `at` lets this user ask. What stays without a name is
/// shown by its numbers.
pub async fn name_relations(account: &mut Account, at: &ConnectTo) {
    let asked = timeout_at(Instant::now() + WITHIN, ask(&mut account.relations.touched, at)).await;
    if let Ok(Err(error)) = asked {
        tracing::debug!(%error, "failed to ask for the names of what was touched");
    }
}

async fn ask(touched: &mut [Touched], at: &ConnectTo) -> Result<(), SqlError> {
    let wanted: BTreeSet<u32> = touched.iter().map(|touched| touched.database).collect();
    let mut session = open(at).await?;
    for (oid, name) in databases(&mut session, &wanted).await? {
        let there = ConnectTo { dbname: name.clone(), ..at.clone() };
        let shared = oid == 0;
        let asked = async {
            let mut session = open(&there).await?;
            relations(&mut session, touched, oid, if shared { "" } else { &name }).await
        };
        if let Err(error) = asked.await {
            tracing::debug!(%error, database = name, "failed to ask for the names of what was touched");
        }
    }
    Ok(())
}

async fn open(at: &ConnectTo) -> Result<Connection, SqlError> {
    Connection::open(at, Mode::Sql, &[("search_path", "pg_catalog")], DATABASE_WITHIN).await
}

/// The databases by their numbers; those of shared relations (0) can be asked for in any.
async fn databases(
    session: &mut Connection,
    wanted: &BTreeSet<u32>,
) -> Result<BTreeMap<u32, String>, SqlError> {
    let list: Vec<String> = wanted.iter().take(DATABASES).map(ToString::to_string).collect();
    if list.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "SELECT oid::text, datname FROM pg_database WHERE datallowconn AND oid IN ({0}) \
         UNION ALL SELECT '0', current_database() WHERE 0 IN ({0})",
        list.join(", ")
    );
    let rows = session.query(&sql, DATABASE_WITHIN).await?;
    let pair = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(oid), Some(name)] => Some((oid.parse().ok()?, name.clone())),
        _ => None,
    };
    Ok(rows.rows.iter().filter_map(pair).collect())
}

async fn relations(
    session: &mut Connection,
    touched: &mut [Touched],
    database: u32,
    prefix: &str,
) -> Result<(), SqlError> {
    let here = |touched: &&Touched| touched.database == database;
    let values: Vec<String> = touched
        .iter()
        .filter(here)
        .map(|touched| format!("({}::oid, {}::oid)", touched.tablespace, touched.filenode))
        .collect();
    let sql = format!(
        "SELECT n::text, pg_filenode_relation(t, n)::regclass::text FROM (VALUES {}) AS f (t, n)",
        values.join(", ")
    );
    let rows = session.query(&sql, DATABASE_WITHIN).await?;
    for row in &rows.rows {
        let [Some(filenode), Some(name)] = row.as_slice() else { continue };
        let known = touched.iter_mut().filter(|touched| touched.database == database);
        for touched in known.filter(|touched| touched.filenode.to_string() == *filenode) {
            let dot = if prefix.is_empty() { "" } else { "." };
            touched.name = Some(format!("{prefix}{dot}{name}"));
        }
    }
    Ok(())
}
