//! etcd's own command line, as a person uses it.

use std::path::Path;
use std::process::Command;

/// Runs lines in a shell that has been told where etcd is, and finds the etcdctl that lies beside the program `etcd`. What they print.
///
/// # Panics
/// When one of them fails.
pub fn etcdctl(etcd: &Path, endpoint: &str, lines: &str) -> String {
    let beside = etcd.parent().expect("a program lies in a directory");
    let mut shell = Command::new("bash");
    shell.args(["-euo", "pipefail", "-c", lines]).env("PATH", format!("{}:/usr/bin:/bin", beside.display()));
    let done = shell.env("ETCDCTL_API", "3").env("ETCDCTL_ENDPOINTS", endpoint).output().expect("bash runs");
    let text = [done.stdout, done.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(done.status.success(), "{lines}: {text}");
    text
}
