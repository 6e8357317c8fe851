//! Writing files so that a crash at any moment leaves the old one or the new one, and so that PostgreSQL, whoever
//! runs it, can read them.

use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// The content of a file, if there is one.
pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("read", path, error)),
    }
}

/// Replaces the content of `path` in one step and makes it durable. The file belongs to the owner of its directory.
/// Answers whether anything had to be done.
pub(crate) fn replace(path: &Path, content: &[u8], mode: u32) -> Result<bool, Error> {
    // A link stays a link: its target is what is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if read_if_there(path)?.as_deref() == Some(content) {
        return Ok(false);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".baton-new");
    let fresh = path.with_file_name(name);
    remove_if_there(&fresh)?;
    write_new(&fresh, content, mode)?;
    fs::rename(&fresh, path).map_err(|error| Error::io("replace", path, error))?;
    sync_parent(path)?;
    Ok(true)
}

/// Writes a durable file that must not exist yet, closed to others from its first moment.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let fail = |error| Error::io("write", path, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(fail)?;
    give_to_owner_of_directory(&file, path)?;
    // The process umask may have taken bits away.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(fail)
}

/// The agent normally is the owner; when it is root, the file would otherwise be unreadable for PostgreSQL.
pub(crate) fn give_to_owner_of_directory(file: &File, path: &Path) -> Result<(), Error> {
    let fail = |error| Error::io("change the owner of", path, error);
    let directory = fs::metadata(parent(path)).map_err(fail)?;
    let ours = file.metadata().map_err(fail)?;
    if rustix::process::geteuid().is_root() && (ours.uid(), ours.gid()) != (directory.uid(), directory.gid())
    {
        fchown(file, Some(directory.uid()), Some(directory.gid())).map_err(fail)?;
    }
    Ok(())
}

/// Removes a file durably; answers whether it was there.
pub(crate) fn remove_if_there(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path).map(|()| true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("remove", path, error)),
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| Error::io("flush", dir, error))
}

/// Makes the entry of `path` in its directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), Error> {
    sync_dir(parent(path))
}

/// The directory of `path`.
pub(crate) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => Path::new("/"),
    }
}

/// `path` with `suffix` added to its last component.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    // Without the slash that people like to end directories with.
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The mode of files below a data directory: open to the group when the directory is.
pub(crate) fn mode_in(dir: &Path) -> u32 {
    match fs::metadata(dir) {
        Ok(metadata) if metadata.mode() & 0o040 != 0 => 0o640,
        Ok(_) | Err(_) => 0o600,
    }
}
