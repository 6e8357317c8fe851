//! Nothing is routed before the state is known, and what cannot be routed waits.

use crate::backends::{Scripted, startup};
use crate::harness::{World, connect, db, refusal, until};
use crate::tls::psql;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::{PostgresState, Role, TagValue};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_starts_closed_and_opens_when_the_primary_accepts_writes() {
    // etcd is only just starting, and the router is there before it.
    let world = World::prepare(1, 0, |config| config.hold.timeout = Duration::from_secs(600));
    world.servers[0].start();
    let address = world.router.address("primary");
    let held: Vec<_> = (0..20).map(|_| tokio::spawn(connect(address))).collect();
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 20"#).await;

    world.publish(1, &world.member(1, Role::Primary)).await;
    let term = world.take_lead(1).await;
    world.knows(term).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 0"#).await;
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 20"#).await;

    world.accept_writes(1, term).await;
    for client in held {
        let client = client.await.unwrap().unwrap();
        assert_eq!(world.number_of(&client).await, 1);
    }
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 0"#).await;
    world.metric(r#"baton_router_held_in_vain_total{scope="demo",service="primary"} 0"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_in_vain_is_told_why() {
    let world = World::start(1, |config| config.hold.timeout = Duration::from_millis(300)).await;
    // No leader.
    world.publish(1, &world.member(1, Role::Primary)).await;
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 0"#).await;
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("has no leader")), ("57P03", true), "{message}");
    // A leader that does not accept writes.
    let term = world.take_lead(1).await;
    world.knows(term).await;
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("leader db1")), ("57P03", true), "{message}");
    // A primary whose PostgreSQL is not there.
    world.accept_writes(1, term).await;
    world.servers[0].stop();
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("Connection refused")), ("57P03", true), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_for_encryption_is_not_answered_before_there_is_somebody_to_ask() {
    let world = World::start(1, |config| config.hold.timeout = Duration::from_millis(500)).await;
    let mut client = TcpStream::connect(world.router.address("primary")).await.unwrap();
    client.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    let text = String::from_utf8_lossy(&answer);
    assert!(answer.first() == Some(&b'E') && text.contains("C57P03"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_away_while_waiting_is_forgotten() {
    let world = World::start(1, |config| config.hold.limit = 2).await;
    let address = world.router.address("primary");
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(connect(address))).collect();
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 2"#).await;
    let (state, message) = refusal(address).await;
    assert_eq!((state.as_str(), message.contains("2 connections wait")), ("57P03", true), "{message}");
    for client in held {
        client.abort();
    }
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 0"#).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_is_only_just_starting_is_tried_again() {
    let world = World::prepare(1, 0, |config| config.hold.timeout = Duration::from_secs(60));
    world.lead(1).await;
    let address = world.router.address("primary");
    let held = tokio::spawn(connect(address));
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    world.servers[0].start();
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_to_replicas_and_to_the_primary_only_when_none_is_left() {
    let world = World::streaming(2, |config| config.hold.timeout = Duration::from_millis(500)).await;
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    let mut reporting = world.member(3, Role::Replica);
    reporting.tags.0.insert("offline".into(), TagValue::Bool(true));
    world.publish(3, &reporting).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    let offline = r#""use":"replica for the offline service""#;
    until("the offline member", async || world.api("/services").await.contains(offline).then_some(())).await;

    assert_eq!(world.reaches("replica").await, 2);
    assert_eq!(world.reaches("offline").await, 3);
    assert_eq!(world.reaches("primary").await, 1);
    // libpq finds what it asks for among the ports of a router, as among servers.
    let ports = ["replica", "primary"].map(|service| world.router.address(service).port());
    let found = |first: usize, wanted: &str| {
        let (first, second) = (ports[first], ports[1 - first]);
        let target = format!("host=127.0.0.1,127.0.0.1 port={first},{second} target_session_attrs={wanted}");
        let (ok, text) = tokio::task::block_in_place(|| psql(&target, "select pg_is_in_recovery()"));
        assert!(ok, "{wanted}: {text}");
        text
    };
    for (wanted, replica_first, primary_first) in [
        ("any", "t", "f"),
        ("read-write", "f", "f"),
        ("primary", "f", "f"),
        ("read-only", "t", "t"),
        ("standby", "t", "t"),
        ("prefer-standby", "t", "t"),
    ] {
        assert_eq!([found(0, wanted), found(1, wanted)], [replica_first, primary_first], "{wanted}");
    }
    let read = world.connect("replica").await.unwrap();
    assert_eq!(read.ask("select pg_is_in_recovery()").await.unwrap(), "t");

    // Two plain replicas share the sessions.
    world.publish(3, &world.member(3, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 2"#).await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(world.connect("replica").await.unwrap());
    }
    let mut on = [0; 4];
    on[world.number_of(&read).await] += 1;
    for client in &clients {
        on[world.number_of(client).await] += 1;
    }
    assert_eq!(on, [0, 0, 3, 3]);

    // None left: the primary stands in, but never for the offline service.
    for number in [2, 3] {
        let mut stopped = world.member(number, Role::Replica);
        stopped.state = etcd::OrText::Known(PostgresState::Stopped);
        world.publish(number, &stopped).await;
    }
    world.metric(r#"baton_router_replicas{scope="demo"} 0"#).await;
    assert_eq!(world.reaches("replica").await, 1);
    assert_eq!(found(0, "prefer-standby"), "f");
    assert_eq!(refusal(world.router.address("offline")).await.0, "57P03");
    assert!(read.is_open(), "sessions end with their server");

    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    assert_eq!(world.reaches("replica").await, 2);
    // A replica that refuses is passed over at once.
    world.publish(3, &world.member(3, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 2"#).await;
    world.servers[2].stop();
    for _ in 0..4 {
        assert_eq!(world.reaches("replica").await, 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_member_that_is_gone_end_after_a_while() {
    let world = World::start(2, |config| config.truth.gone_grace = Duration::from_millis(200)).await;
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    let client = world.connect("replica").await.unwrap();
    assert_eq!(world.number_of(&client).await, 2);
    world.etcd.delete_member(&db(2), clock::now().after(Duration::from_secs(10))).await.unwrap();
    let (state, message) = client.end().await.expect("a reason");
    assert_eq!((state.as_str(), message.contains("db2 is gone")), ("57P01", true), "{message}");
}

/// However many wait, all are served; and those who ask for encryption first are no longer silent while they wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_wait_and_all_are_served() {
    let world = World::start(0, |config| {
        config.handshake.limit = 20;
        // All speak again at once, and the test answers one after the other.
        config.handshake.timeout = Duration::from_secs(600);
        config.hold.timeout = Duration::from_secs(600);
    })
    .await;
    let address = world.router.address("primary");
    let mut held = Vec::new();
    for number in 0..500 {
        let mut client = TcpStream::connect(address).await.unwrap();
        let asks = number % 2 == 0;
        client.write_all(&if asks { vec![0, 0, 0, 8, 4, 210, 22, 47] } else { startup(0) }).await.unwrap();
        held.push((client, asks));
        // So that they are told from those who say nothing, of whom 20 may be here.
        if number % 10 == 9 {
            let waiting = number + 1;
            world
                .metric(&format!(r#"baton_router_waiting{{scope="demo",service="primary"}} {waiting}"#))
                .await;
        }
    }
    let primary = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await;
    primary.lead(&world, "demo", "db1").await;
    for (mut client, asks) in held {
        if asks {
            assert_eq!(client.read_u8().await.unwrap(), b'N');
            client.write_all(&startup(0)).await.unwrap();
        }
        assert_eq!(client.read_u8().await.unwrap(), b'R', "logged in");
    }
    world.metric(r#"baton_router_held_in_vain_total{scope="demo",service="primary"} 0"#).await;
    world.metric(r#"baton_router_refused_total{scope="demo",service="primary"} 0"#).await;
}
