//! etcd is out of reach: what was seen last holds for a while, and then the word of the leader's agent.

use crate::harness::{World, connect, until};
use router::Config;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use types::Role;

const LOST: &str = r#"baton_router_etcd_lost{scope="demo"} 1"#;

fn impatient(config: &mut Config) {
    config.truth.etcd_patience = Duration::from_secs(2);
    config.hold.timeout = Duration::from_secs(60);
}

/// The REST API of the leader's agent, as far as the router asks it: `GET /primary` is answered with `status`, and
/// counted.
async fn agent(status: Arc<AtomicU16>, asked: Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1024];
            let count = stream.read(&mut request).await.unwrap_or(0);
            assert!(request[..count].starts_with(b"GET /primary HTTP/1.1\r\n"));
            asked.fetch_add(1, Ordering::AcqRel);
            let status = status.load(Ordering::Acquire);
            let answer =
                format!("HTTP/1.1 {status} So\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
            let _client_may_be_gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_vouches_and_the_sessions_end() {
    let world = World::start(2, impatient).await;
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    let write = world.connect("primary").await.unwrap();
    let read = world.connect("replica").await.unwrap();
    write.ask("select 1").await.unwrap();
    world.etcd_server.freeze();
    let (state, message) = write.end().await.expect("a reason");
    assert_eq!(state, "57P01", "{message}");
    world.metric(LOST).await;
    assert_eq!(read.ask("select 'here'").await.unwrap(), "here", "reads go on");
    assert_eq!(world.reaches("replica").await, 2);

    let address = world.router.address("primary");
    let held = tokio::spawn(async move { connect(address).await });
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    world.etcd_server.thaw();
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_agent_vouches_and_the_sessions_live() {
    let (status, asked) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicU16::new(0)));
    let mut world = World::start(1, impatient).await;
    world.api_url = agent(status.clone(), asked.clone()).await;
    world.lead(1).await;
    let session = world.connect("primary").await.unwrap();
    session.ask("select 1").await.unwrap();
    world.etcd_server.freeze();
    world.metric(LOST).await;
    // It is asked once a second: this is well beyond the patience. Sessions live, and new ones are opened.
    until("the questions", async || (asked.load(Ordering::Acquire) >= 5).then_some(())).await;
    assert_eq!(session.ask("select 'here'").await.unwrap(), "here");
    assert_eq!(world.reaches("primary").await, 1);

    status.store(503, Ordering::Release);
    let (state, message) = session.end().await.expect("a reason");
    assert_eq!(state, "57P01", "{message}");

    status.store(200, Ordering::Release);
    assert_eq!(world.reaches("primary").await, 1);
    world.etcd_server.thaw();
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 0"#).await;
    assert_eq!(world.reaches("primary").await, 1);
}
