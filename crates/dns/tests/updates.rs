//! Updates of a BIND and a Knot, as the distribution has them: signed, compared, refused.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot set itself up fails"
)]

use dns::{Key, Record, Sent, Target, UpdateError, current, send};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SECRET: &str = "c2VjcmV0LW9mLWEtdGVzdC1vbmx5LTMyLWJ5dGVzISE=";
const OTHER: &str = "YW5vdGhlci1zZWNyZXQtb2YtYS10ZXN0LTMyLWJ5dGU=";

/// A server, ended with this value.
struct Server {
    process: Child,
    address: String,
    dir: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn program(name: &str) -> PathBuf {
    let dir =
        std::env::var("BATON_TEST_PEERS").expect("tools/setup test installs name servers for the tests");
    Path::new(&dir).join(name)
}

impl Server {
    fn start(name: &str, configuration: impl Fn(&Path, u16) -> String, words: &[&str]) -> Server {
        let dir = tempfile::tempdir().unwrap();
        let port = testbed::free_port_for_both();
        fs::create_dir(dir.path().join("db")).unwrap();
        let zone =
            "$TTL 60\n@ IN SOA ns.example.net. host.example.net. 1 60 10 3600 1\n@ IN NS ns.example.net.\n";
        fs::write(dir.path().join("zone"), zone).unwrap();
        let file = dir.path().join("conf");
        fs::write(&file, configuration(dir.path(), port)).unwrap();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut command = Command::new(program(name));
        command.args(words).arg("-c").arg(&file).current_dir(dir.path()).stdin(Stdio::null());
        let process = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Server { process, address: format!("127.0.0.1:{port}"), dir }
    }

    fn bind() -> Server {
        let configuration = |dir: &Path, port: u16| {
            let dir = dir.display();
            format!(
                "options {{ directory \"{dir}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; pid-file none; \
                 recursion no; dnssec-validation no; session-keyfile \"{dir}/session.key\"; }};\ncontrols {{ }};\n\
                 key \"baton\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
                 zone \"example.org\" {{ type primary; file \"{dir}/zone\"; allow-update {{ key \"baton\"; }}; }};\n"
            )
        };
        Server::start("named", configuration, &["-g"])
    }

    fn knot() -> Server {
        let configuration = |dir: &Path, port: u16| {
            let dir = dir.display();
            format!(
                "server:\n  rundir: {dir}\n  listen: 127.0.0.1@{port}\ndatabase:\n  storage: {dir}/db\nlog:\n  - target: stderr\n    any: info\n\
                 key:\n  - id: baton\n    algorithm: hmac-sha256\n    secret: {SECRET}\nacl:\n  - id: baton\n    key: baton\n    action: update\n\
                 zone:\n  - domain: example.org\n    storage: {dir}\n    file: zone\n    acl: baton\n"
            )
        };
        Server::start("knotd", configuration, &[])
    }

    fn target(&self, secret: Option<&str>) -> Target {
        let key = secret.map(|secret| Key::new("baton", "hmac-sha256", secret).unwrap());
        Target::new(&self.address, "example.org", "pg.example.org", 1, key).unwrap()
    }

    async fn ready(&self) {
        let target = self.target(None);
        for _ in 0..300 {
            if matches!(current(&target).await, Ok(None)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("no answer: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
    }
}

fn record(term: i64, last: u8) -> Record {
    Record {
        term,
        ips: vec![format!("10.0.0.{last}").parse().unwrap(), format!("fd00::{last}").parse().unwrap()],
    }
}

async fn updates_are_compared_and_signed(server: Server) {
    server.ready().await;
    let target = server.target(Some(SECRET));
    // The leader of term 16, and that of 17 after it.
    assert_eq!(send(&target, &record(16, 1), None).await.unwrap(), Sent::Done);
    let sixteen = current(&target).await.unwrap().unwrap();
    assert_eq!(sixteen, record(16, 1).text());
    assert_eq!(send(&target, &record(17, 2), Some(&sixteen)).await.unwrap(), Sent::Done);
    // One of 16 hung meanwhile: what it compares with is no longer so, whether it had seen its own record or none.
    for before in [Some(sixteen.as_str()), None] {
        assert_eq!(send(&target, &record(16, 1), before).await.unwrap(), Sent::Overtaken, "{before:?}");
    }
    assert_eq!(current(&target).await.unwrap().unwrap(), record(17, 2).text());
    // A wrong key, and none.
    let text = record(17, 2).text();
    for secret in [Some(OTHER), None] {
        let refused = send(&server.target(secret), &record(18, 3), Some(&text)).await.unwrap_err();
        assert!(matches!(refused, UpdateError::Signature { .. } | UpdateError::Refused { .. }), "{refused}");
        assert!(!refused.to_string().contains(OTHER), "{refused}");
    }
    assert_eq!(current(&target).await.unwrap().unwrap(), record(17, 2).text());
}

#[tokio::test]
async fn bind_takes_the_newest_term_and_no_late_one() {
    updates_are_compared_and_signed(Server::bind()).await;
}

#[tokio::test]
async fn knot_takes_the_newest_term_and_no_late_one() {
    updates_are_compared_and_signed(Server::knot()).await;
}
