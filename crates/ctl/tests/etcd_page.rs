//! The commands of docs/etcd.md for etcd itself, as they stand there: users, an etcd that takes no writes, a snapshot and what is made
//! of it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot set itself up fails")]

mod one_etcd;

use one_etcd::{Etcd, etcd_binary};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;
use testbed::free_port;

const PAGE: &str = include_str!("../../../docs/etcd.md");

/// The lines of the indented block with these words.
fn block(words: &str) -> String {
    let blocks = PAGE.split("\n\n").filter(|block| block.starts_with("    ") && block.contains(words));
    let found: Vec<&str> = blocks.collect();
    assert_eq!(found.len(), 1, "blocks with {words}");
    found[0].lines().map(str::trim_start).collect::<Vec<_>>().join("\n")
}

fn etcdctl(etcd: &Etcd, lines: &str) -> String {
    testbed::etcdctl(&etcd_binary(), &etcd.endpoint, lines)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn baton(etcd: &Etcd, words: &[&str]) -> (bool, String) {
    let done = Command::new(env!("CARGO_BIN_EXE_baton"))
        .args(["-d", &format!("etcd3://{}/service", etcd.endpoint.trim_start_matches("http://"))])
        .args(words)
        .output()
        .unwrap();
    (done.status.success(), text(&done))
}

fn within() -> types::Moment {
    clock::now().after(Duration::from_secs(20))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_user_that_the_page_makes_may_do_what_a_cluster_needs() {
    let server = Etcd::start();
    etcdctl(
        &server,
        "etcdctl user add root:secret && etcdctl user add baton:word && etcdctl user grant-role root root",
    );
    etcdctl(&server, &block("etcdctl user grant-role baton baton").replace("SCOPE", "demo"));
    etcdctl(&server, "etcdctl auth enable");
    let config = |user: &str, password: &str| etcd::Config {
        endpoints: vec![server.endpoint.clone()],
        attempt: Duration::from_secs(5),
        tls: None,
        auth: Some(etcd::Credentials { user: user.to_owned(), password: password.to_owned() }),
    };
    let of =
        |scope: &str| etcd::Etcd::new(config("baton", "word"), etcd::Keys::new("service", scope)).unwrap();
    of("demo").put_config(&json!({ "ttl": 30 }), None, within()).await.unwrap();
    of("other").put_config(&json!({ "ttl": 30 }), None, within()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_etcd_that_takes_no_writes_takes_them_again_after_the_commands_of_the_page() {
    let peer = format!("http://127.0.0.1:{}", free_port());
    let server = Etcd::at(tempfile::tempdir().unwrap(), &peer, &["--quota-backend-bytes=2097152"]);
    let write = |n: u32| {
        let client = server.client();
        async move {
            client.put_config(&json!({ "filling": "x".repeat(512 << 10), "n": n }), None, within()).await
        }
    };
    let mut written = 0;
    while written < 100 && write(written).await.is_ok() {
        written += 1;
    }
    assert!(written < 100, "it was never full");
    let (fine, said) = baton(&server, &["etcd"]);
    assert!(!fine && said.contains("NOSPACE"), "{said}");
    etcdctl(&server, &block("etcdctl alarm disarm"));
    write(written).await.unwrap();
    let (_, said) = baton(&server, &["etcd"]);
    assert!(!said.contains("NOSPACE"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_gives_the_cluster_back() {
    assert!(PAGE.contains("`etcdctl snapshot save`") && PAGE.contains("`etcdctl snapshot restore`"));
    let (dir, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Etcd::start();
    server.client().put_config(&json!({ "ttl": 27 }), None, within()).await.unwrap();
    let file = dir.path().join("snapshot");
    etcdctl(&server, &format!("etcdctl snapshot save {}", file.display()));
    let peer = format!("http://127.0.0.1:{}", free_port());
    let data = home.path().join("m");
    let restore = format!(
        "etcdctl snapshot restore {} --name m --initial-cluster m={peer} --initial-advertise-peer-urls {peer} --data-dir {}",
        file.display(),
        data.display()
    );
    etcdctl(&server, &restore);
    drop(server);
    assert!(Path::new(&data).join("member").exists());
    let restored = Etcd::at(home, &peer, &[]);
    let (fine, said) = baton(&restored, &["show-config", "demo"]);
    assert!(fine && said.contains("ttl: 27"), "{said}");
}
