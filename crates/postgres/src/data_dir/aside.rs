//! Putting a data directory out of the way without losing it.
//!
//!     data_dir          →  data_dir.kept-20261123T002011.123Z-diverged
//!     pg_wal elsewhere  →  the same suffix there, the link of the kept directory following it,
//!                          and a fresh empty directory in its old place; tablespaces likewise
//!
//! Links are followed first and the data directory last: a crash in between leaves a complete, working database.

use super::{DataDir, Work, clear_mark, inspect};
use crate::error::Error;
use crate::files;
use crate::postmaster::Postmaster;
use crate::room;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown, symlink};
use std::path::{Path, PathBuf};

const KEPT: &str = ".kept-";
/// What a tail is kept as; everything else that is kept is a whole directory.
pub(crate) const WAL_TAIL: &str = "wal";
/// So many whole directories that were moved aside may lie beside the data directory. They are never removed here: each
/// may be the only copy of something. One more is refused, so that a member that is copied again and again does not
/// fill the disk.
const WHOLE: usize = 5;

/// A data directory that was moved aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Where it is.
    pub path: PathBuf,
    /// When it was moved, such as `20261123T002011.123Z`.
    pub at: String,
    /// Why.
    pub label: String,
}

/// Renames `data_dir` to `<data_dir>.kept-<time>-<label>` and answers with the new path. The label may have
/// lower-case letters, digits and `_`. A mark of unfinished work stays: it is about the path, not about the data.
pub fn move_aside(data_dir: &Path, label: &str) -> Result<PathBuf, Error> {
    if label.is_empty() || !label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        return Err(Error::Refused(format!("label {label:?}: use lower-case letters, digits and _")));
    }
    rename_all(data_dir, &suffix(label))
}

/// Keeps something of `data_dir` under a new name among those that [`kept`] lists: `fill` writes it into a directory of
/// another name first, so that what is there under its name is whole. What an earlier attempt left half is removed; the
/// original is still there.
pub(crate) fn keep_in_one_step(
    data_dir: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let half = files::beside(data_dir, ".baton-keeping");
    let remove = || match fs::remove_dir_all(&half) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &half, error)),
        Ok(()) | Err(_) => Ok(()),
    };
    remove()?;
    let path = files::beside(data_dir, &suffix(WAL_TAIL));
    if let Err(error) = fill(&half).and_then(|()| files::sync_dir(&half)) {
        // It may be what fills the disk.
        remove()?;
        return Err(error);
    }
    rename_new(&half, &path)?;
    Ok(path)
}

/// Moves aside what is in the way of a copy: a whole directory, or what a rewind or a bootstrap left unfinished. Where
/// it is now; `None` when nothing was in the way. The mark goes with it: it was about what was here.
pub fn make_room(data_dir: &Path) -> Result<Option<PathBuf>, Error> {
    let label = match inspect(data_dir)? {
        DataDir::Present { .. } => "before_clone",
        DataDir::Incomplete { work: Work::Rewind | Work::Bootstrap | Work::Restore, .. } => "unfinished",
        DataDir::Incomplete { work: Work::Clone, .. }
        | DataDir::Missing
        | DataDir::Empty
        | DataDir::Foreign { .. } => return Ok(None),
    };
    // An earlier attempt ended between the two.
    if !data_dir.exists() {
        clear_mark(data_dir)?;
        return Ok(None);
    }
    let whole = kept(data_dir)?.into_iter().filter(|kept| kept.label != WAL_TAIL).count();
    if whole >= WHOLE {
        return Err(Error::Refused(format!(
            "move the data directory aside: {whole} older ones lie beside it already; remove those named \
             {}.kept-* that nobody needs any more",
            data_dir.display()
        )));
    }
    // The copy that follows is about as large as what is here, and both stay.
    room::check(data_dir, "a copy", room::size(data_dir)).map_err(Error::Refused)?;
    let aside = move_aside(data_dir, label)?;
    clear_mark(data_dir)?;
    Ok(Some(aside))
}

fn suffix(label: &str) -> String {
    let now = jiff::Timestamp::try_from(clock::wall()).unwrap_or_default();
    format!("{KEPT}{}-{label}", now.strftime("%Y%m%dT%H%M%S.%3fZ"))
}

/// Renames the leavings of a failed bootstrap to `<data_dir>.failed`, where Patroni's users look for them, or to a
/// name with the time when that is taken. `None` when there is nothing worth keeping.
pub fn set_failed_aside(data_dir: &Path) -> Result<Option<PathBuf>, Error> {
    match fs::read_dir(data_dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => return Ok(None),
        Ok(false) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("list", data_dir, error)),
    }
    if files::beside(data_dir, ".failed").exists() {
        return move_aside(data_dir, "failed").map(Some);
    }
    rename_all(data_dir, ".failed").map(Some)
}

fn rename_all(data_dir: &Path, suffix: &str) -> Result<PathBuf, Error> {
    if let Some(postmaster) = Postmaster::adopt(data_dir)? {
        let what = format!(
            "move {} aside: process {} serves it; stop that first",
            data_dir.display(),
            postmaster.pid
        );
        return Err(Error::Refused(what));
    }
    let links = outside_dirs(data_dir)?;
    check_movable(data_dir)?;
    for link in &links {
        check_movable(&link.target)?;
    }
    for link in &links {
        link.move_target(suffix)?;
    }
    let target = files::beside(data_dir, suffix);
    rename_new(data_dir, &target)?;
    Ok(target)
}

/// A symbolic link in the data directory to a directory that moves along: `pg_wal` or a tablespace.
struct OutsideDir {
    link: PathBuf,
    target: PathBuf,
}

fn outside_dirs(data_dir: &Path) -> Result<Vec<OutsideDir>, Error> {
    let mut candidates = vec![data_dir.join("pg_wal")];
    let tablespaces = data_dir.join("pg_tblspc");
    for entry in fs::read_dir(&tablespaces).into_iter().flatten().flatten() {
        candidates.push(entry.path());
    }
    let mut found = Vec::new();
    for link in candidates.into_iter().filter(|path| path.is_symlink()) {
        let target = match fs::canonicalize(&link) {
            Ok(target) => target,
            // A link to nowhere has nothing to keep.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("resolve", &link, error)),
        };
        if link.parent() == Some(&tablespaces) {
            check_tablespace(&target)?;
        }
        found.push(OutsideDir { link, target });
    }
    Ok(found)
}

/// A tablespace's location can be shared with a cluster of another version, which must not lose it.
fn check_tablespace(target: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(target).map_err(|error| Error::io("list", target, error))?;
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let ours = names.iter().filter(|name| name.starts_with("PG_")).count();
    if names.len() > 1 || ours != names.len() {
        return Err(Error::Refused(format!(
            "move the tablespace {} aside: it holds more than this cluster's files ({}); move it by hand",
            target.display(),
            names.join(", ")
        )));
    }
    Ok(())
}

fn check_movable(dir: &Path) -> Result<(), Error> {
    let device = |path: &Path| {
        fs::symlink_metadata(path).map(|m| m.dev()).map_err(|error| Error::io("inspect", path, error))
    };
    if device(dir)? != device(files::parent(dir))? {
        return Err(Error::Refused(format!(
            "move {} aside: it is a mount point and cannot be renamed; use a subdirectory of it",
            dir.display()
        )));
    }
    Ok(())
}

impl OutsideDir {
    fn move_target(&self, suffix: &str) -> Result<(), Error> {
        let moved = files::beside(&self.target, suffix);
        let owner = fs::metadata(&self.target).map_err(|error| Error::io("inspect", &self.target, error))?;
        rename_new(&self.target, &moved)?;
        let fail = |error| Error::io("move the link", &self.link, error);
        let fresh = files::beside(&self.link, ".baton-new");
        symlink(&moved, &fresh).and_then(|()| fs::rename(&fresh, &self.link)).map_err(fail)?;
        files::sync_parent(&self.link)?;
        let fail = |error| Error::io("create", &self.target, error);
        DirBuilder::new().mode(owner.mode() & 0o777).create(&self.target).map_err(fail)?;
        if rustix::process::geteuid().is_root() {
            chown(&self.target, Some(owner.uid()), Some(owner.gid())).map_err(fail)?;
        }
        files::sync_parent(&self.target)
    }
}

/// Renames without ever replacing something.
fn rename_new(from: &Path, to: &Path) -> Result<(), Error> {
    renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).map_err(|error| Error::Io {
        what: format!("rename {} to {}", from.display(), to.display()),
        source: error.into(),
    })?;
    files::sync_parent(to)
}

/// The directories that [`move_aside`] made from `data_dir`, oldest first.
pub fn kept(data_dir: &Path) -> Result<Vec<Kept>, Error> {
    let parent = files::parent(data_dir);
    let Some(name) = data_dir.file_name().and_then(|name| name.to_str()) else { return Ok(Vec::new()) };
    let prefix = format!("{name}{KEPT}");
    let mut found = Vec::new();
    for entry in fs::read_dir(parent).map_err(|error| Error::io("list", parent, error))? {
        let entry = entry.map_err(|error| Error::io("list", parent, error))?;
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let name = entry.file_name();
        let rest =
            name.to_str().and_then(|name| name.strip_prefix(&prefix)).and_then(|rest| rest.split_once('-'));
        if let Some((at, label)) = rest.filter(|(at, _)| is_dir && is_stamp(at)) {
            found.push(Kept { path: entry.path(), at: at.to_owned(), label: label.to_owned() });
        }
    }
    found.sort_by(|a, b| (&a.at, &a.label).cmp(&(&b.at, &b.label)));
    Ok(found)
}

fn is_stamp(text: &str) -> bool {
    const SHAPE: &[u8] = b"00000000T000000.000Z";
    text.len() == SHAPE.len()
        && text
            .bytes()
            .zip(SHAPE)
            .all(|(c, shape)| if *shape == b'0' { c.is_ascii_digit() } else { c == *shape })
}

/// Removes the oldest kept directories so that `keep` remain, with the WAL and tablespaces that moved along.
/// Answers with what was removed.
pub fn prune_kept(data_dir: &Path, keep: usize) -> Result<Vec<Kept>, Error> {
    let mut oldest = kept(data_dir)?;
    oldest.truncate(oldest.len().saturating_sub(keep));
    for kept in &oldest {
        let suffix = format!("{KEPT}{}-{}", kept.at, kept.label);
        for outside in outside_dirs(&kept.path)? {
            // Only what moved along: anything else the link points at is somebody's.
            if outside.target.to_string_lossy().ends_with(&suffix) {
                fs::remove_dir_all(&outside.target)
                    .map_err(|error| Error::io("remove", &outside.target, error))?;
            }
        }
        fs::remove_dir_all(&kept.path).map_err(|error| Error::io("remove", &kept.path, error))?;
    }
    Ok(oldest)
}
