//! A configuration from a running PostgreSQL: what it says, who may read it, and that Baton and the real Patroni take it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;
mod one_postgres;

use one_etcd::Etcd;
use one_postgres::Postgres;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const BATON: &str = env!("CARGO_BIN_EXE_baton");

/// Runs a program with nobody at the terminal and only these variables.
fn run(program: &Path, words: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output: Output = Command::new(program)
        .args(words)
        .env_clear()
        .env("HOME", "/nonexistent")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn real_patroni() -> PathBuf {
    let named =
        std::env::var("BATON_TEST_PATRONI").expect("make setup installs Patroni: set BATON_TEST_PATRONI");
    Path::new(&named).join("patroni")
}

#[test]
fn a_running_postgresql_gives_a_configuration_that_both_take() {
    let (etcd, postgres) = (Etcd::start(), Postgres::start());
    postgres.psql("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'seekret'; CREATE ROLE rep REPLICATION LOGIN; CREATE ROLE low LOGIN PASSWORD 'x'");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/place/patroni.yml");
    let name = file.to_str().unwrap();
    let dsn = format!(
        "host=127.0.0.1 port={} user=boss password=seekret sslmode=require dbname=postgres",
        postgres.port
    );
    let members = etcd.endpoint.trim_start_matches("http://");
    let variables = [("PATRONI_ETCD3_HOSTS", members), ("PATRONI_SCOPE", "demo"), ("PATRONI_NAME", "pg-1")];
    let (status, _, said) =
        run(Path::new(BATON), &["agent", "--generate-config", "--dsn", &dsn, name], &variables);
    assert_eq!((status, said.as_str()), (0, ""));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600, "it holds passwords");
    let text = std::fs::read_to_string(&file).unwrap();
    let yaml = settings::to_json("generated", &text).unwrap();
    let at = |path: &str| yaml.pointer(path).cloned().unwrap_or_default();
    for (path, value) in [
        ("/scope", "demo".into()),
        ("/etcd3/hosts", members.into()),
        ("/bootstrap/dcs/postgresql/parameters/max_connections", "50".into()),
        ("/bootstrap/dcs/postgresql/parameters/work_mem", "8MB".into()),
        ("/bootstrap/dcs/postgresql/use_pg_rewind", true.into()),
        ("/postgresql/parameters/archive_command", "/bin/true '%p'".into()),
        ("/postgresql/listen", format!("127.0.0.1:{}", postgres.port).into()),
        ("/postgresql/data_dir", postgres.data_dir.to_str().unwrap().into()),
        ("/postgresql/bin_dir", postgres.bin_dir.to_str().unwrap().into()),
        (
            "/postgresql/authentication/superuser",
            serde_json::json!({"username": "boss", "password": "seekret", "sslmode": "require"}),
        ),
        ("/postgresql/authentication/replication/username", "rep".into()),
        ("/postgresql/pg_hba/0", "local all all trust".into()),
    ] {
        assert_eq!(at(path), value, "{path} in\n{text}");
    }
    assert!(!text.contains("primary_conninfo") && !text.contains("port: '"), "{text}");

    // Baton takes it and names what is left to fill in; so does the real one, silent and with 0.
    let (status, told, said) = run(Path::new(BATON), &["check", name], &[]);
    assert_eq!((status, said.as_str()), (0, ""), "{told}");
    assert!(told.contains("postgresql.authentication.replication.password still says #FIXME"), "{told}");
    let known = "replication: {username: rep, password: '#FIXME'}";
    assert!(told.contains("warning: ") && !told.contains(known), "{told}");
    let (status, told, said) =
        run(&real_patroni(), &["--validate-config", "--ignore-listen-port", name], &[]);
    assert_eq!(status, 0, "{told}{said}\n{text}");
    let link = dir.path().join("patroni");
    symlink(BATON, &link).unwrap();
    let (status, told, said) = run(&link, &["--validate-config", "-i", name], &[]);
    assert_eq!((status, told.as_str(), said.as_str()), (0, "", ""));

    // By the environment alone, to standard output; and refused: nobody there, no superuser, a password that nobody gave.
    let port = postgres.port.to_string();
    let by_environment =
        [("PGHOST", "127.0.0.1"), ("PGPORT", port.as_str()), ("PGUSER", "boss"), ("PGPASSWORD", "seekret")];
    let (status, printed, said) = run(&link, &["--generate-config"], &by_environment);
    assert_eq!((status, said.as_str()), (0, ""));
    assert!(
        printed.contains("      password: seekret\n") && printed.contains("scope: '#FIXME'\n"),
        "{printed}"
    );
    for (dsn, why) in [
        (format!("host=127.0.0.1 port={port} user=low password=x dbname=postgres"), "low is no superuser"),
        (format!("host=127.0.0.1 port={port} user=boss dbname=postgres"), "none is configured"),
        ("host=127.0.0.1 port=1 user=boss".to_owned(), "failed to connect to PostgreSQL"),
        ("host=127.0.0.1 service=x".to_owned(), "\"service\" is not supported"),
    ] {
        let (status, printed, said) = run(&link, &["--generate-config", "--dsn", &dsn], &[]);
        assert_eq!((status, printed.as_str()), (1, ""), "{dsn}: {said}");
        assert!(said.contains(why) && !said.contains("seekret"), "{dsn}: {said}");
    }
}

#[test]
fn the_example_passes_the_check_of_the_real_patroni() {
    let dir = tempfile::tempdir().unwrap();
    let (link, file) = (dir.path().join("patroni"), dir.path().join("sample.yml"));
    symlink(BATON, &link).unwrap();
    let (status, _, said) = run(&link, &["--generate-sample-config", file.to_str().unwrap()], &[]);
    assert_eq!((status, said.as_str()), (0, ""));
    let (status, told, _) = run(&link, &["--version"], &[]);
    assert!(status == 0 && told.starts_with("patroni 4.1.5 "), "{told}");
    assert_eq!(run(&link, &["/nonexistent/patroni.yml"], &[]).0, 1);
    assert_eq!(run(&link, &[], &[]).0, 1);
    assert_eq!(run(&link, &["--no-such-option"], &[]).0, 2);
    let (status, told, said) = run(&link, &["--validate-config", "/nonexistent/patroni.yml"], &[]);
    assert!(status == 1 && told.is_empty() && said.contains("no such file"), "{told}{said}");
    // The addresses and directories of the example are nobody's, its times shorter than Patroni allows; every other complaint is one of ours to heed.
    let (_, told, said) = run(&real_patroni(), &["--validate-config", "-i", file.to_str().unwrap()], &[]);
    let strange = |line: &&str| {
        ![
            "etcd3.hosts",
            "restapi.listen",
            "bootstrap.dcs.ttl",
            "bootstrap.dcs.retry_timeout",
            "postgresql.listen",
            "postgresql.bin_dir",
            "postgresql.data_dir",
        ]
        .iter()
        .any(|key| line.contains(key))
    };
    let left: Vec<&str> = told.lines().chain(said.lines()).filter(strange).collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// The query command over a connection that only TLS opens, checked as PGSSLMODE says.
#[test]
fn rows_come_over_tls_as_libpqs_variables_ask() {
    let (etcd, postgres) = (Etcd::start(), Postgres::start());
    postgres.psql("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'seekret'");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(one_postgres::publish(&etcd, &postgres));
    let url = format!("etcd3://{}/service", etcd.endpoint.trim_start_matches("http://"));
    let query = |variables: &[(&str, &str)]| {
        let login = [("PGUSER", "boss"), ("PGPASSWORD", "seekret"), ("PGDATABASE", "postgres")];
        let words = [
            "query",
            "demo",
            "--dcs-url",
            &url,
            "--format",
            "json",
            "-c",
            "SELECT ssl, pid > 0 AS lives FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ];
        run(Path::new(BATON), &words, &[&login[..], variables].concat())
    };
    for variables in [
        &[][..],
        &[("PGSSLMODE", "require")],
        &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", &postgres.ca)],
        &[("PGCHANNELBINDING", "require")],
    ] {
        let (status, told, said) = query(variables);
        assert_eq!((status, said.as_str()), (0, ""), "{variables:?}: {told}");
        let rows: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert_eq!(rows, serde_json::json!([{"ssl": true, "lives": true}]), "{variables:?}");
    }
    for variables in
        [&[("PGSSLMODE", "disable")][..], &[("PGSSLMODE", "verify-full"), ("PGSSLROOTCERT", "/nonexistent")]]
    {
        let (status, told, _) = query(variables);
        assert!(status != 0 && told.contains("connection to server at"), "{variables:?}: {told}");
    }
}
