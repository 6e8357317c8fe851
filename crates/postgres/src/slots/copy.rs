//! Logical slots on a standby: PostgreSQL before 17 cannot make them there, but it reads them from their files when it starts.
//!
//! ```text
//!   primary, by SQL ── read_logical ──> FoundSlot ──(PostgreSQL stopped here)── install ──> pg_replslot/<name>/state
//! ```
//! The file of a moment ago is as good as the present one: a slot that is older repeats some WAL and skips none.

use crate::connection::{ConnectTo, Connection, Mode, SqlError};
use crate::error::Error;
use crate::files;
use postgres_protocol::escape::escape_literal;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;
use types::{Lsn, is_slot_name};

/// A state file is a few hundred bytes.
const STATE_LIMIT: usize = 64 << 10;

/// A logical slot on the primary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FoundSlot {
    pub name: String,
    pub database: String,
    pub plugin: String,
    pub restart_lsn: Option<Lsn>,
    /// PostgreSQL 17 and later: PostgreSQL copies it to standbys by itself.
    pub failover: bool,
    pub state: Vec<u8>,
}

/// What is to be placed on a standby.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CopiedSlot {
    pub name: String,
    pub state: Vec<u8>,
}

/// The logical slots of these names on the primary at `to`; none when it is no primary. Needs the right to read its files.
pub async fn read_logical(
    to: &ConnectTo,
    names: &[String],
    within: Duration,
) -> Result<Vec<FoundSlot>, SqlError> {
    let settings = [("search_path", "pg_catalog"), ("bytea_output", "hex")];
    let mut connection = Connection::open(to, Mode::Sql, &settings, within).await?;
    let list: Vec<String> = names.iter().map(|name| escape_literal(name)).collect();
    let sql = format!(
        "SELECT slot_name, database, plugin, restart_lsn::text, \
           coalesce((to_jsonb(s)->>'failover')::bool, false)::text, \
           encode(pg_read_binary_file('pg_replslot/' || slot_name || '/state'), 'hex') \
         FROM pg_replication_slots s \
         WHERE slot_type = 'logical' AND NOT temporary AND NOT pg_is_in_recovery() AND slot_name IN ({})",
        list.join(", ")
    );
    let rows = connection.query(&sql, within).await?;
    let nonsense = || SqlError::Nonsense { place: to.place(), what: "the state of a slot".to_owned() };
    rows.rows.iter().map(|row| found(row).ok_or_else(nonsense)).collect()
}

fn found(row: &[Option<String>]) -> Option<FoundSlot> {
    let [Some(name), Some(database), Some(plugin), restart_lsn, failover, Some(state)] = row else {
        return None;
    };
    let state = unhex(state)?;
    (state.len() <= STATE_LIMIT).then(|| FoundSlot {
        name: name.clone(),
        database: database.clone(),
        plugin: plugin.clone(),
        restart_lsn: restart_lsn.as_ref().and_then(|lsn| lsn.parse().ok()),
        failover: failover.as_deref() == Some("true"),
        state,
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

/// Places slots into the data directory of a stopped standby. One that is there already stays as it is.
pub fn install(data_dir: &Path, slots: &[CopiedSlot]) -> Result<Vec<String>, Error> {
    let mut installed = Vec::new();
    let parent = data_dir.join("pg_replslot");
    for slot in slots {
        let dir = parent.join(&slot.name);
        if !is_slot_name(&slot.name) {
            return Err(Error::Refused(format!("place slot {:?}: not the name of a slot", slot.name)));
        }
        if dir.join("state").exists() {
            continue;
        }
        // PostgreSQL removes directories of this name when it starts, and takes none for a slot.
        let fresh = parent.join(format!("{}.tmp", slot.name));
        for leftover in [&fresh, &dir].into_iter().filter(|dir| dir.exists()) {
            fs::remove_dir_all(leftover).map_err(|error| Error::io("remove", leftover, error))?;
        }
        let mode = fs::metadata(&parent).map_err(|error| Error::io("read", &parent, error))?;
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777;
        let made = fs::DirBuilder::new().mode(mode).create(&fresh);
        made.map_err(|error| Error::io("create", &fresh, error))?;
        let handle = fs::File::open(&fresh).map_err(|error| Error::io("open", &fresh, error))?;
        files::give_to_owner_of_directory(&handle, &fresh)?;
        files::write_new(&fresh.join("state"), &slot.state, files::mode_in(data_dir))?;
        files::sync_dir(&fresh)?;
        fs::rename(&fresh, &dir).map_err(|error| Error::io("rename", &fresh, error))?;
        files::sync_dir(&parent)?;
        installed.push(slot.name.clone());
    }
    Ok(installed)
}

#[cfg(test)]
mod tests {
    use super::unhex;

    #[test]
    fn hexadecimal_text_is_read() {
        assert_eq!(unhex("00ffA1"), Some(vec![0, 255, 161]));
        assert_eq!(unhex(""), Some(vec![]));
        for bad in ["0", "0g", "zz"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }
}
