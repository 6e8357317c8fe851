//! etcd is out of reach: what was seen last holds for a while, and then the word of the leader's agent.

use crate::harness::{Client, World, connect, until};
use crate::tls::psql;
use router::Config;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use types::Role;

const UP: &str = r#"baton_router_primary_up{scope="demo"} 1"#;
const DOWN: &str = r#"baton_router_primary_up{scope="demo"} 0"#;
const LOST: &str = r#"baton_router_etcd_lost{scope="demo"} 1"#;

fn impatient(config: &mut Config) {
    config.truth.etcd_patience = Duration::from_secs(2);
    config.hold.timeout = Duration::from_secs(60);
}

/// The status of an agent that cannot be reached.
const SILENT: u16 = 0;

/// How often it was asked what.
#[derive(Default)]
struct Asked {
    primary: AtomicU16,
    lead: AtomicU16,
}

/// The REST API of the leader's agent, as far as the router asks it: `GET /primary` is answered with `status`, and
/// counted; `GET /baton/lead` is counted too, and answered when that is 200 no more. For [`SILENT`] neither is answered.
async fn agent(status: watch::Receiver<u16>, asked: Arc<Asked>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/patroni", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut status, asked) = (status.clone(), asked.clone());
            tokio::spawn(async move {
                let mut request = vec![0; 1024];
                let count = stream.read(&mut request).await.unwrap_or(0);
                let code = if request[..count].starts_with(b"GET /baton/lead?term=") {
                    let led = *status.borrow_and_update() == 200;
                    asked.lead.fetch_add(u16::from(led), Ordering::AcqRel);
                    let _the_test_is_over = status.wait_for(|status| ![200, SILENT].contains(status)).await;
                    if led { 410 } else { 503 }
                } else {
                    assert!(request[..count].starts_with(b"GET /primary HTTP/1.1\r\n"));
                    asked.primary.fetch_add(1, Ordering::AcqRel);
                    status.wait_for(|status| *status != SILENT).await.map_or(503, |status| *status)
                };
                let answer =
                    format!("HTTP/1.1 {code} So\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}");
                let _client_may_be_gone = stream.write_all(answer.as_bytes()).await;
            });
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
    let (status, asked) = (watch::Sender::new(200), Arc::new(Asked::default()));
    let mut world = World::start(1, impatient).await;
    world.api_url = agent(status.subscribe(), asked.clone()).await;
    world.lead(1).await;
    let session = world.connect("primary").await.unwrap();
    session.ask("select 1").await.unwrap();
    world.etcd_server.freeze();
    world.metric(LOST).await;
    // It is asked once a second: this is well beyond the patience. Sessions live, and new ones are opened.
    until("the questions", async || (asked.primary.load(Ordering::Acquire) >= 5).then_some(())).await;
    assert_eq!(session.ask("select 'here'").await.unwrap(), "here");
    assert_eq!(world.reaches("primary").await, 1);

    status.send_replace(503);
    let (state, message) = session.end().await.expect("a reason");
    assert_eq!(state, "57P01", "{message}");

    status.send_replace(200);
    assert_eq!(world.reaches("primary").await, 1);
    world.etcd_server.thaw();
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 0"#).await;
    assert_eq!(world.reaches("primary").await, 1);
}

/// A primary with TLS, whose agent answers with that status, and a session on it that the router does not know of.
async fn led_with_tls(status: watch::Receiver<u16>, asked: Arc<Asked>) -> (World, Client) {
    let mut world = World::prepare(1, 0, |config| {
        impatient(config);
        // Who leads is known for as long as a test lasts, but for the agent's word.
        config.truth.etcd_patience = Duration::from_secs(600);
    });
    world.servers[0].use_tls();
    world.servers[0].start();
    world.api_url = agent(status, asked).await;
    world.lead(1).await;
    world.metric(UP).await;
    let server = connect(world.servers[0].port_address()).await.unwrap();
    server.ask("create table t (n int)").await.unwrap();
    (world, server)
}

/// TLS that the router passes on unread does not show what the server is. The agent's own word comes before PostgreSQL can be up again for
/// reading, whether etcd is there (it may not have told yet) or not: nobody gets as far as a server that cannot write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leaders_agent_says_that_it_leads_no_more() {
    let (status, asked) = (watch::Sender::new(200), Arc::new(Asked::default()));
    let (world, server) = led_with_tls(status.subscribe(), asked.clone()).await;
    for (round, etcd_is_there) in [(0, true), (1, false)] {
        if !etcd_is_there {
            world.etcd_server.freeze();
            world.metric(LOST).await;
        }
        let session = world.connect("primary").await.unwrap();
        until("the standing question", async || (asked.lead.load(Ordering::Acquire) > round).then_some(()))
            .await;
        let before = asked.primary.load(Ordering::Acquire);
        let ended = clock::now();
        status.send_replace(503);
        let (state, message) = session.end().await.expect("a reason");
        assert_eq!(state, "57P01", "{message}");
        println!(
            "cut after {:?}, etcd {etcd_is_there}, asked {}",
            clock::now().since(ended),
            asked.primary.load(Ordering::Acquire) - before
        );
        world.metric(DOWN).await;
        let shown = world.api("/services").await;
        // By the standing question, or by the next one.
        let says_so = ["says that it leads no more", "answered 503 to GET /primary"];
        assert!(says_so.iter().any(|said| shown.contains(said)), "{shown}");
        read_only(&server, "on").await;
        let options =
            format!("host=127.0.0.1 port={} sslmode=require", world.router.address("primary").port());
        let writers: Vec<_> = (0..10)
            .map(|_| {
                let options = options.clone();
                tokio::task::spawn_blocking(move || psql(&options, "insert into t values (1)"))
            })
            .collect();
        world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 10"#).await;
        read_only(&server, "off").await;
        status.send_replace(200);
        for writer in writers {
            let (ok, text) = writer.await.unwrap();
            assert!(ok, "{text}");
        }
        world.metric(UP).await;
    }
    world.etcd_server.thaw();
}

/// A router that is cut off from etcd and from the leader's agent: the leader may hand the lead over and come up again for reading without the
/// router's hearing of it. Whom it cannot look at it leads there no more, long before its patience is over; who can be looked at goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_looked_at_waits_until_somebody_says_who_leads() {
    let (status, asked) = (watch::Sender::new(200), Arc::new(Asked::default()));
    let (world, server) = led_with_tls(status.subscribe(), asked.clone()).await;
    let options = format!("host=127.0.0.1 port={} sslmode=require", world.router.address("primary").port());
    let write = || {
        let options = options.clone();
        tokio::task::spawn_blocking(move || psql(&options, "insert into t values (1)"))
    };
    let stays = world.connect("primary").await.unwrap();
    world.etcd_server.freeze();
    world.metric(LOST).await;
    let (ok, text) = write().await.unwrap();
    assert!(ok, "the agent says that it leads: {text}");

    status.send_replace(SILENT);
    until("the proof to be too old", async || {
        world.api("/health").await.contains(r#""proven":false"#).then_some(())
    })
    .await;
    read_only(&server, "on").await;
    let writers: Vec<_> = (0..3).map(|_| write()).collect();
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 3"#).await;
    assert_eq!(stays.ask("select 'here'").await.unwrap(), "here");
    assert_eq!(world.reaches("primary").await, 1, "in the clear");
    read_only(&server, "off").await;
    status.send_replace(200);
    for writer in writers {
        let (ok, text) = writer.await.unwrap();
        assert!(ok, "{text}");
    }
    world.etcd_server.thaw();
}

async fn read_only(server: &Client, how: &str) {
    server.ask(&format!("alter system set default_transaction_read_only = {how}")).await.unwrap();
    server.ask("select pg_reload_conf()").await.unwrap();
    until("the setting", async || {
        let shown = server.ask("show default_transaction_read_only").await.unwrap();
        (shown == how).then_some(())
    })
    .await;
}
