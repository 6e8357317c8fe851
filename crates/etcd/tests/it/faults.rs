//! One of three members refuses or hangs. No call fails that the other two can serve within its deadline.

use crate::cluster::{ATTEMPT, Cluster, eventually, servers, within};
use etcd::{Config, Error, Etcd, Keys, Member, Renewed, Status};
use serde_json::json;
use std::path::Path;
use types::{Lsn, NodeName, PostgresState, Role};

/// What is done to the member.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused,
    Frozen,
}

/// Which member it is done to.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// The one that our client uses; a follower.
    Pinned,
    /// A follower that our client does not use.
    Another,
    /// The leader of etcd, which our client uses too.
    Leader,
    /// The leader of etcd; our client uses a follower.
    DistantLeader,
}

const CALLS: i64 = 200;
/// Seconds that each call has.
const DEADLINE: u64 = 20;

async fn two_of_three_serve(server: &Path, fault: Fault, victim: Victim) {
    let mut cluster = Cluster::start(server, 3).await;
    let leader = cluster.leader().await;
    let (pinned, struck) = match victim {
        Victim::Pinned => ((leader + 1) % 3, (leader + 1) % 3),
        Victim::Another => ((leader + 1) % 3, (leader + 2) % 3),
        Victim::Leader => (leader, leader),
        Victim::DistantLeader => ((leader + 1) % 3, leader),
    };
    let etcd = cluster.etcd_from(pinned);
    let me = NodeName::from("pg-a");
    let lease = etcd.grant(60, within(20)).await.unwrap().lease;
    let term = etcd.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
    let mut config = etcd.put_config(&json!({"n": 0}), None, within(20)).await.unwrap();
    let mut member = Member::new(PostgresState::Running, Role::Primary);

    for number in 1..=CALLS {
        if number == 20 {
            match fault {
                Fault::Refused => cluster.members[struck].kill(),
                Fault::Frozen => cluster.members[struck].freeze(),
            }
        }
        let case = format!("call {number} of {server:?}, {fault:?} {victim:?}");
        match number % 5 {
            0 => {
                let snapshot = etcd.snapshot(within(DEADLINE)).await.expect(&case);
                assert_eq!(snapshot.config.map(|config| config.mod_revision), Some(config), "{case}");
            }
            1 => {
                config = etcd
                    .put_config(&json!({"n": number}), Some(config), within(DEADLINE))
                    .await
                    .expect(&case);
            }
            2 => {
                let status = Status { optime: Lsn(number as u64), ..Status::default() };
                etcd.put_status(&status, term, within(DEADLINE)).await.expect(&case);
            }
            3 => {
                member.xlog_location = Some(Lsn(number as u64));
                etcd.put_member(&me, &member, lease, within(DEADLINE)).await.expect(&case);
            }
            _ => {
                let renewed = etcd.renew(lease, Some((&me, term)), within(DEADLINE)).await.expect(&case);
                assert!(matches!(renewed, Renewed::Kept { .. }), "{case}: {renewed:?}");
            }
        }
    }
    let snapshot = etcd.snapshot(within(DEADLINE)).await.unwrap();
    assert_eq!(snapshot.optime(), Some(Lsn(197)));
    assert_eq!(snapshot.config.unwrap().value, json!({"n": CALLS - 4}));
}

#[tokio::test]
async fn a_refusing_endpoint_costs_no_call() {
    for server in servers() {
        for victim in [Victim::Pinned, Victim::Another, Victim::Leader, Victim::DistantLeader] {
            two_of_three_serve(&server, Fault::Refused, victim).await;
        }
    }
}

#[tokio::test]
async fn a_frozen_endpoint_costs_no_call() {
    for server in servers() {
        for victim in [Victim::Pinned, Victim::Another, Victim::Leader, Victim::DistantLeader] {
            two_of_three_serve(&server, Fault::Frozen, victim).await;
        }
    }
}

/// A fresh client for each call, as the command line is: it starts at the endpoint that is in trouble.
#[tokio::test]
async fn a_short_deadline_is_shared_among_the_endpoints() {
    for server in servers() {
        let cluster = Cluster::start(&server, 3).await;
        let leader = cluster.leader().await;
        let frozen = (leader + 1) % 3;
        cluster.members[frozen].freeze();
        let mut endpoints = cluster.urls();
        endpoints.rotate_left(frozen);
        for _ in 0..2 {
            // One attempt may take as long as the whole call.
            let config =
                Config { endpoints: endpoints.clone(), attempt: ATTEMPT * 20, tls: None, auth: None };
            let etcd = Etcd::new(config, Keys::new("service", "batman")).unwrap();
            etcd.snapshot(within(10)).await.unwrap();
        }
    }
}

#[tokio::test]
async fn when_nobody_is_there_the_error_names_every_endpoint() {
    let server = servers().remove(0);
    let mut cluster = Cluster::start(&server, 1).await;
    let etcd = cluster.etcd();
    cluster.members[0].kill();
    let error = etcd.snapshot(within(1)).await.unwrap_err();
    let Error::Unreachable { tried } = &error else { panic!("{error:?}") };
    assert_eq!(tried.len(), 1);
    assert!(error.to_string().contains(&cluster.members[0].url), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");
    // What was certainly not sent is not "unknown".
    let error = etcd.put_config(&json!({}), None, within(1)).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    cluster.members[0].start();
    eventually("etcd answers again", || async { etcd.snapshot(within(5)).await.ok() }).await;
}
