//! etcd's own users and permissions.

use crate::cluster::{ATTEMPT, Cluster, keys, servers, within};
use etcd::{Config, Contact, Credentials, Error, Etcd, Renewed, watch};
use etcd_client::{Client, ConnectOptions, Permission};
use serde_json::json;
use std::time::Duration;
use types::NodeName;

fn client(cluster: &Cluster, user: Option<(&str, &str)>) -> Etcd {
    let auth =
        user.map(|(user, password)| Credentials { user: user.to_owned(), password: password.to_owned() });
    Etcd::new(Config { endpoints: cluster.urls(), attempt: ATTEMPT * 4, tls: None, auth }, keys()).unwrap()
}

/// Users are switched on under running clients: those that have one carry on, the others are told.
#[tokio::test]
async fn users_are_switched_on_while_we_run() {
    for server in servers() {
        let mut cluster = Cluster::start(&server, 1).await;
        let mut raw = cluster.raw(0).await;
        raw.user_add("root", "secret", None).await.unwrap();
        raw.user_grant_role("root", "root").await.unwrap();
        // Ours may do what it likes under its prefix, and nothing else.
        raw.role_add("batman").await.unwrap();
        let permission = Permission::read_write(keys().prefix()).with_prefix();
        raw.role_grant_permission("batman", permission).await.unwrap();
        raw.user_add("baton", "word", None).await.unwrap();
        raw.user_grant_role("baton", "batman").await.unwrap();

        let ours = client(&cluster, Some(("baton", "word")));
        let (nobody, wrong) = (client(&cluster, None), client(&cluster, Some(("baton", "guess"))));
        let me = NodeName::from("pg-a");
        let lease = ours.grant(60, within(20)).await.unwrap().lease;
        let term = ours.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        let (mut views, _watcher) = watch(ours.clone());
        nobody.snapshot(within(20)).await.unwrap();

        raw.auth_enable().await.unwrap();
        ours.put_config(&json!({"n": 1}), None, within(20)).await.unwrap();
        let renewed = ours.renew(lease, Some((&me, term)), within(20)).await;
        assert!(matches!(renewed, Ok(Renewed::Kept { .. })), "{renewed:?}");
        assert_eq!(ours.snapshot(within(20)).await.unwrap().config.unwrap().value, json!({"n": 1}));
        for other in [&nobody, &wrong] {
            let error = other.snapshot(within(20)).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
            let error = other.put_config(&json!({}), None, within(20)).await.unwrap_err();
            assert!(matches!(error, Error::Refused { .. }), "{error:?}");
        }

        // A restarted server has forgotten every token it gave.
        cluster.members[0].kill();
        cluster.members[0].start();
        ours.put_config(&json!({"n": 2}), None, within(40)).await.unwrap();
        assert_eq!(ours.release_leader(&me, term, within(20)).await, Ok(true));
        let seen = views.wait_for(|view| {
            let config = view.snapshot.as_ref().and_then(|snapshot| snapshot.config.as_ref());
            matches!(view.contact, Contact::Live { .. })
                && config.is_some_and(|config| config.value == json!({"n": 2}))
        });
        tokio::time::timeout(Duration::from_secs(60), seen).await.unwrap().unwrap();
        assert_eq!(ours.remove_cluster(within(20)).await, Ok(()));
    }
}

/// What etcd refuses because of users and roles is an outage of renewals and nothing more: the lease is not taken for gone, nor the lead
/// for lost, and both are there when it is over.
#[tokio::test]
async fn a_right_that_is_taken_away_for_a_while_costs_no_lead() {
    for server in servers() {
        let cluster = Cluster::start(&server, 1).await;
        let raw = cluster.raw(0).await;
        for (user, password, role) in [("root", "secret", "root"), ("baton", "word", "batman")] {
            raw.clone().user_add(user, password, None).await.unwrap();
            if role != "root" {
                raw.clone().role_add(role).await.unwrap();
                let permission = Permission::read_write(keys().prefix()).with_prefix();
                raw.clone().role_grant_permission(role, permission).await.unwrap();
            }
            raw.clone().user_grant_role(user, role).await.unwrap();
        }
        raw.clone().auth_enable().await.unwrap();
        let as_root = ConnectOptions::new().with_user("root", "secret");
        let mut root = Client::connect(cluster.urls(), Some(as_root)).await.unwrap();
        let ours = client(&cluster, Some(("baton", "word")));
        let me = NodeName::from("pg-a");
        let lease = ours.grant(60, within(20)).await.unwrap().lease;
        let term = ours.acquire_leader(&me, lease, within(20)).await.unwrap().unwrap();
        let renew = || ours.renew(lease, Some((&me, term)), within(20));
        let kept = |renewed: &Result<Renewed, Error>| matches!(renewed, Ok(Renewed::Kept { .. }));
        assert!(kept(&renew().await));

        // The role, so that permission is denied.
        root.user_revoke_role("baton", "batman").await.unwrap();
        let refused = renew().await;
        assert!(
            matches!(&refused, Err(Error::Refused { why }) if why.contains("permission denied")),
            "{refused:?}"
        );
        root.user_grant_role("baton", "batman").await.unwrap();
        let again = renew().await;
        assert!(kept(&again), "the same lease, the same term: {again:?}");

        // The password, which makes every token of the user invalid.
        root.user_change_password("baton", "another").await.unwrap();
        let refused = renew().await;
        assert!(matches!(&refused, Err(Error::Refused { .. })), "{refused:?}");
        root.user_change_password("baton", "word").await.unwrap();
        let again = renew().await;
        assert!(kept(&again), "the same lease, the same term: {again:?}");

        // Another user's rights: the authority's revision changes, and with it what the tokens are worth.
        for n in 0..5 {
            root.user_add(format!("other{n}"), "word", None).await.unwrap();
            let renewed = renew().await;
            assert!(kept(&renewed), "{renewed:?}");
        }
        tokio::time::timeout(Duration::from_secs(20), root.auth_disable()).await.unwrap().unwrap();
        let renewed = renew().await;
        assert!(kept(&renewed), "{renewed:?}");
    }
}
