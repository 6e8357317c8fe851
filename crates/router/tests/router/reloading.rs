//! A new configuration is taken up in place: sessions go on, and what is wrong changes nothing.

use crate::harness::{ANY, World, cluster_at, connect, etcd_at, refusal, until};
use etcd::Member;
use router::{Role as Serves, Service};
use tokio::net::TcpStream;
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

/// The second server leads the cluster `other`.
pub(crate) async fn lead_other(world: &World) {
    let etcd = etcd_at(world.etcd_server.client, "other");
    let by = || clock::now().after(crate::harness::SOON);
    let name = NodeName::from("x1");
    let mut member = Member::new(PostgresState::Running, Role::Primary);
    member.conn_url = Some(format!("postgres://127.0.0.1:{}/postgres", world.servers[1].port));
    member.baton = Some("0.1.0".into());
    let lease = etcd.grant(600, by()).await.unwrap().lease;
    etcd.put_member(&name, &member, lease, by()).await.unwrap();
    let term = etcd.acquire_leader(&name, lease, by()).await.unwrap().unwrap();
    let writable =
        etcd::Writable { term, name, timeline: Timeline(1), lsn: Lsn(1), guarded: true, lease: None };
    etcd.put_writable(&writable, lease, term, by()).await.unwrap();
}
