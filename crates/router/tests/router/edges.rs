//! Limits, odd clients, and the end of the router.

use crate::backends::{Scripted, startup};
use crate::harness::{ANY, RunningRouter, World, config, refusal, until};
use router::{Error, Role as Serves, Router, Service};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use testbed::free_port;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use types::Role;

const STARTUP: &[u8] = b"\0\0\0\x29\0\x03\0\0user\0postgres\0database\0postgres\0\0";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopping_tells_the_sessions() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    client.ask("select 1").await.unwrap();
    let address = world.router.address("primary");
    world.router.stop.cancel();
    let (state, message) = client.end().await.expect("a reason");
    assert_eq!((state.as_str(), message.contains("stopping")), ("57P01", true), "{message}");
    world.router.task.await.unwrap().unwrap();
    until("the port to be free", async || TcpStream::connect(address).await.err().map(drop)).await;
}

#[tokio::test]
async fn a_busy_port_is_named() {
    let first = Router::bind(config(1)).unwrap();
    let mut second = config(1);
    second.services[1].listen = first.addresses("primary");
    let error = Router::bind(second).err().expect("the port is busy");
    let (text, address) = (error.to_string(), first.addresses("primary")[0]);
    assert!(matches!(error, Error::AddressInUse { .. }));
    assert!(text.contains("\"replica\"") && text.contains(&address.to_string()), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_number_of_sessions_is_limited() {
    let world = World::start(1, |config| config.services[0].max_sessions = 2).await;
    world.lead(1).await;
    let first = world.connect("primary").await.unwrap();
    let _second = world.connect("primary").await.unwrap();
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("allows 2")), ("53300", true), "{message}");
    drop(first);
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 1"#).await;
    world.connect("primary").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_says_nothing_or_nonsense_is_let_go() {
    let world = World::start(1, |config| {
        config.handshake.timeout = Duration::from_secs(5);
        config.handshake.limit = 3;
    })
    .await;
    world.lead(1).await;
    let address = world.router.address("primary");
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(&STARTUP[..20]).await.unwrap();
    let mut web = TcpStream::connect(address).await.unwrap();
    web.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    for client in [&mut silent, &mut slow, &mut web] {
        // The end, or a break when something was left unread.
        assert!(!matches!(client.read(&mut [0; 1]).await, Ok(1)));
    }
    let mut old = TcpStream::connect(address).await.unwrap();
    old.write_all(b"\0\0\0\x0c\0\x02\0\0user").await.unwrap();
    let mut answer = Vec::new();
    old.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("protocol 2.0"));
    world.connect("primary").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_may_end_its_side_before_the_answer() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let mut client = TcpStream::connect(world.router.address("primary")).await.unwrap();
    client.write_all(STARTUP).await.unwrap();
    let sql = b"Q\0\0\0\x2fselect pg_sleep(1), 'long after' || ' the end'\0";
    let mut query = sql.to_vec();
    query[4] = u8::try_from(sql.len() - 1).unwrap();
    client.write_all(&query).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("long after the end"));
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}

/// Results of any size come through whole, also to a client that reads slowly, beside one that does not read at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_results_come_through_whole() {
    // Who spins is not carried.
    let spin = Duration::from_micros(if crate::io() == router::Io::Epoll { 50 } else { 0 });
    let world = World::start(1, |config| config.spin = spin).await;
    world.lead(1).await;
    // One that asks and asks again is waited for on the processor; and so is one that pauses, in vain.
    let alone = world.connect("primary").await.unwrap();
    for number in 0..300 {
        assert_eq!(alone.ask(&format!("select {number}")).await.unwrap(), number.to_string());
        if number % 50 == 49 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
    let mut deaf = TcpStream::connect(world.router.address("primary")).await.unwrap();
    deaf.write_all(STARTUP).await.unwrap();
    let sql = b"select repeat('x', 1000) from generate_series(1, 100000)\0";
    let length = u32::try_from(sql.len() + 4).unwrap();
    deaf.write_all(&[b"Q".as_slice(), &length.to_be_bytes(), sql].concat()).await.unwrap();

    let client = world.connect("primary").await.unwrap();
    let sql = "select repeat(i::text, 300) from generate_series(1, 20000) i";
    let rows = client.client.query(sql, &[]).await.unwrap();
    assert_eq!(rows.len(), 20_000);
    for (row, number) in rows.iter().zip(1..) {
        assert_eq!(row.get::<_, &str>(0), number.to_string().repeat(300));
    }
    let long = "y".repeat(3_000_000);
    assert_eq!(client.ask(&format!("select length('{long}')")).await.unwrap(), "3000000");
}

/// Large amounts are gathered in both directions, and their ends, and what comes in between, are not kept waiting for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_amounts_are_gathered_and_nothing_is_kept_back() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    let client = world.connect("primary").await.unwrap();
    let result = "select repeat('x', 1000), case when i % 9000 = 0 then pg_sleep(0.02)::text end \
                  from generate_series(1, 20000) i";
    let given = "z".repeat(20_000_000);
    for up in [false, true] {
        let seen = AtomicBool::new(false);
        let work = async {
            while !seen.load(Ordering::Relaxed) {
                if up {
                    let row = client.client.query_one("select length($1)", &[&given]).await.unwrap();
                    assert_eq!(row.get::<_, i32>(0), 20_000_000);
                } else {
                    assert_eq!(client.client.query(result, &[]).await.unwrap().len(), 20_000);
                }
            }
        };
        let look = async {
            world.metric("baton_router_bulk 1").await;
            seen.store(true, Ordering::Relaxed);
        };
        tokio::join!(work, look);
        world.metric("baton_router_bulk 0").await;
        assert_eq!(client.ask("select 7").await.unwrap(), "7");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_tells_what_is_going_on() {
    let world = World::start(2, |_| {}).await;
    let term = world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    let client = world.connect("primary").await.unwrap();
    client.ask("select 1").await.unwrap();
    let local = client.ask("select host(inet_client_addr()) || ':' || inet_client_port()").await.unwrap();

    let health = world.api("/health").await;
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let services = world.api("/services").await;
    let (_, body) = services.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let cluster = &body["clusters"][0];
    assert_eq!(cluster["term"], term.0);
    assert_eq!(cluster["primary"], "db1");
    let primary = body["services"].as_array().unwrap().iter().find(|service| service["name"] == "primary");
    assert_eq!(primary.unwrap()["sessions"], 1);
    assert_eq!(cluster["members"][1]["use"], "replica");
    assert_eq!(cluster["sessions"][0]["member"], "db1");
    assert_eq!(cluster["sessions"][0]["local"], local);
    let line = format!(
        r#"baton_router_member_sessions{{scope="demo",service="primary",member="db1",term="{}"}} 1"#,
        term.0
    );
    world.metric(&line).await;
    assert!(world.api("/nonsense").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_nothing_is_known() {
    let mut config = config(free_port());
    config.hold.timeout = Duration::from_millis(500);
    let router = RunningRouter::start(config);
    let health = router.get("/health").await;
    assert!(health.starts_with("HTTP/1.1 503") && health.contains("\"known\":false"), "{health}");
    for service in ["primary", "replica", "offline"] {
        let (state, message) = refusal(router.address(service)).await;
        assert_eq!(state, "57P03", "{message}");
    }
    let (_, message) = refusal(router.address("primary")).await;
    assert!(message.contains("not known yet"), "{message}");
}

/// Slow ones that send a byte now and then have the same time as silent ones; what they hold is counted while they hold it, and given back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_loris_gets_its_time_and_no_more() {
    const PLACES: usize = 30;
    let world = World::start(0, |config| {
        config.handshake.timeout = Duration::from_secs(10);
        config.handshake.limit = PLACES;
        let mut named = Service::new("named", ANY, Serves::Primary);
        named.names.insert("demo.example".into(), "demo".into());
        config.services.push(named);
    })
    .await;
    Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await.lead(&world, "demo", "db1").await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    // A startup packet and a TLS hello that never end.
    for (service, head) in
        [("primary", [0, 0, 39, 16, 0, 3, 0, 0]), ("named", [0x16, 3, 1, 39, 16, 1, 0, 39])]
    {
        let address = world.router.address(service);
        let drip = || async move {
            let mut client = TcpStream::connect(address).await?;
            for byte in head.into_iter().chain([7; 1000]) {
                client.write_u8(byte).await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Ok::<(), std::io::Error>(())
        };
        let slow: Vec<_> = (0..PLACES).map(|_| tokio::spawn(drip())).collect();
        let count = |name: &str, number: usize| {
            format!("baton_router_{name}{{scope=\"demo\",service=\"{service}\"}} {number}")
        };
        world.metric(&count("silent", PLACES)).await;
        let mut beyond = TcpStream::connect(address).await.unwrap();
        assert_eq!(beyond.read(&mut [0; 1]).await.unwrap_or(0), 0, "no place is left");
        for client in slow {
            assert!(client.await.unwrap().is_err(), "its time was over long before the end");
        }
        world.metric(&count("late_total", PLACES)).await;
        world.metric(&count("silent", 0)).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&startup(0)).await.unwrap();
        assert_eq!(client.read_u8().await.unwrap(), b'R', "logged in");
    }
}

/// A client whose host is gone without a word: the probes find it out, and its session ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanished_is_noticed() {
    // TCP_REPAIR lets a socket go without a FIN. Who may not use it goes as usual.
    const CLIENT: &str = "import socket, sys\n\
        s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n\
        s.sendall(bytes.fromhex(sys.argv[2]))\n\
        s.recv(1)\n\
        sys.stdin.readline()\n\
        s.setsockopt(socket.IPPROTO_TCP, 19, 1)\n";
    let world = World::start(0, |config| {
        config.tcp.keepalive_idle = Duration::from_secs(1);
        config.tcp.keepalive_interval = Duration::from_secs(1);
    })
    .await;
    let server = Scripted::start(vec![0, 0, 0, 1, 9, 9, 9, 9], None).await;
    server.lead(&world, "demo", "db1").await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let port = world.router.address("primary").port();
    let packet: String = startup(0).iter().map(|byte| format!("{byte:02x}")).collect();
    let mut client = Command::new("python3");
    client.args(["-c", CLIENT, &port.to_string(), &packet]).stdin(Stdio::piped()).stderr(Stdio::null());
    let mut client = client.spawn().unwrap();
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 1"#).await;
    // The connections to both sides are probed: the kernel's timer says so.
    for end in [format!(":{port:04X}"), format!(":{:04X}", server.port)] {
        until("the probes", async || {
            let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let probed = |line: &&str| {
                let words: Vec<&str> = line.split_whitespace().collect();
                let [_, local, remote, "01", _, timer, ..] = words[..] else { return false };
                (local.ends_with(&end) || remote.ends_with(&end)) && timer.starts_with("02")
            };
            sockets.lines().find(probed).map(drop)
        })
        .await;
    }
    drop(client.stdin.take());
    client.wait().unwrap();
    world.metric(r#"baton_router_sessions{scope="demo",service="primary"} 0"#).await;
}
