//! The answer to a write is lost: the member freezes while the request is on its way.

use crate::cluster::{ATTEMPT, Cluster, Member, eventually, servers, within};
use etcd::{Error, Failover, Initialize, Status};
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
            hanging(member, etcd.create_initialize(within(20))).await,
            Ok(true),
            "the claim is recognised as ours"
        );
        assert_eq!(cluster.etcd().create_initialize(within(20)).await, Ok(false));
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

/// A request sits in the frozen member's socket when the call gives up, and is executed after all once it thaws.
/// Later writes must not be undone by it.
#[tokio::test]
async fn a_request_that_arrives_late_undoes_nothing() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let leader = cluster.leader().await;
        let late = (leader + 1) % 3;
        let etcd = cluster.etcd_from(late);
        let me = NodeName::from("pg-a");
        let lease = etcd.grant(60, within(20)).await.unwrap().lease;
        let term = etcd.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        let status = |optime| Status { optime: Lsn(optime), ..Status::default() };
        etcd.put_status(&status(1), term, within(20)).await.unwrap();

        cluster.members[late].freeze();
        // The first sending of each goes to the frozen member, which has it in its socket; the second elsewhere.
        etcd.put_status(&status(2), term, within(20)).await.unwrap();
        etcd.put_status(&status(3), term, within(20)).await.unwrap();
        assert_eq!(etcd.release_leader(&me, term, within(20)).await, Ok(true));
        cluster.members[late].thaw();
        cluster.serving(late).await;
        // What it had in its socket is executed, or dropped, before it serves reads that come later.
        let fresh = cluster.etcd_from(late);
        for _ in 0..20 {
            let snapshot = fresh.snapshot(within(20)).await.unwrap();
            assert_eq!((snapshot.optime(), snapshot.leader), (Some(Lsn(3)), None));
        }
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
