//! Before a planned switchover: transactions end, none begins, and nobody is told an error for it.

use crate::backends::message;
use crate::cancels::session_with_key;
use crate::harness::{SOON, World, connect, db, until};
use etcd::Handover;
use router::DrainEnd;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use types::{Role, Term};

pub(crate) async fn announce(world: &World, number: usize, term: Term) {
    let by = || clock::now().after(SOON);
    let lease = world.etcd.grant(600, by()).await.unwrap().lease;
    let handover = Handover { term, name: db(number), mod_revision: 0 };
    world.etcd.put_handover(&handover, lease, term, by()).await.unwrap();
}

/// What the routers of this world say.
pub(crate) async fn quiet(world: &World) -> Vec<Option<Term>> {
    let snapshot = world.etcd.snapshot(clock::now().after(SOON)).await.unwrap();
    snapshot.routers.values().map(|router| router.quiet).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_idle_sessions_wait_and_new_ones_go_to_the_next_primary() {
    let world = World::start(2, |config| config.drain.timeout = Duration::from_secs(600)).await;
    let first = world.lead(1).await;
    world.publish(2, &world.member(2, Role::Replica)).await;
    let address = world.router.address("primary");
    let working = world.connect("primary").await.unwrap();
    let (mut idle, _) = session_with_key(address, 0).await;
    // An empty question, and the two messages of its answer.
    idle.write_all(&message(b'Q', b"\0")).await.unwrap();
    idle.read_exact(&mut [0; 5 + 6]).await.unwrap();
    working.ask("begin").await.unwrap();
    until("the router's key", async || (quiet(&world).await == [None]).then_some(())).await;

    announce(&world, 1, first).await;
    world.metric(r#"baton_router_primary_up{scope="demo"} 0"#).await;
    let new = tokio::spawn(connect(address));
    world.metric(r#"baton_router_waiting{scope="demo",service="primary"} 1"#).await;
    // The transaction goes on; the idle session's question stays with the router.
    idle.write_all(&message(b'Q', b"select 'too late'\0")).await.unwrap();
    working.ask("create table t (n int)").await.unwrap();
    assert_eq!(quiet(&world).await, [None], "a transaction runs");
    working.ask("commit").await.unwrap();
    until("the router to be quiet", async || (quiet(&world).await == [Some(first)]).then_some(())).await;
    let direct = connect(world.servers[0].port_address()).await.unwrap();
    let asked =
        "select count(*) from pg_stat_activity where query like '%too late%' and pid <> pg_backend_pid()";
    assert_eq!(direct.ask(asked).await.unwrap(), "0");

    // The lead goes over: new ones reach the new primary, those of the old term are told.
    world.refuse_writes(first).await;
    let second = world.take_lead(2).await;
    world.publish(2, &world.member(2, Role::Primary)).await;
    world.accept_writes(2, second).await;
    let mut told = Vec::new();
    // The end, or a break, as its question was left unread.
    let _broken_perhaps =
        tokio::time::timeout(SOON, idle.read_to_end(&mut told)).await.expect("an end in time");
    assert!(told.starts_with(b"E") && String::from_utf8_lossy(&told).contains("C57P01"), "{told:?}");
    let new = new.await.unwrap().unwrap();
    assert_eq!(world.number_of(&new).await, 2);
    until("the router to have forgotten", async || (quiet(&world).await == [None]).then_some(())).await;
    drop(working);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_outlasts_the_drain_goes_on_or_is_cut() {
    for end in [DrainEnd::Resume, DrainEnd::Cut] {
        let world = World::start(1, |config| {
            config.drain.timeout = Duration::from_millis(700);
            config.drain.end = end;
        })
        .await;
        let term = world.lead(1).await;
        let (working, idle) =
            (world.connect("primary").await.unwrap(), world.connect("primary").await.unwrap());
        idle.ask("select 1").await.unwrap();
        working.ask("begin").await.unwrap();
        announce(&world, 1, term).await;
        until("the router to tell", async || (quiet(&world).await == [Some(term)]).then_some(())).await;
        // The leader did not stop: all is as before, but for the transaction where it is cut.
        assert_eq!(idle.ask("select 'on'").await.unwrap(), "on");
        world.metric(r#"baton_router_primary_up{scope="demo"} 1"#).await;
        assert_eq!(world.reaches("primary").await, 1);
        match end {
            DrainEnd::Resume => drop(working.ask("commit").await.unwrap()),
            DrainEnd::Cut => {
                let (state, message) = working.end().await.expect("a reason");
                assert_eq!(
                    (state.as_str(), message.contains("did not end in time")),
                    ("57P01", true),
                    "{message}"
                );
            }
        }
    }
}
