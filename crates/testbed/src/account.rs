//! Who PostgreSQL runs as in a test.

use std::fs;

/// The user and group of `postgres`, when the test is root and PostgreSQL must not be.
///
/// # Panics
///
/// When there is no such user.
pub fn run_as() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("read /etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user postgres");
    let mut fields = line.split(':').skip(2).map(|field| field.parse().expect("a number"));
    Some((fields.next().expect("a uid"), fields.next().expect("a gid")))
}
