//! The answer to a write is lost: the member freezes while the request is on its way.

use crate::cluster::{ATTEMPT, Cluster, Member, eventually, keys, servers, within};
use crate::proxy::Proxy;
use etcd::{Config, Error, Etcd, Failover, Initialize, Status};
use serde_json::json;
use std::future::Future;
use types::{Lsn, NodeName};

/// Begins the call with the member frozen, which thaws after some attempts.
async fn hanging<T>(member: &Member, call: impl Future<Output = T>) -> T {
    member.freeze();
    let thawing = async {
        tokio::time::sleep(ATTEMPT * 3).await;
        member.thaw();
    };
    tokio::join!(call, thawing).0
}

/// The only member is frozen when the request is sent, and thaws while the client still tries. Whether it executed
/// the first sending, nobody told us: it must have happened exactly once all the same.
#[tokio::test]
async fn a_write_that_hangs_happens_once() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let me = NodeName::from("pg-a");
        let lease = etcd.grant(60, within(20)).await.unwrap().lease;
        etcd.snapshot(within(20)).await.unwrap();

        let member = &cluster.members[0];
        assert_eq!(
            hanging(member, etcd.create_initialize(None, within(20))).await,
            Ok(true),
            "the claim is recognised as ours"
        );
        assert_eq!(cluster.etcd().create_initialize(None, within(20)).await, Ok(false));
        let term = hanging(member, etcd.acquire_leader(&me, lease, within(20))).await.unwrap().unwrap();
        let leader = etcd.snapshot(within(20)).await.unwrap().leader.unwrap();
        assert_eq!((leader.term, leader.mod_revision), (term, term.0), "written once");

        let first = hanging(member, etcd.put_config(&json!({"n": 1}), Some(0), within(20))).await.unwrap();
        let second =
            hanging(member, etcd.put_config(&json!({"n": 2}), Some(first), within(20))).await.unwrap();
        let config = etcd.snapshot(within(20)).await.unwrap().config.unwrap();
        assert_eq!((config.value, config.mod_revision), (json!({"n": 2}), second));
        for optime in [1, 2, 3] {
            let status = Status { optime: Lsn(optime), ..Status::default() };
            assert_eq!(hanging(member, etcd.put_status(&status, term, within(20))).await, Ok(()));
            assert_eq!(etcd.snapshot(within(20)).await.unwrap().status, Some(status));
        }
        assert_eq!(hanging(member, etcd.release_leader(&me, term, within(20))).await, Ok(true));
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!((snapshot.leader, snapshot.initialize), (None, Some(Initialize::Bootstrapping)));
    }
}

/// Our client, which begins at `first` and goes on to `second`.
fn client(first: &str, second: &str) -> Etcd {
    let endpoints = vec![first.to_owned(), second.to_owned()];
    Etcd::new(Config { endpoints, attempt: ATTEMPT, tls: None, auth: None }, keys()).unwrap()
}

/// etcd executes the request, and the answer is lost. What happened is found out, and not done twice.
#[tokio::test]
async fn what_was_executed_is_recognised() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let direct = cluster.etcd();
        let proxy = Proxy::start(&cluster.members[0].url).await;
        let me = NodeName::from("pg-a");
        let lease = direct.grant(60, within(20)).await.unwrap().lease;
        // Each call has a client of its own, which begins where answers get lost.
        let losing = || {
            proxy.pass();
            client(&proxy.url, &cluster.members[0].url)
        };
        macro_rules! lost {
            ($etcd:ident, $call:expr) => {{
                let $etcd = losing();
                $etcd.snapshot(within(20)).await.unwrap();
                let before = proxy.lost();
                proxy.lose_answers();
                let outcome = $call.await;
                assert!(proxy.lost() > before, "an answer was lost");
                outcome
            }};
        }
        assert_eq!(lost!(etcd, etcd.create_initialize(None, within(20))), Ok(true));
        assert_eq!(
            lost!(etcd, etcd.create_initialize(None, within(20))),
            Ok(false),
            "it is somebody else's now"
        );
        let term = lost!(etcd, etcd.acquire_leader(&me, lease, within(20))).unwrap().unwrap();
        let leader = direct.snapshot(within(20)).await.unwrap().leader.unwrap();
        assert_eq!((leader.term, leader.mod_revision), (term, term.0), "written once");
        let revision = lost!(etcd, etcd.put_config(&json!({"n": 1}), Some(0), within(20))).unwrap();
        let config = direct.snapshot(within(20)).await.unwrap().config.unwrap();
        assert_eq!((config.value, config.mod_revision), (json!({"n": 1}), revision));
        let conflict = lost!(etcd, etcd.put_config(&json!({"n": 2}), Some(revision - 1), within(20)));
        assert!(conflict.is_err(), "{conflict:?}");
        let order = Failover { member: Some(me.clone()), ..Failover::default() };
        let ordered = lost!(etcd, etcd.put_failover(&order, None, within(20))).unwrap();
        assert_eq!(direct.snapshot(within(20)).await.unwrap().failover_mod, Some(ordered), "ordered once");
        assert_eq!(lost!(etcd, etcd.release_leader(&me, term, within(20))), Ok(true));
        assert_eq!(lost!(etcd, etcd.remove_cluster(within(20))), Ok(()));
    }
}

/// An order is executed, its answer is lost, and it is carried out before the client looks. It is not given again.
#[tokio::test]
async fn an_order_is_not_given_twice() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let direct = cluster.etcd();
        let proxy = Proxy::start(&cluster.members[0].url).await;
        // So patient that the order is carried out before it looks.
        let endpoints = vec![proxy.url.clone(), cluster.members[0].url.clone()];
        let patient = Config { endpoints, attempt: ATTEMPT * 10, tls: None, auth: None };
        let etcd = Etcd::new(patient, keys()).unwrap();
        etcd.snapshot(within(20)).await.unwrap();
        proxy.lose_answers();
        let order = Failover { member: Some(NodeName::from("pg-b")), ..Failover::default() };
        let carried_out = async {
            let ordered = eventually("the order is there", || async {
                direct.snapshot(within(5)).await.ok()?.failover.map(|order| order.mod_revision)
            });
            direct.clear_failover(ordered.await, within(20)).await.unwrap();
        };
        let (outcome, ()) = tokio::join!(etcd.put_failover(&order, None, within(20)), carried_out);
        assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
        assert_eq!(direct.snapshot(within(20)).await.unwrap().failover, None);
    }
}

/// A request is held up in the network, its call goes on elsewhere, and then it arrives after all. Later writes must
/// not be undone by it.
#[tokio::test]
async fn a_request_that_arrives_late_undoes_nothing() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let direct = cluster.etcd();
        let proxy = Proxy::start(&cluster.members[0].url).await;
        let me = NodeName::from("pg-a");
        let lease = direct.grant(60, within(20)).await.unwrap().lease;
        let status = |optime| Status { optime: Lsn(optime), ..Status::default() };
        // The first request of the client after this is held.
        let held = || async {
            proxy.pass();
            let etcd = client(&proxy.url, &cluster.members[0].url);
            etcd.snapshot(within(20)).await.unwrap();
            proxy.hold();
            etcd
        };
        let arrives = || async {
            let before = proxy.lost();
            assert!(proxy.release().await > 0, "a request was held");
            eventually("etcd answers it", || async { (proxy.lost() > before).then_some(()) }).await;
        };

        let etcd = held().await;
        assert_eq!(etcd.create_initialize(None, within(20)).await, Ok(true));
        direct.delete_initialize(within(20)).await.unwrap();
        arrives().await;
        assert_eq!(
            direct.snapshot(within(20)).await.unwrap().initialize,
            None,
            "no bootstrap that nobody runs"
        );

        let etcd = held().await;
        let term = etcd.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        assert_eq!(direct.release_leader(&me, term, within(20)).await, Ok(true));
        arrives().await;
        assert_eq!(direct.snapshot(within(20)).await.unwrap().leader, None, "no lead that was given back");

        let term = direct.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        direct.put_status(&status(1), term, within(20)).await.unwrap();
        let etcd = held().await;
        etcd.put_status(&status(2), term, within(20)).await.unwrap();
        direct.put_status(&status(3), term, within(20)).await.unwrap();
        arrives().await;
        assert_eq!(direct.snapshot(within(20)).await.unwrap().optime(), Some(Lsn(3)));

        let etcd = held().await;
        etcd.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        direct.put_config(&json!({"n": 2}), None, within(20)).await.unwrap();
        arrives().await;
        assert_eq!(direct.snapshot(within(20)).await.unwrap().config.unwrap().value, json!({"n": 2}));
    }
}

/// No answer at all within the deadline: the caller is told that the outcome is unknown, and what it was.
#[tokio::test]
async fn an_outcome_that_cannot_be_learnt_is_called_unknown() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        etcd.snapshot(within(20)).await.unwrap();
        cluster.members[0].freeze();
        let order = Failover { member: Some(NodeName::from("pg-b")), ..Failover::default() };
        let error = etcd.put_failover(&order, None, within(2)).await.unwrap_err();
        assert!(matches!(error, Error::Unknown { what: "order the failover", .. }), "{error:?}");
        let error = etcd.snapshot(within(1)).await.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "a read has no outcome: {error:?}");
        cluster.members[0].thaw();
        eventually("etcd answers again", || async { etcd.snapshot(within(5)).await.ok() }).await;
    }
}
