//! The cluster's names on real parts: real etcd, the real binary, questions by UDP and TCP.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use lab::{Binaries, Gateway, NAMESPACE, SCOPE, baton_of_this_build};
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream, UdpSocket};
use std::process::Command;
use std::time::Duration;
use testbed::Running;

/// A free port is held as UDP on 127.0.0.1 by who gave it; names are told on another address.
const NAMES: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const SPAN: Duration = Duration::from_secs(20);

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

/// The code of an answer, and its only address.
fn understood(answer: &[u8]) -> (u8, Option<Ipv4Addr>) {
    assert!(answer[2] & 0x84 == 0x84, "an authoritative answer");
    let only = (answer[7] == 1).then(|| answer.last_chunk::<4>().copied().unwrap().into());
    (answer[3] & 15, only)
}

fn by_udp(socket: &UdpSocket, name: &str) -> Option<(u8, Option<Ipv4Addr>)> {
    socket.send(&question(name)).unwrap();
    let mut answer = [0; 1500];
    let length = socket.recv(&mut answer).ok()?;
    Some(understood(&answer[..length]))
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
    understood(&answer)
}

#[tokio::test]
async fn names_follow_the_lead_and_never_name_two() {
    let dir = tempfile::tempdir().unwrap();
    let (client, peer, port) = (testbed::free_port(), testbed::free_port(), testbed::free_port());
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
    let _etcd = Running::start(&mut command, &dir.path().join("etcd.log"));
    let keys = Gateway::new(vec![SocketAddrV4::new(Ipv4Addr::LOCALHOST, client)], NAMESPACE, SCOPE);
    lab::wait::until(SPAN, "etcd", async || keys.read().await.ok()).await.unwrap();
    for (name, last, role) in [("pg-1", 1, "primary"), ("pg-2", 2, "replica"), ("pg-3", 3, "replica")] {
        member(&keys, name, last, role).await;
    }
    lead(&keys, "pg-1").await;

    let (file, hosts) = (dir.path().join("dns.yml"), dir.path().join("hosts"));
    let text = format!(
        "scope: {SCOPE}\nnamespace: {NAMESPACE}\netcd3: {{host: \"127.0.0.1:{client}\"}}\n\
         dns: {{zone: c1.pg.test, listen: \"{NAMES}:{port}\", hosts_file: {}}}\n",
        hosts.display()
    );
    fs::write(&file, text).unwrap();
    let baton = Binaries::find(baton_of_this_build().unwrap()).unwrap().baton;
    let log = dir.path().join("dns.log");
    let _dns = Running::start(Command::new(baton).arg("dns").arg(&file), &log);
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
    member(&keys, "pg-1", 1, "replica").await;
    member(&keys, "pg-2", 2, "primary").await;
    lead(&keys, "pg-2").await;
    let began = clock::now();
    loop {
        let answer = by_udp(&socket, primary).unwrap();
        match answer {
            (0, Some(ip)) if ip == two => break,
            (0, None) => assert!(clock::now().since(began) < SPAN, "no new answer"),
            other => panic!("{other:?} after the old term was over"),
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
