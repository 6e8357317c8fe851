//! What a stopped PostgreSQL left for its archiver to do.
//!
//! ```text
//!   pg_wal/archive_status/*.ready ──[archive_command]──► *.done     before a rewind removes those segments
//!   the segment with the last checkpoint ──[archive_command]──►     for the site that takes over
//! ```

use crate::control;
use crate::error::Error;
use crate::installation::Installation;
use crate::script::{self, ScriptError};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use tokio_util::sync::CancellationToken;
use types::{Lsn, Timeline};

/// Archives every segment that is complete and waits for it, oldest first; answers how many there were. Ends at the first failure.
pub async fn finish(
    installation: &Installation,
    data_dir: &Path,
    command: &str,
    cancel: &CancellationToken,
) -> Result<usize, ScriptError> {
    let ready = ready(data_dir)?;
    for name in &ready {
        one(installation, data_dir, command, name, cancel).await?;
        let status = data_dir.join("pg_wal/archive_status");
        let (from, to) = (status.join(format!("{name}.ready")), status.join(format!("{name}.done")));
        fs::rename(&from, to).map_err(|error| Error::io("rename", &from, error))?;
    }
    Ok(ready.len())
}

/// Archives the segment that holds the checkpoint of a clean stop, although it is not full; answers with its name.
pub async fn last_checkpoint(
    installation: &Installation,
    data_dir: &Path,
    command: &str,
    cancel: &CancellationToken,
) -> Result<String, ScriptError> {
    let control = control::read(data_dir)?;
    let name = segment(control.timeline, control.checkpoint, control.wal_segment_size);
    one(installation, data_dir, command, &name, cancel).await?;
    Ok(name)
}

async fn one(
    installation: &Installation,
    data_dir: &Path,
    command: &str,
    name: &str,
    cancel: &CancellationToken,
) -> Result<(), ScriptError> {
    script::run_in_shell(installation, data_dir, &filled(command, name, &format!("pg_wal/{name}")), cancel)
        .await
}

fn ready(data_dir: &Path) -> Result<Vec<String>, Error> {
    let dir = data_dir.join("pg_wal/archive_status");
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("list", &dir, error)),
    };
    let named = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> =
        named.filter_map(|name| name.strip_suffix(".ready").map(str::to_owned)).collect();
    names.sort();
    Ok(names)
}

/// The file that holds the record at `lsn`.
pub(crate) fn segment(timeline: Timeline, lsn: Lsn, size: u32) -> String {
    let size = u64::from(size.max(1));
    let (number, per_file) = (lsn.0 / size, (1_u64 << 32) / size);
    format!("{:08X}{:08X}{:08X}", timeline.0, number / per_file.max(1), number % per_file.max(1))
}

/// `%p` is the path, `%f` the name, `%%` a percent sign.
#[must_use]
pub fn filled(command: &str, name: &str, path: &str) -> String {
    let mut filled = String::new();
    let mut rest = command.chars().peekable();
    while let Some(c) = rest.next() {
        match (c, rest.peek()) {
            ('%', Some('p')) => filled.push_str(path),
            ('%', Some('f')) => filled.push_str(name),
            ('%', Some('%')) => filled.push('%'),
            (c, _) => {
                filled.push(c);
                continue;
            }
        }
        rest.next();
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::{filled, segment};
    use types::{Lsn, Timeline};

    #[test]
    fn the_command_is_filled_in_as_postgresql_does_it() {
        let name = "000000010000000000000003";
        assert_eq!(
            filled("cp %p /a/%f && echo 5%% %x%", name, &format!("pg_wal/{name}")),
            format!("cp pg_wal/{name} /a/{name} && echo 5% %x%")
        );
    }

    #[test]
    fn segments_are_named_by_timeline_and_position() {
        assert_eq!(segment(Timeline(2), Lsn(0x1_0300_0028), 16 << 20), "000000020000000100000003");
        assert_eq!(segment(Timeline(1), Lsn(0x300_0000), 1 << 20), "000000010000000000000030");
    }
}
