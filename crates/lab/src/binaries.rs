//! Where the programs are: PostgreSQL, etcd, Baton itself, and what Baton replaces.
//!
//! In this order: the variables BATON_TEST_PG_BINS, BATON_TEST_ETCD_BINS, BATON_TEST_PATRONI, BATON_TEST_HAPROXY, BATON_TEST_PGBACKREST and BATON_TEST_ANSIBLE, what `tools/setup` left in its cache
//! directory, what the distribution installed.

use anyhow::{Result, bail};
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// The programs of one lab.
#[derive(Clone, Debug)]
pub struct Binaries {
    /// The directory of `postgres` and its tools.
    pub postgres: PathBuf,
    /// The etcd server.
    pub etcd: PathBuf,
    /// The binary `baton`.
    pub baton: PathBuf,
}

impl Binaries {
    /// The default PostgreSQL and etcd of this machine, and `baton`.
    pub fn find(baton: PathBuf) -> Result<Binaries> {
        let Some(postgres) = postgres_bins().into_iter().next() else {
            bail!(
                "there is no PostgreSQL server on this machine: run tools/setup, or set BATON_TEST_PG_BINS"
            );
        };
        let Some(etcd) = etcd_bins().into_iter().next() else {
            bail!("there is no etcd on this machine: run tools/setup, or set BATON_TEST_ETCD_BINS");
        };
        if !baton.is_file() {
            bail!("there is no binary at {}: build it with cargo build -p baton-ctl", baton.display());
        }
        Ok(Binaries { postgres, etcd, baton })
    }
}

/// The directories of PostgreSQL's programs, the default one first.
#[must_use]
pub fn postgres_bins() -> Vec<PathBuf> {
    let listed = listed("BATON_TEST_PG_BINS", |bin| bin.join("postgres").is_file());
    if !listed.is_empty() {
        return listed;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, bin)| bin.join("postgres").is_file())
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, bin)| bin).collect()
}

/// The etcd servers, the default one first.
#[must_use]
pub fn etcd_bins() -> Vec<PathBuf> {
    let listed = listed("BATON_TEST_ETCD_BINS", Path::is_file);
    if !listed.is_empty() {
        return listed;
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(&path).chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")]);
    dirs.map(|dir| dir.join("etcd")).find(|etcd| etcd.is_file()).into_iter().collect()
}

/// The directory of real Patroni's programs: `patroni`, `patronictl`, `check_patroni`.
pub fn patroni_bin() -> Result<PathBuf> {
    match listed("BATON_TEST_PATRONI", |bin| bin.join("patroni").is_file()).into_iter().next() {
        Some(bin) => Ok(bin),
        None => bail!("there is no Patroni for the tests: run tools/setup test, or set BATON_TEST_PATRONI"),
    }
}

/// The program `haproxy`.
pub fn haproxy_binary() -> Result<PathBuf> {
    match listed("BATON_TEST_HAPROXY", Path::is_file).into_iter().next() {
        Some(program) => Ok(program),
        None => bail!("there is no HAProxy for the tests: run tools/setup test, or set BATON_TEST_HAPROXY"),
    }
}

/// The program `pgbackrest`.
pub fn pgbackrest_binary() -> Result<PathBuf> {
    match listed("BATON_TEST_PGBACKREST", Path::is_file).into_iter().next() {
        Some(program) => Ok(program),
        None => {
            bail!("there is no pgBackRest for the tests: run tools/setup test, or set BATON_TEST_PGBACKREST")
        }
    }
}

/// The directory of Ansible's programs.
pub fn ansible_bin() -> Result<PathBuf> {
    match listed("BATON_TEST_ANSIBLE", |bin| bin.join("ansible-playbook").is_file()).into_iter().next() {
        Some(bin) => Ok(bin),
        None => bail!("there is no Ansible for the tests: run tools/setup test, or set BATON_TEST_ANSIBLE"),
    }
}

/// The binary `baton` of the build that the running test or bench belongs to.
pub fn baton_of_this_build() -> Result<PathBuf> {
    if let Some(path) = env::var_os("BATON_TEST_BIN") {
        return Ok(PathBuf::from(path));
    }
    let me = env::current_exe()?;
    // A test lies in target/PROFILE/deps, a program in target/PROFILE.
    let dirs = me.ancestors().skip(1).take(2);
    for dir in dirs {
        let baton = dir.join("baton");
        if baton.is_file() {
            return Ok(baton);
        }
    }
    bail!("the binary baton is not built: run cargo build -p baton-ctl first, or make stories")
}

fn listed(variable: &str, usable: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let value = env::var(variable).ok().or_else(|| from_cache(variable)).unwrap_or_default();
    value.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).filter(|path| usable(path)).collect()
}

/// Reads what `tools/setup` wrote: lines of the form `export NAME='value'`.
fn from_cache(variable: &str) -> Option<String> {
    let cache = match env::var_os("BATON_TEST_CACHE") {
        Some(cache) => PathBuf::from(cache),
        None if rustix::process::geteuid().is_root() => PathBuf::from("/var/cache/baton-test"),
        None => match env::var_os("XDG_CACHE_HOME") {
            Some(caches) => PathBuf::from(caches).join("baton-test"),
            None => {
                Path::new(env::var_os("HOME").as_deref().unwrap_or(OsStr::new("/"))).join(".cache/baton-test")
            }
        },
    };
    let content = fs::read_to_string(cache.join("env")).ok()?;
    let start = format!("export {variable}='");
    content.lines().find_map(|line| Some(line.strip_prefix(&start)?.strip_suffix('\'')?.to_owned()))
}
