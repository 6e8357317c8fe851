//! The passwords for one program, in files that only it and we can read and that are gone afterwards. A command line
//! and an environment can be read by others; these cannot.

use crate::config_files::{PgPass, write_pgpass};
use crate::connection::ConnectTo;
use crate::error::Error;
use crate::files;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The name of the service in the file.
const SERVICE: &str = "baton";

/// libpq's files with passwords; removed when dropped.
#[derive(Default)]
pub(crate) struct PassFiles {
    /// The password of the login.
    login: Option<PathBuf>,
    /// A service file: libpq takes the password of a key from there alone, or from a connection string.
    key: Option<PathBuf>,
}

impl PassFiles {
    /// Beside `data_dir`, under fixed names: what a killed agent left behind is replaced by the next one.
    pub(crate) fn write(data_dir: &Path, to: &ConnectTo) -> Result<PassFiles, Error> {
        let mut files = PassFiles::default();
        let any = || "*".to_owned();
        if let Some(password) = to.password.clone() {
            let path = files.login.insert(files::beside(data_dir, ".baton-pgpass"));
            // The program connects to one place only.
            let line = PgPass { host: any(), port: any(), database: any(), user: any(), password };
            write_pgpass(path, &[line])?;
        }
        if let Some(password) = &to.sslpassword {
            let path = files.key.insert(files::beside(data_dir, ".baton-pgservice"));
            let password = password.reveal();
            if password.contains(['\n', '\r', '\0']) {
                return Err(Error::Refused(
                    "pass sslpassword on: it holds a line break, which libpq cannot read; change it"
                        .to_owned(),
                ));
            }
            files::replace(path, format!("[{SERVICE}]\nsslpassword={password}\n").as_bytes(), 0o600)?;
        }
        Ok(files)
    }

    /// Tells the program where they are.
    pub(crate) fn give(&self, command: &mut Command) {
        // Never the password file of the operating system's user, which may hold another password.
        command.env("PGPASSFILE", self.login.as_deref().unwrap_or(Path::new("/dev/null/no-password-file")));
        if let Some(file) = &self.key {
            command.env("PGSERVICEFILE", file).env("PGSERVICE", SERVICE);
        }
    }
}

impl Drop for PassFiles {
    fn drop(&mut self) {
        for path in self.login.iter().chain(&self.key) {
            if let Err(error) = files::remove_if_there(path) {
                tracing::warn!("failed to {error}; remove the file by hand, it holds a password");
            }
        }
    }
}
