//! New clusters, and what is left when making one fails.

mod common;

use common::{Scratch, Server, installation, pg_bin, pg_bins, until};
use postgres::Secret;
use postgres::control::ControlState;
use postgres::data_dir::{self, DataDir, Work};
use postgres::initdb::{self, InitdbOptions};
use std::fs;

const PASSWORD: &str = "it's \\ a : \"secret\"";

fn options() -> InitdbOptions {
    let plain = |name: &str| (name.to_owned(), None);
    let with = |name: &str, value: &str| (name.to_owned(), Some(value.to_owned()));
    InitdbOptions {
        options: vec![
            plain("data-checksums"),
            with("encoding", "UTF8"),
            with("auth", "scram-sha-256"),
            plain("no-instructions"),
        ],
        superuser: "admin".to_owned(),
        superuser_password: Some(Secret::new(PASSWORD)),
        keep_mark: false,
    }
}

#[tokio::test]
async fn a_new_cluster_knows_its_superuser() {
    for bin in pg_bins() {
        let scratch = Scratch::new("initdb");
        let server = Server::at(&scratch, &bin, "data");
        let installation = installation(&bin).await;
        initdb::run(&installation, &server.data_dir, &options()).await.unwrap();
        match data_dir::inspect_for(&server.data_dir, &installation).unwrap() {
            DataDir::Present { control, standby_signal, .. } => {
                assert!(control.data_checksums && control.state == ControlState::ShutDown && !standby_signal);
            }
            other => panic!("{other:?}"),
        }
        // Neither the mark nor the password is left behind.
        let mut names: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        names.sort();
        assert_eq!(names, ["data"]);

        server.append_settings();
        server.start();
        let connect = |password: &str| {
            let mut psql = server.psql_command("select current_user, current_setting('server_encoding')");
            psql.args(["--username", "admin"]).env("PGPASSWORD", password);
            let output = psql.output().unwrap();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
        };
        assert_eq!(until("a connection", || connect(PASSWORD)).await, "admin|UTF8");
        assert_eq!(connect("wrong"), None);

        let again = initdb::run(&installation, &server.data_dir, &options()).await.unwrap_err();
        assert!(again.to_string().contains("move it aside"), "{again}");
    }
}

#[tokio::test]
async fn the_caller_may_keep_the_mark() {
    let scratch = Scratch::new("keepmark");
    let (data, installation) = (scratch.join("data"), installation(&pg_bin()).await);
    let options = InitdbOptions { keep_mark: true, ..options() };
    initdb::run(&installation, &data, &options).await.unwrap();
    assert!(matches!(data_dir::inspect(&data).unwrap(), DataDir::Incomplete { work: Work::Bootstrap, .. }));
    // Whatever stands there, marked or not, is never overwritten.
    assert!(initdb::run(&installation, &data, &options).await.is_err());
    data_dir::clear_mark(&data).unwrap();
    assert!(matches!(data_dir::inspect(&data).unwrap(), DataDir::Present { .. }));
}

#[tokio::test]
async fn a_failure_tells_why_and_moves_its_leavings() {
    let scratch = Scratch::new("failed");
    let data = scratch.join("data");
    let mut installation = installation(&pg_bin()).await;
    let mut bad = options();
    bad.options.push(("locale".to_owned(), Some("no_SUCH.locale".to_owned())));
    let error = initdb::run(&installation, &data, &bad).await.unwrap_err().to_string();
    assert!(error.contains("no_SUCH.locale") && !error.contains("secret"), "{error}");
    assert_eq!(data_dir::inspect(&data).unwrap(), DataDir::Missing, "initdb cleaned up");

    // A program that dies half-way, as if killed, leaves files.
    installation.bin_dir = scratch.dir("bin");
    let script = installation.bin_dir.join("initdb");
    fs::write(
        &script,
        "#!/bin/sh\nmkdir -p \"$2\" && echo half >\"$2\"/PG_VERSION && echo 'disk full' >&2\nexit 3\n",
    )
    .unwrap();
    common::own(&script);
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for attempt in 1..=2 {
        let error = initdb::run(&installation, &data, &options()).await.unwrap_err().to_string();
        assert!(error.contains("disk full"), "{attempt}: {error}");
        assert_eq!(data_dir::inspect(&data).unwrap(), DataDir::Missing, "{attempt}");
        assert!(scratch.join("data.failed/PG_VERSION").exists());
        assert_eq!(data_dir::kept(&data).unwrap().len(), attempt - 1, "the first failure is not lost");
    }
    assert!(!scratch.join("data.baton-pwfile").exists());
}

#[tokio::test]
async fn options_that_are_ours_are_refused() {
    let scratch = Scratch::new("blocked");
    let (data, installation) = (scratch.join("data"), installation(&pg_bin()).await);
    for name in ["pgdata", "pwfile", "version", "nosync", "sync-only", "", "-D", "auth=trust", "a b"] {
        let options = InitdbOptions { options: vec![(name.to_owned(), None)], ..options() };
        let error = initdb::run(&installation, &data, &options).await.unwrap_err().to_string();
        assert!(error.contains("remove it"), "{name}: {error}");
    }
    let options = InitdbOptions { superuser_password: Some(Secret::new("two\nlines")), ..options() };
    let error = initdb::run(&installation, &data, &options).await.unwrap_err().to_string();
    assert!(error.contains("line break") && !error.contains("two"), "{error}");
    assert_eq!(data_dir::inspect(&data).unwrap(), DataDir::Missing);
    assert!(!format!("{options:?}").contains("two"));
}
