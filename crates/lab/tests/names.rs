//! The cluster's names on real parts: real etcd, the real binary, questions by UDP and TCP.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says where")]

#[path = "stories/document.rs"]
mod document;

use lab::{Binaries, Gateway, NAMESPACE, SCOPE, baton_of_this_build};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use testbed::Running;

/// A free port is held as UDP on 127.0.0.1 by who gave it; names are told on another address.
const NAMES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SPAN: Duration = Duration::from_secs(20);
const SECRET: &str = "c2VjcmV0LW9mLWEtdGVzdC1vbmx5LTMyLWJ5dGVzISE=";
const OTHER_SECRET: &str = "YW5vdGhlci1zZWNyZXQtb2YtYS10ZXN0LTMyLWJ5dGU=";

/// What an agent of Patroni writes.
async fn member(keys: &Gateway, name: &str, last: u8, role: &str) {
    let value = format!(
        r#"{{"state":"running","role":"{role}","replication_state":"streaming","conn_url":"postgres://10.0.0.{last}:5432/postgres","api_url":"http://h:8008/patroni"}}"#
    );
    keys.put(&format!("members/{name}"), &value).await.unwrap();
}

async fn lead(keys: &Gateway, name: &str) {
    let lease = keys.grant(600).await.unwrap();
    keys.put_leased("leader", name, lease).await.unwrap();
}

/// A question for addresses.
fn question(name: &str) -> Vec<u8> {
    let mut bytes = vec![0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.extend_from_slice(&[0, 0, 1, 0, 1]);
    bytes
}

/// The code of an answer, and its only address. A longer life than a second would be as much time at an old primary.
fn understood(answer: &[u8]) -> (u8, Option<Ipv4Addr>) {
    let only = (answer[7] == 1).then(|| {
        // The time to live, the length of the address, the address.
        let last = answer.last_chunk::<10>().copied().unwrap();
        let ttl = u32::from_be_bytes(last[..4].try_into().unwrap());
        assert!(ttl <= 1 && last[4..6] == [0, 4], "{answer:?}");
        <[u8; 4]>::try_from(&last[6..]).unwrap().into()
    });
    (answer[3] & 15, only)
}

/// The same, of a server that says that it is the zone's own.
fn authoritative(answer: &[u8]) -> (u8, Option<Ipv4Addr>) {
    assert!(answer[2] & 0x84 == 0x84, "an authoritative answer");
    understood(answer)
}

fn by_udp(socket: &UdpSocket, name: &str) -> Option<(u8, Option<Ipv4Addr>)> {
    socket.send(&question(name)).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).ok()?;
    Some(authoritative(&answer[..length]))
}

fn by_tcp(to: SocketAddrV4, name: &str) -> (u8, Option<Ipv4Addr>) {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(SPAN)).unwrap();
    let question = question(name);
    stream.write_all(&u16::try_from(question.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&question).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer).unwrap();
    authoritative(&answer)
}

/// etcd with three members, of which the first leads.
struct Site {
    dir: tempfile::TempDir,
    keys: Gateway,
    etcd: u16,
    _etcd: Running,
}

impl Site {
    async fn start() -> Site {
        let dir = tempfile::tempdir().unwrap();
        let (client, peer) = (testbed::free_port(), testbed::free_port());
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new(&lab::etcd_bins()[0]);
        command.arg(format!("--data-dir={}", dir.path().join("etcd").display()));
        command
            .arg(format!("--listen-client-urls={0}", url(client)))
            .arg(format!("--advertise-client-urls={}", url(client)));
        command.arg(format!("--listen-peer-urls={}", url(peer)));
        command
            .arg(format!("--initial-advertise-peer-urls={}", url(peer)))
            .arg(format!("--initial-cluster=default={}", url(peer)));
        let etcd = Running::start(&mut command, &dir.path().join("etcd.log"));
        let keys = Gateway::new(vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, client)], NAMESPACE, SCOPE);
        lab::wait::until(SPAN, "etcd", async || keys.read().await.ok()).await.unwrap();
        for (name, last, role) in [("pg-1", 1, "primary"), ("pg-2", 2, "replica"), ("pg-3", 3, "replica")] {
            member(&keys, name, last, role).await;
        }
        lead(&keys, "pg-1").await;
        Site { dir, keys, etcd: client, _etcd: etcd }
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("dns.log")
    }

    /// `baton dns` with these settings.
    fn tell(&self, number: u16, settings: &str) -> Running {
        self.tell_all(number, &format!("dns: {{zone: c1.pg.test, {settings}}}\n"), &self.log())
    }

    /// The same with a whole section.
    fn tell_all(&self, number: u16, section: &str, log: &Path) -> Running {
        let file = self.dir.path().join(format!("dns-{number}.yml"));
        let text = format!(
            "scope: {SCOPE}\nnamespace: {NAMESPACE}\netcd3: {{host: \"127.0.0.1:{}\"}}\n{section}",
            self.etcd
        );
        fs::write(&file, text).unwrap();
        let baton = Binaries::find(baton_of_this_build().unwrap()).unwrap().baton;
        Running::start(Command::new(baton).arg("dns").arg(&file), log)
    }
}

#[tokio::test]
async fn names_follow_the_lead_and_never_name_two() {
    let site = Site::start().await;
    let (port, hosts) = (testbed::free_port(), site.dir.path().join("hosts"));
    let _dns = site.tell(port, &format!("listen: \"{NAMES}:{port}\", hosts_file: {}", hosts.display()));
    let (keys, log) = (&site.keys, site.log());
    let to = SocketAddrV4::new(NAMES, port);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(to).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let primary = "primary.c1.pg.test";
    lab::wait::until(SPAN, "the first answer", async || by_udp(&socket, primary)).await.unwrap();
    let one: Ipv4Addr = [10, 0, 0, 1].into();
    let two: Ipv4Addr = [10, 0, 0, 2].into();
    assert_eq!(by_udp(&socket, primary), Some((0, Some(one))));
    assert_eq!(by_tcp(to, "C1.pg.TEST"), (0, Some(one)));
    assert_eq!(by_tcp(to, "pg-3.c1.pg.test"), (0, Some([10, 0, 0, 3].into())));
    assert_eq!(by_tcp(to, "pg-9.c1.pg.test"), (3, None));

    // Without a leader there is a name and no address, and then the next one's: never the old one's again.
    keys.delete("leader").await.unwrap();
    lab::wait::until(SPAN, "no address", async || {
        (by_udp(&socket, primary) == Some((0, None))).then_some(())
    })
    .await
    .unwrap();
    member(keys, "pg-1", 1, "replica").await;
    member(keys, "pg-2", 2, "primary").await;
    lead(keys, "pg-2").await;
    let began = clock::now();
    loop {
        assert!(clock::now().since(began) < SPAN, "no new answer");
        match by_udp(&socket, primary) {
            Some((0, Some(ip))) if ip == two => break,
            // None in time: it comes as the answer to the next question.
            None | Some((0, None)) => {}
            Some(other) => panic!("{other:?} after the old term was over"),
        }
    }
    println!("new answer {:?} after the key was written", clock::now().since(began));
    lab::wait::until(SPAN, "the hosts file", async || {
        fs::read_to_string(&hosts)
            .is_ok_and(|text| text.contains("10.0.0.2 primary.c1.pg.test\n"))
            .then_some(())
    })
    .await
    .unwrap();
    let log = fs::read_to_string(log).unwrap();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

/// What another server says of a name.
fn told_by(server: SocketAddrV4, name: &str) -> Option<(u8, Option<Ipv4Addr>)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut question = question(name);
    question[2] = 1;
    socket.send(&question).ok()?;
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).ok()?;
    Some(understood(&answer[..length]))
}

/// dnsmasq, as the distribution has it.
fn dnsmasq(port: u16, words: &[String], log: &Path) -> Running {
    let program =
        std::env::var("BATON_TEST_DNSMASQ").expect("tools/setup test installs dnsmasq for the tests");
    let mut command = Command::new(program);
    command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--pid-file="]);
    command.args(["--conf-file=/dev/null", "--user=root", "--log-facility=-", "--listen-address=127.0.0.3"]);
    Running::start(command.arg(format!("--port={port}")).args(words), log)
}

/// unbound, as the distribution has it: a cache that asks `baton dns` for its zone. Names below `test.` it knows not to exist, unless told otherwise.
fn unbound(dir: &Path, port: u16, baton: u16) -> Running {
    let programs =
        std::env::var("BATON_TEST_PEERS").expect("tools/setup test installs unbound for the tests");
    let file = dir.join("unbound.conf");
    let text = format!(
        "server:\n  do-daemonize: no\n  username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  directory: \"{}\"\n  use-syslog: no\n  \
         interface: 127.0.0.3@{port}\n  access-control: 127.0.0.0/8 allow\n  do-not-query-localhost: no\n  module-config: \"iterator\"\n  \
         local-zone: \"test.\" nodefault\n\
         remote-control:\n  control-enable: no\n\
         stub-zone:\n  name: \"c1.pg.test\"\n  stub-addr: {NAMES}@{baton}\n",
        dir.display()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(Path::new(&programs).join("unbound"));
    Running::start(command.arg("-c").arg(&file), &dir.join("unbound.log"))
}

#[tokio::test]
async fn dnsmasq_follows_by_the_hosts_file_and_caches_for_the_time_they_were_given() {
    let site = Site::start().await;
    let (hosts, baton, port) = (site.dir.path().join("hosts"), testbed::free_port(), testbed::free_port());
    fs::create_dir(&hosts).unwrap();
    let _dns = site
        .tell(baton, &format!("listen: \"{NAMES}:{baton}\", ttl: 1s, hosts_file: {}/pg", hosts.display()));
    let from_file = [format!("--hostsdir={}", hosts.display())];
    let cache = testbed::free_port();
    let forwarded = [format!("--server=/c1.pg.test/{NAMES}#{baton}"), "--cache-size=100".to_owned()];
    let _file = dnsmasq(port, &from_file, &site.dir.path().join("dnsmasq-file.log"));
    let _cache = dnsmasq(cache, &forwarded, &site.dir.path().join("dnsmasq-cache.log"));
    let other = testbed::free_port();
    let _unbound = unbound(site.dir.path(), other, baton);
    let at = |port: u16| SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 3), port);
    let all = [at(port), at(cache), at(other)];
    let primary = "primary.c1.pg.test";
    let says = async |what: &str, address: Ipv4Addr| {
        for server in all {
            lab::wait::until(SPAN, what, async || {
                (told_by(server, primary) == Some((0, Some(address)))).then_some(())
            })
            .await
            .unwrap();
        }
    };
    says("the first primary", [10, 0, 0, 1].into()).await;
    // Another one leads: the file is replaced, the cached answer lives a second.
    site.keys.delete("leader").await.unwrap();
    member(&site.keys, "pg-1", 1, "replica").await;
    member(&site.keys, "pg-2", 2, "primary").await;
    lead(&site.keys, "pg-2").await;
    let began = clock::now();
    says("the second primary", [10, 0, 0, 2].into()).await;
    println!("all had the new one {:?} after the key was written", clock::now().since(began));
    // And never the old one again.
    for _ in 0..20 {
        for server in all {
            assert_eq!(told_by(server, primary), Some((0, Some([10, 0, 0, 2].into()))), "{server}");
        }
    }
}

/// A page of `baton dns` itself.
fn page(api: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", api)).ok()?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").as_bytes())
        .ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

/// BIND listens on nothing but addresses that an interface has.
fn free_for_bind() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, testbed::free_port_for_both())
}

/// BIND, as the distribution has it, with a zone that our key may change.
fn bind(dir: &Path, listen: SocketAddrV4) -> Running {
    let programs = std::env::var("BATON_TEST_PEERS").expect("tools/setup test installs BIND for the tests");
    let (file, here) = (dir.join("named.conf"), dir.display());
    let zone =
        "$TTL 60\n@ IN SOA ns.example.net. host.example.net. 1 60 10 3600 1\n@ IN NS ns.example.net.\n";
    fs::write(dir.join("zone"), zone).unwrap();
    let text = format!(
        "options {{ directory \"{here}\"; listen-on port {} {{ {}; }}; listen-on-v6 {{ none; }}; pid-file none; recursion no; minimal-responses yes; \
         dnssec-validation no; session-keyfile \"{here}/session.key\"; }};\ncontrols {{ }};\n\
         key \"baton\" {{ algorithm hmac-sha256; secret \"{SECRET}\"; }};\n\
         zone \"example.org\" {{ type primary; file \"{here}/zone\"; allow-update {{ key \"baton\"; }}; }};\n",
        listen.port(),
        listen.ip()
    );
    fs::write(&file, text).unwrap();
    let mut command = Command::new(Path::new(&programs).join("named"));
    Running::start(command.arg("-g").arg("-c").arg(&file), &dir.join("named.log"))
}

/// The example of docs/vip.md: names by our own server, by a file, and by a server that takes updates.
#[tokio::test]
async fn the_example_of_names_is_told_everywhere_and_a_wrong_key_changes_nothing() {
    let site = Site::start().await;
    let (baton, api, server) = (testbed::free_port(), testbed::free_port(), free_for_bind());
    let _bind = bind(site.dir.path(), server);
    let hosts = site.dir.path().join("hosts");
    let with = |secret: &str| {
        document::with(
            &document::example("## Names", "yaml"),
            &[
                ("\"*:5353\" ", &format!("\"{NAMES}:{baton}\"\n  api: \"127.0.0.1:{api}\" ")),
                ("/etc/dnsmasq.d/hosts/pg-main", &hosts.display().to_string()),
                ("10.0.0.53:53", &server.to_string()),
                ("…", secret),
            ],
        )
    };
    let (name, zone) = ("pg-main.example.org", "pg-main.db.example.org");
    let nobody = Some((3, None));
    lab::wait::until(SPAN, "BIND", async || (told_by(server, name) == nobody).then_some(())).await.unwrap();

    // With a wrong key the name stays away, and it is told; the others are told their names all the same.
    let wrong_log = site.dir.path().join("wrong.log");
    let wrong = site.tell_all(1, &with(OTHER_SECRET), &wrong_log);
    lab::wait::until(SPAN, "a refused update", async || {
        let log = fs::read_to_string(&wrong_log).ok()?;
        log.contains("ERROR").then_some(())?;
        let page = page(api, "/metrics")?;
        let line = page.lines().find(|line| line.starts_with("baton_dns_update_failures_total{"))?;
        (!line.ends_with(" 0")).then_some(())
    })
    .await
    .unwrap();
    let log = fs::read_to_string(&wrong_log).unwrap();
    assert!(log.contains("failed to have an update accepted by the name server"), "{log}");
    assert!(!log.contains(OTHER_SECRET), "{log}");
    assert_eq!(told_by(server, name), nobody);
    assert_eq!(by_tcp(SocketAddrV4::new(NAMES, baton), zone), (0, Some([10, 0, 0, 1].into())));
    drop(wrong);

    // With the right one all say the same, of each term.
    let _right = site.tell_all(2, &with(SECRET), &site.log());
    for (last, leader) in [(1, "pg-1"), (2, "pg-2")] {
        if leader == "pg-2" {
            site.keys.delete("leader").await.unwrap();
            member(&site.keys, "pg-1", 1, "replica").await;
            member(&site.keys, leader, last, "primary").await;
            lead(&site.keys, leader).await;
        }
        let told = Some((0, Some(Ipv4Addr::new(10, 0, 0, last))));
        lab::wait::until(SPAN, &format!("{leader} at BIND"), async || {
            (told_by(server, name) == told).then_some(())
        })
        .await
        .unwrap();
        assert_eq!(Some(by_tcp(SocketAddrV4::new(NAMES, baton), zone)), told);
        let line = format!("10.0.0.{last} {zone}\n");
        lab::wait::until(SPAN, "the hosts file", async || {
            fs::read_to_string(&hosts).ok()?.contains(&line).then_some(())
        })
        .await
        .unwrap();
    }
    let log = fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn metrics_are_told_beside_the_names() {
    let site = Site::start().await;
    let (baton, api) = (testbed::free_port(), testbed::free_port());
    let _dns = site.tell(baton, &format!("listen: \"{NAMES}:{baton}\", api: \"127.0.0.1:{api}\""));
    let page = |path: &str| page(api, path);
    let known = format!("baton_dns_known{{scope=\"{SCOPE}\"}} 1");
    lab::wait::until(SPAN, "the metrics", async || page("/metrics")?.contains(&known).then_some(()))
        .await
        .unwrap();
    assert_eq!(
        by_tcp(SocketAddrV4::new(NAMES, baton), "primary.c1.pg.test"),
        (0, Some([10, 0, 0, 1].into()))
    );
    assert!(
        page("/metrics").unwrap().contains(&format!("baton_dns_tcp_answers_total{{scope=\"{SCOPE}\"}} 1"))
    );
    assert!(page("/health").unwrap().starts_with("HTTP/1.1 200"));
    assert!(page("/other").unwrap().starts_with("HTTP/1.1 404"));
}
