//! Roles, shares, limits of lag, orders of a person, and what load balancers and TLS names say.

use crate::backends::startup;
use crate::harness::{ANY, World, refusal, until};
use router::{Balance, Fallback, LagLimit, Network, Role as Serves, Service};
use std::net::Ipv4Addr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use types::{Lsn, NodeName, Role};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_used_as_their_role_their_share_and_their_lag_say() {
    let world = World::start(3, |config| {
        let mut any = Service::new("any", ANY, Serves::Any);
        any.balance = Balance::RoundRobin;
        let mut fresh = Service::new("fresh", ANY, Serves::Replica);
        fresh.fallback = Fallback::None;
        fresh.max_lag = LagLimit { bytes: Some(1000), time: None };
        let mut weighted = Service::new("weighted", ANY, Serves::Replica);
        weighted.weights = [(NodeName::from("db2"), 0)].into();
        config.services.extend([any, fresh, weighted, Service::new("sync", ANY, Serves::Sync)]);
        config.hold.timeout = std::time::Duration::from_millis(500);
    })
    .await;
    let term = world.lead(1).await;
    let soon = || clock::now().after(crate::harness::SOON);
    let at = async |number: usize, lsn: u64| {
        let mut member = world.member(number, Role::Replica);
        member.replay_lsn = Some(Lsn(lsn));
        world.publish(number, &member).await;
    };
    at(2, 10_000).await;
    at(3, 10_000).await;
    let status = etcd::Status { optime: Lsn(10_000), ..etcd::Status::default() };
    world.etcd.put_status(&status, term, soon()).await.unwrap();
    let sync =
        etcd::Sync { leader: Some("db1".into()), sync_standby: vec!["db3".into()], ..etcd::Sync::default() };
    world.etcd.put_sync(&sync, None, term, soon()).await.unwrap();
    world.metric(r#"baton_router_replicas{scope="demo"} 2"#).await;

    // The replicas were known before `/sync` was.
    let stands_in = async || (world.reaches("sync").await == 3).then_some(());
    until("the synchronous standby to be used", stands_in).await;
    assert_eq!(world.reaches("weighted").await, 3);
    let mut reached = Vec::new();
    for _ in 0..6 {
        reached.push(world.reaches("any").await);
    }
    reached.sort_unstable();
    assert_eq!(reached, [1, 1, 2, 2, 3, 3]);

    // db2 falls behind, comes to half of the limit, and is used again; nobody is left when both are behind.
    let behind = async |wanted: &str| {
        until(wanted, async || world.api("/services").await.contains(wanted).then_some(())).await;
    };
    at(2, 8_900).await;
    behind(r#""too_far_behind_for":["fresh"]"#).await;
    for _ in 0..3 {
        assert_eq!(world.reaches("fresh").await, 3);
    }
    at(3, 8_000).await;
    until("nobody to be left", async || {
        let refused = world.connect("fresh").await.err()?;
        (refused.code().map(tokio_postgres::error::SqlState::code) == Some("57P03")).then_some(())
    })
    .await;
    assert_ne!(world.reaches("replica").await, 1, "another service has no limit");
    at(2, 9_600).await;
    until("db2 to be back", async || world.connect("fresh").await.ok().map(drop)).await;
    assert_eq!(world.reaches("fresh").await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_takes_members_out_and_in_and_others_may_not() {
    let world = World::start(2, |config| {
        config.hold.timeout = std::time::Duration::from_millis(300);
        config.login = Some(http::Credentials { username: "op".into(), password: "secret".into() });
    })
    .await;
    world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    world.metric(r#"baton_router_replicas{scope="demo"} 1"#).await;
    let session = world.connect("replica").await.unwrap();
    let drain = "/clusters/demo/members/db2/drain";
    assert!(world.router.request("POST", drain, "").await.starts_with("HTTP/1.1 401"));
    let wrong = "authorization: Basic b3A6c2VjcmVzCg==\r\n";
    assert!(world.router.request("POST", drain, wrong).await.starts_with("HTTP/1.1 401"));
    assert_eq!(world.reaches("replica").await, 2);

    let login = "authorization: Basic b3A6c2VjcmV0\r\n";
    let order = async |what: &str| {
        world.router.request("POST", &format!("/clusters/demo/members/{what}"), login).await
    };
    assert!(order("db2/drain").await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.reaches("replica").await, 1);
    session.ask("select 1").await.unwrap();
    assert!(order("db1/drain").await.starts_with("HTTP/1.1 200"));
    let (state, message) = refusal(world.router.address("primary")).await;
    assert_eq!((state.as_str(), message.contains("undrain db1")), ("57P03", true), "{message}");
    world.metric(r#"baton_router_drained_members{scope="demo"} 2"#).await;
    assert!(order("db1/undrain").await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.reaches("primary").await, 1);
    assert!(order("db9/drain").await.starts_with("HTTP/1.1 404"));
    assert!(order("db1/explode").await.starts_with("HTTP/1.1 404"));
}

/// A router that believes this host's PROXY headers and tells a pooler of the primary of its clients by one; and that pooler.
async fn before_a_pooler() -> (World, TcpListener) {
    let pooler = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = pooler.local_addr().unwrap().port();
    let world = World::start(1, |config| {
        config.proxy_from = vec![Network { address: Ipv4Addr::LOCALHOST.into(), bits: 32 }];
        let mut pooled = Service::new("pooled", ANY, Serves::Primary);
        pooled.destination = router::Destination::Port(port);
        pooled.send_proxy = true;
        config.services.push(pooled);
    })
    .await;
    world.watched().await;
    world.lead(1).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    (world, pooler)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_load_balancer_tells_who_the_client_is_and_a_pooler_is_told() {
    let (world, pooler) = before_a_pooler().await;
    let header =
        [SIGNATURE.as_slice(), &[0x21, 0x11, 0, 12, 203, 0, 113, 7, 10, 0, 0, 1, 0x10, 0, 0x15, 0x39]]
            .concat();
    let startup = startup(0);
    let mut client = TcpStream::connect(world.router.address("pooled")).await.unwrap();
    client.write_all(&header).await.unwrap();
    client.write_all(&startup).await.unwrap();
    let (mut seen, _) = pooler.accept().await.unwrap();
    let mut said = vec![0; 28 + startup.len()];
    seen.read_exact(&mut said).await.unwrap();
    // The address of the client as it was told; the called one is the router's own.
    assert_eq!(said[..20], [SIGNATURE.as_slice(), &[0x21, 0x11, 0, 12, 203, 0, 113, 7]].concat());
    assert_eq!(said[28..], startup[..]);
    seen.write_all(b"R\0\0\0\x08\0\0\0\0").await.unwrap();
    client.read_exact(&mut [0; 9]).await.unwrap();
    until("the map of sessions", async || {
        world.api("/services").await.contains(r#""client":"203.0.113.7:4096""#).then_some(())
    })
    .await;
    // Without a header the balancer speaks for itself; with a bad one it is let go.
    assert_eq!(world.reaches("primary").await, 1);
    let mut bad = TcpStream::connect(world.router.address("primary")).await.unwrap();
    bad.write_all(b"\r\n\r\nPROXY TCP4 1.2.3.4\r\n").await.unwrap();
    assert_eq!(bad.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

/// What begins every PROXY header.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// A header of IPv6, in pieces; one that comes before a request for TLS; one in which the balancer speaks for itself; and one of somebody who
/// is not trusted. Who is told of clients is told of it with a request to cancel, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_come_in_pieces_before_tls_and_from_whom_nobody_trusts() {
    let (world, pooler) = before_a_pooler().await;
    let address = world.router.address("pooled");
    let source: std::net::Ipv6Addr = "2001:db8::7".parse().unwrap();
    let header = [
        SIGNATURE.as_slice(),
        &[0x21, 0x21, 0, 39],
        &source.octets(),
        &[9; 16],
        &[0x10, 1, 0x15, 0x39],
        // Something that the balancer adds.
        &[4, 0, 0],
    ]
    .concat();
    let told = [SIGNATURE.as_slice(), &[0x21, 0x21, 0, 36], &source.octets()].concat();

    let mut client = TcpStream::connect(address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for piece in [header.as_slice(), &startup(0)].concat().chunks(7) {
        client.write_all(piece).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    let (mut seen, _) = pooler.accept().await.unwrap();
    let mut said = vec![0; 52 + startup(0).len()];
    seen.read_exact(&mut said).await.unwrap();
    assert_eq!((&said[..32], &said[48..50], &said[52..]), (told.as_slice(), &[0x10, 1][..], &startup(0)[..]));

    // A request for TLS behind a header, and one to cancel.
    for packet in [&[0, 0, 0, 8, 4, 210, 22, 47][..], &[0, 0, 0, 16, 4, 210, 22, 46, 1, 1, 1, 1, 2, 2, 2, 2]]
    {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&[header.as_slice(), packet].concat()).await.unwrap();
        let (mut seen, _) = pooler.accept().await.unwrap();
        let mut said = vec![0; 52 + packet.len()];
        seen.read_exact(&mut said).await.unwrap();
        assert_eq!((&said[..32], &said[52..]), (told.as_slice(), packet));
    }

    // The balancer looks whether somebody is there: the connection is its own.
    let mut client = TcpStream::connect(address).await.unwrap();
    client.write_all(&[SIGNATURE.as_slice(), &[0x20, 0, 0, 0], &startup(0)].concat()).await.unwrap();
    let (mut seen, _) = pooler.accept().await.unwrap();
    let mut said = [0; 20];
    seen.read_exact(&mut said).await.unwrap();
    assert_eq!(said[12..], [0x21, 0x11, 0, 12, 127, 0, 0, 1]);

    // From elsewhere a header is nothing that PostgreSQL's protocol knows.
    let refused = r#"baton_router_refused_total{scope="demo",service="pooled"}"#;
    world.metric(&format!("{refused} 0")).await;
    let elsewhere = tokio::net::TcpSocket::new_v4().unwrap();
    elsewhere.bind(([127, 0, 0, 2], 0).into()).unwrap();
    let mut client = elsewhere.connect(address).await.unwrap();
    client.write_all(&[header.as_slice(), &startup(0)].concat()).await.unwrap();
    assert_eq!(client.read(&mut [0; 1]).await.unwrap_or(0), 0);
    world.metric(&format!("{refused} 1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_sends_a_service_to_a_member() {
    let world = World::start(3, |_| {}).await;
    let term = world.lead(1).await;
    for number in [2, 3] {
        world.publish(number, &world.member(number, Role::Replica)).await;
    }
    world.metric(r#"baton_router_replicas{scope="demo"} 2"#).await;
    let session = world.connect("replica").await.unwrap();
    let before = world.number_of(&session).await;
    let other = 5 - before;
    let order =
        async |what: &str| world.router.request("POST", &format!("/clusters/demo/members/{what}"), "").await;
    assert!(order(&format!("db{other}/pin/replica")).await.starts_with("HTTP/1.1 200"));
    for _ in 0..4 {
        assert_eq!(world.reaches("replica").await, other);
    }
    session.ask("select 1").await.expect("sessions elsewhere go on");
    world.metric(r#"baton_router_pinned_services{scope="demo"} 1"#).await;
    assert!(world.api("/services").await.contains(r#""pinned_for":["replica"]"#));
    // Who cannot serve does not, and comes back.
    assert!(order(&format!("db{other}/drain")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.reaches("replica").await, before);
    assert!(order(&format!("db{other}/undrain")).await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.reaches("replica").await, other);
    // Reads may be sent to the primary; its own services are nobody else's.
    assert!(order(&format!("db{other}/unpin/replica")).await.starts_with("HTTP/1.1 200"));
    assert!(order("db1/pin/replica").await.starts_with("HTTP/1.1 200"));
    assert_eq!(world.reaches("replica").await, 1);
    let line = format!(
        r#"baton_router_member_sessions_total{{scope="demo",service="replica",member="db1",term="{}"}} 1"#,
        term.0
    );
    world.metric(&line).await;
    let refused = order("db2/pin/primary").await;
    assert!(refused.starts_with("HTTP/1.1 409") && refused.contains("switchover"), "{refused}");
    assert!(order("db2/pin/nothing").await.starts_with("HTTP/1.1 404"));
    assert!(order("db9/pin/replica").await.starts_with("HTTP/1.1 404"));
}
