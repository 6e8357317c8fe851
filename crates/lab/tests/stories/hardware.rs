//! Pieces of a host that fail on demand: a small disk that fills up or hangs, and the freezer. Both need root, which the stories have
//! where they make network addresses; without it they fail and say so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own. Thawed, unmounted and gone when dropped.
pub(crate) struct SmallDisk {
    directory: PathBuf,
}

fn run(program: &str, words: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(words).output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{program} {}: {said}", words.join(" "))) }
}

impl SmallDisk {
    /// Makes one of so many megabytes, for everybody to write to.
    pub(crate) fn make(megabytes: usize) -> SmallDisk {
        let directory = crate::story::directory("disk");
        let (image, mount) = (directory.join("image"), directory.join("mount"));
        fs::create_dir(&mount).unwrap();
        let [image, mount] = [image, mount].map(|path| path.display().to_string());
        run("truncate", &["--size", &format!("{megabytes}M"), &image]).unwrap();
        run("mkfs.ext4", &["-q", "-m", "0", &image]).unwrap();
        let disk = SmallDisk { directory };
        run("mount", &["-o", "loop", &image, &mount])
            .expect("mount a small disk over a loop device, as root in a place that has them");
        run("chmod", &["1777", &mount]).unwrap();
        disk
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.join("mount")
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let file = self.path().join("filler");
        let full = run("dd", &["if=/dev/zero", &format!("of={}", file.display()), "bs=64k"]);
        assert!(full.is_err_and(|error| error.contains("No space left")), "a disk has an end");
    }

    pub(crate) fn empty(&self) {
        fs::remove_file(self.path().join("filler")).unwrap();
    }

    /// From now on nothing that writes to it ends, and no signal ends whoever tries.
    pub(crate) fn hang(&self) {
        run("fsfreeze", &["--freeze", &self.path().display().to_string()]).unwrap();
    }

    pub(crate) fn answer_again(&self) {
        run("fsfreeze", &["--unfreeze", &self.path().display().to_string()]).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mount = self.path().display().to_string();
        // It is frozen only when a story failed.
        let _ = run("fsfreeze", &["--unfreeze", &mount]);
        // What still works in it, after a story that failed, keeps the disk until it ends; the loop device goes with it.
        let _ = run("umount", &["--lazy", &mount]);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A host that is suspended: its processes stand still, and do not know it afterwards. Let go when dropped.
pub(crate) struct Freezer {
    group: PathBuf,
    /// Of the first version of control groups.
    old: bool,
}

impl Freezer {
    pub(crate) fn make(name: &str) -> Freezer {
        let name = format!("baton-{name}-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/freezer");
        let second = Path::new("/sys/fs/cgroup");
        let old = first.exists();
        let group = if old { first.join(name) } else { second.join(name) };
        fs::create_dir(&group).expect("make a control group to freeze processes in, as root");
        Freezer { group, old }
    }

    /// Stops these, and whatever they start.
    pub(crate) fn freeze(&self, pids: &[i32]) {
        for pid in pids {
            // One that has ended in between needs no freezing.
            let _ = fs::write(self.group.join("cgroup.procs"), pid.to_string());
        }
        self.set(true);
    }

    pub(crate) fn thaw(&self) {
        self.set(false);
    }

    fn set(&self, frozen: bool) {
        let (file, value) = match (self.old, frozen) {
            (true, true) => ("freezer.state", "FROZEN"),
            (true, false) => ("freezer.state", "THAWED"),
            (false, true) => ("cgroup.freeze", "1"),
            (false, false) => ("cgroup.freeze", "0"),
        };
        fs::write(self.group.join(file), value).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let value = if self.old { ("freezer.state", "THAWED") } else { ("cgroup.freeze", "0") };
        let _ = fs::write(self.group.join(value.0), value.1);
        let parent = self.group.parent().unwrap_or(Path::new("/")).join("cgroup.procs");
        for pid in fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write(&parent, pid);
        }
        let _ = fs::remove_dir(&self.group);
    }
}
