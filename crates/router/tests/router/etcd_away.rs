//! etcd is out of reach: what was seen last holds for a while, and then the word of the leader's agent.

use crate::agent::{Agent, SILENT};
use crate::harness::{Client, World, connect, until};
use crate::tls::psql;
use router::Config;
use std::time::Duration;
use tokio::task::{JoinHandle, spawn_blocking};
use types::Role;

const UP: &str = r#"baton_router_primary_up{scope="demo"} 1"#;
const DOWN: &str = r#"baton_router_primary_up{scope="demo"} 0"#;
const LOST: &str = r#"baton_router_etcd_lost{scope="demo"} 1"#;

fn impatient(config: &mut Config) {
    config.truth.etcd_patience = Duration::from_secs(2);
    config.hold.timeout = Duration::from_secs(60);
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
    let agent = Agent::start().await;
    let mut world = World::start(1, impatient).await;
    world.api_url = agent.url.clone();
    world.lead(1).await;
    let session = world.connect("primary").await.unwrap();
    session.ask("select 1").await.unwrap();
    world.etcd_server.freeze();
    world.metric(LOST).await;
    // It is asked once a second: this is well beyond the patience. Sessions live, and new ones are opened.
    until("the questions", async || (agent.asked_for_primary() >= 5).then_some(())).await;
    assert_eq!(session.ask("select 'here'").await.unwrap(), "here");
    assert_eq!(world.reaches("primary").await, 1);

    agent.says(503);
    let (state, message) = session.end().await.expect("a reason");
    assert_eq!(state, "57P01", "{message}");

    agent.says(200);
    assert_eq!(world.reaches("primary").await, 1);
    world.etcd_server.thaw();
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 0"#).await;
    assert_eq!(world.reaches("primary").await, 1);
}

/// A primary with TLS that has that agent, and a session on it that the router does not know of.
async fn led_with_tls(agent: &Agent) -> (World, Client) {
    let mut world = World::prepare(1, 0, |config| {
        impatient(config);
        // Who leads is known for as long as a test lasts, but for the agent's word.
        config.truth.etcd_patience = Duration::from_secs(600);
    });
    world.servers[0].use_tls();
    world.servers[0].start();
    world.api_url = agent.url.clone();
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
    let agent = Agent::start().await;
    let (world, server) = led_with_tls(&agent).await;
    for (round, etcd_is_there) in [(0, true), (1, false)] {
        if !etcd_is_there {
            world.etcd_server.freeze();
            world.metric(LOST).await;
        }
        let session = world.connect("primary").await.unwrap();
        until("the standing question", async || (agent.asked_for_lead() > round).then_some(())).await;
        let before = agent.asked_for_primary();
        let ended = clock::now();
        agent.says(503);
        let (state, message) = session.end().await.expect("a reason");
        assert_eq!(state, "57P01", "{message}");
        println!(
            "cut after {:?}, etcd {etcd_is_there}, asked {}",
            clock::now().since(ended),
            agent.asked_for_primary() - before
        );
        world.metric(DOWN).await;
        let shown = world.api("/services").await;
        // By the standing question, or by the next one.
        let says_so = ["says that it leads no more", "answered 503 to GET /primary"];
        assert!(says_so.iter().any(|said| shown.contains(said)), "{shown}");
        read_only(&server, "on").await;
        let writers: Vec<_> = (0..10).map(|_| insert(&world)).collect();
        world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 10"#).await;
        read_only(&server, "off").await;
        agent.says(200);
        for writer in writers {
            let (ok, text) = writer.await.unwrap();
            assert!(ok, "{text}");
        }
        world.metric(UP).await;
    }
    world.etcd_server.thaw();
}

/// What etcd shows may be over already: whom the router cannot look at it leads to the primary by its agent's word alone, which is asked for
/// when the connection to PostgreSQL stands. Who can be looked at goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_looked_at_waits_until_the_agent_says_that_it_takes_writes() {
    let agent = Agent::start().await;
    let (world, server) = led_with_tls(&agent).await;
    let stays = world.connect("primary").await.unwrap();
    assert_eq!(agent.asked_for_primary(), 0, "in the clear nobody is asked");
    for etcd_is_there in [true, false] {
        if !etcd_is_there {
            world.etcd_server.freeze();
            world.metric(LOST).await;
        }
        let (ok, text) = insert(&world).await.unwrap();
        assert!(ok, "the agent says that it leads: {text}");

        agent.says(SILENT);
        read_only(&server, "on").await;
        let writers: Vec<_> = (0..3).map(|_| insert(&world)).collect();
        world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 3"#).await;
        assert_eq!(stays.ask("select 'here'").await.unwrap(), "here");
        assert_eq!(world.reaches("primary").await, 1, "in the clear");
        let shown = world.api("/services").await;
        assert!(shown.contains(&format!(r#""unproven":"its agent at {}"#, agent.url)), "{shown}");
        let connected = "select count(*) from pg_stat_activity where backend_type = 'client backend'";
        until("nothing but the sessions to be connected", async || {
            (server.ask(connected).await.unwrap() == "2").then_some(())
        })
        .await;
        read_only(&server, "off").await;
        agent.says(200);
        for writer in writers {
            let (ok, text) = writer.await.unwrap();
            assert!(ok, "{text}");
        }
    }
    world.etcd_server.thaw();
}

/// The primary gives the lead up and is up again for reading, and neither etcd nor its agent tells the router: not even who is connected already
/// when that happens gets to read "cannot execute INSERT in a read-only transaction".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_comes_up_again_for_reading_is_shown_to_nobody() {
    let agent = Agent::start().await;
    let (world, server) = led_with_tls(&agent).await;
    agent.says(SILENT);
    let early = insert(&world);
    until("its question", async || (agent.asked_for_primary() > 0).then_some(())).await;
    drop(server);
    world.servers[0].stop();
    world.servers[0].append("standby.signal", "");
    world.servers[0].start();
    let late = insert(&world);
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 2"#).await;
    let reader = connect(world.servers[0].port_address()).await.unwrap();
    assert_eq!(reader.ask("select pg_is_in_recovery()").await.unwrap(), "t");
    assert!(world.api("/metrics").await.lines().any(|line| line == UP), "the router has heard nothing");

    assert_eq!(reader.ask("select pg_promote()").await.unwrap(), "t");
    agent.says(200);
    for writer in [early, late] {
        let (ok, text) = writer.await.unwrap();
        assert!(ok, "{text}");
    }
}

/// PostgreSQL 13 does not say in its greeting what it is: its agent is asked for sessions in the clear as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whose_server_is_too_old_to_say_what_it_is_waits_as_well() {
    let agent = Agent::of(130_022).await;
    let mut world = World::start(1, impatient).await;
    world.api_url = agent.url.clone();
    world.lead(1).await;
    until("the version to be known", async || {
        assert_eq!(world.reaches("primary").await, 1);
        (agent.asked_for_primary() > 0).then_some(())
    })
    .await;
    agent.says(SILENT);
    let address = world.router.address("primary");
    let waits = tokio::spawn(async move { connect(address).await });
    // Who asks for TLS first, and is told that there is none, as well.
    let options = format!("host=127.0.0.1 port={} sslmode=prefer", address.port());
    let asks_first = spawn_blocking(move || psql(&options, "select 'here'"));
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 2"#).await;
    agent.says(200);
    waits.await.unwrap().unwrap();
    assert_eq!(asks_first.await.unwrap(), (true, "here".to_owned()));
}

/// A writer with TLS through the router.
fn insert(world: &World) -> JoinHandle<(bool, String)> {
    let options = format!("host=127.0.0.1 port={} sslmode=require", world.router.address("primary").port());
    spawn_blocking(move || psql(&options, "insert into t values (1)"))
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
