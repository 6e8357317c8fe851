//! The binary itself: what it prints and how it ends, alone and with a real etcd.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;

use one_etcd::Etcd;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;
use testbed::free_port;

const BATON: &str = env!("CARGO_BIN_EXE_baton");

/// Runs `baton` with nobody at the terminal and nothing of this machine's configuration.
fn baton(words: &[&str]) -> Output {
    Command::new(BATON)
        .args(words)
        .env_clear()
        .env("HOME", "/nonexistent")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn ended(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

/// Runs `baton` on this etcd.
fn on(etcd: &Etcd, words: &[&str]) -> (i32, String, String) {
    let url = format!("etcd3://{}/service", etcd.endpoint.trim_start_matches("http://"));
    ended(&baton(&[&["-d", url.as_str()], words].concat()))
}

/// Writes what two members of a cluster `demo` would, one of which never answers.
async fn write_cluster(etcd: &Etcd) {
    let client = etcd.client();
    let by = clock::now().after(Duration::from_secs(30));
    let lease = client.grant(600, by).await.unwrap().lease;
    client
        .create_config(&serde_json::json!({"ttl": 30, "loop_wait": 5, "retry_timeout": 5}), by)
        .await
        .unwrap();
    let term = client.acquire_leader(&types::NodeName::from("pg-1"), lease, by).await.unwrap();
    assert!(term.is_some());
    for (name, role) in [("pg-1", types::Role::Primary), ("pg-2", types::Role::Replica)] {
        let mut member = etcd::Member::new(types::PostgresState::Running, role);
        member.conn_url = Some("postgres://127.0.0.1:5432/postgres".to_owned());
        member.api_url = Some(format!("http://127.0.0.1:{}/patroni", free_port()));
        client.put_member(&types::NodeName::from(name), &member, lease, by).await.unwrap();
    }
}

#[test]
fn every_way_to_end_has_its_code() {
    let code = |words: &[&str]| ended(&baton(words)).0;
    assert_eq!(code(&["--version"]), 0);
    assert_eq!(code(&["lsit"]), 2);
    assert_eq!(code(&["list"]), 2, "no cluster is named");
    assert_eq!(code(&["agent"]), 2, "no file is named");
    assert_eq!(code(&["list", "demo"]), 3, "nothing says where etcd is");
    assert_eq!(code(&["check", "/nonexistent/x.yml"]), 3);
    assert_eq!(code(&["agent", "/nonexistent/x.yml"]), 3);
    let nobody = format!("etcd3://127.0.0.1:{}/service", free_port());
    let (status, _, said) = ended(&baton(&["-d", &nobody, "list", "demo"]));
    assert_eq!(status, 4, "{said}");
    assert!(said.starts_with("Error: failed to reach etcd"), "{said}");
}

#[test]
fn links_behave_as_the_command_of_their_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = |name: &str| {
        let path = dir.path().join(name);
        if !path.exists() {
            std::os::unix::fs::symlink(BATON, &path).unwrap();
        }
        path
    };
    let run = |path: PathBuf, word: &str| {
        ended(&Command::new(path).arg(word).env_clear().stdin(Stdio::null()).output().unwrap())
    };
    let (status, said, _) = run(link("patronictl"), "version");
    assert_eq!(status, 0);
    assert!(said.starts_with("patronictl version 4."), "{said}");
    let (status, _, _) = run(link("patronictl"), "show-config");
    assert_eq!(status, 2, "no cluster is named");
    let (status, _, said) = run(link("patronictl"), "--dcs-url=consul://x");
    assert_eq!(status, 2, "{said}");
    let (status, _, said) = run(link("patroni"), "/nonexistent/patroni.yml");
    assert_eq!(status, 1, "Patroni's daemon knows no other");
    assert!(said.contains("/nonexistent/patroni.yml"), "{said}");
}

#[test]
fn commands_do_what_they_say_on_a_real_etcd() {
    let etcd = Etcd::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(write_cluster(&etcd));

    let (status, table, _) = on(&etcd, &["list", "demo"]);
    assert_eq!(status, 0);
    assert!(table.contains("| pg-1   | 127.0.0.1:5432 | Leader  | unreachable |"), "{table}");
    assert!(table.contains("connection refused"), "{table}");

    let (status, said, error) = on(&etcd, &["edit-config", "demo", "-s", "ttl=20", "--force"]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(said.contains("-ttl: 30\n+ttl: 20\n"), "{said}");
    assert!(on(&etcd, &["show-config", "demo"]).1.contains("ttl: 20\n"));
    assert_eq!(on(&etcd, &["edit-config", "demo", "-s", "ttl=20", "--force"]).1, "Not changed\n");

    let (status, _, error) = on(&etcd, &["edit-config", "demo", "-s", "ttl=soon", "--force"]);
    assert_eq!(status, 1);
    assert!(error.contains("ttl"), "{error}");
    let (status, _, error) = on(&etcd, &["edit-config", "demo", "-s", "ttl=21"]);
    assert_eq!((status, error.as_str()), (1, "Aborted!\n"), "nobody is there to say yes");
    assert!(on(&etcd, &["show-config", "demo"]).1.contains("ttl: 20\n"));

    // No member answers, so the pause goes to etcd itself.
    assert_eq!(on(&etcd, &["pause", "demo"]).1, "Success: cluster management is paused\n");
    assert!(on(&etcd, &["list", "demo"]).1.contains(" Maintenance mode: on\n"));
    let (status, _, error) = on(&etcd, &["pause", "demo"]);
    assert_eq!((status, error.as_str()), (1, "Error: Cluster is already paused\n"));
    assert_eq!(on(&etcd, &["resume", "demo"]).0, 0);

    let (status, _, error) = on(&etcd, &["list", "demo", "--group", "1"]);
    assert_eq!(status, 2);
    assert!(error.contains("Citus clusters are not supported"), "{error}");

    let (status, _, error) = on(&etcd, &["switchover", "demo", "--leader", "pg-2", "--force"]);
    assert_eq!((status, error.as_str()), (1, "Error: Member pg-2 is not the leader of cluster demo\n"));
    let (status, _, error) = on(&etcd, &["restart", "demo", "pg-9", "--force"]);
    assert_eq!((status, error.as_str()), (1, "Error: pg-9 is not a member of cluster demo\n"));
    let (status, said, _) = on(&etcd, &["why", "--cluster", "demo", "pg-2"]);
    assert_eq!(status, 1);
    assert!(said.contains("it does not answer at http://127.0.0.1:"), "{said}");
}
