//! A password for one program, in a file that only it and we can read and that is gone afterwards. A command line
//! and an environment can be read by others; this cannot.

use crate::config_files::{PgPass, write_pgpass};
use crate::error::Error;
use crate::files;
use std::path::{Path, PathBuf};
use types::Secret;

/// A libpq password file; removed when dropped.
pub(crate) struct PassFile {
    path: PathBuf,
}

impl PassFile {
    /// Beside `data_dir`, under a fixed name: what a killed agent left behind is replaced by the next one.
    pub(crate) fn write(data_dir: &Path, password: &Secret) -> Result<PassFile, Error> {
        let path = files::beside(data_dir, ".baton-pgpass");
        let any = || "*".to_owned();
        // The program connects to one place only.
        let line =
            PgPass { host: any(), port: any(), database: any(), user: any(), password: password.clone() };
        let file = PassFile { path };
        write_pgpass(&file.path, &[line])?;
        Ok(file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PassFile {
    fn drop(&mut self) {
        if let Err(error) = files::remove_if_there(&self.path) {
            tracing::warn!("failed to {error}; remove the file by hand, it holds a password");
        }
    }
}
