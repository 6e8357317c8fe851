//! Sessions that go over to the carrier and come back: nothing is lost, and what a router may do with a session it still may.

use crate::backends::{Scripted, message, startup};
use crate::forbidden::is_io_uring_here;
use crate::harness::{Client, SOON, World, connect, until};
use crate::switchovers::{announce, quiet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const SESSIONS: usize = 300;

/// A client that sees each message.
struct Raw(TcpStream);

impl Raw {
    async fn login(address: SocketAddr) -> Raw {
        let mut raw = Raw(TcpStream::connect(address).await.unwrap());
        raw.0.write_all(&startup(0)).await.unwrap();
        raw.until(b'Z').await;
        raw
    }

    async fn say(&mut self, kind: u8, body: &[u8]) {
        self.0.write_all(&message(kind, body)).await.unwrap();
    }

    async fn hear(&mut self) -> (u8, Vec<u8>) {
        let heard = async {
            let kind = self.0.read_u8().await.unwrap();
            let mut body = vec![0; self.0.read_u32().await.unwrap() as usize - 4];
            self.0.read_exact(&mut body).await.unwrap();
            (kind, body)
        };
        timeout(SOON, heard).await.expect("a message in time")
    }

    /// What rows and data are sent, up to a message of that kind.
    async fn until(&mut self, last: u8) -> Vec<u8> {
        let mut data = Vec::new();
        loop {
            let (kind, body) = self.hear().await;
            match kind {
                b'E' => panic!("{}", String::from_utf8_lossy(&body)),
                b'd' | b'D' => data.extend(body),
                _ => {}
            }
            if kind == last {
                return data;
            }
        }
    }

    async fn ask(&mut self, sql: &str) -> Vec<u8> {
        self.say(b'Q', &[sql.as_bytes(), b"\0"].concat()).await;
        self.until(b'Z').await
    }

    /// Asks until it is carried.
    async fn is_carried(&mut self, world: &World) {
        until("the session to be carried", async || {
            self.ask("select 1").await;
            carried(world, 1).await
        })
        .await;
    }
}

/// Whether so many are carried now; on a host without io_uring, whether the router says that it has none and carries nobody.
async fn carried(world: &World, count: usize) -> Option<()> {
    let (up, count) = if is_io_uring_here() { (1, count) } else { (0, 0) };
    let lines = [format!("baton_router_carrier_up {up}"), format!("baton_router_carried {count}")];
    let metrics = world.api("/metrics").await;
    lines.iter().all(|line| metrics.lines().any(|each| each == line)).then_some(())
}

async fn is_carried(client: &Client, world: &World) {
    until("the session to be carried", async || {
        client.ask("select 1").await.unwrap();
        carried(world, 1).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carried_session_is_cut_between_two_messages_and_told_why() {
    let world = World::start(1, |_| {}).await;
    let term = world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    is_carried(&client, &world).await;
    world.drop_lead(1, term).await;
    assert_eq!(client.end().await.unwrap().0, "57P01");
    world.metric("baton_router_carried 0").await;
}

/// In the middle of an answer it is cut as well, and a client that waits for the rest sees its connection end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carried_session_that_waits_for_an_answer_is_cut() {
    let world = World::start(1, |_| {}).await;
    let term = world.lead(1).await;
    let mut raw = Raw::login(world.router.address("primary")).await;
    raw.is_carried(&world).await;
    raw.say(b'Q', b"select pg_sleep(3600)\0").await;
    world.drop_lead(1, term).await;
    assert_eq!(raw.hear().await.0, b'E');
    // The server is not waited for.
    assert_eq!(timeout(SOON, raw.0.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    world.metric("baton_router_carried 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_carried_session_is_held_before_a_switchover_and_goes_on_without_one() {
    let world = World::start(1, |config| config.drain.timeout = Duration::from_millis(700)).await;
    let term = world.lead(1).await;
    let (working, idle) = (world.connect("primary").await.unwrap(), world.connect("primary").await.unwrap());
    is_carried(&idle, &world).await;
    working.ask("begin").await.unwrap();
    until("both to be carried", async || {
        idle.ask("select 1").await.unwrap();
        working.ask("select 1").await.unwrap();
        carried(&world, 2).await
    })
    .await;
    announce(&world, 1, term).await;
    // All come back at once; the transaction goes on.
    world.metric("baton_router_carried 0").await;
    working.ask("select 1").await.unwrap();
    working.ask("commit").await.unwrap();
    until("the router to be quiet", async || (quiet(&world).await == [Some(term)]).then_some(())).await;
    // The leader did not stop.
    assert_eq!(idle.ask("select 'on'").await.unwrap(), "on");
    is_carried(&idle, &world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_of_a_carried_session_may_end_first() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let address = world.router.address("primary");
    let mut raw = Raw::login(address).await;
    raw.is_carried(&world).await;
    raw.say(b'Q', b"select pg_sleep(1), 'long after' || ' the end'\0").await;
    raw.0.shutdown().await.unwrap();
    let answer = raw.until(b'Z').await;
    assert!(String::from_utf8_lossy(&answer).contains("long after the end"));
    assert_eq!(timeout(SOON, raw.0.read(&mut [0; 1])).await.unwrap().unwrap_or(0), 0);
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;

    let client = world.connect("primary").await.unwrap();
    is_carried(&client, &world).await;
    let own = client.ask("select pg_backend_pid()").await.unwrap();
    let other = connect(world.servers[0].port_address()).await.unwrap();
    other.ask(&format!("select pg_terminate_backend({own})")).await.unwrap();
    let (state, message) = client.end().await.expect("the server's words");
    assert_eq!((state.as_str(), message.contains("administrator")), ("57P01", true), "{message}");
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}

/// Large amounts go through a session that was carried, both ways and whole; and a client that does not read holds up its server, not the router's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_come_through_whole_both_ways_also_to_a_client_that_does_not_read_for_a_while() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let mut raw = Raw::login(world.router.address("primary")).await;
    raw.ask("create table t (n int, x text)").await;
    let lines: Vec<u8> = (0..100_000)
        .flat_map(|number| format!("{number}\t{}\n", "x".repeat(number % 150)).into_bytes())
        .collect();
    for _ in 0..2 {
        raw.is_carried(&world).await;
        raw.ask("truncate t").await;
        raw.say(b'Q', b"copy t from stdin\0").await;
        raw.until(b'G').await;
        for piece in lines.chunks(5000) {
            raw.say(b'd', piece).await;
        }
        raw.say(b'c', b"").await;
        raw.until(b'Z').await;
        raw.is_carried(&world).await;
        assert!(raw.ask("copy (select * from t order by n) to stdout").await == lines);
    }
    // More than all buffers on the way hold.
    raw.is_carried(&world).await;
    raw.say(b'Q', b"copy (select * from t, generate_series(1, 8) order by n) to stdout\0").await;
    let other = connect(world.servers[0].port_address()).await.unwrap();
    let waits = "select count(*) from pg_stat_activity where wait_event = 'ClientWrite'";
    until("the server to be held up", async || (other.ask(waits).await.unwrap() == "1").then_some(())).await;
    let data = raw.until(b'Z').await;
    assert_eq!(data.iter().filter(|byte| **byte == b'\n').count(), 800_000);
    raw.is_carried(&world).await;
}

/// Asks all the time; at the end the message of an error.
async fn busy(address: SocketAddr, logged_in: Arc<AtomicUsize>) -> Vec<u8> {
    let mut raw = Raw::login(address).await;
    logged_in.fetch_add(1, Ordering::Relaxed);
    loop {
        raw.say(b'Q', b"select 1\0").await;
        loop {
            match raw.hear().await {
                (b'E', why) => return why,
                (b'Z', _) => break,
                _ => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Wherever each of them is between question and answer: it hears why it ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_are_carried_and_cut_at_once_and_each_is_told() {
    let world = World::start(0, |_| {}).await;
    let member = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await;
    let term = member.lead(&world, "demo", "db1").await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let address = world.router.address("primary");
    let logged_in = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..SESSIONS).map(|_| tokio::spawn(busy(address, logged_in.clone()))).collect();
    until("all to be carried", async || {
        let all = logged_in.load(Ordering::Relaxed) == SESSIONS;
        carried(&world, SESSIONS).await.filter(|()| all)
    })
    .await;
    world.drop_lead(1, term).await;
    for client in clients {
        let why = client.await.unwrap();
        assert!(String::from_utf8_lossy(&why).contains("57P01"));
    }
    world.metric("baton_router_carried 0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_falls_silent_is_carried_no_longer_and_loses_nothing() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    is_carried(&client, &world).await;
    world.metric("baton_router_carried 0").await;
    assert_eq!(client.ask("select 'still there'").await.unwrap(), "still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_carried_sessions_and_ends_the_carrier() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    is_carried(&client, &world).await;
    world.router.stop.cancel();
    let (state, message) = client.end().await.expect("a reason");
    assert_eq!((state.as_str(), message.contains("stopping")), ("57P01", true), "{message}");
    timeout(SOON, world.router.task).await.unwrap().unwrap().unwrap();
}
