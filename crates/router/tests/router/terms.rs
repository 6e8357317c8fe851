//! A session on the primary lives exactly as long as its term.

use crate::harness::{World, connect, refusal, until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use types::Role;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_term_cuts_the_sessions_of_the_old_one() {
    let world = World::start(2, |_| {}).await;
    let first = world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    let idle = world.connect("primary").await.unwrap();
    assert_eq!(world.number_of(&idle).await, 1);
    let busy = world.connect("primary").await.unwrap();
    let query = async { busy.client.simple_query("select pg_sleep(3600)").await.unwrap_err() };

    let change = async {
        world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 2"#).await;
        let second = world.take_lead(2).await;
        assert!(second > first);
        world.knows(second).await;
        // The new leader does not accept writes yet: both sessions are gone all the same.
        let (state, message) = idle.end().await.expect("a reason");
        assert_eq!(state, "57P01", "{message}");
        assert!(message.contains("db1 no longer leads"), "{message}");
        second
    };
    let (_query_failed, second) = tokio::join!(query, change);
    assert_eq!(busy.end().await, None, "the query got the error, the connection its end");
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;

    world.accept_writes(2, second).await;
    assert_eq!(world.reaches("primary").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_lead_ends_the_sessions_and_new_ones_wait() {
    let world = World::start(1, |_| {}).await;
    let term = world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    world.drop_lead(1, term).await;
    let (state, message) = client.end().await.expect("a reason");
    assert_eq!((state.as_str(), message.contains("is over")), ("57P01", true), "{message}");

    let address = world.router.address("primary");
    let held = tokio::spawn(async move { connect(address).await });
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    world.lead(1).await;
    held.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_in_writing_keeps_the_sessions_and_holds_new_ones() {
    let world = World::start(1, |_| {}).await;
    let term = world.lead(1).await;
    let before = world.connect("primary").await.unwrap();
    before.ask("select 1").await.unwrap();
    world.refuse_writes(term).await;
    let address = world.router.address("primary");
    world.metric(r#"baton_router_primary_up{scope="demo"} 0"#).await;
    let held = tokio::spawn(async move { connect(address).await });
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    assert_eq!(before.ask("select 'here'").await.unwrap(), "here");

    world.accept_writes(1, term).await;
    let after = held.await.unwrap().unwrap();
    assert_eq!(world.number_of(&after).await, 1);
    assert!(before.is_open());
}

/// Four clients connect all the time while the lead goes to and fro: once anybody was served in a term, nobody who
/// begins after that is served by the holder of an older one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_sent_to_the_holder_of_an_older_term() {
    const CHANGES: usize = 12;
    let world = Arc::new(World::start(2, |_| {}).await);
    world.publish(1, &world.member(1, Role::Primary)).await;
    world.publish(2, &world.member(2, Role::Primary)).await;
    // Changes are counted from 1. The last one that was begun, and the last one that somebody was served after.
    let (begun, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (world, begun, served, done) = (world.clone(), begun.clone(), served.clone(), done.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Acquire) {
                    let served_before = served.load(Ordering::Acquire);
                    let change = begun.load(Ordering::Acquire);
                    // Held or served; cut by a later change at worst.
                    let Ok(client) = world.connect("primary").await else { continue };
                    let Ok(port) = client.ask("select inet_server_port()").await else { continue };
                    if change != begun.load(Ordering::Acquire) {
                        continue;
                    }
                    if port == world.servers[change % 2].port.to_string() {
                        served.fetch_max(change, Ordering::AcqRel);
                    } else {
                        assert!(served_before < change, "sent back to the old primary after change {change}");
                    }
                }
            })
        })
        .collect();
    for change in 1..=CHANGES {
        begun.store(change, Ordering::Release);
        let number = 1 + change % 2;
        let term = world.take_lead(number).await;
        world.accept_writes(number, term).await;
        world.knows(term).await;
        for _ in 0..20 {
            assert_eq!(world.reaches("primary").await, number, "change {change}");
        }
        until("the other clients", async || (served.load(Ordering::Acquire) == change).then_some(())).await;
    }
    done.store(true, Ordering::Release);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_patroni_is_believed_by_its_role() {
    let world = World::start(1, |_| {}).await;
    let mut patroni = world.member(1, Role::Replica);
    patroni.baton = None;
    world.publish(1, &patroni).await;
    let term = world.take_lead(1).await;
    world.knows(term).await;
    let address = world.router.address("primary");
    let held = tokio::spawn(connect(address));
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    patroni.role = etcd::OrText::Known(Role::Primary);
    world.publish(1, &patroni).await;
    held.await.unwrap().unwrap();
}

/// The keys may say what is no longer so, where etcd is out of reach: PostgreSQL's own word is heard as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_writes_to_a_standby_whatever_the_keys_say() {
    let world = World::streaming(1, |config| config.hold.timeout = Duration::from_millis(700)).await;
    let term = world.lead(2).await;
    world.knows(term).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("runs as a standby")), ("57P03", true), "{message}");
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    assert_eq!((world.reaches("primary").await, world.reaches("replica").await), (1, 2));
}
