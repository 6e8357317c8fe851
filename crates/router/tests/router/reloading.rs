//! A new configuration is taken up in place: sessions go on, and what is wrong changes nothing.

use crate::backends::{Scripted, message, startup};
use crate::harness::{ANY, World, cluster_at, connect, etcd_at, refusal, until};
use etcd::Member;
use router::{Role as Serves, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use types::{Lsn, NodeName, PostgresState, Role, Timeline};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_and_clusters_come_and_go_and_sessions_stay() {
    let world = World::start(2, |_| {}).await;
    world.lead(1).await;
    let session = world.connect("primary").await.unwrap();
    let replicas = world.router.address("replica");
    world.metric("baton_router_reloads_total 0").await;

    // Another cluster, led by the second server, on a port of its own; the service for reads goes.
    let port = testbed::free_port();
    {
        let mut file = world.router.file.lock().unwrap();
        file.clusters.push(cluster_at(world.etcd_server.client, "other"));
        let mut other = Service::new("other", ([127, 0, 0, 1], port).into(), Serves::Primary);
        other.cluster = Some("other".into());
        file.services.retain(|service| service.name != "replica");
        file.services.push(other);
        file.services[0].max_sessions = 1;
    }
    assert!(world.router.reload.send(router::Order::Reload).await.is_ok());
    world.metric("baton_router_reloads_total 1").await;
    until("the port of the service to close", async || TcpStream::connect(replicas).await.err().map(drop))
        .await;
    lead_other(&world).await;
    let client = connect(([127, 0, 0, 1], port).into()).await.unwrap();
    assert_eq!(world.number_of(&client).await, 2);

    // The session from before lives, counts against the new limit, and ends with its term as ever.
    session.ask("select 1").await.unwrap();
    assert_eq!(refusal(world.router.address("primary")).await.0, "53300");
    let term = world.take_lead(2).await;
    world.knows(term).await;
    assert_eq!(session.end().await.expect("a reason").0, "57P01");

    // A port that is taken: everything stays as it was.
    {
        let mut file = world.router.file.lock().unwrap();
        file.services[0].max_sessions = 100;
        file.services.push(Service::new("busy", world.servers[0].port_address(), Serves::Any));
    }
    let answer = world.router.request("POST", "/reload", "").await;
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("in use"), "{answer}");
    world.metric("baton_router_reloads_total 1").await;
    // A cluster that is gone ends its sessions.
    {
        let mut file = world.router.file.lock().unwrap();
        file.services.truncate(2);
        file.clusters.truncate(1);
    }
    let answer = world.router.request("POST", "/reload", "").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let (state, message) = client.end().await.expect("a reason");
    assert_eq!((state.as_str(), message.contains("no longer serves")), ("57P01", true), "{message}");
    assert_eq!(ANY.port(), 0);
}

/// However often the file is read again under load, nobody is cut for it; and when the term is over, those from before every reload are.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_reloads_under_load_and_then_a_failover() {
    const SESSIONS: usize = 20;
    let world = World::start(0, |_| {}).await;
    let server = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await;
    server.lead(&world, "demo", "db1").await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let address = world.router.address("primary");
    let asked = Arc::new(AtomicUsize::new(0));
    let mut sessions = JoinSet::new();
    for _ in 0..SESSIONS {
        let asked = asked.clone();
        sessions.spawn(async move {
            let mut session = TcpStream::connect(address).await.unwrap();
            session.write_all(&startup(0)).await.unwrap();
            let mut said = vec![0; 1024];
            // What it was told last, when it was cut.
            loop {
                let count = session.read(&mut said).await.unwrap_or(0);
                if count == 0 || said[..count].windows(6).any(|text| text == b"C57P01") {
                    return String::from_utf8_lossy(&said[..count]).into_owned();
                }
                asked.fetch_add(1, Ordering::Relaxed);
                session.write_all(&message(b'Q', b"\0")).await.unwrap();
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        });
    }
    for number in 1..=100 {
        world.router.file.lock().unwrap().services[0].max_sessions = 5000 + number;
        let answer = world.router.request("POST", "/reload", "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let before = asked.load(Ordering::Relaxed);
    until("all to go on", async || (asked.load(Ordering::Relaxed) > before + 2 * SESSIONS).then_some(()))
        .await;
    world.metric(r#"baton_router_cut_total{scope="demo",service="primary"} 0"#).await;
    assert_eq!(sessions.len(), SESSIONS);
    server.lead(&world, "demo", "db1").await;
    let mut told = 0;
    while let Some(last) = sessions.join_next().await {
        told += usize::from(last.unwrap().contains("57P01"));
    }
    assert_eq!(told, SESSIONS, "each at the end of a message");
    world.metric(&format!(r#"baton_router_cut_total{{scope="demo",service="primary"}} {SESSIONS}"#)).await;
}

/// The second server leads the cluster `other`.
pub(crate) async fn lead_other(world: &World) {
    let etcd = etcd_at(world.etcd_server.client, "other");
    let by = || clock::now().after(crate::harness::SOON);
    let name = NodeName::from("x1");
    let mut member = Member::new(PostgresState::Running, Role::Primary);
    member.conn_url = Some(format!("postgres://127.0.0.1:{}/postgres", world.servers[1].port));
    member.api_url = Some(world.api_url.clone());
    member.baton = Some("0.1.0".into());
    let lease = etcd.grant(600, by()).await.unwrap().lease;
    etcd.put_member(&name, &member, lease, by()).await.unwrap();
    let term = etcd.acquire_leader(&name, lease, by()).await.unwrap().unwrap();
    let writable =
        etcd::Writable { term, name, timeline: Timeline(1), lsn: Lsn(1), guarded: true, lease: None };
    etcd.put_writable(&writable, lease, term, by()).await.unwrap();
}
