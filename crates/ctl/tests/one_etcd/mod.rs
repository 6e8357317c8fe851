//! An etcd for the tests of the command line.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use testbed::free_port;

/// An etcd of one member, ended with this value.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) endpoint: String,
    /// Its data directory is `m` in it.
    _dir: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _reaped = self.process.wait();
    }
}

/// The program.
pub(crate) fn etcd_binary() -> PathBuf {
    let named = std::env::var("BATON_TEST_ETCD_BINS").unwrap_or_default();
    let first = named.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from);
    first.unwrap_or_else(|| PathBuf::from("etcd"))
}

impl Etcd {
    pub(crate) fn start() -> Etcd {
        Etcd::at(tempfile::tempdir().unwrap(), &format!("http://127.0.0.1:{}", free_port()), &[])
    }

    /// In a directory that may hold data of it, with its address for other members, and more arguments.
    pub(crate) fn at(dir: tempfile::TempDir, peer: &str, more: &[&str]) -> Etcd {
        let endpoint = format!("http://127.0.0.1:{}", free_port());
        let mut process = Command::new(etcd_binary())
            .args(["--name", "m", "--data-dir"])
            .arg(dir.path().join("m"))
            .args(["--listen-client-urls", &endpoint, "--advertise-client-urls", &endpoint])
            .args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer])
            .args(["--initial-cluster", &format!("m={peer}")])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("etcd starts: make setup installs it");
        // It says so when it serves; the rest of what it says is read away so that it never waits for us.
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let serves = lines.any(|line| line.is_ok_and(|line| line.contains("ready to serve client requests")));
        assert!(serves, "etcd ended before it served");
        std::thread::spawn(move || lines.for_each(drop));
        Etcd { process, endpoint, _dir: dir }
    }

    /// A client for the keys of a cluster `demo`.
    #[allow(dead_code, reason = "not every test program writes keys")]
    pub(crate) fn client(&self) -> etcd::Etcd {
        let config = etcd::Config {
            endpoints: vec![self.endpoint.clone()],
            attempt: Duration::from_secs(5),
            tls: None,
            auth: None,
        };
        etcd::Etcd::new(config, etcd::Keys::new("service", "demo")).unwrap()
    }
}
