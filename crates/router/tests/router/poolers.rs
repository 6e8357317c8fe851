//! Sessions that are to write through a pooler. They outlive a restart of PostgreSQL, so the router holds them itself whenever it does not know that
//! there is a primary behind it, ends those that it cannot hold, and tells the agents when it leads nobody there any more.

use crate::agent::{Agent, PROMOTING, SILENT};
use crate::harness::{ANY, RunningRouter, SOON, World, connect, until};
use crate::servers::etcd_binary;
use crate::tls::psql;
use router::{Config, Destination, Role as Serves, Service};
use std::time::Duration;
use testbed::etcdctl;
use tokio::task::spawn_blocking;
use types::{Role, Term};

fn with_pooled(config: &mut Config) {
    config.truth.etcd_patience = Duration::from_secs(600);
    config.hold.timeout = Duration::from_secs(60);
    let mut pooled = Service::new("pooled", ANY, Serves::Primary);
    pooled.destination = Destination::Pooler;
    config.services.push(pooled);
}

/// db1 leads and names its own PostgreSQL as its pooler: what matters is that the router takes it for one.
async fn lead_with_pooler(world: &World) -> Term {
    world.watched().await;
    let mut member = world.member(1, Role::Primary);
    member.proxy_url = member.conn_url.clone();
    world.publish(1, &member).await;
    let term = world.take_lead(1).await;
    world.accept_writes(1, term).await;
    term
}

/// What the router says of itself in etcd.
async fn says(world: &World) -> etcd::Router {
    until("the router's key", async || {
        let snapshot = world.etcd.snapshot(clock::now().after(SOON)).await.ok()?;
        snapshot.routers.values().next().cloned()
    })
    .await
}

async fn is_doubted(world: &World) {
    let doubted = async || world.api("/health").await.contains(r#""doubted":true"#).then_some(());
    until("the doubt", doubted).await;
}

/// A session in a pooler outlives PostgreSQL: with neither etcd nor the agent to say who leads it waits at the end of its transaction, and goes on
/// as soon as one of them is heard. Who has a connection of his own goes on all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_a_pooler_waits_while_nobody_gives_a_sign() {
    let agent = Agent::start().await;
    let mut world = World::start(1, with_pooled).await;
    world.api_url = agent.url.clone();
    lead_with_pooler(&world).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let (pooled, own) = (world.connect("pooled").await.unwrap(), world.connect("primary").await.unwrap());
    pooled.ask("select 1").await.unwrap();

    world.etcd_server.freeze();
    until("the agent to be asked", async || (agent.asked_for_primary() > 0).then_some(())).await;
    assert_eq!(pooled.ask("select 'vouched for'").await.unwrap(), "vouched for");
    agent.says(SILENT);
    is_doubted(&world).await;
    let asks = tokio::spawn(async move { pooled.ask("select 'asked'").await });
    let address = world.router.address("pooled");
    let comes = tokio::spawn(async move { connect(address).await });
    world.metric(r#"baton_router_waiting{scope="demo",service="pooled"} 1"#).await;
    assert_eq!(own.ask("select 'here'").await.unwrap(), "here");
    assert_eq!(world.reaches("primary").await, 1);
    let got_there = "select count(*) from pg_stat_activity where query = 'select ''asked'''";
    assert_eq!(own.ask(got_there).await.unwrap(), "0");
    agent.says(200);
    assert_eq!(asks.await.unwrap().unwrap(), "asked");
    comes.await.unwrap().unwrap();
    world.etcd_server.thaw();
}

/// What is encrypted has no end of a transaction that the router could wait for: it ends, and comes back as a new session, which waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_read_ends_while_nobody_gives_a_sign() {
    let agent = Agent::start().await;
    let mut world = World::prepare(1, 0, with_pooled);
    world.api_url = agent.url.clone();
    world.servers[0].use_tls();
    world.servers[0].start();
    lead_with_pooler(&world).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let options = |service: &str| {
        format!("host=127.0.0.1 port={} sslmode=require", world.router.address(service).port())
    };
    let lasting = |service: &str| {
        let options = options(service);
        spawn_blocking(move || psql(&options, "select pg_sleep(3600)"))
    };
    let (pooled, own) = (lasting("pooled"), lasting("primary"));
    let watcher = connect(world.servers[0].port_address()).await.unwrap();
    let asleep = "select count(*) from pg_stat_activity where query = 'select pg_sleep(3600)'";
    until("both sessions", async || (watcher.ask(asleep).await.unwrap() == "2").then_some(())).await;

    agent.says(SILENT);
    world.etcd_server.freeze();
    let (ok, said) = pooled.await.unwrap();
    assert!(
        !ok && ["connection to server was lost", "closed the connection"]
            .iter()
            .any(|end| said.contains(end)),
        "{said}"
    );
    is_doubted(&world).await;
    assert!(!own.is_finished(), "who is in no pooler goes on");
    let again = options("pooled");
    let again = spawn_blocking(move || psql(&again, "select 'back'"));
    world.metric(r#"baton_router_waiting{scope="demo",service="pooled"} 1"#).await;
    agent.says(200);
    world.etcd_server.thaw();
    assert_eq!(again.await.unwrap(), (true, "back".to_owned()));
    let end = "select pg_terminate_backend(pid) from pg_stat_activity where query = 'select pg_sleep(3600)'";
    watcher.client.simple_query(end).await.unwrap();
    assert!(!own.await.unwrap().0);
}

/// While the leader does not accept writes, whatever is behind its pooler is no primary; when it says that it follows a remote cluster, nothing
/// will be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_a_pooler_waits_while_writes_are_withdrawn_and_ends_in_a_standby_cluster() {
    let world = World::start(1, with_pooled).await;
    let term = lead_with_pooler(&world).await;
    let (pooled, own) = (world.connect("pooled").await.unwrap(), world.connect("primary").await.unwrap());
    pooled.ask("begin").await.unwrap();
    world.refuse_writes(term).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 0"#).await;
    pooled.ask("select 'its transaction goes on'").await.unwrap();
    pooled.ask("commit").await.unwrap();
    let asks = tokio::spawn(async move {
        let asked = pooled.ask("select 'asked'").await;
        (pooled, asked)
    });
    assert_eq!(own.ask("select 'here'").await.unwrap(), "here");
    let got_there = "select count(*) from pg_stat_activity where query = 'select ''asked'''";
    assert_eq!(own.ask(got_there).await.unwrap(), "0");
    world.accept_writes(1, term).await;
    let (pooled, asked) = asks.await.unwrap();
    assert_eq!(asked.unwrap(), "asked");

    world.refuse_writes(term).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 0"#).await;
    world.publish(1, &world.member(1, Role::StandbyLeader)).await;
    let (state, message) = pooled.end().await.expect("a reason");
    assert_eq!(state, "57P01", "{message}");
}

/// What etcd shows after a silence may be left from before the leader's PostgreSQL stopped, and its agent leads before it has promoted it: only its
/// word that it takes writes counts then, and for a router that has just been started.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_in_a_pooler_waits_for_the_agent_after_a_silence_of_etcd() {
    let agent = Agent::start().await;
    let mut world = World::start(1, with_pooled).await;
    world.api_url = agent.url.clone();
    lead_with_pooler(&world).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let pooled = world.connect("pooled").await.unwrap();
    pooled.ask("select 1").await.unwrap();
    assert_eq!(agent.asked_for_primary(), 0, "the router has seen it begin");

    agent.says(SILENT);
    world.etcd_server.freeze();
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 1"#).await;
    is_doubted(&world).await;
    agent.says(PROMOTING);
    world.etcd_server.thaw();
    world.metric(r#"baton_router_etcd_lost{scope="demo"} 0"#).await;
    let before = agent.asked_for_primary();
    until("more questions", async || (agent.asked_for_primary() > before + 1).then_some(())).await;
    is_doubted(&world).await;
    let asks = tokio::spawn(async move { pooled.ask("select 'asked'").await });
    let own = world.connect("primary").await.unwrap();
    let got_there = "select count(*) from pg_stat_activity where query = 'select ''asked'''";
    assert_eq!(own.ask(got_there).await.unwrap(), "0");
    agent.says(200);
    assert_eq!(asks.await.unwrap().unwrap(), "asked");

    let mut config = crate::harness::config(world.etcd_server.client);
    with_pooled(&mut config);
    let second = RunningRouter::start(config);
    let before = agent.asked_for_primary();
    let session = connect(second.address("pooled")).await.unwrap();
    assert_eq!(session.ask("select 'there'").await.unwrap(), "there");
    assert!(agent.asked_for_primary() > before, "it cannot know it from etcd");
    drop(session);
    second.stop.cancel();
    second.task.await.unwrap().unwrap();
}

/// An agent cannot wait for a router that it does not see. Such a router leads nobody to a pooler by what etcd shows, and the word of the agent is
/// what that waits for in any case.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_may_not_write_its_key_leads_to_poolers_by_the_agents_word_alone() {
    let agent = Agent::start().await;
    let mut world = World::start(1, with_pooled).await;
    world.api_url = agent.url.clone();
    lead_with_pooler(&world).await;
    let lines = "etcdctl user add root:secret && etcdctl user grant-role root root && etcdctl role add reader && etcdctl user add reader:word \
         && etcdctl role grant-permission reader --prefix=true read /service/demo && etcdctl user grant-role reader reader && etcdctl auth enable";
    etcdctl(&etcd_binary(), &format!("http://127.0.0.1:{}", world.etcd_server.client), lines);
    let mut config = crate::harness::config(world.etcd_server.client);
    with_pooled(&mut config);
    config.clusters[0].etcd.auth =
        Some(etcd::Credentials { user: "reader".to_owned(), password: "word".to_owned() });
    let router = RunningRouter::start(config);
    let session = connect(router.address("pooled")).await.unwrap();
    assert_eq!(session.ask("select 'here'").await.unwrap(), "here");
    let shows = async |what: &str| router.get("/health").await.contains(what).then_some(());
    agent.says(SILENT);
    until("the doubt", async || shows(r#""doubted":true"#).await).await;
    let own = connect(router.address("primary")).await.unwrap();
    let asks = tokio::spawn(async move { session.ask("select 'asked'").await });
    let got_there = "select count(*) from pg_stat_activity where query = 'select ''asked'''";
    assert_eq!(own.ask(got_there).await.unwrap(), "0");
    assert!(shows(r#""etcd":"live""#).await.is_some());
    agent.says(200);
    assert_eq!(asks.await.unwrap().unwrap(), "asked");
    drop(own);
    router.stop.cancel();
    router.task.await.unwrap().unwrap();
}

/// The agents wait for that before an old primary comes up for reading.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agents_are_told_when_nobody_is_led_to_an_old_primary_any_more() {
    let world = World::start(2, with_pooled).await;
    world.watched().await;
    assert!(says(&world).await.pooled);
    let first = lead_with_pooler(&world).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
    let pooled = world.connect("pooled").await.unwrap();
    pooled.ask("select 1").await.unwrap();
    until("the term", async || (says(&world).await.term == Some(first)).then_some(())).await;
    assert!(says(&world).await.over.is_some_and(|over| over < first), "it lives");
    world.drop_lead(1, first).await;
    until("the end of the term", async || (says(&world).await.over >= Some(first)).then_some(())).await;
    let (state, _) = pooled.end().await.expect("a reason");
    assert_eq!(state, "57P01");
    let second = world.take_lead(2).await;
    assert!(second > first);
    until("the next term", async || (says(&world).await.term == Some(second)).then_some(())).await;
    assert!(says(&world).await.over.is_some_and(|over| over < second));

    let plain = World::start(1, |_| {}).await;
    assert!(!says(&plain).await.pooled);
}
