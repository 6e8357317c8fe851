//! The lab itself, before any agent: etcd members start, freeze, die and leave nothing behind, whoever runs the test.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

use lab::{Binaries, Lab, Spec, etcd_bins, postgres_bins, processes};
use std::path::{Path, PathBuf};

fn spec(name: &str, etcd: PathBuf) -> (tempfile::TempDir, Spec) {
    let dir = tempfile::Builder::new().prefix("baton-lab-").tempdir().unwrap();
    // The account of the lab must be able to pass through.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let postgres = postgres_bins().into_iter().next().expect("PostgreSQL is set up by tools/setup");
    // No agent is started here, so any program will do in its place.
    let baton = PathBuf::from("/bin/true");
    let spec = Spec::usual(dir.path().join(name), Binaries { postgres, etcd, baton });
    (dir, spec)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_of_every_version_survives_one_frozen_and_one_killed_member() {
    let versions = etcd_bins();
    assert!(!versions.is_empty(), "etcd is set up by tools/setup");
    for etcd in versions {
        let (_dir, spec) = spec("etcd", etcd);
        let mut lab = Lab::create(&spec).unwrap();
        lab.start_etcd().await.unwrap();
        lab.keys().put("config", "{\"pause\":true}").await.unwrap();
        assert!(lab.view().await.unwrap().paused);

        lab.etcd[0].freeze();
        lab.wait_for_etcd().await.unwrap();
        lab.keys().put("leader", "n1").await.unwrap();
        lab.etcd[0].thaw();
        lab.wait_for_etcd().await.unwrap();
        lab.etcd[2].kill();
        assert!(!lab.etcd[2].running());
        lab.wait_for_etcd().await.unwrap();
        let (leader, term) = lab.view().await.unwrap().leader.unwrap();
        assert_eq!(leader, "n1");
        assert!(term > 0);

        let base = lab.base().to_owned();
        lab.stop().await.unwrap();
        assert!(!base.exists());
        assert_eq!(processes::under(&base), Vec::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_lab_leaves_no_process() {
    let (_dir, spec) = spec("dropped", etcd_bins().into_iter().next().unwrap());
    let mut lab = Lab::create(&spec).unwrap();
    lab.start_etcd().await.unwrap();
    let endpoint = lab.etcd[0].endpoint.trim_start_matches("http://").to_owned();
    assert!(std::net::TcpStream::connect(&endpoint).is_ok());
    drop(lab);
    assert!(std::net::TcpStream::connect(&endpoint).is_err());
    assert!(Lab::create(&spec).is_err(), "a directory that is there already is not touched");
    assert!(Path::new(&spec.base).exists());
}
