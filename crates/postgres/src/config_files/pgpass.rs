//! The password file that libpq reads: one line per server, closed to others.

use crate::error::Error;
use crate::files;
use std::path::Path;
use types::Secret;

/// One line; `*` stands for any host, port, database or user.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PgPass {
    pub host: String,
    pub port: String,
    pub database: String,
    pub user: String,
    pub password: Secret,
}

/// Writes `path` with mode 0600; answers whether its content changed.
pub fn write_pgpass(path: &Path, entries: &[PgPass]) -> Result<bool, Error> {
    let mut text = String::new();
    for entry in entries {
        let fields = [&entry.host, &entry.port, &entry.database, &entry.user].map(|field| escaped(field));
        let line = format!("{}:{}", fields.join(":"), escaped(entry.password.reveal()));
        if line.contains(['\n', '\r', '\0']) {
            return Err(Error::Refused(format!(
                "write the password of {} to {}: it holds a line break, which libpq cannot read; change it",
                entry.user,
                path.display()
            )));
        }
        text.push_str(&line);
        text.push('\n');
    }
    files::replace(path, text.as_bytes(), 0o600)
}

fn escaped(field: &str) -> String {
    field.replace('\\', "\\\\").replace(':', "\\:")
}
