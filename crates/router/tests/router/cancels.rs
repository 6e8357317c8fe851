//! A request to cancel reaches the server that runs the query, on every service.

use crate::backends::{Scripted, WAITS, message, startup};
use crate::harness::{RunningRouter, SOON, World, connect, until};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;
use types::{PostgresState, Role};

/// As many as the whole is measured by.
const SESSIONS: usize = 50;

const SLEEP: &str = "select pg_sleep(3600)";

/// Two members for reading, one of which also leads.
async fn world() -> World {
    let world = World::start(2, |_| {}).await;
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    world
}

async fn cancelled(world: &World, service: &str) {
    let client = world.connect(service).await.unwrap();
    let token = client.client.cancel_token();
    let query = client.client.simple_query(SLEEP);
    let cancel = async {
        until("the query", async || {
            let watcher = connect(world.servers[0].port_address()).await.unwrap();
            let other = connect(world.servers[1].port_address()).await.unwrap();
            let sql =
                format!("select count(*) from pg_stat_activity where query = '{SLEEP}' and state = 'active'");
            let (here, there) = (watcher.ask(&sql).await.unwrap(), other.ask(&sql).await.unwrap());
            (here != "0" || there != "0").then_some(())
        })
        .await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (outcome, ()) = tokio::join!(query, cancel);
    assert_eq!(outcome.unwrap_err().code().unwrap().code(), "57014");
    assert_eq!(client.ask("select 'still there'").await.unwrap(), "still there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_the_primary() {
    cancelled(&world().await, "primary").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_each_of_several_replicas() {
    let world = World::start(2, |_| {}).await;
    world.publish(1, &world.member(1, Role::Replica)).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 2"#).await;
    // Sessions alternate, and the ones before stay open: both members come to be used.
    let mut open = Vec::new();
    for _ in 0..4 {
        cancelled(&world, "replica").await;
        open.push(world.connect("replica").await.unwrap());
    }
    let mut used = Vec::new();
    for client in &open {
        used.push(world.number_of(client).await);
    }
    assert!(used.contains(&1) && used.contains(&2), "{used:?}");
}

/// A session that the router did not open, or could not read: every member of the service is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_session_that_is_not_known() {
    let world = world().await;
    for number in [0, 1] {
        let direct = connect(world.servers[number].port_address()).await.unwrap();
        let (mut raw, packet) = session_with_key(world.servers[number].port_address(), 0).await;
        raw.write_all(&message(b'Q', format!("{SLEEP}\0").as_bytes())).await.unwrap();
        let sql =
            format!("select count(*) from pg_stat_activity where query = '{SLEEP}' and state = 'active'");
        until("the query", async || (direct.ask(&sql).await.unwrap() == "1").then_some(())).await;
        let mut cancel = TcpStream::connect(world.router.address("replica")).await.unwrap();
        cancel.write_all(&packet).await.unwrap();
        assert_eq!(cancel.read(&mut [0; 1]).await.unwrap(), 0, "closed when it is done");
        let mut answer = vec![0; 1024];
        let count = raw.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..count]).contains("57014"));
    }
}

/// A session by hand in protocol 3 and that minor version, and the packet that cancels its query.
pub(crate) async fn session_with_key(address: SocketAddr, minor: u8) -> (TcpStream, Vec<u8>) {
    let mut raw = TcpStream::connect(address).await.unwrap();
    raw.write_all(&startup(minor)).await.unwrap();
    let mut packet = Vec::new();
    loop {
        let kind = raw.read_u8().await.unwrap();
        let length = raw.read_u32().await.unwrap() as usize;
        let mut body = vec![0; length - 4];
        raw.read_exact(&mut body).await.unwrap();
        match kind {
            b'K' => packet = message(b' ', &[&[4, 210, 22, 46], body.as_slice()].concat())[1..].to_vec(),
            b'Z' => return (raw, packet),
            _ => {}
        }
    }
}

/// Waits until so many queries sleep, some on each of both servers: a request that comes before its query cancels nothing.
async fn sleep(world: &World, count: usize) {
    let sql = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and wait_event = 'PgSleep'";
    let watchers = [
        connect(world.servers[0].port_address()).await.unwrap(),
        connect(world.servers[1].port_address()).await.unwrap(),
    ];
    until("the queries", async || {
        let mut sleep = Vec::new();
        for watcher in &watchers {
            sleep.push(watcher.ask(sql).await.unwrap().parse::<usize>().unwrap());
        }
        (sleep.iter().sum::<usize>() == count && !sleep.contains(&0)).then_some(())
    })
    .await;
}

/// PostgreSQL 18 speaks of keys of up to 256 bytes. A request may come to any router: the one that has the session asks its member, another
/// one all that it might be on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_long_keys_and_by_another_router() {
    let world = World::start(0, |_| {}).await;
    let second = RunningRouter::start(crate::harness::config(world.etcd_server.client));
    let keys = [[vec![0, 0, 0, 7], vec![3; 32]].concat(), [vec![0, 0, 0, 8], vec![4; 256]].concat()];
    let mut members = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        let member = Scripted::start(key.clone(), None).await;
        world.publish(number + 1, &member.member(Role::Replica)).await;
        members.push(member);
    }
    for router in [&world.router, &second] {
        until("the replicas", async || {
            router.get("/metrics").await.contains("_replicas{scope=\"demo\"} 2").then_some(())
        })
        .await;
    }
    for (router, everywhere) in [(&world.router, false), (&second, true)] {
        let mut sessions = Vec::new();
        for _ in 0..SESSIONS {
            let mut raw = TcpStream::connect(world.router.address("replica")).await.unwrap();
            raw.write_all(&[startup(2), message(b'Q', WAITS)].concat()).await.unwrap();
            let mut greeting = [0; 14];
            raw.read_exact(&mut greeting).await.unwrap();
            let mut key = vec![0; u32::from_be_bytes(greeting[10..14].try_into().unwrap()) as usize - 4];
            raw.read_exact(&mut key).await.unwrap();
            sessions.push((raw, key));
        }
        let used: BTreeSet<_> = sessions.iter().map(|(_, key)| key.clone()).collect();
        assert_eq!(used.len(), 2, "both members have sessions");
        for (_, key) in &sessions {
            let packet = message(b' ', &[&[4, 210, 22, 46], key.as_slice()].concat())[1..].to_vec();
            let mut cancel = TcpStream::connect(router.address("replica")).await.unwrap();
            cancel.write_all(&packet).await.unwrap();
            assert_eq!(cancel.read(&mut [0; 1]).await.unwrap(), 0, "closed when it is done");
        }
        for (member, key) in members.iter().zip(&keys) {
            let got = std::mem::take(&mut *member.cancels.lock().unwrap());
            assert_eq!(got.iter().filter(|got| *got == key).count(), SESSIONS / 2);
            assert_eq!(got.len(), if everywhere { SESSIONS } else { SESSIONS / 2 });
        }
        // Those of the next round are spread evenly when these are gone.
        drop(sessions);
        world.metric(r#"baton_router_sessions{scope="demo",service="replica"} 0"#).await;
    }
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}

/// Fifty at once on two replicas, half of them in protocol 3.2; each request comes to the other router than the session did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_of_fifty_by_another_router() {
    let world = World::start(2, |_| {}).await;
    let second = RunningRouter::start(crate::harness::config(world.etcd_server.client));
    for number in [1, 2] {
        world.publish(number, &world.member(number, Role::Replica)).await;
    }
    for router in [&world.router, &second] {
        until("the replicas", async || {
            router.get("/metrics").await.contains("_replicas{scope=\"demo\"} 2").then_some(())
        })
        .await;
    }
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let routers = [world.router.address("replica"), second.address("replica")];
        let (here, there) = (routers[number % 2], routers[(number + 1) % 2]);
        let minor = if number % 4 < 2 { 0 } else { 2 };
        let (mut raw, packet) = session_with_key(here, minor).await;
        raw.write_all(&message(b'Q', b"select pg_sleep(60)\0")).await.unwrap();
        sessions.push((raw, packet, there));
    }
    sleep(&world, SESSIONS).await;
    println!(
        "keys of {:?} bytes",
        sessions.iter().map(|(_, packet, _)| packet.len() - 12).collect::<BTreeSet<_>>()
    );
    let mut cancels = JoinSet::new();
    for (mut raw, packet, there) in sessions {
        cancels.spawn(async move {
            let mut cancel = TcpStream::connect(there).await.unwrap();
            cancel.write_all(&packet).await.unwrap();
            assert_eq!(cancel.read(&mut [0; 1]).await.unwrap(), 0, "closed when it is done");
            let mut answer = vec![0; 1024];
            let count = tokio::time::timeout(SOON, raw.read(&mut answer)).await.unwrap().unwrap();
            String::from_utf8_lossy(&answer[..count]).contains("57014")
        });
    }
    let outcomes = cancels.join_all().await;
    assert_eq!(outcomes.iter().filter(|cancelled| **cancelled).count(), SESSIONS);
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}

/// A transaction that a planned switchover waits for, and a query on a replica that streams no more: no new session would go there, but the
/// request does, through the router that has the session and through another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_new_session_would_go() {
    let world = world().await;
    let second = RunningRouter::start(crate::harness::config(world.etcd_server.client));
    until("the replica", async || {
        second.get("/metrics").await.contains("_replicas{scope=\"demo\"} 1").then_some(())
    })
    .await;
    for by in [world.router.api, second.api] {
        let (mut on_primary, primary_key) = session_with_key(world.router.address("primary"), 0).await;
        let (mut on_replica, replica_key) = session_with_key(world.router.address("replica"), 0).await;
        for raw in [&mut on_primary, &mut on_replica] {
            raw.write_all(&message(b'Q', b"select pg_sleep(60)\0")).await.unwrap();
        }
        sleep(&world, 2).await;
        let mut behind = world.member(2, Role::Replica);
        behind.replication_state = None;
        behind.state = PostgresState::Starting.into();
        world.publish(2, &behind).await;
        let term = world.etcd.snapshot(clock::now().after(SOON)).await.unwrap().leader.unwrap().term;
        world.refuse_writes(term).await;
        for router in [&world.router, &second] {
            for gone in ["_replicas{scope=\"demo\"} 0", "_primary_up{scope=\"demo\"} 0"] {
                until(gone, async || router.get("/metrics").await.contains(gone).then_some(())).await;
            }
        }
        let router = if by == second.api { &second } else { &world.router };
        for (mut raw, packet, service) in
            [(on_primary, primary_key, "primary"), (on_replica, replica_key, "replica")]
        {
            let mut cancel = TcpStream::connect(router.address(service)).await.unwrap();
            cancel.write_all(&packet).await.unwrap();
            assert_eq!(cancel.read(&mut [0; 1]).await.unwrap(), 0, "closed when it is done");
            let mut answer = vec![0; 1024];
            let count = tokio::time::timeout(SOON, raw.read(&mut answer)).await.unwrap().unwrap();
            let answer = String::from_utf8_lossy(&answer[..count]);
            assert!(answer.contains("57014"), "{service}: {answer}");
        }
        world.accept_writes(1, term).await;
        world.publish(2, &world.member(2, Role::Replica)).await;
        for router in [&world.router, &second] {
            for back in ["_replicas{scope=\"demo\"} 1", "_primary_up{scope=\"demo\"} 1"] {
                until(back, async || router.get("/metrics").await.contains(back).then_some(())).await;
            }
        }
    }
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}
