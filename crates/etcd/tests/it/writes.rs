//! Every compare-and-swap, won and lost.

use crate::cluster::{Cluster, keys, servers, within};
use etcd::{
    Error, Failover, Grounds, HistoryRow, Initialize, Limits, Loss, LostIn, Member, Status, Sync, Writable,
};
use serde_json::json;
use std::collections::BTreeMap;
use types::{LeaseId, Lsn, NodeName, PostgresState, Role, SystemId, Term, Timeline};

fn a() -> NodeName {
    NodeName::from("pg-a")
}

fn b() -> NodeName {
    NodeName::from("pg-b")
}

#[tokio::test]
async fn the_bootstrap_is_claimed_by_one() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (one, two) = (cluster.etcd(), cluster.etcd());
        assert_eq!(one.create_initialize(None, within(20)).await, Ok(true));
        assert_eq!(two.create_initialize(None, within(20)).await, Ok(false));
        assert_eq!(one.create_initialize(None, within(20)).await, Ok(false));
        assert_eq!(one.snapshot(within(20)).await.unwrap().initialize, Some(Initialize::Bootstrapping));

        assert_eq!(one.delete_initialize(within(20)).await, Ok(()));
        assert_eq!(one.delete_initialize(within(20)).await, Ok(()));
        assert_eq!(one.snapshot(within(20)).await.unwrap().initialize, None);
        assert_eq!(two.create_initialize(None, within(20)).await, Ok(true));

        let (id, other) = (SystemId(7_391_234_567_890_123_456), SystemId(7_391_234_567_890_123_457));
        assert_eq!(two.set_initialize(id, within(20)).await, Ok(()));
        assert_eq!(two.set_initialize(id, within(20)).await, Ok(()));
        assert_eq!(one.set_initialize(other, within(20)).await, Err(Error::Conflict));
        assert_eq!(one.delete_initialize(within(20)).await, Err(Error::Conflict));
        assert_eq!(one.create_initialize(None, within(20)).await, Ok(false));
        assert_eq!(one.snapshot(within(20)).await.unwrap().initialize, Some(Initialize::System(id)));

        assert_eq!(one.remove_cluster(within(20)).await, Ok(()));
        assert_eq!(one.set_initialize(other, within(20)).await, Ok(()));
        assert_eq!(one.snapshot(within(20)).await.unwrap().initialize, Some(Initialize::System(other)));
    }
}

#[tokio::test]
async fn the_lead_is_taken_by_one_and_each_term_is_larger() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let ours = etcd.grant(30, within(20)).await.unwrap();
        let theirs = etcd.grant(30, within(20)).await.unwrap();
        assert_eq!(ours.ttl_seconds, 30);

        let term = etcd.acquire_leader(&a(), ours.lease, within(20)).await.unwrap().unwrap();
        assert_eq!(etcd.acquire_leader(&b(), theirs.lease, within(20)).await, Ok(None));
        assert_eq!(
            etcd.acquire_leader(&a(), ours.lease, within(20)).await,
            Ok(Some(term)),
            "it is ours already"
        );
        assert_eq!(
            etcd.acquire_leader(&a(), theirs.lease, within(20)).await,
            Ok(None),
            "with another lease it is not"
        );
        let leader = etcd.snapshot(within(20)).await.unwrap().leader.unwrap();
        assert_eq!((leader.name, leader.lease, leader.term), (a(), ours.lease, term));

        let writable =
            Writable { term, name: a(), timeline: Timeline(3), lsn: Lsn(77), guarded: true, lease: None };
        assert_eq!(etcd.put_writable(&writable, ours.lease, term, within(20)).await, Ok(()));
        assert_eq!(etcd.release_leader(&b(), term, within(20)).await, Ok(false), "not hers");
        assert_eq!(etcd.release_leader(&a(), Term(term.0 - 1), within(20)).await, Ok(false), "another term");
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.writable, Some(Writable { lease: Some(ours.lease), ..writable }));
        assert_eq!(etcd.release_leader(&a(), term, within(20)).await, Ok(true));
        assert_eq!(etcd.release_leader(&a(), term, within(20)).await, Ok(false));
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!((snapshot.leader, snapshot.writable), (None, None));
        // Given back to a successor: the wish is there with it, or not at all.
        let again = etcd.acquire_leader(&a(), ours.lease, within(20)).await.unwrap().unwrap();
        assert_eq!(etcd.release_leader_to(&a(), term, &b(), within(20)).await, Ok(false), "another term");
        assert_eq!(etcd.snapshot(within(20)).await.unwrap().failover, None);
        assert_eq!(etcd.release_leader_to(&a(), again, &b(), within(20)).await, Ok(true));
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.leader, None);
        let wish = snapshot.failover.unwrap();
        assert_eq!((wish.leader, wish.member, wish.scheduled_at), (Some(a()), Some(b()), None));

        let next = etcd.acquire_leader(&b(), theirs.lease, within(20)).await.unwrap().unwrap();
        assert!(next > term);
        let gone = LeaseId(theirs.lease.0 ^ 1);
        etcd.release_leader(&b(), next, within(20)).await.unwrap();
        assert_eq!(etcd.acquire_leader(&b(), gone, within(20)).await, Err(Error::LeaseGone));
    }
}

#[tokio::test]
async fn the_lead_is_not_taken_when_what_it_was_decided_by_has_changed() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (etcd, keys) = (cluster.etcd(), keys());
        let mut raw = cluster.raw(0).await;
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        for (failsafe_mode, key, value) in [
            (true, keys.failover(), &b"{\"member\":\"pg-b\"}"[..]),
            (false, keys.failover(), b"not json"),
            (true, keys.failsafe(), b"{\"pg-b\":\"http://127.0.0.1:1\"}"),
            (true, keys.failsafe(), b"\xff"),
            (false, keys.sync(), b"{\"leader\":\"pg-b\"}"),
        ] {
            let grounds = async || Grounds::of(&etcd.snapshot(within(20)).await.unwrap(), failsafe_mode);
            let before = grounds().await;
            raw.put(key.as_str(), value, None).await.unwrap();
            let taken = etcd.acquire_leader_over(&a(), lease, before, within(20)).await;
            assert_eq!(taken, Ok(None), "{key} has changed since");
            let taken = etcd.acquire_leader_over(&a(), lease, grounds().await, within(20)).await.unwrap();
            let term = taken.expect("nothing has changed since, whatever it says");
            assert!(etcd.release_leader(&a(), term, within(20)).await.unwrap());
        }
    }
}

#[tokio::test]
async fn what_only_the_leader_writes_needs_its_term() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        let old = etcd.acquire_leader(&a(), lease, within(20)).await.unwrap().unwrap();
        etcd.release_leader(&a(), old, within(20)).await.unwrap();
        let status = Status { optime: Lsn(5), ..Status::default() };
        assert_eq!(etcd.put_status(&status, old, within(20)).await, Err(Error::Conflict), "nobody leads");
        let term = etcd.acquire_leader(&b(), lease, within(20)).await.unwrap().unwrap();

        let rows = [HistoryRow {
            timeline: Timeline(1),
            lsn: Lsn(9),
            reason: "no recovery target specified".to_owned(),
            timestamp: Some("2026-11-23T10:00:00+00:00".to_owned()),
            new_leader: Some("pg-b".to_owned()),
        }];
        let failsafe = BTreeMap::from([(a(), "http://a/patroni".to_owned())]);
        let sync = Sync { leader: Some(b()), quorum: 1, sync_standby: vec![a()], mod_revision: 0 };
        let writable =
            Writable { term, name: b(), timeline: Timeline(2), lsn: Lsn(1), guarded: true, lease: None };
        for (term, outcome) in [(old, Err(Error::Conflict)), (term, Ok(()))] {
            assert_eq!(etcd.put_status(&status, term, within(20)).await, outcome);
            assert_eq!(etcd.put_optime_leader(Lsn(4), term, within(20)).await, outcome);
            assert_eq!(etcd.put_history(&rows, term, within(20)).await, outcome);
            assert_eq!(etcd.put_failsafe(&failsafe, term, within(20)).await, outcome);
            assert_eq!(etcd.put_writable(&writable, lease, term, within(20)).await, outcome);
            assert_eq!(etcd.put_sync(&sync, None, term, within(20)).await.map(drop), outcome);
        }
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.status, Some(status));
        assert_eq!(snapshot.optime_leader, Some(Lsn(4)));
        assert_eq!(snapshot.history, rows);
        assert_eq!(snapshot.failsafe, Some(failsafe));
        let first = snapshot.sync.unwrap().mod_revision;

        let empty = Sync { leader: Some(b()), ..Sync::default() };
        assert_eq!(etcd.put_sync(&empty, Some(first - 1), term, within(20)).await, Err(Error::Conflict));
        assert_eq!(etcd.put_sync(&empty, Some(first), old, within(20)).await, Err(Error::Conflict));
        let second = etcd.put_sync(&empty, Some(first), term, within(20)).await.unwrap();
        assert_eq!(etcd.snapshot(within(20)).await.unwrap().sync.unwrap().mod_revision, second);
        assert_eq!(
            etcd.put_sync(&empty, Some(0), term, within(20)).await,
            Err(Error::Conflict),
            "it is not absent"
        );
        assert_eq!(etcd.delete_sync(first, term, within(20)).await, Err(Error::Conflict));
        assert_eq!(etcd.delete_sync(second, term, within(20)).await, Ok(()));
        assert_eq!(etcd.delete_writable(old, within(20)).await, Err(Error::Conflict));
        assert_eq!(etcd.delete_writable(term, within(20)).await, Ok(()));
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!((snapshot.sync, snapshot.writable), (None, None));
    }
}

#[tokio::test]
async fn members_come_and_go() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let etcd = cluster.etcd();
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        let mut member = Member::new(PostgresState::Running, Role::Replica);
        member.conn_url = Some("postgres://127.0.0.1:5432/postgres".to_owned());
        for lsn in [1, 2] {
            member.xlog_location = Some(Lsn(lsn));
            assert_eq!(etcd.put_member(&a(), &member, lease, within(20)).await, Ok(()));
            let snapshot = etcd.snapshot(within(20)).await.unwrap();
            let read = snapshot.members.get(&a()).unwrap();
            assert_eq!((read.xlog_location, read.lease), (member.xlog_location, Some(lease)));
            assert!(read.mod_revision > 0);
        }
        assert_eq!(etcd.delete_member(&a(), within(20)).await, Ok(()));
        assert_eq!(etcd.delete_member(&a(), within(20)).await, Ok(()));
        assert!(etcd.snapshot(within(20)).await.unwrap().members.is_empty());

        etcd.put_member(&a(), &member, lease, within(20)).await.unwrap();
        assert_eq!(etcd.revoke(lease, within(20)).await, Ok(()));
        assert_eq!(etcd.revoke(lease, within(20)).await, Ok(()), "gone already");
        assert!(etcd.snapshot(within(20)).await.unwrap().members.is_empty());
        assert_eq!(etcd.put_member(&a(), &member, lease, within(20)).await, Err(Error::LeaseGone));
    }
}

#[tokio::test]
async fn the_configuration_and_orders_are_swapped_by_revision() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (one, two) = (cluster.etcd(), cluster.etcd());
        let value = json!({"ttl": 30, "loop_wait": 10});
        assert_eq!(one.create_config(&value, within(20)).await, Ok(true));
        assert_eq!(two.create_config(&json!({}), within(20)).await, Ok(false));
        let first = one.snapshot(within(20)).await.unwrap().config.unwrap();
        assert_eq!(first.value, value);
        let second = two.put_config(&json!({"ttl": 20}), Some(first.mod_revision), within(20)).await.unwrap();
        assert_eq!(
            one.put_config(&json!({"ttl": 40}), Some(first.mod_revision), within(20)).await,
            Err(Error::Conflict)
        );
        assert!(one.put_config(&json!({"ttl": 50}), None, within(20)).await.unwrap() > second);
        assert_eq!(two.snapshot(within(20)).await.unwrap().config.unwrap().value, json!({"ttl": 50}));

        let order = Failover { leader: Some(a()), member: Some(b()), ..Failover::default() };
        let first = one.put_failover(&order, None, within(20)).await.unwrap();
        assert_eq!(two.put_failover(&order, Some(0), within(20)).await, Err(Error::Conflict));
        let snapshot = two.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.failover, Some(Failover { mod_revision: first, ..order.clone() }));
        assert_eq!(two.clear_failover(first - 1, within(20)).await, Err(Error::Conflict));
        assert_eq!(two.clear_failover(first, within(20)).await, Ok(()));
        let snapshot = one.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.failover, None);
        let empty = snapshot.failover_mod.unwrap();
        assert!(empty > first);
        assert!(one.put_failover(&order, Some(empty), within(20)).await.is_ok());

        assert_eq!(one.remove_cluster(within(20)).await, Ok(()));
        let snapshot = two.snapshot(within(20)).await.unwrap();
        assert_eq!((snapshot.config, snapshot.failover_mod), (None, None));
    }
}

#[tokio::test]
async fn the_past_is_forgotten_while_nobody_is_there_and_the_configuration_stays() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (one, two) = (cluster.etcd(), cluster.etcd());
        let lease = one.grant(30, within(20)).await.unwrap().lease;
        let config = json!({ "ttl": 5 });
        one.put_config(&config, None, within(20)).await.unwrap();
        one.set_initialize(SystemId(7_391_234_567_890_123_456), within(20)).await.unwrap();
        let member = Member::new(PostgresState::Running, Role::Replica);
        one.put_member(&a(), &member, lease, within(20)).await.unwrap();
        assert_eq!(two.forget_past(within(20)).await, Err(Error::Conflict), "a member is there");
        one.delete_member(&a(), within(20)).await.unwrap();
        one.acquire_leader(&a(), lease, within(20)).await.unwrap().unwrap();
        assert_eq!(two.forget_past(within(20)).await, Err(Error::Conflict), "somebody leads");
        let before = one.snapshot(within(20)).await.unwrap();
        assert!(before.leader.is_some() && before.initialize.is_some(), "a refusal deletes nothing");

        one.revoke(lease, within(20)).await.unwrap();
        assert_eq!(two.forget_past(within(20)).await, Ok(()));
        assert_eq!(two.forget_past(within(20)).await, Ok(()));
        let after = one.snapshot(within(20)).await.unwrap();
        assert_eq!((after.initialize, after.leader, after.last), (None, None, None));
        assert_eq!(after.config.unwrap().value, config);
    }
}

#[tokio::test]
async fn losses_of_several_members_are_added_one_after_the_other_and_the_oldest_go() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (one, two) = (cluster.etcd(), cluster.etcd());
        let loss = |member: NodeName, at: usize| Loss {
            member,
            at: format!("2026-11-27T10:00:{at:02}Z"),
            leader: Some(b()),
            term: Some(Term(17)),
            timeline: Timeline(1),
            fork: Lsn(0x300_0060),
            end: Lsn(0x300_0860),
            bytes: 0x800,
            commits: 2,
            prepared: 0,
            complete: true,
            first_commit: None,
            last_commit: None,
            relations: vec![LostIn { name: "app.public.orders".to_owned(), records: 2 }],
            kept: "/data.kept-x-wal".to_owned(),
        };
        let before = one.snapshot(within(20)).await.unwrap();
        assert_eq!(one.add_loss(&loss(a(), 0), &before, within(20)).await, Ok(()));
        // Who read before that must read again: nothing of another member is written over.
        assert_eq!(two.add_loss(&loss(b(), 1), &before, within(20)).await, Err(Error::Conflict));
        let now = two.snapshot(within(20)).await.unwrap();
        assert_eq!(two.add_loss(&loss(b(), 1), &now, within(20)).await, Ok(()));
        let both = one.snapshot(within(20)).await.unwrap();
        assert_eq!(both.losses, [loss(a(), 0), loss(b(), 1)]);
        for at in 2..=Limits::LOSSES {
            let now = one.snapshot(within(20)).await.unwrap();
            assert_eq!(one.add_loss(&loss(a(), at), &now, within(20)).await, Ok(()));
        }
        let full = one.snapshot(within(20)).await.unwrap().losses;
        assert_eq!((full.len(), &full[0]), (Limits::LOSSES, &loss(b(), 1)));
    }
}
