//! Values that nobody should have written, under every key.

use crate::cluster::{Cluster, keys, servers, within};
use etcd::{Error, Limits};
use types::NodeName;

#[tokio::test]
async fn every_spoiled_key_is_named_and_fails_nothing() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (etcd, keys) = (cluster.etcd(), keys());
        let member = |name: &str| keys.member(&NodeName::from(name));
        let spoiled: Vec<(String, Vec<u8>)> = vec![
            (keys.initialize(), b"soon".to_vec()),
            (keys.config(), b"ttl: 30".to_vec()),
            (keys.leader(), b"\xff\xfe".to_vec()),
            (member("pg-a"), b"".to_vec()),
            (member("pg-b"), b"[]".to_vec()),
            (keys.status(), b"{\"optime\":\"far\"}".to_vec()),
            (keys.optime_leader(), b"0/3000060".to_vec()),
            (keys.failover(), b"{\"leader\":".to_vec()),
            (keys.sync(), b"{\"quorum\":-1}".to_vec()),
            (keys.history(), b"[[1,2]]".to_vec()),
            (keys.failsafe(), b"{\"pg-a\":5}".to_vec()),
            (keys.baton_writable(), b"{}".to_vec()),
        ];
        let mut raw = cluster.raw(0).await;
        for (key, value) in &spoiled {
            raw.put(key.as_str(), value.clone(), None).await.unwrap();
        }
        // Not ours, and no reason to complain.
        raw.put(format!("{}stray", keys.prefix()), "?", None).await.unwrap();
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        let mut named: Vec<&str> = snapshot.spoiled.iter().map(|spoiled| spoiled.key.as_str()).collect();
        let mut wanted: Vec<&str> = spoiled.iter().map(|(key, _)| key.as_str()).collect();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted);
        for row in &snapshot.spoiled {
            assert!(row.why.contains("; "), "{row:?} does not say what to do");
        }
        let bare = etcd::Snapshot {
            revision: snapshot.revision,
            failsafe_mod: snapshot.failsafe_mod,
            failover_mod: snapshot.failover_mod,
            spoiled: snapshot.spoiled.clone(),
            ..Default::default()
        };
        assert_eq!(snapshot, bare, "nothing is made up");
        // What is spoiled is not overwritten by a claim either.
        let lease = etcd.grant(30, within(20)).await.unwrap().lease;
        assert_eq!(etcd.acquire_leader(&NodeName::from("pg-a"), lease, within(20)).await, Ok(None));
        assert_eq!(etcd.create_initialize(None, within(20)).await, Ok(false));
        let id = types::SystemId(7_391_234_567_890_123_456);
        assert_eq!(etcd.set_initialize(id, within(20)).await, Err(Error::Conflict));
    }
}

#[tokio::test]
async fn too_much_is_not_read() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let (etcd, keys) = (cluster.etcd(), keys());
        let mut raw = cluster.raw(0).await;
        // Together they are more than a gRPC message holds by default.
        let huge = format!("{{\"a\":\"{}\"}}", "x".repeat(Limits::VALUE_BYTES));
        for key in [keys.config(), keys.status(), keys.sync(), keys.history(), keys.failsafe()] {
            raw.put(key, huge.as_str(), None).await.unwrap();
        }
        for number in 0..Limits::MEMBERS + 5 {
            raw.put(keys.member(&NodeName(format!("pg-{number:03}"))), "{}", None).await.unwrap();
        }
        let snapshot = etcd.snapshot(within(20)).await.unwrap();
        assert_eq!(snapshot.members.len(), Limits::MEMBERS);
        assert_eq!(snapshot.spoiled.len(), 5 + 5);
        assert!(snapshot.config.is_none());
        assert!(snapshot.spoiled.iter().any(|row| row.key == keys.config() && row.why.contains("limit")));

        for number in 0..2000 {
            raw.put(format!("{}stray/{number}", keys.prefix()), "", None).await.unwrap();
        }
        let error = etcd.snapshot(within(20)).await.unwrap_err();
        assert!(matches!(&error, Error::Protocol { why } if why.contains(keys.prefix())), "{error:?}");
    }
}
